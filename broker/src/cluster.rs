//! A node among others: its connections, who it takes for alive, who it believes leads what.
//!
//! Each core has its own connections and looks after the elections of its own groups; one core asks who is alive and
//! passes on who leads what, and tells the others. A node that is alone has none of this.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use ouzel_metadata::Image;
use ouzel_model::{NodeId, TopicIdPartition};
use ouzel_raft::Lane;
use ouzel_raft::forming::Discovery;
use ouzel_raft::gossip::{Claim, ClaimTable, Gossip};
use ouzel_raft::liveness::{Cause, Change, Due, Elector, GroupWatch, Liveness, Standing};
use ouzel_raft::peers::Peers;

use crate::controller::CONTROLLER_CORE;
use crate::core::Core;
use crate::metrics::PeerSample;
use crate::partition::Partition;

/// What a core has of the cluster.
pub(crate) struct Cluster {
    /// The way to the other nodes.
    pub(crate) peers: Peers,
    /// Starts the elections of this core's groups.
    pub(crate) elector: Elector,
    /// Who leads what, as the node believes.
    claims: RefCell<ClaimTable>,
    /// On the core that asks and tells.
    first: Option<First>,
}

/// What one core does for all.
pub(crate) struct First {
    pub(crate) gossip: Gossip,
    pub(crate) liveness: Liveness,
    /// Answers nodes that look for their cluster.
    pub(crate) discovery: Discovery,
}

impl Cluster {
    /// Puts a core's part together.
    pub(crate) fn new(peers: Peers, elector: Elector, first: Option<First>) -> Cluster {
        Cluster { peers, elector, claims: RefCell::default(), first }
    }

    /// This core's traffic with other nodes, by node id and lane, and how many calls of theirs it has handled.
    pub(crate) fn sample_peers(&self) -> (BTreeMap<(i32, &'static str), PeerSample>, u64) {
        let links = self.peers.links().into_iter().map(|(node, lane, link)| {
            let lane = match lane {
                Lane::Control => "control",
                Lane::Data => "data",
                Lane::Recovery => "recovery",
            };
            let counters = link.counters;
            let sample = PeerSample {
                answered: counters.answered,
                refused: counters.refused,
                unreachable: counters.unreachable,
                timed_out: counters.timed_out,
                bytes_sent: counters.sent_bytes,
                bytes_received: counters.received_bytes,
                connections: u64::from(link.is_connected),
            };
            ((node.0, lane), sample)
        });
        (links.collect(), self.peers.served().calls)
    }

    /// What is believed of a group's leader.
    pub(crate) fn claim(&self, group: &TopicIdPartition) -> Option<Claim> {
        self.claims.borrow().get(group).cloned()
    }

    /// Whether a node is taken for alive; on the core that asks.
    pub(crate) fn is_up(&self, node: NodeId) -> bool {
        self.first.as_ref().is_some_and(|first| first.liveness.standing(node) == Standing::Up)
    }

    fn hear(&self, claims: &[Claim]) {
        let mut table = self.claims.borrow_mut();
        for claim in claims {
            table.merge(claim.clone(), None);
        }
    }
}

/// Tells every core what was claimed elsewhere.
pub(crate) fn spread_claims(core: &Rc<Core>, claims: &[Claim]) {
    for to in core.cores.ids() {
        let claims = claims.to_vec();
        core.post(to, move |core| {
            if let Some(cluster) = core.cluster() {
                cluster.hear(&claims);
            }
        });
    }
}

/// Tells every core that a node is up or down: its connections, the elections, who is in sync.
pub(crate) fn spread_change(core: &Rc<Core>, change: Change) {
    if let Some(first) = core.cluster().as_ref().and_then(|cluster| cluster.first.as_ref()) {
        match change {
            Change::Up(node) => first.gossip.peer_up(node),
            Change::Down(node, _) => first.gossip.peer_down(node),
        }
    }
    for to in core.cores.ids() {
        core.post(to, move |core| {
            let Some(cluster) = core.cluster() else { return };
            cluster.elector.node_changed(change);
            let (node, is_up) = match change {
                Change::Up(node) => (node, true),
                Change::Down(node, _) => (node, false),
            };
            let was_restarted = matches!(change, Change::Down(_, Cause::Restarted));
            for group in core.groups() {
                group.note_node(node, is_up);
                if was_restarted {
                    group.note_restart(node);
                }
            }
            if core.id() == CONTROLLER_CORE {
                core.liveness_changed.notify_waiters();
            } else if is_up {
                cluster.peers.peer_up(node);
            } else {
                cluster.peers.peer_down(node, "the peer is down");
            }
        });
    }
}

/// Carries out what the elector of a core says is due.
pub(crate) fn act(core: &Rc<Core>, due: &Due) {
    for at in due.elect.iter().chain(&due.check) {
        if let Some(group) = core.group(at) {
            ouzel_runtime::spawn(async move { group.elect().await });
        }
    }
    for &at in &due.ask {
        if let Some(group) = core.group(&at) {
            let core = core.clone();
            ouzel_runtime::spawn(async move {
                // That it does not lead shows in the group's standing.
                let answered = group.ask_leader().await;
                if let (Some(leader), Some(cluster)) = (answered, core.cluster()) {
                    cluster.elector.leader_answered(&at, leader.node);
                }
            });
        }
    }
    for at in &due.heartbeat {
        if let Some(group) = core.group(at) {
            ouzel_runtime::spawn(async move { group.heartbeat().await });
        }
    }
}

/// A group on this core has heard from its leader: it is not stuck.
pub(crate) fn heard_leader(core: &Core, at: &TopicIdPartition) {
    if let Some(cluster) = core.cluster() {
        cluster.elector.contact(at, core.runtime.clock.now());
    }
}

/// A partition's leader changed, or what it says: the elections are told, and if it leads here, all nodes are.
pub(crate) fn standing_changed(core: &Rc<Core>, partition: &Partition) {
    let Some(cluster) = core.cluster() else { return };
    let (at, standing) = (*partition.at(), partition.standing());
    if partition.group().is_some() {
        let voters = standing.voters.iter().map(|replica| replica.node).collect();
        let leader = standing.leader.map(|replica| replica.node);
        cluster.elector.set_group(at, GroupWatch { voters, leader });
    }
    // Clients come to whoever claims, on any core. Nobody is told before this core knows of the partition: the others do
    // so in the same step of the publisher, which has the claim made when all do.
    let is_shown = core.view().routes.contains_key(&at);
    let claim = standing.leader.filter(|_| standing.leads && is_shown).map(|leader| Claim {
        group: at,
        epoch: standing.epoch,
        sequence: 0,
        leader,
        in_sync: standing.in_sync,
        voters: standing.voters,
        learners: standing.learners,
    });
    core.post(CONTROLLER_CORE, move |core| {
        let cluster = core.cluster();
        let Some(first) = cluster.as_ref().and_then(|cluster| cluster.first.as_ref()) else { return };
        match claim {
            Some(claim) => {
                first.gossip.publish(claim);
                let published = first.gossip.table().get(&at).cloned();
                spread_claims(core, published.as_slice());
            }
            None => first.gossip.withdraw(&at),
        }
    });
}

/// Takes note of where the other nodes listen.
pub(crate) fn learn_addresses(core: &Core, image: &Image) {
    let Some(cluster) = core.cluster() else { return };
    let own = core.node.config.node_id;
    let others = image.brokers().filter(|broker| broker.node != own && !broker.rpc_address.is_empty());
    for broker in others {
        cluster.peers.set_address(broker.node, &broker.rpc_address);
        if let Some(first) = &cluster.first {
            first.liveness.watch(broker.node);
        }
    }
}

/// Whether a node that this one knew belongs to the cluster no more: it is no broker, and keeps no replica of the
/// controller's log. Until the cluster has said who does, its founders do: the first of them are registered while others are
/// still opening their replicas, and those can register only once the log has come to them.
fn has_left(image: &Image, founders: &[NodeId], node: NodeId) -> bool {
    let keeps_the_log = match image.controller() {
        Some(controller) => controller.replica_on(node).is_some(),
        None => founders.contains(&node),
    };
    image.brokers().len() > 0 && image.broker(node).is_none() && !keeps_the_log
}

/// The cluster has other members, or they are elsewhere: whom to call where. On every core.
pub(crate) fn members_changed(core: &Rc<Core>) {
    let Some(cluster) = core.cluster() else { return };
    let view = core.view();
    learn_addresses(core, &view.image);
    let membership = core.node.membership.as_ref();
    let founders = membership.map(|membership| membership.card.founders.as_slice()).unwrap_or_default();
    let founders: Vec<NodeId> = founders.iter().map(|founder| founder.node).collect();
    for node in cluster.peers.known() {
        if has_left(&view.image, &founders, node) {
            cluster.peers.forget(node);
            if let Some(first) = &cluster.first {
                first.liveness.unwatch(node);
            }
        }
    }
    if let Some(first) = &cluster.first {
        let members = view.image.brokers().filter(|broker| !broker.rpc_address.is_empty());
        first
            .discovery
            .set_members(members.map(|broker| (broker.node, broker.rpc_address.clone())).collect());
        let metadata = crate::node::metadata_at();
        first.gossip.retain(|at| *at == metadata || view.image.partition(*at).is_some());
    }
}

#[cfg(test)]
mod tests {
    use ouzel_metadata::image::Broker;
    use ouzel_metadata::{Partition, Record};
    use ouzel_model::TopicId;

