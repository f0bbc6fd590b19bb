//! Whoever runs the cluster: moves partitions, gives moves up and hands leaders over while faults happen.

use std::time::Duration;

use ouzel_client::replicas::Outcomes;
use ouzel_client::{ClientError, Election};
use ouzel_runtime::Runtime;
use ouzel_runtime::cores::CoreResult;
use ouzel_runtime::sim::{Rng, SimRuntime};

use super::super::run::OFFSETS_PARTITIONS;
use super::super::shared::{Asked, COMPACTED, OFFSETS_TOPIC, Phase, Shared, TOPIC};
use super::wire::Wire;

const WHO: &str = "operator";

/// Changes where partitions are until the load is over. `shrinks`: also to fewer replicas than they had, and back.
pub(in super::super) async fn operate(
    node: SimRuntime,
    bootstrap: String,
    nodes: usize,
    shrinks: bool,
    shared: Shared,
) -> CoreResult {
    let runtime = node.runtime();
    let operator = Operator {
        runtime: runtime.clone(),
        rng: Rng::new(node.seed()).fork(0x09e7),
        wire: Wire::new(&runtime, &bootstrap),
        nodes: (1..=nodes).filter_map(|id| i32::try_from(id).ok()).collect(),
        shrinks,
        shared,
    };
    operator.run().await;
    Ok(())
}

struct Operator {
    runtime: Runtime,
    shared: Shared,
    rng: Rng,
    wire: Wire,
    nodes: Vec<i32>,
    shrinks: bool,
}

impl Operator {
    async fn run(mut self) {
        let clock = self.runtime.clock.clone();
        while self.shared.phase() == Phase::Opening {
            clock.sleep(Duration::from_millis(20)).await;
        }
        while self.shared.phase() == Phase::Load {
            let pause = 200 + self.rng.below(1500);
            clock.sleep(Duration::from_millis(pause)).await;
            match self.rng.below(6) {
                0 => self.elect().await,
                1 => self.give_up().await,
                _ => self.move_one().await,
            }
        }
    }

    /// Moves a partition to nodes by chance, in an order by chance: the first is to lead.
    async fn move_one(&mut self) {
        let (topic, partitions) = match self.rng.below(5) {
            0 => (OFFSETS_TOPIC, OFFSETS_PARTITIONS),
            1 => (COMPACTED, 1),
            _ => (TOPIC, i32::try_from(self.shared.partitions().count()).unwrap_or(1)),
        };
        let partition = self.rng.below(partitions.unsigned_abs().into()) as i32;
        let mut to = self.nodes.clone();
        for at in (1..to.len()).rev() {
            to.swap(at, self.rng.below(at as u64 + 1) as usize);
        }
        let replicas = if self.shrinks { [1, 1, 2, 3, 3][self.rng.below(5) as usize] } else { 3 };
        to.truncate(replicas);
        let event = if to.len() == 1 { "asked-move-to-one" } else { "asked-move" };
        let place = (topic.to_owned(), partition);
        let moved = self.wire.client().reassign(&[(place.clone(), Some(to.clone()))]).await;
        let is_acknowledged =
            moved.as_ref().is_ok_and(|outcomes| outcomes.get(&place).is_some_and(Result::is_ok));
        let asked = if is_acknowledged { Asked::Acknowledged(to.clone()) } else { Asked::Unknown };
        self.shared.set_placement(place, asked);
        self.tell(event, &format!("moves {topic}-{partition} to {to:?}"), moved);
    }

    /// Gives up the first move that is under way.
    async fn give_up(&mut self) {
        let under_way = self.wire.client().reassignments().await;
        let Some(moving) = under_way.ok().and_then(|moving| moving.into_iter().next()) else { return };
        let place = (moving.topic, moving.partition);
        let words = format!("gives up the move of {}-{}", place.0, place.1);
        // Where it is then is where it was before the move began, of which others may have been made meanwhile.
        self.shared.set_placement(place.clone(), Asked::Unknown);
        let given_up = self.wire.client().reassign(&[(place, None)]).await;
        self.tell("asked-to-give-up-a-move", &words, given_up);
    }

    /// Hands leaders back to those that are to lead.
    async fn elect(&mut self) {
        let elected = self.wire.client().elect_leaders(Election::Preferred, None).await;
        self.tell("asked-preferred-election", "elects", elected);
    }

    fn tell(&mut self, event: &'static str, what: &str, outcome: Result<Outcomes, ClientError>) {
        self.shared.note(&self.runtime, WHO, format_args!("{what}: {outcome:?}"));
        match outcome {
            Ok(outcomes) => {
                let done = outcomes.values().filter(|outcome| outcome.is_ok()).count();
                self.shared.events().add(event, done as u64);
            }
            Err(error) => self.wire.failed(&error),
        }
    }
}
