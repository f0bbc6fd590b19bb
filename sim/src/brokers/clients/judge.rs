//! The last client: when all is healed it reads everything, asks every group, and writes once more everywhere.

use std::time::Duration;

use ouzel_client::{ClientError, Election, NewTopic, Topics};
use ouzel_model::TimestampMs;
use ouzel_protocol::ErrorCode;
use ouzel_runtime::Runtime;
use ouzel_runtime::cores::CoreResult;
use ouzel_runtime::sim::SimRuntime;

use super::super::run::Plan;
use super::super::shared::{COMPACTED, OFFSETS_TOPIC, Phase, Shared, TOPIC};
use super::committer::ask;
use super::maker::is_as_asked;
use super::placement::{is_settled, is_together};
use super::wire::{ONLY, ReadSoFar, Wire};
use crate::check::history::{Acks, Outcome, PartitionId, Place, Produced, Span};
use crate::check::verdict::{Kind, Violation};
use crate::content;

/// A healed cluster that has not served by then does not serve.
const PATIENCE: Duration = Duration::from_secs(30);

/// Makes the topic, waits for the healing, and looks at what is left.
pub(in super::super) async fn look_at_the_end(
    node: SimRuntime,
    bootstrap: String,
    plan: Plan,
    groups: u32,
    shared: Shared,
) -> CoreResult {
    let runtime = node.runtime();
    let mut wire = Wire::new(&runtime, &bootstrap);
    let partitions = shared.partitions().count();
    let mut settings = vec![("segment.ms", "3000")];
    if plan.retains {
        settings.push(("retention.ms", "12000"));
    }
    let topic = new_topic(TOPIC, partitions, plan.replicas_at_first, &settings);
    create(&runtime, &mut wire, &topic, &shared).await?;
    let settings = [("cleanup.policy", "compact"), ("segment.ms", "1500"), ("delete.retention.ms", "1000")];
    let topic = new_topic(COMPACTED, 1, plan.replicas, &settings);
    create(&runtime, &mut wire, &topic, &shared).await?;
    name_topics(&runtime, &mut wire, &shared).await;
    shared.enter(Phase::Load);
    while shared.phase() == Phase::Load {
        runtime.clock.sleep(Duration::from_millis(20)).await;
        if !shared.is_named(OFFSETS_TOPIC) {
            note_topics(&mut wire, &shared).await;
        }
    }
    // What was under way when the faults ended is answered, or given up, by then.
    runtime.clock.sleep(Duration::from_secs(8)).await;
    for partition in shared.partitions() {
        serve_on(&runtime, &mut wire, partition, &shared).await;
        read_all(&runtime, &mut wire, partition, &shared).await;
    }
    read_compacted(&runtime, &bootstrap, &shared).await;
    for group in 0..groups {
        let answered = at_any_cost(&runtime, &mut wire, &shared, async |wire| {
            ask(wire, group, &runtime, &shared).await.then_some(())
        });
        if answered.await.is_none() && !shared.is_given_up(OFFSETS_TOPIC, |_| true) {
            shared.broken(no_progress(format!("the offsets of group {group} cannot be asked for")));
        }
    }
    name_topics(&runtime, &mut wire, &shared).await;
    in_the_end(&runtime, &shared, async || is_as_asked(&mut wire, &shared).await).await;
    in_the_end(&runtime, &shared, async || {
        shared.not_owned().map_or(Ok(()), |facts| Err(no_progress(facts)))
    })
    .await;
    shared.enter(Phase::Parting);
    in_the_end(&runtime, &shared, async || is_settled(&mut wire, &shared).await).await;
    in_the_end(&runtime, &shared, async || is_together(&mut wire, &shared).await).await;
    in_the_end(&runtime, &shared, async || match shared.faults() {
        faults if faults.is_empty() => Ok(()),
        faults => Err(no_progress(format!("nodes are not whole: {faults:?}"))),
    })
    .await;
    shared.enter(Phase::Comparing);
    let compared = patiently(&runtime, async || (shared.compared() >= plan.nodes).then_some(()));
    if compared.await.is_none() {
        shared.broken(no_progress(format!("only {} nodes show their replicas", shared.compared())));
    }
    Ok(())
}

