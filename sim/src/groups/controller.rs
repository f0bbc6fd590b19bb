//! Stands in for the controller: it knows where each group is to be, sees to it that it gets there, and says what becomes
//! of replicas that cannot vouch for what they acknowledged.
//!
//! What is decided is decided by the controller's own pure parts ([`Partition`], [`judge_lost`]); this is the doing.

use std::rc::Rc;
use std::time::Duration;

use ouzel_metadata::Partition;
use ouzel_metadata::plan::{Loss, Stand, Verdict, all_have_answered, judge_lost};
use ouzel_model::{EntryId, ReplicaId};
use ouzel_raft::{GroupStatus, RaftGroup, ReplicaOffsets, ReplicatedLog, Role};

use super::nemesis::leader_of;
use super::process::Inside;
use super::world::World;

const INTERVAL_MS: u64 = 50;
/// Who can elect a leader has done so in this time.
const LASTING: Duration = Duration::from_secs(4);
/// How long a node waits before it asks about its replicas again.
const ASK_INTERVAL_MS: u64 = 300;

/// Sees to one group until the run ends: its replicas are opened where it is to be, its leader makes them its members,
/// and who is none any more deletes what it has.
pub(super) async fn govern(world: World, number: u32) {
    let mut rng = world.fork(0x9000 + u64::from(number));
    loop {
        world.sleep_ms(INTERVAL_MS).await;
        if world.retains && world.load.get() && rng.chance(1, 20) {
            keep_house(&world, number, rng.chance(1, 8), rng.next()).await;
        }
        let partition = world.groups[number as usize].partition.borrow().clone();
        for holder in partition.holders() {
            place(&world, number, holder).await;
        }
        if partition.is_moving() && carry_out(&world, number, &partition).await {
            settle(&world, number, &partition).await;
        }
    }
}

/// Has the leader let go of entries that all have, as its node does now and then; if it `trims`, also of records, up to an
/// offset by chance.
async fn keep_house(world: &World, number: u32, trims: bool, chance: u64) {
    let Some((at, _)) = leader_of(world, number) else { return };
    let for_node = world.clone();
    let outcome = world.ask(at, move |inside| {
        let replica = inside.group(number);
        Box::pin(async move {
            let replica = replica?;
            let ReplicaOffsets { log_start, high_watermark, .. } = replica.offsets();
            let records = (high_watermark - log_start).unsigned_abs().max(1);
            let from = log_start + if trims { (chance % records).cast_signed() } else { 0 };
            // It may be carried out whatever comes of the answer.
            let trimmed_to = &for_node.groups[number as usize].trimmed_to;
            trimmed_to.set(trimmed_to.get().max(from));
            replica.retain(from).await.ok().map(|()| from)
        })
    });
    if let Some(Some(from)) = outcome.await.filter(|_| trims) {
        world.note("controller", format_args!("group {number}: nobody needs what is below {from}"));
        world.events.add("trims", 1);
    }
}

/// Has a node open a replica that it is to have, if that has not been attempted in this life of its process.
async fn place(world: &World, number: u32, replica: ReplicaId) {
    let at = world.place_of(replica.node);
    let Some(inside) = world.nodes[at].inside.borrow().clone() else { return };
    if inside.attempted.borrow().contains(&(number, replica)) {
        return;
    }
    let for_node = world.clone();
    world.ask(at, move |inside| Box::pin(async move { for_node.open(&inside, number, replica).await })).await;
}

/// Asks whoever leads to make the replicas of a decision its members; says whether they are.
async fn carry_out(world: &World, number: u32, partition: &Partition) -> bool {
    let Some((at, _)) = leader_of(world, number) else { return false };
    let (wanted, decision) = (partition.replicas.clone(), partition.next_incarnation);
    let outcome = world.ask(at, move |inside| {
        let replica = inside.group(number);
        Box::pin(async move {
            match replica {
                Some(replica) => {
                    replica.reconfigure(&wanted, decision).await.map_err(|error| error.to_string())
                }
                None => Err("nobody is here".to_owned()),
            }
        })
    });
    let outcome = outcome.await;
    world.note(
        "controller",
        format_args!("group {number}: members {:?} by {decision}: {outcome:?}", partition.replicas),
    );
    matches!(outcome, Some(Ok(())))
}

