//! Compaction in a group: each replica cleans its own log, as far as what it holds is no entry any more.

mod cluster;

use std::collections::BTreeMap;

use bytes::BytesMut;
use cluster::{NOW, run};
use ouzel_model::Offset;
use ouzel_model::batch::{BatchBuilder, Codec, RecordParts, RecordStream, batches};
use ouzel_raft::{RaftGroup, ReplicatedLog};
use ouzel_storage::LogConfig;
use ouzel_storage::compaction::{Cleaner, CleanerConfig, CompactionRules};

fn keyed(key: u64, value: u64) -> BytesMut {
    let mut builder = BatchBuilder::new(Codec::None);
    let (key, value) = (key.to_string(), value.to_string());
    let parts = RecordParts { key: Some(key.as_bytes()), value: Some(value.as_bytes()), headers: &[] };
    builder.push(NOW, &parts);
    BytesMut::from(&builder.build()[..])
}

/// What a reader of a replica ends up with, and how many records it read.
async fn state(group: &RaftGroup) -> (BTreeMap<Vec<u8>, Vec<u8>>, usize) {
    let offsets = group.offsets();
    let (mut state, mut count, mut from) = (BTreeMap::new(), 0, offsets.log_start);
    while from < offsets.high_watermark {
        let read =
            group.local().read(from, offsets.high_watermark, 1 << 20, true).await.expect("a sound disk");
        for batch in read.batches.iter().flat_map(|slice| batches(slice)) {
            let batch = batch.expect("whole");
            batch.verify_crc().expect("unharmed");
            from = batch.header.next_offset();
            for record in RecordStream::new(&batch, 1 << 20).expect("a codec") {
                let record = record.expect("sound");
                state.insert(record.key.expect("a key"), record.value.expect("a value"));
                count += 1;
            }
        }
    }
    (state, count)
}

#[test]
fn each_replica_compacts_what_is_no_entry_any_more() {
    run(7, 3, |cluster| async move {
        *cluster.log_config.borrow_mut() =
            LogConfig { segment_bytes: 800, retention_ms: None, ..LogConfig::default() };
        cluster.found().await;
        for value in 0..120 {
            cluster.produce(keyed(value % 5, value)).await;
        }
        cluster.settled().await;
        let leader = cluster.leader().await;
        let cleaner = |id: i32| Cleaner::new(cluster.node(id).machine().runtime(), CleanerConfig::default());
        let rules = CompactionRules::default();
        for id in cluster.ids() {
            let bound = cluster.group(id).offsets().high_watermark;
            let log = cluster.group(id).local().clone();
            let done = log.compact(&cleaner(id), &rules, bound, NOW).await.expect("a sound disk");
            assert_eq!(done, None, "replica {id}: all of it are entries");
        }
        leader.retain(Offset::ZERO).await.expect("it leads");
        cluster
            .eventually("a purge of most on each", |cluster| {
                cluster.ids().iter().all(|id| cluster.group(*id).local().purged_end() > Offset(100))
            })
            .await;
        let expected: BTreeMap<_, _> =
            (115..120u64).map(|v| ((v % 5).to_string().into_bytes(), v.to_string().into_bytes())).collect();
        for id in cluster.ids() {
            let log = cluster.group(id).local().clone();
            let bound = cluster.group(id).offsets().high_watermark;
            let done = log.compact(&cleaner(id), &rules, bound, NOW).await.expect("a sound disk");
            let done = done.expect("what was purged");
            assert!(done.to <= log.purged_end(), "replica {id}: {done:?}");
            let (found, records) = state(&cluster.group(id)).await;
            assert_eq!(found, expected, "replica {id}");
            assert!(records < 60, "replica {id} still has {records} records");
        }

        // A follower comes back over its compacted log, and the others elect one of them when the leader goes.
        let follower = cluster.others(&leader)[0];
        cluster.kill(follower);
        cluster.start(follower).await;
        cluster.settled().await;
        assert_eq!(state(&cluster.group(follower)).await.0, expected);
        cluster.power_cut(leader.replica().node.0);
        cluster.produce(keyed(0, 1000)).await;
        let next = cluster.leader().await;
        let (found, _) = state(&next).await;
        assert_eq!(found.get(&b"0"[..]), Some(&b"1000".to_vec()));
        assert_eq!(found.len(), 5);
    });
}
