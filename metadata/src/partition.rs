//! Where one partition is to live, and how it gets there.
//!
//! A partition moves in steps of its own consensus: its leader makes `replicas` its members, and says so when they are.
//! What is between is kept here, so that no node forgets data that a quorum may still rest on, and a move can be given up.

use ouzel_model::{NodeId, ReplicaId};

/// Where one partition is to live.
///
/// In a partition that is where it should be, `adding`, `removing` and `unsettled` are empty. Their union with `replicas`
/// are all replicas there may be, at most one on each node; who is none of them may delete what it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Where it is to be, the preferred leader first.
    pub replicas: Vec<ReplicaId>,
    /// Those of `replicas` that the move on its way adds.
    pub adding: Vec<ReplicaId>,
    /// Those that the move on its way removes.
    pub removing: Vec<ReplicaId>,
    /// Those of whom nobody can tell whether they are members: that came with a move that was given up, or that lost
    /// their disk and start anew.
    pub unsettled: Vec<ReplicaId>,
    /// The incarnation of the next replica that is added. It rises with every change of `replicas`: so no replica is
    /// taken for one that promised something and lost its disk, and no word about an earlier move for one about this.
    pub next_incarnation: u32,
    /// Those that found it, each on an empty disk: whom it was made with, until its leader has carried out a move or it has
    /// an heir. A move may be decided before anybody has founded it.
    pub founders: Vec<ReplicaId>,
    /// Who goes on with what it has, until it has done so and has filled the others.
    pub heir: Option<Heir>,
}

/// A replica that goes on with what it has though it was one of several: the others are gone, or were given up, and are
/// new replicas all. It does so once, however often it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heir {
    /// Which.
    pub replica: ReplicaId,
    /// The number of the decision that named it, a value of [`Partition::next_incarnation`]: a group that has acted on
    /// this one, or a later one, is the one that goes on.
    pub decision: u32,
}

impl Partition {
    /// A partition nobody has written yet.
    pub fn new(nodes: Vec<NodeId>) -> Partition {
        Partition::of(nodes.into_iter().map(ReplicaId::first).collect())
    }

    /// As [`Partition::new`], with replicas that have their names already.
    pub fn of(replicas: Vec<ReplicaId>) -> Partition {
        Partition {
            founders: replicas.clone(),
            replicas,
            adding: Vec::new(),
            removing: Vec::new(),
            unsettled: Vec::new(),
            next_incarnation: 1,
            heir: None,
        }
    }

    /// The nodes it is to be on, the preferred leader first.
    pub fn nodes(&self) -> impl ExactSizeIterator<Item = NodeId> {
        self.replicas.iter().map(|replica| replica.node)
    }

    /// The node that leads when all are well.
    pub fn preferred_leader(&self) -> Option<NodeId> {
        self.replicas.first().map(|replica| replica.node)
    }

    /// Those that `replica` founds the partition with; nobody if it is no founder, and waits for a leader.
    pub fn founders_with(&self, replica: ReplicaId) -> &[ReplicaId] {
        if self.founders.contains(&replica) { &self.founders } else { &[] }
    }

    /// All replicas there may be: those that stay or come, those that go, those of given-up moves.
    pub fn holders(&self) -> impl Iterator<Item = ReplicaId> {
        self.replicas.iter().chain(&self.removing).copied().chain(self.abandoned())
    }

    /// The nodes of all [holders](Partition::holders): what clients are told are its replicas.
    pub fn holder_nodes(&self) -> Vec<NodeId> {
        self.holders().map(|replica| replica.node).collect()
    }

    /// The replica a node holds, or is to hold.
    pub fn replica_on(&self, node: NodeId) -> Option<ReplicaId> {
        self.holders().find(|replica| replica.node == node)
    }

    /// Those that were members before the move on its way and have their disk still: as long as it is on its way, most
    /// of what was acknowledged rests on them.
    pub fn members_before(&self) -> Vec<ReplicaId> {
        self.origin().filter(|replica| !self.unsettled.contains(replica)).collect()
    }

    /// Whether its leader has to see to its members.
    pub fn is_moving(&self) -> bool {
        let is_moving = !(self.adding.is_empty() && self.removing.is_empty() && self.unsettled.is_empty());
        is_moving || self.heir.is_some()
    }

    /// The only replica there is, of a partition that is to have one and is where it should be.
    pub fn sole_replica(&self) -> Option<ReplicaId> {
        match self.replicas[..] {
            [replica] if !self.is_moving() => Some(replica),
            _ => None,
        }
    }

