//! What this node believes of every group's leader: the greatest claim it has heard of each.

use std::collections::BTreeMap;
use std::ops::Bound;

use ouzel_model::{NodeId, TopicIdPartition};

use super::claim::Claim;

/// The greatest claim of each group, in the order of [`Claim`].
///
/// Merging is taking the greater of two: it does not matter in which order claims come, how often, or by whom. Nodes
/// that have heard the same claims hold the same table.
#[derive(Clone, Debug, Default)]
pub struct ClaimTable {
    claims: BTreeMap<TopicIdPartition, Kept>,
    /// Groups by the number of their last change: whoever knows the table up to some change needs only what follows.
    changes: BTreeMap<u64, TopicIdPartition>,
    last_change: u64,
}

#[derive(Clone, Debug)]
struct Kept {
    claim: Claim,
    changed_at: u64,
    learned_from: Option<NodeId>,
}

/// What a claim was to the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Merged {
    /// The greatest so far: the table holds it now.
    News,
    /// The one the table holds.
    Known,
    /// Smaller than the one the table holds.
    Stale,
}

impl ClaimTable {
    /// Takes a claim in, heard from a node; none if it is this node's own.
    pub fn merge(&mut self, claim: Claim, learned_from: Option<NodeId>) -> Merged {
        if let Some(kept) = self.claims.get(&claim.group) {
            match claim.cmp(&kept.claim) {
                std::cmp::Ordering::Less => return Merged::Stale,
                std::cmp::Ordering::Equal => return Merged::Known,
                std::cmp::Ordering::Greater => _ = self.changes.remove(&kept.changed_at),
            }
        }
        self.last_change += 1;
        self.changes.insert(self.last_change, claim.group);
        let kept = Kept { changed_at: self.last_change, learned_from, claim };
        self.claims.insert(kept.claim.group, kept);
        Merged::News
    }

    /// Takes in what the leader of a group on this node says, under the next sequence of its epoch. Saying the same
    /// again is no news.
    pub fn publish(&mut self, mut claim: Claim) -> Merged {
        claim.sequence = 0;
        if let Some(kept) = self.claims.get(&claim.group)
            && kept.claim.epoch == claim.epoch
        {
            if kept.claim.says_the_same(&claim) {
                return Merged::Known;
            }
            // Also over what another process of this node said in the same reign before it was restarted.
            claim.sequence = kept.claim.sequence + 1;
        }
        self.merge(claim, None)
    }

    /// The greatest claim of a group.
    pub fn get(&self, group: &TopicIdPartition) -> Option<&Claim> {
        self.claims.get(group).map(|kept| &kept.claim)
    }

    /// All claims, by group.
    pub fn iter(&self) -> impl Iterator<Item = &Claim> {
        self.claims.values().map(|kept| &kept.claim)
    }

    /// How many groups there are claims of.
    pub fn len(&self) -> usize {
        self.claims.len()
    }

    /// Whether nothing is claimed.
    pub fn is_empty(&self) -> bool {
        self.claims.is_empty()
    }

    /// Drops the claims of groups that are no more. Ids of topics are never used again, but a peer that has not heard
    /// of the deletion may bring a claim back: do this again whenever the image changes.
    pub fn retain(&mut self, mut exists: impl FnMut(&TopicIdPartition) -> bool) {
        let changes = &mut self.changes;
        self.claims.retain(|group, kept| {
            let exists = exists(group);
            if !exists {
                changes.remove(&kept.changed_at);
            }
            exists
        });
    }

    /// The number of the last change; 0 before the first.
    pub fn last_change(&self) -> u64 {
        self.last_change
    }

