//! Peers over simulated and real sockets.

use std::cell::RefCell;
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use ouzel_model::{NodeId, TopicId};
use ouzel_runtime::disk::BackendChoice;
use ouzel_runtime::sim::{Cluster, ClusterConfig, Rng};
use ouzel_runtime::{Runtime, cores};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{Notify, oneshot};

use super::frame::{self, Kind};
use super::handshake::MAGIC;
use super::*;

const TEST: u8 = service::CONTROL;

fn identity(node: i32) -> NodeIdentity {
    NodeIdentity {
        cluster_id: Some("east".to_owned()),
        node: NodeId(node),
        directory_id: TopicId([node as u8; 16]),
        process_id: node as u64,
        rpc_address: format!("host-{node}:33146"),
    }
}

fn peers_as(runtime: &Runtime, identity: NodeIdentity, config: PeersConfig) -> Peers {
    let rate = RecoveryRate::new(1 << 30, runtime.clock.now());
    Peers::new(runtime.clone(), identity, config, rate)
}

fn peers(runtime: &Runtime, node: i32) -> Peers {
    peers_as(runtime, identity(node), PeersConfig::default())
}

fn message(head: impl Into<Bytes>) -> PeerMessage {
    PeerMessage { head: head.into(), bodies: Vec::new() }
}

fn on_loopback<F: Future<Output = ()>>(main: impl FnOnce(Runtime) -> F + Send + 'static) {
    cores::run_one(BackendChoice::Blocking, &[], |runtime| async move { main(runtime).await }).unwrap();
}

/// Notes the heads in the order they start, and answers what it got; a head `wait` waits for the bell, `no` is declined.
#[derive(Default)]
struct Echo {
    started: RefCell<Vec<Bytes>>,
    from: RefCell<Vec<PeerIdentity>>,
    bell: Rc<Notify>,
}

impl PeerService for Echo {
    fn serve(&self, from: &PeerIdentity, service: u8, message: PeerMessage) -> LocalBoxFuture<ServeResult> {
        assert!(service == TEST || service == service::DISCOVER);
        self.started.borrow_mut().push(message.head.clone());
        self.from.borrow_mut().push(from.clone());
        let bell = self.bell.clone();
        Box::pin(async move {
            match &message.head[..] {
                b"wait" => bell.notified().await,
                b"no" => return Err("not today".to_owned()),
                _ => {}
            }
            Ok(message)
        })
    }
}

