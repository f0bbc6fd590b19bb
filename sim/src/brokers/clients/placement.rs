//! Where partitions are in the end: no move is under way any more, every replica is in sync, and a partition is where the
//! last move that was acknowledged has put it.

use std::collections::BTreeMap;

use ouzel_client::{ClientError, Place, Reassignment, Topic, Topics};
use ouzel_model::{NodeId, PartitionIndex, TopicIdPartition};

use super::super::holdings::Placed;
use super::super::shared::{Asked, Shared};
use super::wire::Wire;
use crate::check::verdict::{Kind, Violation};

/// Whether all partitions are where they are to be, and whole. Of those that nobody can lead any more nothing is said.
pub(super) async fn is_settled(wire: &mut Wire, shared: &Shared) -> Result<(), Violation> {
    let unanswered =
        |error: ClientError| Violation { kind: Kind::NoProgress, facts: format!("the replicas: {error}") };
    let found = async {
        let under_way = wire.client().reassignments().await?;
        Ok((under_way, wire.client().metadata(Topics::All).await?.topics))
    };
    let found: Result<_, ClientError> = found.await;
    let (mut under_way, mut topics) = found.inspect_err(|error| wire.failed(error)).map_err(unanswered)?;
    under_way.retain(|moving| !shared.is_given_up(&moving.topic, |partition| partition == moving.partition));
    for (name, topic) in &mut topics {
        topic.partitions.retain(|index, _| !shared.is_given_up(name, |partition| partition == *index));
    }
    let asked = shared.placements();
    judge(&under_way, &topics, &asked)?;
    let known = asked.values().filter(|asked| matches!(asked, Asked::Acknowledged(_))).count();
    shared.events().add("placements-judged", known as u64);
    Ok(())
}

/// Whether the nodes hold what they are to hold, and no more, and all replicas of a partition the same.
pub(super) async fn is_together(wire: &mut Wire, shared: &Shared) -> Result<(), Violation> {
    let broken = |facts: String| Violation { kind: Kind::NoProgress, facts };
    let found = wire.client().metadata(Topics::All).await;
    let found = found.inspect_err(|error| wire.failed(error));
    let topics = found.map_err(|error| broken(format!("the replicas: {error}")))?.topics;
    let mut placed = Placed::new();
    for topic in topics.values() {
        for (index, partition) in &topic.partitions {
            let at = TopicIdPartition { topic_id: topic.topic_id, partition: PartitionIndex(*index) };
            placed.insert(at, partition.replicas.iter().map(|node| NodeId(*node)).collect());
        }
    }
    shared.amiss(&placed).map_or(Ok(()), |facts| Err(broken(facts)))
}

/// Judges where partitions are by what was asked for.
fn judge(
    under_way: &[Reassignment],
    topics: &BTreeMap<String, Topic>,
    asked: &BTreeMap<Place, Asked>,
) -> Result<(), Violation> {
    let broken = |kind, facts: String| Err(Violation { kind, facts });
    if let Some(moving) = under_way.first() {
        return broken(Kind::NoProgress, format!("a move does not end: {moving:?}"));
    }
    for (name, topic) in topics {
        for (index, partition) in &topic.partitions {
            let (mut replicas, mut in_sync) = (partition.replicas.clone(), partition.in_sync.clone());
            replicas.sort_unstable();
            in_sync.sort_unstable();
            if replicas != in_sync {
                let facts = format!("{name}-{index} has replicas that are not in sync: {partition:?}");
                return broken(Kind::NoProgress, facts);
            }
            let Some(Asked::Acknowledged(nodes)) = asked.get(&(name.clone(), *index)) else { continue };
            // The controller sees to it that its own topics have as many replicas as they are meant to have.
            let is_there =
                partition.replicas == *nodes || (topic.is_internal && partition.replicas.starts_with(nodes));
            if !is_there {
                let facts = format!("{name}-{index} was moved to {nodes:?}, and is {partition:?}");
                return broken(Kind::LostMove, facts);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use ouzel_client::Partition;

    use super::*;

    fn there(is_internal: bool, replicas: &[i32], in_sync: &[i32]) -> BTreeMap<String, Topic> {
        let partition = Partition {
            error_code: 0,
            leader: in_sync[0],
            leader_epoch: 1,
            replicas: replicas.to_vec(),
            in_sync: in_sync.to_vec(),
            offline: Vec::new(),
        };
        let topic = Topic { partitions: [(0, partition)].into(), is_internal, ..Topic::default() };
        [("t".to_owned(), topic)].into()
    }

    fn asked(what: Asked) -> BTreeMap<Place, Asked> {
        [(("t".to_owned(), 0), what)].into()
    }

    fn kind(
        under_way: &[Reassignment],
        topics: &BTreeMap<String, Topic>,
        asked: &BTreeMap<Place, Asked>,
    ) -> Option<Kind> {
        judge(under_way, topics, asked).err().map(|violation| violation.kind)
    }

    /// Runs ended without anybody asking: a move that hung for ever, and a replica that never caught up, passed for sound.
    #[test]
    fn a_move_that_does_not_end_and_a_replica_that_stays_behind_are_no_progress() {
        let none = BTreeMap::new();
        let whole = there(false, &[2, 1, 3], &[1, 2, 3]);
        assert_eq!(kind(&[], &whole, &none), None);
        assert_eq!(kind(&[], &there(false, &[2, 1, 3], &[2, 1]), &none), Some(Kind::NoProgress));
        assert_eq!(kind(&[], &there(false, &[2, 1], &[2, 1, 3]), &none), Some(Kind::NoProgress));
        let moving = Reassignment {
            topic: "t".to_owned(),
            partition: 0,
            replicas: vec![2, 1, 3],
            adding: vec![2],
            removing: Vec::new(),
        };
        assert_eq!(kind(&[moving], &whole, &none), Some(Kind::NoProgress));
    }

    #[test]
    fn a_partition_that_is_not_where_it_was_moved_to_is_named() {
        let moved = asked(Asked::Acknowledged(vec![2, 1]));
        assert_eq!(kind(&[], &there(false, &[2, 1], &[1, 2]), &moved), None);
        assert_eq!(kind(&[], &there(false, &[1, 2], &[1, 2]), &moved), Some(Kind::LostMove));
        assert_eq!(kind(&[], &there(false, &[2, 1, 3], &[1, 2, 3]), &moved), Some(Kind::LostMove));
        assert_eq!(kind(&[], &there(true, &[2, 1, 3], &[1, 2, 3]), &moved), None);
        assert_eq!(kind(&[], &there(true, &[1, 2, 3], &[1, 2, 3]), &moved), Some(Kind::LostMove));
        assert_eq!(kind(&[], &there(false, &[3], &[3]), &asked(Asked::Unknown)), None);
    }
}
