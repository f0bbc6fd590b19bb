//! Cores live and die together, speak by mailbox, and hand connections over.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use ouzel_runtime::cores::{self, CoresConfig, CoresError};
use ouzel_runtime::disk::{BackendChoice, OpenMode};
use ouzel_runtime::mailbox::{self, MailReceiver, MailSender};
use ouzel_runtime::net::Handoff;
use ouzel_runtime::{CoreId, Runtime, limits, spawn};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn two_cores() -> CoresConfig {
    CoresConfig { count: 2, ..CoresConfig::default() }
}

fn failure(ended: Result<(), CoresError>) -> (CoreId, String) {
    match ended {
        Err(CoresError::Core(failure)) => (failure.core, failure.reason),
        other => panic!("expected a core's failure, got {other:?}"),
    }
}

#[test]
fn every_core_runs_once_and_knows_its_number() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let note = seen.clone();
    cores::run(&two_cores(), move |runtime| {
        let note = note.clone();
        async move {
            note.lock().unwrap().push((runtime.core.0, runtime.core_count));
            Ok(())
        }
    })
    .unwrap();
    let mut seen = seen.lock().unwrap().clone();
    seen.sort_unstable();
    assert_eq!(seen, [(0, 2), (1, 2)]);
}

#[test]
fn pinned_cores_run_too() {
    let config = CoresConfig { pin: true, ..two_cores() };
    cores::run(&config, |_| async { Ok(()) }).unwrap();
}

#[test]
fn a_panic_in_one_cores_task_ends_all_cores() {
    let ended = cores::run(&two_cores(), |runtime| async move {
        if runtime.core == CoreId(1) {
            // The handle is dropped: nobody but the core itself can notice.
            drop(spawn(async { panic!("the roof fell") }));
        }
        std::future::pending().await
    });
    assert_eq!(failure(ended), (CoreId(1), "panic: the roof fell".into()));
}

#[test]
fn an_error_of_one_core_ends_all_cores() {
    let ended = cores::run(&two_cores(), |runtime| async move {
        if runtime.core == CoreId(0) {
            return Err("no more".into());
        }
        std::future::pending().await
    });
    assert_eq!(failure(ended), (CoreId(0), "no more".into()));
}

#[test]
fn stop_ends_cores_that_wait_forever() {
    let start = || cores::start(&two_cores(), vec![(), ()], |_, ()| std::future::pending()).unwrap();
    let cores = start();
    cores.stop();
    cores.join().unwrap();
    let cores = start();
    let stopper = cores.stopper();
    let other = std::thread::spawn(move || stopper.stop());
    cores.join().unwrap();
    other.join().unwrap();
}

#[test]
fn mail_arrives_in_order_and_a_lone_receiver_sees_the_end() {
    const MESSAGES: u32 = 10_000;
    type Input = (Option<MailSender<u32>>, Option<MailReceiver<u32>>);
    let (sender, receiver) = mailbox::channel();
    let inputs: Vec<Input> = vec![(Some(sender), None), (None, Some(receiver))];
    let main = |_: Runtime, (sender, receiver): Input| async move {
        if let Some(sender) = sender {
            for n in 0..MESSAGES {
                sender.send(n)?;
                if n % 100 == 0 {
                    ouzel_runtime::yield_now().await;
                }
            }
        }
        if let Some(mut receiver) = receiver {
            let mut all = Vec::new();
            while receiver.recv_many(&mut all).await > 0 {}
            assert!(all.into_iter().eq(0..MESSAGES));
        }
        Ok(())
    };
    cores::start(&two_cores(), inputs, main).unwrap().join().unwrap();
}

#[test]
fn mail_to_nobody_comes_back() {
    let (sender, receiver) = mailbox::channel();
    drop(receiver);
    assert_eq!(sender.send(7).unwrap_err().0, 7);
}

#[test]
fn a_connection_moves_to_another_core() {
    type Input = (Option<MailSender<Handoff>>, Option<MailReceiver<Handoff>>);
    let (sender, receiver) = mailbox::channel();
    let inputs: Vec<Input> = vec![(Some(sender), None), (None, Some(receiver))];
    let main = |runtime: Runtime, (sender, receiver): Input| async move {
        if let Some(sender) = sender {
            let listener = runtime.net.listen("127.0.0.1:0").await?;
            let address = listener.local_addr()?.to_string();
            let (client, accepted) = tokio::join!(runtime.net.connect(&address), listener.accept());
            sender.send(accepted?.0.into_handoff()?)?;
            let mut client = client?;
            client.write_all(b"ping").await?;
            let mut answer = [0; 4];
            client.read_exact(&mut answer).await?;
            assert_eq!(&answer, b"PING");
        }
        if let Some(mut receiver) = receiver {
            let mut arrived = Vec::new();
            receiver.recv_many(&mut arrived).await;
            let mut stream = arrived.pop().ok_or("no connection came")?.into_stream()?;
            let mut word = [0; 4];
            stream.read_exact(&mut word).await?;
            word.make_ascii_uppercase();
            stream.write_all(&word).await?;
        }
        Ok(())
    };
    cores::start(&two_cores(), inputs, main).unwrap().join().unwrap();
}

#[test]
fn a_second_listener_on_the_port_fails() {
    cores::run_one(BackendChoice::Auto, &[], |runtime| async move {
        let first = runtime.net.listen("127.0.0.1:0").await.unwrap();
        let address = first.local_addr().unwrap().to_string();
        let error = runtime.net.listen(&address).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
        drop(first);
        runtime.net.listen(&address).await.unwrap();
    })
    .unwrap();
}

#[test]
fn a_timeout_drops_what_it_waited_for() {
    cores::run_one(BackendChoice::Auto, &[], |runtime| async move {
        let started = runtime.clock.now();
        let never = std::future::pending::<()>();
        assert!(runtime.clock.timeout(Duration::from_millis(1), never).await.is_err());
        assert!(runtime.clock.now() > started);
        assert!(runtime.clock.wall_ms() > 1_600_000_000_000);
    })
    .unwrap();
}

#[test]
fn no_cores_is_an_error() {
    let config = CoresConfig { count: 0, ..CoresConfig::default() };
    let error = cores::start(&config, Vec::<()>::new(), |_, ()| async { Ok(()) }).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
    assert!(limits::raise_open_files().unwrap() > 0);
}

/// Under saturation a core never parks, and its ring must be served all the same.
#[test]
fn files_are_served_on_a_core_that_is_never_idle() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    for backend in [BackendChoice::Auto, BackendChoice::Blocking] {
        let path = path.clone();
        cores::run_one(backend, &[], |runtime| async move {
            let file = runtime.disk.open(&path, OpenMode::CreateOrOpen).await.unwrap();
            file.write_at(0, vec![Bytes::from_static(b"served")]).await.unwrap();
            let served = Rc::new(Cell::new(false));
            let done = served.clone();
            let reader = spawn(async move {
                let read = file.read_at(0, 6).await;
                done.set(true);
                read
            });
            let spinner = spawn(async move {
                while !served.get() {
                    ouzel_runtime::yield_now().await;
                }
            });
            // A ring that is never served would let the spinner turn for ever.
            runtime.clock.timeout(Duration::from_secs(30), spinner).await.unwrap().unwrap();
            assert_eq!(reader.await.unwrap().unwrap(), "served");
        })
        .unwrap();
    }
}