async fn listening(runtime: &Runtime, peers: &Peers) -> (String, Rc<Echo>) {
    let listener = runtime.net.listen("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let echo = Rc::new(Echo::default());
    peers.serve(listener, echo.clone());
    (address, echo)
}

#[test]
fn messages_and_their_bodies_go_both_ways_on_every_lane() {
    on_loopback(|runtime| async move {
        let (one, two) = (peers(&runtime, 1), peers(&runtime, 2));
        let (address, echo) = listening(&runtime, &two).await;
        one.set_address(NodeId(2), &address);
        let bodies: Vec<Bytes> =
            [0usize, 1, 700, 9_000, 3_000_000].map(|len| (0..len).map(|at| at as u8).collect()).to_vec();
        let sent = PeerMessage { head: Bytes::from_static(b"a head"), bodies };
        for lane in LANES {
            assert_eq!(one.call(NodeId(2), lane, TEST, sent.clone()).await.as_ref(), Ok(&sent));
        }
        let no = one.call(NodeId(2), Lane::Data, TEST, message("no")).await;
        assert_eq!(no, Err(CallError::Refused("not today".to_owned())));
        assert_eq!(
            one.call(NodeId(2), Lane::Data, service::PING, message("")).await,
            Ok(PeerMessage::default())
        );
        let from = echo.from.borrow()[2].clone();
        assert_eq!(
            (from.node, from.process_id, from.purpose),
            (NodeId(1), 1, Purpose::Member(Lane::Recovery))
        );
        assert_eq!(one.process_of(NodeId(2)), Some(2));
        let data = one.links().into_iter().find(|(_, lane, _)| *lane == Lane::Data).unwrap().2;
        assert_eq!((data.counters.calls, data.counters.answered, data.counters.refused), (3, 2, 1));
        assert_eq!((data.queued_bytes, data.in_flight_bytes, data.is_connected), (0, 0, true));
        assert!(data.counters.sent_bytes > 3_000_000 && data.counters.received_bytes > 3_000_000);
        let unknown = one.call(NodeId(9), Lane::Data, TEST, message("")).await;
        assert_eq!(unknown, Err(CallError::Unreachable("the address of node 9 is not known".to_owned())));
        let large = PeerMessage { head: Bytes::new(), bodies: vec![Bytes::from(vec![0; 129 << 20])] };
        assert!(matches!(
            one.call(NodeId(2), Lane::Data, TEST, large).await,
            Err(CallError::Refused(why)) if why.contains("at most")
        ));
    });
}

#[test]
fn calls_start_in_order_and_answers_may_overtake() {
    on_loopback(|runtime| async move {
        let (one, two) = (peers(&runtime, 1), peers(&runtime, 2));
        let (address, echo) = listening(&runtime, &two).await;
        one.set_address(NodeId(2), &address);
        let call = |head: &str| one.call(NodeId(2), Lane::Data, TEST, message(head.to_owned()));
        // Never polled until the last has been made: the place of a call is that of its making.
        let (waits, second, third) = (call("wait"), call("2"), call("3"));
        assert_eq!(third.await, Ok(message("3")));
        assert_eq!(second.await, Ok(message("2")));
        assert_eq!(*echo.started.borrow(), ["wait", "2", "3"]);
        echo.bell.notify_one();
        assert_eq!(waits.await, Ok(message("wait")));
    });
}

#[test]
fn who_should_not_come_is_told_why() {
    on_loopback(|runtime| async move {
        let two = peers(&runtime, 2);
        let (address, echo) = listening(&runtime, &two).await;
        let refused = async |who: NodeIdentity, target: i32| {
            let peers = peers_as(&runtime, who, PeersConfig::default());
            peers.set_address(NodeId(target), &address);
            match peers.call(NodeId(target), Lane::Control, TEST, message("hello")).await {
                Err(CallError::Refused(why)) => why,
                other => panic!("{other:?}"),
            }
        };
        let other_cluster = NodeIdentity { cluster_id: Some("west".to_owned()), ..identity(1) };
        assert!(refused(other_cluster, 2).await.starts_with("node 1 belongs to cluster west"));
        assert!(refused(identity(1), 3).await.starts_with("node 2 listens here, not node 3"));
        assert!(refused(identity(2), 1).await.starts_with("node 2 reached itself"));
        let newborn = NodeIdentity { cluster_id: None, ..identity(1) };
        assert!(refused(newborn.clone(), 2).await.starts_with("node 1 belongs to no cluster yet"));
        let impostor = NodeIdentity { directory_id: TopicId([9; 16]), process_id: 99, ..identity(1) };
        assert!(
            refused(NodeIdentity { node: NodeId(2), ..impostor.clone() }, 2)
                .await
                .starts_with("node id 2 is taken")
        );

        let one = peers(&runtime, 1);
        one.set_address(NodeId(2), &address);
        assert_eq!(one.call(NodeId(2), Lane::Control, TEST, message("1")).await, Ok(message("1")));
        assert!(refused(impostor.clone(), 2).await.starts_with("node id 1 is in use by directory"));
        let copy = NodeIdentity { process_id: 100, ..identity(1) };
        assert!(refused(copy.clone(), 2).await.contains("in use by another process"));
        assert_eq!(*echo.started.borrow(), ["1"], "nothing of those refused was handled");
        assert_eq!(two.served().refused, 7);
        assert_eq!(one.call(NodeId(2), Lane::Control, TEST, message("2")).await, Ok(message("2")));

        // The holder is gone: its place is free at once.
        one.stop();
        let late = peers_as(&runtime, impostor, PeersConfig::default());
        late.set_address(NodeId(2), &address);
        while late.call(NodeId(2), Lane::Control, TEST, message("3")).await != Ok(message("3")) {
            runtime.clock.sleep(Duration::from_millis(10)).await;
        }

        // A newborn node may ask one thing; ask itself even.
        let asking = peers_as(&runtime, newborn, PeersConfig::default());
        let limit = Duration::from_secs(5);
        let (who, answer) = asking.discover(&address, message("who?"), limit).await.unwrap();
        assert_eq!((who, answer), (identity(2), message("who?")));
    });
}

#[test]
fn noise_at_the_listener_is_counted_and_disturbs_nobody() {
    on_loopback(|runtime| async move {
        let (one, two) = (peers(&runtime, 1), peers(&runtime, 2));
        let (address, echo) = listening(&runtime, &two).await;
        one.set_address(NodeId(2), &address);
        let waits = one.call(NodeId(2), Lane::Data, TEST, message("wait"));
        let closed_on = async |bytes: &[u8]| {
            let mut stream = runtime.net.connect(&address).await.unwrap();
            stream.write_all(bytes).await.unwrap();
            // Where it would not be closed at once, the end of what is sent closes it.
            let _ = stream.shutdown().await;
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest).await;
            rest
        };
        let mut rng = Rng::new(1);
        for round in 0..200usize {
            let mut noise = vec![0; round * 3];
            rng.fill(&mut noise);
            assert_eq!(closed_on(&noise).await, b"");
            assert_eq!(closed_on(&[&MAGIC[..], &noise].concat()).await, b"");
        }
        assert_eq!(closed_on(b"GET / HTTP/1.1\r\n\r\n").await, b"");
        assert_eq!(two.served().strangers, 401);

        // A hello that is good, and after it noise, a frame too long, a frame of the wrong kind, a changed bit.
        let hello = |node| Hello {
            versions: VERSIONS,
            purpose: Purpose::Member(Lane::Data),
            sender: identity(node),
            core: 0,
            target: NodeId(2),
        };
        let greeting = |node| {
            let hello = message(hello(node).encode());
            [&MAGIC[..], &frame::front(Kind::Hello, 0, 0, &hello)].concat()
        };
        let call = frame::front(Kind::Call, TEST, 1, &message("call")).to_vec();
        let mut changed = call.clone();
        *changed.last_mut().unwrap() ^= 1;
        let mut long = frame::front(Kind::Call, TEST, 1, &message("")).to_vec();
        long[0..4].copy_from_slice(&(129u32 << 20).to_be_bytes());
        let crc = crc32c::crc32c(&long[..28]);
        long[28..32].copy_from_slice(&crc.to_be_bytes());
        let answer = frame::front(Kind::Answer, 0, 1, &message("")).to_vec();
        for (nth, nonsense) in [vec![7; 64], changed, long, answer].into_iter().enumerate() {
            let rest = closed_on(&[greeting(3 + nth as i32), call.clone(), nonsense].concat()).await;
            assert!(rest.len() > 32, "it was welcomed before");
        }
        assert_eq!(two.served().malformed, 4);
        echo.bell.notify_one();
        assert_eq!(waits.await, Ok(message("wait")), "the peer beside them was not disturbed");
        assert_eq!(one.links()[0].2.counters.connected, 1);
    });
}