fn new_topic(name: &str, partitions: usize, replicas: i16, settings: &[(&str, &str)]) -> NewTopic {
    NewTopic {
        name: name.to_owned(),
        partitions: i32::try_from(partitions).ok(),
        replication_factor: Some(replicas),
        configs: settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
    }
}

async fn create(runtime: &Runtime, wire: &mut Wire, topic: &NewTopic, shared: &Shared) -> CoreResult {
    let created = patiently(runtime, async || {
        let created = wire.client().create_topic(topic, false).await;
        match created {
            Err(error) if error.code() != Some(ErrorCode::TopicAlreadyExists) => {
                shared.note(runtime, "judge", format_args!("create {}: {error}", topic.name));
                wire.failed(&error);
                None
            }
            _ => Some(()),
        }
    });
    created.await.ok_or_else(|| format!("topic {} cannot be created", topic.name))?;
    Ok(())
}

/// Reads what is left of the compacted topic.
async fn read_compacted(runtime: &Runtime, bootstrap: &str, shared: &Shared) {
    let mut wire = Wire::of(runtime, bootstrap, COMPACTED);
    let mut read = ReadSoFar::default();
    let attempt = async |wire: &mut Wire| read_on(runtime, wire, ONLY, &mut read, shared).await;
    match at_any_cost(runtime, &mut wire, shared, attempt).await {
        Some(()) => shared.record(|history| history.compacted = Some(read.all)),
        None if shared.is_given_up(COMPACTED, |_| true) => {}
        None => shared.broken(no_progress(format!("{COMPACTED} cannot be read"))),
    }
}

/// Takes note of which topic is which.
async fn name_topics(runtime: &Runtime, wire: &mut Wire, shared: &Shared) {
    patiently(runtime, async || {
        note_topics(wire, shared).await;
        shared.is_named(TOPIC).then_some(())
    })
    .await;
}

async fn note_topics(wire: &mut Wire, shared: &Shared) {
    let found = wire.client().metadata(Topics::All).await;
    match found {
        Ok(found) => found.topics.iter().for_each(|(name, topic)| shared.name_topic(name, topic.topic_id)),
        Err(error) => wire.failed(&error),
    }
}

/// Shows that a partition still takes records.
async fn serve_on(runtime: &Runtime, wire: &mut Wire, partition: PartitionId, shared: &Shared) {
    let begun = shared.now(runtime);
    let value = shared.next_value();
    let batch = content::batch(&[value], None, 8, TimestampMs(runtime.clock.wall_ms()));
    let mut attempts = 0;
    let placed = at_any_cost(runtime, wire, shared, async |wire| {
        attempts += 1;
        match wire.produce(partition, batch.clone(), -1).await {
            Ok(base) => base,
            Err(error) => {
                shared.note(runtime, "judge", format_args!("produce to {}: {error}", partition.0));
                None
            }
        }
    })
    .await;
    if placed.is_none() && !is_given_up(shared, partition) {
        shared.broken(no_progress(format!("partition {} takes no records", partition.0)));
    }
    let outcome = placed.map_or(Outcome::Unknown, |base| Outcome::Done(Place { base, epoch: None }));
    let produced = Produced {
        span: Span { begun, ended: shared.now(runtime) },
        partition,
        producer: shared.next_life(),
        idempotent: false,
        sequence: 0,
        values: vec![value],
        acks: Acks::All,
        outcome,
    };
    shared.record(|history| history.produced.push(produced));
}

