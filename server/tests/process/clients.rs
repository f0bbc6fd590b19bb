//! Clients that write and commit while something happens to their cluster, and what must be there afterwards.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use ouzel_client::groups::Committed;
use ouzel_client::{NewRecord, Producer, ProducerConfig};
use ouzel_model::Offset;

use crate::cluster::{Cluster, with_client};

/// What they write to, and commit progress of: partition 0 of it.
pub(crate) const TOPIC: &str = "t";
pub(crate) const OFFSETS: &str = "__consumer_offsets";
const GROUP: &str = "g";
/// Values stored and offsets committed before anything happens.
const ENOUGH: usize = 20;

/// Commits that group's progress once.
pub(crate) fn commit(bootstrap: &str, offset: i64) {
    with_client(bootstrap, async move |client, _| {
        let progress = Committed { offset: Offset(offset), leader_epoch: -1, metadata: String::new() };
        client.commit_offsets(GROUP, &BTreeMap::from([((TOPIC.to_owned(), 0), progress)])).await.unwrap();
    });
}

fn committed(bootstrap: &str) -> i64 {
    with_client(bootstrap, async |client, _| {
        client.committed_offsets(GROUP).await.unwrap()[&(TOPIC.to_owned(), 0)].offset.value()
    })
}

/// What clients did while something happened.
pub(crate) struct Done {
    pub(crate) values: Vec<String>,
    pub(crate) committed: i64,
}

/// Tells the clients to stop, also when what happened went wrong.
pub(crate) struct Over(pub(crate) Arc<AtomicBool>);

impl Drop for Over {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Writes numbered values, each in a batch of its own, and commits how far it is, one after the other, while `change` happens:
/// both are at work by then.
pub(crate) fn under_clients(cluster: &mut Cluster, change: impl FnOnce(&mut Cluster)) -> Done {
    let bootstrap = cluster.bootstrap();
    let is_over = Arc::new(AtomicBool::new(false));
    let (until, committer_until) = (is_over.clone(), is_over.clone());
    let (tell_stored, stored) = channel();
    let (tell_committed, committed) = channel();
    thread::scope(|scope| {
        let producing = scope.spawn({
            let bootstrap = bootstrap.clone();
            move || {
                with_client(&bootstrap, async move |client, _| {
                    let config =
                        ProducerConfig { ack_timeout: Duration::from_secs(5), ..ProducerConfig::default() };
                    assert!(config.idempotent);
                    let mut producer = Producer::new(&client, config);
                    let mut values = Vec::new();
                    while !until.load(Ordering::Relaxed) {
                        let value = format!("value-{}", values.len());
                        let record = NewRecord {
                            value: Some(value.clone().into()),
                            partition: Some(0),
                            ..NewRecord::default()
                        };
                        producer.send(TOPIC, vec![record]).await.unwrap();
                        values.push(value);
                        // Nobody listens any more once there are enough.
                        let _ = tell_stored.send(());
                    }
                    values
                })
            }
        });
        let committing = scope.spawn(move || {
            with_client(&bootstrap, async move |client, _| {
                let mut offset = 0;
                while !committer_until.load(Ordering::Relaxed) {
                    offset += 1;
                    let progress =
                        Committed { offset: Offset(offset), leader_epoch: -1, metadata: String::new() };
                    let offsets = BTreeMap::from([((TOPIC.to_owned(), 0), progress)]);
                    client.commit_offsets(GROUP, &offsets).await.unwrap();
                    let _ = tell_committed.send(());
                }
                offset
            })
        });
        let over = Over(is_over);
        for at_work in [stored, committed] {
            assert_eq!(at_work.iter().take(ENOUGH).count(), ENOUGH, "the clients have something to do");
        }
        change(cluster);
        drop(over);
        Done {
            values: producing.join().expect("every value is stored in the end"),
            committed: committing.join().expect("every offset is committed in the end"),
        }
    })
}

/// Every record is there, once and in order, on every replica, and so is the group's progress.
pub(crate) fn check(cluster: &Cluster, done: &Done) {
    let read = cluster.read_all(TOPIC);
    assert_eq!(read.len(), done.values.len());
    assert_eq!(read, done.values);
    assert_eq!(committed(&cluster.bootstrap()), done.committed);
}