#[test]
fn a_peer_that_is_not_there_is_unreachable_at_once_and_found_when_it_comes() {
    on_loopback(|runtime| async move {
        let listener = runtime.net.listen("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        drop(listener);
        let one = peers(&runtime, 1);
        one.set_address(NodeId(2), &address);
        let events = Rc::new(RefCell::new(Vec::new()));
        let seen = events.clone();
        one.observe(Rc::new(move |node, lane, event| seen.borrow_mut().push((node, lane, event))));
        for _ in 0..5 {
            let result = one.call(NodeId(2), Lane::Control, TEST, message("1")).await;
            assert!(
                matches!(&result, Err(CallError::Unreachable(why)) if why.contains(&address)),
                "{result:?}"
            );
        }
        assert_eq!(events.borrow()[0], (NodeId(2), Lane::Control, LinkEvent::NobodyListens));
        let two = peers(&runtime, 2);
        let listener = runtime.net.listen(&address).await.unwrap();
        let echo = Rc::new(Echo::default());
        two.serve(listener, echo.clone());
        // As the liveness service does, or any call of the other's.
        one.peer_up(NodeId(2));
        assert_eq!(one.call(NodeId(2), Lane::Control, TEST, message("2")).await, Ok(message("2")));
        assert_eq!(events.borrow().last(), Some(&(NodeId(2), Lane::Control, LinkEvent::Connected)));
        two.stop();
        while !matches!(events.borrow().last(), Some((_, _, LinkEvent::Lost | LinkEvent::NobodyListens))) {
            runtime.clock.sleep(Duration::from_millis(5)).await;
        }
        assert!(matches!(
            one.call(NodeId(2), Lane::Control, TEST, message("3")).await,
            Err(CallError::Unreachable(_))
        ));
    });
}

#[test]
fn what_waits_for_a_peer_is_bounded_and_other_lanes_do_not_wait() {
    on_loopback(|runtime| async move {
        let mut config = PeersConfig::default();
        config.lanes[Lane::Data as usize].in_flight_bytes_max = 10_000;
        config.lanes[Lane::Data as usize].queued_bytes_max = 20_000;
        let (one, two) = (peers_as(&runtime, identity(1), config), peers(&runtime, 2));
        let (address, echo) = listening(&runtime, &two).await;
        one.set_address(NodeId(2), &address);
        let wait = || PeerMessage {
            head: Bytes::from_static(b"wait"),
            bodies: vec![Bytes::from_static(&[0; 6000])],
        };
        let mut calls = Vec::new();
        let full = loop {
            assert!(calls.len() < 100, "it never fills");
            let mut call = one.call(NodeId(2), Lane::Data, TEST, wait());
            let ready = std::future::poll_fn(|context| {
                std::task::Poll::Ready(match call.as_mut().poll(context) {
                    std::task::Poll::Ready(result) => Some(result),
                    std::task::Poll::Pending => None,
                })
            });
            match ready.await {
                Some(result) => break result,
                None => calls.push(call),
            }
            // One that is too large for what is in flight goes alone; the others stay in the queue.
            ouzel_runtime::yield_now().await;
        };
        assert!(matches!(full, Err(CallError::Unreachable(why)) if why.contains("wait for node 2")));
        assert_eq!(one.call(NodeId(2), Lane::Control, TEST, message("vote")).await, Ok(message("vote")));
        let sample = one.links().into_iter().find(|(_, lane, _)| *lane == Lane::Data).unwrap().2;
        assert!(sample.in_flight_bytes <= 10_000 && sample.queued_bytes <= 20_000, "{sample:?}");
        // Room comes as answers do; whoever gave up meanwhile is not sent at all.
        let given_up = calls.pop().unwrap();
        drop(given_up);
        let room = one.has_room(NodeId(2), Lane::Data);
        let kept = calls.len();
        let answers = async {
            for call in calls {
                echo.bell.notify_one();
                assert_eq!(call.await, Ok(wait()));
            }
        };
        tokio::join!(biased; room, answers);
        assert_eq!(echo.started.borrow().iter().filter(|head| &head[..] == b"wait").count(), kept);
    });
}

/// What an older connection still holds must not start once a newer one of the same sender, lane and core is welcomed:
/// it would come after what was called later.
#[test]
fn a_newer_connection_ends_the_older_one_before_it_is_welcomed() {
    on_loopback(|runtime| async move {
        let two = peers(&runtime, 2);
        let (address, echo) = listening(&runtime, &two).await;
        let hello = Hello {
            versions: VERSIONS,
            purpose: Purpose::Member(Lane::Data),
            sender: identity(1),
            core: 0,
            target: NodeId(2),
        };
        let connect = async || {
            let stream = runtime.net.connect(&address).await.unwrap();
            match link::greet(stream, &hello, None).await {
                Ok((reader, writer, _)) => (reader, writer),
                Err(_) => panic!("it is not welcome"),
            }
        };
        let call = |head: &'static str| VecDeque::from([frame::front(Kind::Call, TEST, 1, &message(head))]);
        let (mut older_reader, mut older) = connect().await;
        let (mut newer_reader, mut newer) = connect().await;
        // It may be closed already, or close on this.
        let _ = older.write(&mut call("older")).await;
        assert!(older_reader.header(1 << 20).await.is_err());
        newer.write(&mut call("newer")).await.unwrap();
        assert_eq!(newer_reader.header(1 << 20).await.unwrap().kind, Kind::Answer);
        assert_eq!(*echo.started.borrow(), ["newer"]);
    });
}

/// Connections of a peer's other cores are judged where they arrive and served where they are sent; what replaces one
/// of them ends it there.
#[test]
fn connections_of_other_cores_are_served_by_other_cores() {
    on_loopback(|runtime| async move {
        let other_core = Runtime { core: ouzel_runtime::CoreId(1), core_count: 2, ..runtime.clone() };
        let (first, second) = (peers(&runtime, 2), peers(&other_core, 2));
        let listener = runtime.net.listen("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (on_first, on_second) = (Rc::new(Echo::default()), Rc::new(Echo::default()));
        let (lands, handler) = (second.clone(), on_second.clone());
        let place = move |admitted: Admitted| {
            assert_eq!(admitted.from().core, 1);
            lands.serve_admitted(admitted, handler.clone());
        };
        first.serve_spread(listener, on_first.clone(), Rc::new(place));
        for (runtime, head) in [(&runtime, "core 0"), (&other_core, "core 1")] {
            let one = peers(runtime, 1);
            one.set_address(NodeId(2), &address);
            for _ in 0..2 {
                assert_eq!(one.call(NodeId(2), Lane::Data, TEST, message(head)).await, Ok(message(head)));
                one.peer_down(NodeId(2), "a test says so");
            }
        }
        assert_eq!(*on_first.started.borrow(), ["core 0", "core 0"]);
        assert_eq!(*on_second.started.borrow(), ["core 1", "core 1"]);
        assert_eq!((first.served().accepted, first.served().calls, second.served().calls), (4, 2, 2));
    });
}

// In the simulation ----------------------------------------------------------------------------------------------------

fn simulate<F: Future<Output = ()> + 'static>(
    seed: u64,
    rate_bytes_per_s: u64,
    main: impl FnOnce(Runtime, Peers) -> F + 'static,
) -> Cluster<'static> {
    let mut cluster = Cluster::new(&ClusterConfig::new(seed));
    cluster.node("two", 1, |node| async move {
        let runtime = node.runtime();
        let own = NodeIdentity { process_id: runtime.entropy.u64(), ..identity(2) };
        let two = peers_as(&runtime, own, PeersConfig::default());
        let listener = runtime.net.listen("0.0.0.0:33146").await?;
        two.serve(listener, Rc::new(Rising::default()));
        std::future::pending().await
    });
    cluster.client("one", move |node| async move {
        let runtime = node.runtime();
        let rate = RecoveryRate::new(rate_bytes_per_s, runtime.clock.now());
        let one = Peers::new(runtime.clone(), identity(1), PeersConfig::default(), rate);
        one.set_address(NodeId(2), "two:33146");
        main(runtime, one).await;
        Ok(())
    });
    cluster
}

