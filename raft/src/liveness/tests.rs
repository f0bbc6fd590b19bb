//! Liveness and gossip over simulated and real sockets.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use ouzel_model::{LeaderEpoch, NodeId, PartitionIndex, ReplicaId, TopicId, TopicIdPartition};
use ouzel_runtime::Runtime;
use ouzel_runtime::cores;
use ouzel_runtime::cores::CoreResult;
use ouzel_runtime::disk::BackendChoice;
use ouzel_runtime::sim::{Cluster, ClusterConfig, SimRuntime};

use super::*;
use crate::gossip::{Claim, Gossip};
use crate::peers::{NodeIdentity, PeerIdentity, PeerService, PeersConfig, RecoveryRate, ServeResult};
use crate::transport::LocalBoxFuture;

struct Deaf;

impl PeerService for Deaf {
    fn serve(&self, _: &PeerIdentity, service: u8, _: PeerMessage) -> LocalBoxFuture<ServeResult> {
        Box::pin(std::future::ready(Err(format!("service {service} is not here"))))
    }
}

fn group(number: i32) -> TopicIdPartition {
    TopicIdPartition { topic_id: TopicId([1; 16]), partition: PartitionIndex(number) }
}

fn claim(number: i32, epoch: i32, leader: i32) -> Claim {
    let replica = |node| ReplicaId::first(NodeId(node));
    Claim {
        group: group(number),
        epoch: LeaderEpoch(epoch),
        sequence: 0,
        leader: replica(leader),
        in_sync: vec![replica(leader)],
        voters: vec![replica(1), replica(2), replica(3)],
        learners: Vec::new(),
    }
}

/// A node that asks the others, gossips, and notes what happens to them, by milliseconds since its start.
struct Node {
    peers: Peers,
    liveness: Liveness,
    gossip: Gossip,
    seen: Rc<RefCell<Vec<(u64, Change)>>>,
}

impl Node {
    fn start(runtime: &Runtime, own: i32) -> Node {
        let identity = NodeIdentity {
            cluster_id: Some("east".to_owned()),
            node: NodeId(own),
            directory_id: TopicId([own as u8; 16]),
            process_id: runtime.entropy.u64(),
            rpc_address: format!("node{own}:33146"),
        };
        let rate = RecoveryRate::new(1 << 30, runtime.clock.now());
        let peers = Peers::new(runtime.clone(), identity, PeersConfig::default(), rate);
        let gossip = Gossip::start(runtime.clone(), peers.clone());
        let seen: Rc<RefCell<Vec<(u64, Change)>>> = Rc::default();
        let (told, notes, clock) = (gossip.clone(), seen.clone(), runtime.clock.clone());
        let start = clock.now();
        let observer = Rc::new(move |change| {
            notes.borrow_mut().push(((clock.now() - start).as_millis() as u64, change));
            match change {
                Change::Up(node) => told.peer_up(node),
                Change::Down(node, _) => told.peer_down(node),
            }
        });
        let liveness = Liveness::start(runtime.clone(), peers.clone(), LivenessConfig::default(), observer);
        Node { peers, liveness, gossip, seen }
    }

    fn meet(&self, other: i32, address: &str) {
        self.peers.set_address(NodeId(other), address);
        self.liveness.watch(NodeId(other));
    }
}

async fn until(runtime: &Runtime, what: &str, condition: impl Fn() -> bool) {
    for _ in 0..2_000 {
        if condition() {
            return;
        }
        runtime.clock.sleep(Duration::from_millis(5)).await;
    }
    panic!("it never came: {what}");
}

async fn simulated(node: SimRuntime, own: i32) -> CoreResult {
    let runtime = node.runtime();
    let this = Node::start(&runtime, own);
    this.peers.serve(runtime.net.listen("0.0.0.0:33146").await?, Rc::new(Deaf));
    (1..=3).filter(|other| *other != own).for_each(|other| this.meet(other, &format!("node{other}:33146")));
    this.gossip.publish(claim(own, runtime.entropy.u64() as i32 & 0xffff, own));
    // What a node heard is for the test to see, through a log that all share.
    LOG.with_borrow_mut(|log| {
        log.retain(|(node, _, _)| *node != own);
        log.push((own, this.seen.clone(), this.gossip.clone()));
    });
    std::future::pending().await
}

type Logged = (i32, Rc<RefCell<Vec<(u64, Change)>>>, Gossip);

thread_local! {
    static LOG: RefCell<Vec<Logged>> = const { RefCell::new(Vec::new()) };
}

fn changes(of: i32) -> Vec<Change> {
    LOG.with_borrow(|log| {
        let (_, seen, _) = log.iter().find(|(node, _, _)| *node == of).expect("it has started");
        seen.borrow().iter().map(|(_, change)| *change).collect()
    })
}

fn claims(of: i32) -> Vec<Claim> {
    LOG.with_borrow(|log| {
        let (_, _, gossip) = log.iter().find(|(node, _, _)| *node == of).expect("it has started");
        gossip.table().iter().cloned().collect()
    })
}

fn run_for(cluster: &mut Cluster<'_>, ms: u64) {
    let until = cluster.elapsed() + Duration::from_millis(ms);
    while cluster.elapsed() < until {
        cluster.step().unwrap();
    }
}

fn three(seed: u64) -> Cluster<'static> {
    LOG.with_borrow_mut(Vec::clear);
    let mut cluster = Cluster::new(&ClusterConfig::new(seed));
    for own in 1..=3 {
        cluster.node(&format!("node{own}"), 1, move |node| simulated(node, own));
    }
    cluster.client("time", |_| std::future::pending());
    cluster
}