    /// Whether it moves from node to node. An empty disk that takes the place of a lost one does not.
    pub fn is_reassigning(&self) -> bool {
        !self.adding.is_empty() || !self.removing.is_empty() || self.abandoned().next().is_some()
    }

    /// The nodes that join, and those that leave.
    pub fn moving_nodes(&self) -> (Vec<NodeId>, Vec<NodeId>) {
        let node = |replica: ReplicaId| replica.node;
        let removing = self.removing.iter().copied().chain(self.abandoned());
        (self.adding.iter().copied().map(node).collect(), removing.map(node).collect())
    }

    /// The same partition, on its way to other nodes, the preferred leader first. Whoever holds it on one of them goes on
    /// with what it has; the others are new.
    pub fn moved_to(&self, nodes: &[NodeId]) -> Partition {
        let mut next_incarnation = self.next_incarnation;
        let mut replica_on = |node: NodeId| {
            self.replica_on(node).unwrap_or_else(|| {
                let incarnation = next_incarnation;
                next_incarnation += 1;
                ReplicaId { node, incarnation }
            })
        };
        let replicas: Vec<ReplicaId> = nodes.iter().map(|node| replica_on(*node)).collect();
        let moved = self.moved_to_those(replicas);
        Partition { next_incarnation: next_incarnation.max(moved.next_incarnation), ..moved }
    }

    /// As [`Partition::moved_to`], to replicas that have their names already.
    pub fn moved_to_those(&self, replicas: Vec<ReplicaId>) -> Partition {
        let origin: Vec<ReplicaId> = self.origin().collect();
        let adding = without(&replicas, &origin);
        Partition {
            removing: without(&origin, &replicas),
            unsettled: without(&[&self.unsettled[..], &self.adding].concat(), &adding),
            adding,
            replicas,
            next_incarnation: self.next_incarnation + 1,
            founders: self.founders.clone(),
            heir: self.heir,
        }
    }

    /// The same partition without those that outnumber `heir`, one of its holders, and do not go on: it goes on alone with
    /// what it has, all others are new replicas, on the nodes where the partition is to be.
    pub fn inherited_by(&self, heir: ReplicaId) -> Partition {
        let mut next_incarnation = self.next_incarnation;
        let replicas: Vec<ReplicaId> = self
            .nodes()
            .map(|node| {
                let reborn = ReplicaId { node, incarnation: next_incarnation };
                next_incarnation += 1;
                if node == heir.node { heir } else { reborn }
            })
            .collect();
        Partition {
            adding: Vec::new(),
            removing: without(&[heir], &replicas),
            unsettled: without(&replicas, &[heir]),
            replicas,
            next_incarnation: next_incarnation + 1,
            // What the heir has is how it begins.
            founders: Vec::new(),
            heir: Some(Heir { replica: heir, decision: next_incarnation + 1 }),
        }
    }

    /// The nodes it was to be on before the move on its way.
    pub fn nodes_before(&self) -> Vec<NodeId> {
        self.origin().map(|replica| replica.node).collect()
    }

    /// The same partition, there: its members are known to be `replicas`.
    pub fn settled(&self) -> Partition {
        Partition {
            adding: Vec::new(),
            removing: Vec::new(),
            unsettled: Vec::new(),
            founders: Vec::new(),
            heir: None,
            ..self.clone()
        }
    }

    /// The same partition after a node lost what it held of it: the node starts anew, as somebody nobody relies on.
    pub fn without_disk_of(&self, node: NodeId) -> Partition {
        self.with_reborn(ReplicaId { node, incarnation: self.next_incarnation })
    }

    /// As [`Partition::without_disk_of`], where the new life has its name already.
    pub fn with_reborn(&self, reborn: ReplicaId) -> Partition {
        let Some(lost) = self.replica_on(reborn.node) else { return self.clone() };
        let replaced = |list: &[ReplicaId]| -> Vec<ReplicaId> {
            list.iter().map(|replica| if *replica == lost { reborn } else { *replica }).collect()
        };
        let mut unsettled = without(&self.unsettled, &[lost]);
        let wanted = self.replicas.contains(&lost) || self.removing.contains(&lost);
        if wanted && !self.adding.contains(&lost) {
            unsettled.push(reborn);
        }
        Partition {
            replicas: replaced(&self.replicas),
            adding: replaced(&self.adding),
            removing: replaced(&self.removing),
            unsettled,
            next_incarnation: self.next_incarnation + 1,
            founders: self.founders.clone(),
            // Without its disk it has nothing to go on with.
            heir: self.heir.filter(|heir| heir.replica != lost),
        }
    }