/// Answers after a while, and fails the run if a number comes that is not above the last one: a call was repeated, or
/// overtook another.
#[derive(Default)]
struct Rising {
    last: RefCell<BTreeMap<u8, u64>>,
}

impl PeerService for Rising {
    fn serve(&self, from: &PeerIdentity, _: u8, message: PeerMessage) -> LocalBoxFuture<ServeResult> {
        let number = u64::from_be_bytes(message.head[..8].try_into().unwrap());
        let Purpose::Member(lane) = from.purpose else { panic!("a stranger") };
        let before = self.last.borrow_mut().insert(lane as u8, number);
        assert!(before.is_none_or(|before| before < number), "{number} after {before:?}");
        Box::pin(async move { Ok(PeerMessage { head: message.head, bodies: Vec::new() }) })
    }
}

fn number(number: u64) -> PeerMessage {
    message(number.to_be_bytes().to_vec())
}

#[test]
fn no_call_is_repeated_or_overtakes_another_whatever_the_connection_does() {
    for seed in 0..20 {
        let mut cluster = simulate(seed, 1 << 30, move |runtime, one| async move {
            let mut rng = Rng::new(seed);
            let mut calls = Vec::new();
            let (mut answered, mut failed) = (0, 0);
            for at in 0..400 {
                let body = Bytes::from(vec![1; rng.below(30_000) as usize]);
                let message = PeerMessage { bodies: vec![body], ..number(at) };
                calls.push(one.call(NodeId(2), Lane::Data, TEST, message));
                if rng.chance(1, 20) {
                    one.peer_down(NodeId(2), "a test says so");
                }
                if rng.chance(1, 3) {
                    runtime.clock.sleep(Duration::from_millis(rng.below(40))).await;
                }
            }
            for call in calls {
                match call.await {
                    Ok(_) => answered += 1,
                    Err(_) => failed += 1,
                }
            }
            assert!(answered > 20 && failed > 20, "{answered} answered, {failed} failed: nothing was tried");
        });
        cluster.run().unwrap();
    }
}

