//! Faults of whole simulated machines: what stands still, what is cut off, what forgets, and what lies.

use std::cell::{Cell, RefCell};
use std::io::ErrorKind;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use ouzel_runtime::cores::CoreResult;
use ouzel_runtime::disk::OpenMode;
use ouzel_runtime::sim::{self, Cluster, ClusterConfig, Pause, SimRuntime};
use ouzel_runtime::spawn;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const PORT: u16 = 7;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Answers every byte with itself.
async fn echo(node: SimRuntime) -> CoreResult {
    let listener = node.runtime().net.listen(&format!("0.0.0.0:{PORT}")).await?;
    loop {
        let (mut stream, _) = listener.accept().await?;
        spawn(async move {
            while let Ok(byte) = stream.read_u8().await {
                if stream.write_u8(byte).await.is_err() {
                    break;
                }
            }
        });
    }
}

/// Steps until the virtual time has come or the run has ended; says whether it has.
fn run_until(cluster: &mut Cluster<'_>, at: Duration) -> bool {
    while cluster.elapsed() < at {
        if cluster.step().unwrap() {
            return true;
        }
    }
    false
}

#[test]
fn a_paused_process_does_nothing_and_then_all_that_was_due() {
    sim::run(1, |node| async move {
        let runtime = node.runtime();
        let ticks = Rc::new(Cell::new(0));
        let pause = Pause::default();
        let (counted, clock) = (ticks.clone(), runtime.clock.clone());
        let process = spawn(pause.process(async move {
            for _ in 0..2 {
                let (counted, clock) = (counted.clone(), clock.clone());
                // Tasks of the process stand still with it.
                spawn(async move {
                    loop {
                        clock.sleep(ms(10)).await;
                        counted.set(counted.get() + 1);
                    }
                });
            }
            std::future::pending::<()>().await;
        }));
        runtime.clock.sleep(ms(105)).await;
        assert_eq!(ticks.get(), 20);
        pause.pause();
        runtime.clock.sleep(ms(1000)).await;
        assert_eq!(ticks.get(), 20, "it stands still");
        pause.resume();
        runtime.clock.sleep(ms(1)).await;
        assert_eq!(ticks.get(), 22, "what was due is done at once");
        process.abort();
        runtime.clock.sleep(ms(100)).await;
        assert_eq!(ticks.get(), 22, "its tasks end with it");
    });
}

/// Asks the echo over and over on one connection and notes when answers came.
async fn ask(node: SimRuntime, answered: Rc<RefCell<Vec<Duration>>>, end: Duration) -> CoreResult {
    let runtime = node.runtime();
    let started = runtime.clock.now();
    let mut stream = runtime.net.connect(&format!("echo:{PORT}")).await?;
    while runtime.clock.now() - started < end {
        stream.write_u8(1).await?;
        stream.read_u8().await?;
        answered.borrow_mut().push(runtime.clock.now() - started);
        runtime.clock.sleep(ms(5)).await;
    }
    Ok(())
}

#[test]
fn a_paused_node_answers_when_it_goes_on() {
    let answered = Rc::new(RefCell::new(Vec::new()));
    let mut cluster = Cluster::new(&ClusterConfig::new(5));
    cluster.node("echo", 1, echo);
    let noted = answered.clone();
    cluster.client("client", |node| ask(node, noted, ms(2000)));
    run_until(&mut cluster, ms(500));
    cluster.pause("echo");
    run_until(&mut cluster, ms(1500));
    cluster.resume("echo");
    cluster.run().unwrap();
    let within = |from, to| answered.borrow().iter().filter(|at| **at > ms(from) && **at < ms(to)).count();
    assert!(within(0, 500) > 3 && within(1500, 2100) > 3, "{answered:?}");
    assert_eq!(within(540, 1490), 0, "{answered:?}");
}

#[test]
fn a_reset_connection_fails_at_both_ends_at_once() {
    let answered = Rc::new(RefCell::new(Vec::new()));
    let failed = Rc::new(Cell::new(None));
    let mut cluster = Cluster::new(&ClusterConfig::new(5));
    cluster.node("echo", 1, echo);
    let (noted, failing) = (answered.clone(), failed.clone());
    cluster.client("client", |node| async move {
        let clock = node.runtime().clock;
        let began = clock.now();
        let error = ask(node, noted, ms(5000)).await.expect_err("the connection was reset");
        let kind = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
        failing.set(Some((kind, clock.now() - began)));
        Ok(())
    });
    run_until(&mut cluster, ms(300));
    cluster.reset_connections("client", "echo");
    cluster.run().unwrap();
    let (kind, at) = failed.get().unwrap();
    assert_eq!(kind, Some(ErrorKind::ConnectionReset));
    assert!(at < ms(310), "without waiting for an answer: {at:?}");
    assert!(answered.borrow().len() > 3);
}