    use super::*;

    fn image(brokers: &[i32], controller: Option<&[i32]>) -> Image {
        let broker =
            |node: &i32| Record::BrokerRegistered(Broker::new(NodeId(*node), [1; 16], TopicId([2; 16])));
        let nodes = |nodes: &[i32]| Partition::new(nodes.iter().copied().map(NodeId).collect());
        let controller = controller.map(|kept| Record::ControllerChanged { controller: nodes(kept) });
        let records: Vec<_> = brokers.iter().map(broker).chain(controller).collect();
        Image::from_records(&records).expect("sound records")
    }

    /// Two of three founders had registered before the third had opened its replica of the controller's log. They took it for
    /// a node that had left, since it was no broker, and forgot its address: its log could not come to it, so it never heard
    /// who leads, so it never registered. Its process did not get ready for as long as it ran.
    #[test]
    fn a_founder_that_is_not_registered_yet_has_not_left() {
        let founders = [1, 2, 3].map(NodeId);
        let left = |image: Image| {
            (1..=4).filter(|node| has_left(&image, &founders, NodeId(*node))).collect::<Vec<i32>>()
        };
        assert_eq!(left(image(&[], None)), [0; 0], "nothing is known yet");
        assert_eq!(left(image(&[1, 2], None)), [4]);
        assert_eq!(left(image(&[1, 2, 3, 4], Some(&[1, 2, 3]))), [0; 0]);
        assert_eq!(left(image(&[1, 2, 3], Some(&[1, 2, 3]))), [4], "it was unregistered");
        assert_eq!(left(image(&[1, 2, 4], Some(&[1, 2, 4]))), [3], "a founder may leave");
    }
}