#[test]
fn a_connection_that_swallows_is_given_up_and_the_next_one_serves() {
    let (healed, heal) = (Rc::new(Notify::new()), Rc::new(Notify::new()));
    let (is_healed, asks) = (healed.clone(), heal.clone());
    let mut cluster = simulate(3, 1 << 30, |runtime, one| async move {
        assert_eq!(one.call(NodeId(2), Lane::Control, TEST, number(1)).await, Ok(number(1)));
        asks.notify_one();
        is_healed.notified().await;
        // In the partition: no answer, then no connection.
        let limit = Duration::from_secs(4);
        let first = one.call_within(NodeId(2), Lane::Control, TEST, number(2), limit).await;
        assert!(
            matches!(&first, Err(CallError::Unreachable(why)) if why.contains("nothing came")),
            "{first:?}"
        );
        let second = one.call_within(NodeId(2), Lane::Control, TEST, number(3), limit).await;
        assert!(matches!(&second, Err(CallError::Unreachable(_))), "{second:?}");
        asks.notify_one();
        is_healed.notified().await;
        let mut at = 4;
        while one.call(NodeId(2), Lane::Control, TEST, number(at)).await != Ok(number(at)) {
            at += 1;
            runtime.clock.sleep(Duration::from_millis(50)).await;
        }
        assert!(at < 60, "attempts go on while they fail");
    });
    let mut partitioned = false;
    let mut asked = std::pin::pin!(heal.notified());
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    while !cluster.step().unwrap() {
        if asked.as_mut().poll(&mut context).is_ready() {
            asked.set(heal.notified());
            match partitioned {
                false => cluster.partition("one", "two"),
                true => cluster.repair("one", "two"),
            }
            partitioned = !partitioned;
            healed.notify_one();
        }
    }
}