/// The members are those of a decision: if that is what is wanted still, whoever is none deletes what it has.
async fn settle(world: &World, number: u32, decided: &Partition) {
    let group = &world.groups[number as usize];
    if *group.partition.borrow() != *decided {
        return;
    }
    group.partition.replace(decided.settled());
    let leaving = decided.holders().filter(|holder| !decided.replicas.contains(holder));
    for replica in leaving {
        let for_node = world.clone();
        // A node that is down keeps its files: they are another life's when it is to have one again.
        world
            .ask(world.place_of(replica.node), move |inside| {
                Box::pin(async move { for_node.remove(&inside, number, replica).await })
            })
            .await;
    }
}

/// Runs in a process: asks about its replicas that cannot vouch for themselves until it is told what becomes of them.
pub(super) async fn ask_about_the_lost(world: World, inside: Rc<Inside>) {
    loop {
        world.sleep_ms(ASK_INTERVAL_MS).await;
        let lost: Vec<_> = inside.lost.borrow().iter().map(|(number, lost)| (*number, *lost)).collect();
        for (number, (replica, last)) in lost {
            match judge(&world, number, replica, last).await {
                Verdict::Wait => {}
                Verdict::Anew => {
                    inside.lost.borrow_mut().remove(&number);
                }
                Verdict::GoOn => {
                    inside.lost.borrow_mut().remove(&number);
                    world.open_anyway(&inside, number, replica).await;
                    if let Some(group) = inside.group(number) {
                        ouzel_runtime::spawn(have_led(world.clone(), group));
                    }
                }
            }
        }
    }
}

/// Decides what becomes of a replica that its node cannot vouch for.
async fn judge(world: &World, number: u32, asking: ReplicaId, last: Option<EntryId>) -> Verdict {
    let group = &world.groups[number as usize];
    let partition = group.partition.borrow().clone();
    if partition.replica_on(asking.node) != Some(asking) {
        // Another life of it, or none, is decided already.
        return Verdict::Anew;
    }
    let mut stands = vec![(asking, Stand::Lost(Loss::Tail(last)))];
    for holder in partition.holders().filter(|holder| *holder != asking) {
        let asked = world.ask(world.place_of(holder.node), move |inside| {
            Box::pin(async move { stand_of(&inside, number) })
        });
        stands.extend(asked.await.flatten().filter(|(replica, _)| *replica == holder));
    }
    let since = group.asked_since.get().filter(|_| all_have_answered(&partition, &stands));
    let since = since.unwrap_or_else(|| world.now());
    group.asked_since.set(Some(since));
    let verdict = judge_lost(&partition, asking, &stands, world.now() - since >= LASTING);
    if *group.partition.borrow() != partition {
        return Verdict::Wait;
    }
    match verdict {
        Verdict::Wait => return verdict,
        Verdict::Anew => {
            group.partition.replace(partition.without_disk_of(asking.node));
        }
        Verdict::GoOn => world.events.add("losses-told", 1),
    }
    group.asked_since.set(None);
    world.note("controller", format_args!("group {number}: {asking}: {verdict:?}, for {stands:?}"));
    verdict
}

fn stand_of(inside: &Inside, number: u32) -> Option<(ReplicaId, Stand)> {
    if let Some((replica, last)) = inside.lost.borrow().get(&number) {
        return Some((*replica, Stand::Lost(Loss::Tail(*last))));
    }
    let group = inside.group(number)?;
    let GroupStatus { role, last_entry: last, in_sync, .. } = group.status();
    let voters = group.voter_sets().filter(|_| role != Role::Stopped)?;
    Some((group.replica(), Stand::Open { last, voters, in_sync }))
}

/// Has a replica stand until a new reign begins: as far as it remembers its last leader leads still.
async fn have_led(world: World, group: RaftGroup) {
    let epoch = group.status().epoch;
    let has_begun = |status: &GroupStatus| status.epoch > epoch && status.leader.is_some();
    let mut rng = world.fork(u64::from(group.replica().incarnation) << 8 | epoch.0.unsigned_abs() as u64);
    while !has_begun(&group.status()) && group.role() != Role::Stopped {
        group.elect().await;
        let pause = 400 + rng.below(300);
        world.sleep_ms(pause).await;
    }
}
