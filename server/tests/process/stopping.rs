//! How a node ends.

use std::io::{ErrorKind, Write};
use std::net::TcpStream;

use crate::broker::Broker;

#[test]
fn sigterm_and_sigint_leave_in_order() {
    for signal in ["-TERM", "-INT"] {
        let dir = tempfile::tempdir().unwrap();
        let broker = Broker::start(dir.path(), &[]);
        let idle = TcpStream::connect(broker.kafka_address()).unwrap();
        broker.signal(signal);
        let ended = broker.ended();
        assert_eq!((ended.code, ended.signal), (Some(0), None), "{signal}: {}", ended.stderr);
        drop(idle);
    }
}

/// The mark of a stop in order is what the next start goes by.
#[test]
fn only_a_stop_in_order_spares_the_next_start_the_recovery() {
    let dir = tempfile::tempdir().unwrap();
    Broker::start(dir.path(), &[]).stop();
    let broker = Broker::start(dir.path(), &[]);
    broker.signal("-KILL");
    let after_stop = broker.ended();
    assert_eq!(after_stop.signal, Some(9));
    assert!(!after_stop.stderr.contains("unclean stop"), "{}", after_stop.stderr);
    let after_kill = Broker::start(dir.path(), &[]).stop();
    assert!(after_kill.stderr.contains("unclean stop"), "{}", after_kill.stderr);
}

#[test]
fn a_second_signal_ends_the_process_at_once() {
    for (signal, code) in [("-TERM", 143), ("-INT", 130)] {
        let dir = tempfile::tempdir().unwrap();
        let mut broker = Broker::start(dir.path(), &[]);
        let deaf = deaf_client(&broker.kafka_address());
        broker.signal("-TERM");
        broker.await_log("draining");
        broker.signal(signal);
        let ended = broker.ended();
        assert_eq!(ended.code, Some(code), "{}", ended.stderr);
        drop(deaf);
    }
}

/// A client that asks and never reads, until the node can neither send it an answer nor read another question: a drain
/// waits for such a one.
fn deaf_client(address: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_write_timeout(Some(std::time::Duration::from_millis(500))).unwrap();
    // ApiVersions, version 0, correlation id 0, client id "t".
    let request = [0, 0, 0, 11, 0, 18, 0, 0, 0, 0, 0, 0, 0, 1, b't'];
    let many = request.repeat(1000);
    loop {
        match stream.write(&many) {
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                return stream;
            }
            Err(error) => panic!("{error}"),
        }
    }
}
