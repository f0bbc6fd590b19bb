//! What a node may use of the machine's memory, whatever is sent to it.

use std::thread;
use std::time::Duration;

use ouzel_client::{Acks, NewRecord, OffsetSpec, Producer, ProducerConfig};

use crate::broker::Broker;
use crate::cluster::with_client;

const MIB: u64 = 1 << 20;
/// With 64 MiB of `--memory`. The allocator keeps about as much for itself as is in use: pieces between large buffers.
const GROWN_MAX_BYTES: u64 = 160 * MIB;
const PRODUCERS: i32 = 16;
const VALUE_BYTES: usize = 512 << 10;
/// A connection that waited too long for memory, or whose request took too long to arrive, is ended with what was on it: on a
/// machine that is busy with something else that happens, nothing was promised, and it is sent again.
const ROUNDS_MAX: usize = 20;
/// Of each producer: five times what the node may use, all together.
const VALUES: i64 = 40;

/// Batches with acks=0 gave the memory of their requests back as soon as they had their places, and waited for the disk outside
/// of every bound: a node with 512 MiB grew to 1.2 GiB under sixteen producers that did not wait for it. They hold it until
/// they are written now, and the sockets are what waits.
#[test]
fn producers_that_want_no_answer_do_not_fill_the_memory() {
    let dir = tempfile::tempdir().unwrap();
    let arguments = ["--memory", "64MiB", "--set", &format!("num.partitions={PRODUCERS}")];
    let broker = Broker::start(dir.path(), &arguments);
    let bootstrap = broker.kafka_address();
    let before = broker.memory_bytes();
    let producers: Vec<_> = (0..PRODUCERS)
        .map(|partition| {
            let bootstrap = bootstrap.clone();
            thread::spawn(move || {
                with_client(&bootstrap, async move |client, _| {
                    let config =
                        ProducerConfig { acks: Acks::None, create_topics: true, ..ProducerConfig::default() };
                    let mut producer = Producer::new(&client, config);
                    let at = ("t".to_owned(), partition);
                    let (mut sent, mut end) = (0, 0);
                    for _ in 0..ROUNDS_MAX {
                        for _ in end..VALUES {
                            let value = Some(vec![b'x'; VALUE_BYTES].into());
                            let record =
                                NewRecord { value, partition: Some(partition), ..NewRecord::default() };
                            producer.send("t", vec![record]).await.unwrap();
                            sent += 1;
                        }
                        // On the same connection, so behind them all.
                        let wanted = [(at.0.clone(), partition, OffsetSpec::Latest)];
                        let found = client.list_offsets(&wanted).await.unwrap()[&at].offset;
                        end = found.expect("it has an end").value();
                        assert!(end <= sent, "{end} of {sent}: each is stored once at most");
                        if end >= VALUES {
                            return;
                        }
                    }
                    panic!("{end} of {sent} are stored");
                })
            })
        })
        .collect();
    let mut most = before;
    while !producers.iter().all(thread::JoinHandle::is_finished) {
        most = most.max(broker.memory_bytes());
        thread::sleep(Duration::from_millis(2));
    }
    producers.into_iter().for_each(|producer| producer.join().expect("all is stored"));
    let grown = most - before;
    assert!(grown < GROWN_MAX_BYTES, "{} MiB more than at first", grown / MIB);
}