/// Reads a partition from its start to its high watermark.
async fn read_all(runtime: &Runtime, wire: &mut Wire, partition: PartitionId, shared: &Shared) {
    let mut read = ReadSoFar::default();
    let attempt = async || read_on(runtime, wire, partition, &mut read, shared).await;
    let is_read = patiently(runtime, attempt).await.is_some();
    if !is_read {
        if !is_given_up(shared, partition) {
            let facts = format!("partition {} cannot be read from {} on", partition.0, read.next);
            shared.broken(no_progress(facts));
        }
        return;
    }
    shared.note(
        runtime,
        "judge",
        format_args!(
            "partition {} holds {} records up to {}",
            partition.0,
            read.all.records.len(),
            read.next
        ),
    );
    shared.record(|history| {
        history.partitions.insert(partition, read.all);
    });
}

async fn read_on(
    runtime: &Runtime,
    wire: &mut Wire,
    partition: PartitionId,
    read: &mut ReadSoFar,
    shared: &Shared,
) -> Option<()> {
    let Err(error) = wire.read_to_end(partition, read).await else { return Some(()) };
    shared.note(runtime, "judge", format_args!("read {} from {}: {error}", partition.0, read.next));
    // What is sent is what is in the file: a disk that lied may have left a hole there, which clients find.
    if matches!(error, ClientError::Corrupt { .. }) && !shared.are_lies_told() {
        shared.broken(no_progress(format!("partition {}: {error}", partition.0)));
    }
    None
}

fn is_given_up(shared: &Shared, partition: PartitionId) -> bool {
    shared.is_given_up(TOPIC, |index| index == partition.0.cast_signed())
}

fn no_progress(facts: String) -> Violation {
    Violation { kind: Kind::NoProgress, facts }
}

/// As [`patiently`]. Where disks have lied most of a partition's replicas may be gone for good: then leaders are elected among
/// those that are left, as whoever runs the cluster would do, and it is attempted once more.
async fn at_any_cost<T>(
    runtime: &Runtime,
    wire: &mut Wire,
    shared: &Shared,
    mut attempt: impl AsyncFnMut(&mut Wire) -> Option<T>,
) -> Option<T> {
    let given = patiently(runtime, async || attempt(wire).await).await;
    if given.is_some() || !shared.are_lies_told() {
        return given;
    }
    patiently(runtime, async || {
        let elected = wire.client().elect_leaders(Election::Unclean, None).await;
        shared.note(runtime, "judge", format_args!("elects among those that are left: {elected:?}"));
        let outcomes = elected.inspect_err(|error| wire.failed(error)).ok()?;
        for (partition, outcome) in outcomes {
            // A node that is there and does not open its replica, for its files are damaged, may have more than the others:
            // it is left to people to mend that or to stop it.
            if outcome.is_err_and(|error| error.code() == Some(ErrorCode::EligibleLeadersNotAvailable)) {
                shared.give_up(partition);
            }
        }
        Some(())
    })
    .await;
    patiently(runtime, async || attempt(wire).await).await
}

/// What must come to be right, and where it does not is broken. Where disks have lied nothing must.
async fn in_the_end(
    runtime: &Runtime,
    shared: &Shared,
    mut is_right: impl AsyncFnMut() -> Result<(), Violation>,
) {
    let mut wrong = None;
    let right = patiently(runtime, async || match is_right().await {
        Ok(()) => Some(()),
        Err(violation) => {
            wrong = Some(violation);
            None
        }
    });
    if right.await.is_none()
        && let Some(violation) = wrong
        && !shared.are_lies_told()
    {
        shared.broken(violation);
    }
}

/// Repeats an attempt until it gives something, or patience ends.
async fn patiently<T>(runtime: &Runtime, mut attempt: impl AsyncFnMut() -> Option<T>) -> Option<T> {
    let deadline = runtime.clock.now() + PATIENCE;
    while runtime.clock.now() < deadline {
        if let Some(value) = attempt().await {
            return Some(value);
        }
        runtime.clock.sleep(Duration::from_millis(100)).await;
    }
    None
}