#[test]
fn a_killed_node_is_down_a_returning_one_is_up_and_told_everything() {
    for seed in 0..5 {
        let mut cluster = three(seed);
        run_for(&mut cluster, 1_000);
        for own in 1..=3 {
            let mut up: Vec<_> = changes(own).into_iter().map(|change| format!("{change:?}")).collect();
            up.sort();
            let others = (1..=3).filter(|other| *other != own);
            assert_eq!(
                up,
                others.map(|other| format!("Up(NodeId({other}))")).collect::<Vec<_>>(),
                "seed {seed}"
            );
            assert_eq!(claims(own).len(), 3);
        }
        let before = claims(2);
        cluster.kill("node3");
        run_for(&mut cluster, 900);
        for own in [1, 2] {
            assert!(matches!(changes(own)[2..], [Change::Down(NodeId(3), _)]), "{:?}", changes(own));
        }
        cluster.restart("node3");
        run_for(&mut cluster, 1_500);
        for own in [1, 2] {
            let back = [Change::Down(NodeId(3), Cause::Restarted), Change::Up(NodeId(3))];
            assert_eq!(changes(own)[3..], back);
        }
        assert_eq!(claims(3).len(), 3);
        assert!(claims(3) == claims(1) && claims(3) == claims(2), "seed {seed}");
        assert!(claims(2)[..2] == before[..2], "nobody else said anything new");
    }
}

#[test]
fn a_partition_is_down_on_both_sides_and_heals() {
    for seed in 0..5 {
        let mut cluster = three(seed);
        run_for(&mut cluster, 1_000);
        cluster.partition("node1", "node3");
        run_for(&mut cluster, 1_000);
        assert_eq!(changes(1)[2..], [Change::Down(NodeId(3), Cause::Silent)]);
        assert_eq!(changes(3)[2..], [Change::Down(NodeId(1), Cause::Silent)]);
        assert_eq!(changes(2).len(), 2, "the third sees both");
        // Between those two nothing passes, but what one says reaches the other through the third.
        let news = claim(1, 1 << 20, 1);
        LOG.with_borrow(|log| log.iter().find(|(node, _, _)| *node == 1).unwrap().2.publish(news));
        run_for(&mut cluster, 500);
        assert_eq!(claims(3)[0].epoch, LeaderEpoch(1 << 20));
        cluster.repair("node1", "node3");
        run_for(&mut cluster, 2_000);
        assert_eq!(changes(1)[3..], [Change::Up(NodeId(3))]);
        assert_eq!(changes(3)[3..], [Change::Up(NodeId(1))]);
    }
}

/// Where one direction swallows everything, the deaf one hears nothing and the other is never answered: both count the
/// other as down, so neither keeps groups waiting for a leader that cannot be heard.
#[test]
fn a_partition_of_one_way_is_down_on_both_sides() {
    for seed in 0..5 {
        let mut cluster = three(seed);
        run_for(&mut cluster, 1_000);
        cluster.partition_oneway("node1", "node3");
        run_for(&mut cluster, 1_500);
        assert_eq!(changes(1)[2..], [Change::Down(NodeId(3), Cause::Silent)], "seed {seed}");
        assert_eq!(changes(3)[2..], [Change::Down(NodeId(1), Cause::Silent)], "seed {seed}");
        cluster.repair_oneway("node1", "node3");
        run_for(&mut cluster, 2_500);
        assert_eq!(changes(1)[3..], [Change::Up(NodeId(3))], "seed {seed}");
        assert_eq!(changes(3)[3..], [Change::Up(NodeId(1))], "seed {seed}");
    }
}

/// On real sockets a process that ends is noticed by its refused connections, and a deposed leader's old word does not
/// come back over its successor's.
#[test]
fn real_nodes_gossip_and_notice_an_end() {
    cores::run_one(BackendChoice::Blocking, &[], |runtime| async move {
        let (one, two) = (Node::start(&runtime, 1), Node::start(&runtime, 2));
        for node in [&one, &two] {
            let listener = runtime.net.listen("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap().to_string();
            node.peers.serve(listener, Rc::new(Deaf));
            let other = if std::ptr::eq(node, &one) { &two } else { &one };
            other.meet(node.peers.identity().node.0, &address);
        }
        for number in 0..10_000 {
            one.gossip.publish(claim(number, 1, 1));
        }
        until(&runtime, "all claims", || two.gossip.table().len() == 10_000).await;
        two.gossip.publish(claim(5, 2, 2));
        one.gossip.publish(Claim { learners: vec![ReplicaId::first(NodeId(4))], ..claim(5, 1, 1) });
        let led_by =
            |node: &Node, number| node.gossip.table().get(&group(number)).map(|claim| claim.leader.node);
        until(&runtime, "the newer leader", || led_by(&one, 5) == Some(NodeId(2))).await;
        assert_eq!(led_by(&two, 5), Some(NodeId(2)));
        until(&runtime, "both up", || two.liveness.standing(NodeId(1)) == Standing::Up).await;
        one.peers.stop();
        until(&runtime, "the end", || two.liveness.standing(NodeId(1)) == Standing::Down).await;
        let (_, last) = *two.seen.borrow().last().unwrap();
        assert!(matches!(last, Change::Down(NodeId(1), Cause::Gone | Cause::Silent)));
    })
    .unwrap();
}