    /// The replicas it was to have before the move on its way.
    fn origin(&self) -> impl Iterator<Item = ReplicaId> {
        let stayed = self.replicas.iter().filter(|replica| !self.adding.contains(replica));
        stayed.chain(&self.removing).copied()
    }

    /// What moves left behind that were given up.
    fn abandoned(&self) -> impl Iterator<Item = ReplicaId> {
        without(&without(&self.unsettled, &self.replicas), &self.removing).into_iter()
    }
}

fn without(list: &[ReplicaId], others: &[ReplicaId]) -> Vec<ReplicaId> {
    list.iter().filter(|replica| !others.contains(replica)).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(list: &[i32]) -> Vec<NodeId> {
        list.iter().copied().map(NodeId).collect()
    }

    fn on(list: &[i32]) -> Partition {
        Partition::new(nodes(list))
    }

    /// `1.0 2.0 +3.1 -4.0 ?5.2 next 3`
    fn told(partition: &Partition) -> String {
        let list = |sign: &str, list: &[ReplicaId]| -> Vec<String> {
            list.iter().map(|replica| format!("{sign}{replica}")).collect()
        };
        let lists = [
            list("", &without(&partition.replicas, &partition.adding)),
            list("+", &partition.adding),
            list("-", &partition.removing),
            list("?", &partition.unsettled),
        ];
        let heir = partition
            .heir
            .map_or(String::new(), |heir| format!(" from {} by {}", heir.replica, heir.decision));
        format!("{} next {}{heir}", lists.concat().join(" "), partition.next_incarnation)
    }

    #[test]
    fn moves_are_told_by_what_comes_and_goes() {
        let moving = on(&[1, 2, 3]).moved_to(&nodes(&[4, 2, 5]));
        assert_eq!(told(&moving), "2.0 +4.1 +5.2 -1.0 -3.0 next 3");
        assert_eq!(moving.nodes().collect::<Vec<_>>(), nodes(&[4, 2, 5]));
        assert_eq!(moving.holder_nodes(), nodes(&[4, 2, 5, 1, 3]));
        assert_eq!(moving.moving_nodes(), (nodes(&[4, 5]), nodes(&[1, 3])));
        assert_eq!(told(&moving.settled()), "4.1 2.0 5.2 next 3");
        assert!(moving.is_moving() && moving.is_reassigning() && !moving.settled().is_moving());
        assert_eq!(moving.settled().sole_replica(), None);
        let shrinks = on(&[1, 2]).moved_to(&nodes(&[2]));
        assert_eq!(shrinks.sole_replica(), None, "the other may be a member still");
        assert_eq!(shrinks.settled().sole_replica(), Some(ReplicaId::first(NodeId(2))));
        // Only the order: nobody moves, and yet it is another decision.
        let turned = on(&[1, 2]).moved_to(&nodes(&[2, 1]));
        assert_eq!(told(&turned), "2.0 1.0 next 2");
        assert!(!turned.is_moving());
    }

    #[test]
    fn a_move_is_given_up_without_forgetting_who_may_hold_what() {
        let moving = on(&[1, 2]).moved_to(&nodes(&[3, 4]));
        let back = moving.moved_to(&moving.nodes_before());
        // 3 and 4 may be the members by now: they keep what they have until the leader has seen to it.
        assert_eq!(told(&back), "1.0 2.0 ?3.1 ?4.2 next 4");
        assert_eq!(back.moving_nodes(), (nodes(&[]), nodes(&[3, 4])));
        assert!(back.is_reassigning());
        assert_eq!(told(&back.settled()), "1.0 2.0 next 4");
        // Elsewhere instead: what is left of the first move does not count as where it came from.
        let elsewhere = moving.moved_to(&nodes(&[1, 5]));
        assert_eq!(told(&elsewhere), "1.0 +5.3 -2.0 ?3.1 ?4.2 next 4");
        assert_eq!(elsewhere.nodes_before(), nodes(&[1, 2]));
        let again = elsewhere.moved_to(&nodes(&[1, 3]));
        assert_eq!(told(&again), "1.0 +3.1 -2.0 ?4.2 ?5.3 next 5");
    }

    #[test]
    fn whoever_comes_back_later_is_somebody_else() {
        let there = on(&[1, 2]).moved_to(&nodes(&[3, 2])).settled();
        let back = there.moved_to(&nodes(&[1, 2])).settled();
        assert_eq!(told(&back), "1.2 2.0 next 3");
    }

    #[test]
    fn a_lost_disk_starts_anew() {
        assert_eq!(told(&on(&[1, 2, 3]).without_disk_of(NodeId(2))), "1.0 2.1 3.0 ?2.1 next 2");
        let reborn = on(&[1, 2, 3]).without_disk_of(NodeId(2));
        assert!(reborn.is_moving() && !reborn.is_reassigning());
        assert_eq!(reborn.members_before(), [1, 3].map(|node| ReplicaId::first(NodeId(node))));
        assert_eq!(reborn.moving_nodes(), (nodes(&[]), nodes(&[])));
        let twice = reborn.without_disk_of(NodeId(2));
        assert_eq!(told(&twice), "1.0 2.2 3.0 ?2.2 next 3");
        let moving = on(&[1, 2]).moved_to(&nodes(&[1, 3]));
        assert_eq!(told(&moving.without_disk_of(NodeId(3))), "1.0 +3.2 -2.0 next 3");
        let going = moving.without_disk_of(NodeId(2));
        assert_eq!(told(&going), "1.0 +3.1 -2.2 ?2.2 next 3");
        assert_eq!(going.nodes_before(), nodes(&[1, 2]));
        assert_eq!(told(&going.moved_to(&nodes(&[1, 2]))), "1.0 2.2 ?2.2 ?3.1 next 4");
        let given_up = moving.moved_to(&nodes(&[1, 2]));
        assert_eq!(told(&given_up.without_disk_of(NodeId(3))), "1.0 2.0 next 4");
        assert_eq!(on(&[1]).without_disk_of(NodeId(9)), on(&[1]));
    }

    #[test]
    fn an_heir_goes_on_and_all_others_are_new() {
        let three = on(&[1, 2, 3]);
        let heir = ReplicaId::first(NodeId(2));
        let inherited = three.inherited_by(heir);
        assert_eq!(told(&inherited), "1.1 2.0 3.3 ?1.1 ?3.3 next 5 from 2.0 by 5");
        assert_eq!(inherited.members_before(), [heir]);
        assert!(inherited.is_moving() && !inherited.is_reassigning());
        assert_eq!(told(&inherited.settled()), "1.1 2.0 3.3 next 5");
        // A move does not change who goes on; who is to leave stays until others have what it has.
        let moved = inherited.moved_to(&nodes(&[1, 4]));
        assert_eq!(told(&moved), "1.1 +4.5 -2.0 -3.3 ?1.1 ?3.3 next 6 from 2.0 by 5");
        let leaving = three.moved_to(&nodes(&[1, 3])).inherited_by(heir);
        assert_eq!(told(&leaving), "1.2 3.3 -2.0 ?1.2 ?3.3 next 5 from 2.0 by 5");
        // It lost its disk as well.
        assert_eq!(inherited.without_disk_of(NodeId(2)).heir, None);
        let alone = on(&[2]).inherited_by(heir);
        assert!(alone.is_moving() && !alone.settled().is_moving());
    }

    /// A topic was made with one replica, whose node lost its power before it knew of that; by the time it was back a move to
    /// others had been decided. Nobody was a founder any more once anything had changed, so the partition had no leader, and its
    /// move no end. (The simulation of clusters, seed 9400080.)
    #[test]
    fn a_partition_has_its_founders_until_a_move_is_carried_out() {
        let lives =
            |list: &[i32]| -> Vec<ReplicaId> { nodes(list).into_iter().map(ReplicaId::first).collect() };
        let made = on(&[1, 2]);
        let moving = made.moved_to(&nodes(&[1, 3]));
        for unfounded in [&made, &moving, &moving.moved_to(&nodes(&[2, 1])), &made.moved_to(&nodes(&[2, 1]))]
        {
            assert_eq!(unfounded.founders, lives(&[1, 2]), "{unfounded:?}");
        }
        // Whoever lost its disk is another one now, and founds nothing.
        let reborn = made.without_disk_of(NodeId(1));
        assert_eq!(reborn.founders, lives(&[1, 2]));
        assert!(!reborn.founders.contains(&reborn.replicas[0]));
        // It has a leader, so it was founded.
        assert_eq!(moving.settled().founders, []);
        assert_eq!(made.inherited_by(ReplicaId::first(NodeId(2))).founders, []);
    }
}