#[test]
fn a_one_way_partition_lets_the_other_way_pass() {
    let heard = Rc::new(RefCell::new(0));
    let mut cluster = Cluster::new(&ClusterConfig::new(5));
    let hearing = heard.clone();
    cluster.node("sink", 1, move |node| {
        let hearing = hearing.clone();
        async move {
            let listener = node.runtime().net.listen(&format!("0.0.0.0:{PORT}")).await?;
            let (mut stream, _) = listener.accept().await?;
            while stream.read_u8().await.is_ok() {
                *hearing.borrow_mut() += 1;
                stream.write_u8(0).await?;
            }
            Ok(())
        }
    });
    let answers = Rc::new(RefCell::new(0));
    let answering = answers.clone();
    cluster.client("client", |node| async move {
        let runtime = node.runtime();
        let (mut read, mut write) = runtime.net.connect(&format!("sink:{PORT}")).await?.into_split();
        spawn(async move {
            while read.read_u8().await.is_ok() {
                *answering.borrow_mut() += 1;
            }
        });
        for _ in 0..50 {
            write.write_u8(1).await?;
            runtime.clock.sleep(ms(10)).await;
        }
        Ok(())
    });
    run_until(&mut cluster, ms(200));
    cluster.partition_oneway("sink", "client");
    let answered = *answers.borrow();
    cluster.run().unwrap();
    assert!(*heard.borrow() > 40, "what is said arrives: {heard:?}");
    assert!(*answers.borrow() <= answered + 3, "what is answered does not: {answers:?} after {answered}");
}

#[test]
fn a_disk_that_lies_loses_what_it_said_it_had() {
    sim::run(9, |node| async move {
        let path = Path::new(sim::DATA_DIR).join("file");
        let write = async |runtime: &ouzel_runtime::Runtime| {
            let file = runtime.disk.open(&path, OpenMode::CreateOrOpen).await.unwrap();
            file.write_at(0, vec![Bytes::from_static(b"said to be kept")]).await.unwrap();
            file.sync_data().await.unwrap();
            runtime.disk.sync_dir(Path::new(sim::DATA_DIR)).await.unwrap();
        };
        let whole = || {
            (0..100)
                .filter(|_| {
                    node.disk().crash().files().iter().any(|(at, bytes)| *at == path && bytes.len() == 15)
                })
                .count()
        };
        node.disk().set_lies(true);
        write(&node.runtime()).await;
        assert_eq!(node.disk().counts().lies, 2);
        assert!(whole() < 100, "a power cut shows it");
        node.disk().set_lies(false);
        write(&node.runtime()).await;
        assert_eq!(whole(), 100, "an honest flush makes up for it");
        assert_eq!(node.disk().counts().lies, 2);
    });
}

/// What was flushed first is on the medium last: right after the other one, and from then on as safe as ever.
#[test]
fn flushes_that_are_swapped_take_effect_the_other_way_round() {
    sim::run(9, |node| async move {
        let disk = node.runtime().disk;
        let write = async |name: &str| {
            let file = disk.open(&Path::new(sim::DATA_DIR).join(name), OpenMode::CreateOrOpen).await.unwrap();
            file.write_at(0, vec![Bytes::from_static(b"kept")]).await.unwrap();
            file.sync_data().await.unwrap();
            disk.sync_dir(Path::new(sim::DATA_DIR)).await.unwrap();
        };
        // Whether a power cut always leaves a file of this name whole.
        let is_safe = |name: &str| {
            let is_whole = |_: &i32| {
                let crashed = node.disk().crash().files();
                crashed.iter().any(|(at, bytes)| at.ends_with(name) && bytes.len() == 4)
            };
            (0..100).all(|n| is_whole(&n))
        };
        node.disk().swap_flushes(Some(("first", "second")));
        write("a.first").await;
        assert!(!is_safe("a.first"), "it waits for the other");
        write("a.second").await;
        assert!(is_safe("a.second") && is_safe("a.first"));
        write("b.first").await;
        assert!(!is_safe("b.first"));
        node.disk().swap_flushes(None);
        assert!(is_safe("b.first"), "in order again, with all that waited");
    });
}

#[test]
fn a_slow_medium_is_slow_at_flushes_only() {
    sim::run(9, |node| async move {
        let runtime = node.runtime();
        let file =
            runtime.disk.open(&Path::new(sim::DATA_DIR).join("file"), OpenMode::CreateNew).await.unwrap();
        node.disk().set_flush_delay_max(ms(500));
        let began = runtime.clock.now();
        for at in 0..10 {
            file.write_at(at, vec![Bytes::from_static(b"a")]).await.unwrap();
        }
        assert_eq!(runtime.clock.now(), began);
        for _ in 0..10 {
            file.sync_data().await.unwrap();
        }
        assert!(runtime.clock.now() - began > ms(500));
    });
}

#[test]
fn a_boot_has_an_id_that_a_kill_leaves_and_a_power_cut_does_not() {
    sim::run(9, |node| async move {
        let boot = async || {
            let read = node.runtime().disk.read(Path::new("/proc/sys/kernel/random/boot_id")).await.unwrap();
            String::from_utf8(read.to_vec()).unwrap()
        };
        let first = boot().await;
        assert_eq!((first.len(), first.matches('-').count()), (37, 4), "{first}");
        node.disk().kill();
        assert_eq!(boot().await, first);
        node.disk().power_cut();
        assert_ne!(boot().await, first);
        assert!(node.disk().files().is_empty(), "it is no file of the disk");
    });
}

#[test]
fn a_clock_jumps_and_goes_on_from_there() {
    sim::run(9, |node| async move {
        let clock = node.runtime().clock;
        let before = clock.wall_ms();
        node.clock().jump_ms(3_600_000);
        node.clock().jump_ms(-600_000);
        clock.sleep(ms(5)).await;
        assert_eq!(clock.wall_ms() - before, 3_000_005);
    });
}