    /// What changed after a change, in order, each group once. With `but_from`, without what that node said itself.
    pub fn changes_after(
        &self,
        change: u64,
        but_from: Option<NodeId>,
    ) -> impl Iterator<Item = (u64, &Claim)> {
        let after = self.changes.range((Bound::Excluded(change), Bound::Unbounded));
        after.filter_map(move |(at, group)| {
            let kept = &self.claims[group];
            (but_from.is_none() || kept.learned_from != but_from).then_some((*at, &kept.claim))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{claim, group};
    use super::*;
    use ouzel_runtime::sim::Rng;

    fn content(table: &ClaimTable) -> Vec<Claim> {
        table.iter().cloned().collect()
    }

    fn random_claims(rng: &mut Rng) -> Vec<Claim> {
        let draw = |rng: &mut Rng| {
            let (group, epoch) = (rng.below(4) as i32, rng.below(3) as i32);
            let mut claim = claim(group, epoch, rng.below(3), rng.below(3) as i32);
            // Nodes that disagree within one word must still come to hold the same.
            claim.in_sync.truncate(rng.below(3) as usize + 1);
            claim
        };
        (0..rng.below(30)).map(|_| draw(rng)).collect()
    }

    /// Claims heard in any order, any number of times, through any other tables, come to the same: the greatest epoch,
    /// of that the greatest sequence.
    #[test]
    fn merging_is_commutative_associative_and_idempotent() {
        for seed in 0..3_000 {
            let mut rng = Rng::new(seed);
            let claims = random_claims(&mut rng);
            let merged = |order: &[Claim]| {
                let mut table = ClaimTable::default();
                order.iter().for_each(|claim| _ = table.merge(claim.clone(), None));
                table
            };
            let expected = merged(&claims);
            let mut shuffled = claims.clone();
            for at in (1..shuffled.len()).rev() {
                shuffled.swap(at, rng.below(at as u64 + 1) as usize);
            }
            let repeated = [&shuffled[..], &claims[..shuffled.len() / 2]].concat();
            assert_eq!(content(&merged(&repeated)), content(&expected), "seed {seed}");
            let (left, right) = shuffled.split_at(rng.below(shuffled.len() as u64 + 1) as usize);
            let mut through_others = merged(right);
            merged(left).changes_after(0, None).for_each(|(_, claim)| {
                through_others.merge(claim.clone(), Some(NodeId(9)));
            });
            assert_eq!(content(&through_others), content(&expected), "seed {seed}");
            for claim in &claims {
                let kept = expected.get(&claim.group).unwrap();
                assert!((kept.epoch, kept.sequence) >= (claim.epoch, claim.sequence), "seed {seed}");
            }
        }
    }

    /// Whoever follows the changes in pieces holds the same table in the end.
    #[test]
    fn changes_in_pieces_make_the_same_table() {
        for seed in 0..1_000 {
            let mut rng = Rng::new(seed);
            let (mut leader, mut follower, mut cursor) = (ClaimTable::default(), ClaimTable::default(), 0);
            for claim in random_claims(&mut rng) {
                leader.merge(claim, None);
                if rng.chance(1, 3) {
                    let some: Vec<_> =
                        leader.changes_after(cursor, None).take(rng.below(4) as usize).collect();
                    for (at, claim) in some {
                        assert!(at > cursor);
                        cursor = at;
                        follower.merge(claim.clone(), Some(NodeId(1)));
                    }
                }
            }
            let rest = leader.changes_after(cursor, None);
            rest.for_each(|(_, claim)| _ = follower.merge(claim.clone(), Some(NodeId(1))));
            assert_eq!(content(&follower), content(&leader), "seed {seed}");
            assert!(leader.changes.len() == leader.len(), "each group stands once among the changes");
        }
    }

    #[test]
    fn a_leader_says_more_within_its_epoch_and_the_same_only_once() {
        let mut table = ClaimTable::default();
        let first = claim(1, 5, 99, 1);
        assert_eq!(table.publish(first.clone()), Merged::News);
        assert_eq!(table.get(&group(1)).unwrap().sequence, 0);
        assert_eq!(table.publish(first.clone()), Merged::Known);
        let shrunk = Claim { in_sync: first.in_sync[..1].to_vec(), ..first.clone() };
        assert_eq!(table.publish(shrunk.clone()), Merged::News);
        assert_eq!(table.get(&group(1)).unwrap().sequence, 1);
        assert_eq!(table.merge(Claim { sequence: 0, ..first.clone() }, Some(NodeId(2))), Merged::Stale);
        assert_eq!(table.publish(Claim { epoch: ouzel_model::LeaderEpoch(4), ..shrunk }), Merged::Stale);
        let next = claim(1, 6, 0, 2);
        assert_eq!(table.merge(next.clone(), Some(NodeId(2))), Merged::News);
        assert_eq!(table.changes_after(0, Some(NodeId(2))).count(), 0, "it knows what it said");
        assert_eq!(table.changes_after(0, None).count(), 1);
        table.retain(|_| false);
        assert_eq!((table.len(), table.changes_after(0, None).count()), (0, 0));
    }
}