#[test]
fn a_restarted_peer_is_met_as_another_process() {
    let (killed, kill) = (Rc::new(Notify::new()), oneshot::channel::<()>());
    let (is_killed, (asks, mut asked)) = (killed.clone(), kill);
    let mut cluster = simulate(4, 1 << 30, |runtime, one| async move {
        assert_eq!(one.call(NodeId(2), Lane::Data, TEST, number(7)).await, Ok(number(7)));
        let before = one.process_of(NodeId(2));
        asks.send(()).unwrap();
        is_killed.notified().await;
        let mut attempts = 0;
        while one.call(NodeId(2), Lane::Data, TEST, number(1)).await != Ok(number(1)) {
            attempts += 1;
            runtime.clock.sleep(Duration::from_millis(20)).await;
        }
        assert!(attempts > 0);
        assert_ne!(one.process_of(NodeId(2)), before);
    });
    let mut killed_at = None;
    while !cluster.step().unwrap() {
        if asked.try_recv().is_ok() {
            cluster.kill("two");
            killed_at = Some(cluster.elapsed());
            killed.notify_one();
        }
        if killed_at.is_some_and(|at| cluster.elapsed() > at + Duration::from_millis(500)) {
            killed_at = None;
            cluster.restart("two");
        }
    }
}

#[test]
fn recovery_keeps_to_its_rate_and_live_traffic_does_not_wait_for_it() {
    let mut cluster = simulate(5, 1_000_000, |runtime, one| async move {
        let start = runtime.clock.now();
        let pieces: Vec<_> = (0..30)
            .map(|at| {
                let piece = PeerMessage { bodies: vec![Bytes::from(vec![2; 100_000])], ..number(at) };
                one.call(NodeId(2), Lane::Recovery, TEST, piece)
            })
            .collect();
        for at in 0..20 {
            let asked = runtime.clock.now();
            assert_eq!(one.call(NodeId(2), Lane::Data, TEST, number(at)).await, Ok(number(at)));
            let took = runtime.clock.now() - asked;
            assert!(took < Duration::from_millis(150), "virtual time: a round trip or two, not {took:?}");
        }
        for piece in pieces {
            piece.await.unwrap();
        }
        let took = runtime.clock.now() - start;
        assert!(took > Duration::from_millis(2_600) && took < Duration::from_millis(3_600), "{took:?}");
    });
    cluster.run().unwrap();
}

/// What was owed at the old rate was slept through at one go: lowered to a byte a second and raised again, recovery
/// stood still for a day and a half.
#[test]
fn recovery_goes_on_as_soon_as_its_rate_is_raised() {
    let mut cluster = simulate(5, 1, |runtime, one| async move {
        let piece = |at| PeerMessage { bodies: vec![Bytes::from(vec![2; 300_000])], ..number(at) };
        let pieces: Vec<_> = (0..3).map(|at| one.call(NodeId(2), Lane::Recovery, TEST, piece(at))).collect();
        runtime.clock.sleep(Duration::from_secs(5)).await;
        let raised = runtime.clock.now();
        one.common().rate.set(100 << 20, raised);
        for piece in pieces {
            piece.await.unwrap();
        }
        let took = runtime.clock.now() - raised;
        assert!(took < Duration::from_secs(2), "virtual time: it looks each second, so not {took:?}");
    });
    cluster.run().unwrap();
}

/// A handler that takes long is no dead peer: the connection stays, and so do the calls behind it.
#[test]
fn a_slow_answer_does_not_cost_the_connection() {
    struct Slow(Runtime);
    impl PeerService for Slow {
        fn serve(&self, _: &PeerIdentity, _: u8, message: PeerMessage) -> LocalBoxFuture<ServeResult> {
            let clock = self.0.clock.clone();
            Box::pin(async move {
                clock.sleep(Duration::from_secs(9)).await;
                Ok(message)
            })
        }
    }
    let mut cluster = Cluster::new(&ClusterConfig::new(6));
    cluster.node("two", 1, |node| async move {
        let runtime = node.runtime();
        let two = peers(&runtime, 2);
        two.serve(runtime.net.listen("0.0.0.0:33146").await?, Rc::new(Slow(runtime.clone())));
        std::future::pending().await
    });
    cluster.client("one", |node| async move {
        let one = peers(&node.runtime(), 1);
        one.set_address(NodeId(2), "two:33146");
        assert_eq!(one.call(NodeId(2), Lane::Control, TEST, message("a")).await, Ok(message("a")));
        assert_eq!(one.links()[0].2.counters.connected, 1);
        let limit = Duration::from_secs(1);
        let late = one.call_within(NodeId(2), Lane::Control, TEST, message("b"), limit).await;
        assert_eq!(late, Err(CallError::TimedOut));
        Ok(())
    });
    cluster.run().unwrap();
}

#[test]
fn what_is_received_fits_into_the_memory_there_is() {
    let whole = PeersConfig::default();
    let received = |config: &PeersConfig| -> usize {
        config.lanes.iter().map(|lane| lane.receive_bytes_max + lane.answer_bytes_max).sum()
    };
    assert_eq!(received(&whole.clone().within(usize::MAX)), received(&whole), "more is not needed");
    let small = whole.clone().within(16 << 20);
    assert!(received(&small) <= 16 << 20 && received(&small) > 15 << 20, "{}", received(&small));
    let share = |config: &PeersConfig, lane: Lane| config.lane(lane).receive_bytes_max / 1024;
    for lane in [Lane::Control, Lane::Data, Lane::Recovery] {
        assert_eq!(share(&small, lane), share(&whole, lane) * 16 / 72, "{lane:?}");
    }
}
