//! A node killed in the middle of its work: what it has acknowledged is there when it comes back.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use ouzel_protocol::ErrorCode;
use ouzel_protocol::sample::sequence;

use crate::support::process::{Process, Starting};
use crate::support::records::{batch, batch_of_bytes, records};
use crate::support::wire::{Wire, produce_request};
use crate::support::{await_some, await_that};

const TOPIC: &str = "kept";
const PARTITIONS: i32 = 3;

/// What producers were told: value by partition and offset.
type Acknowledged = BTreeMap<(i32, i64), String>;

/// What a node's logs hold, read from their beginnings: value by partition and offset.
fn stored(wire: &mut Wire) -> Acknowledged {
    let mut found = Acknowledged::new();
    for partition in 0..PARTITIONS {
        let mut from = 0;
        loop {
            let fetched = wire.fetch(TOPIC, partition, from);
            let records = records(&fetched);
            let Some((last, _)) = records.last() else {
                assert_eq!(from, fetched.high_watermark, "the high watermark lies beyond what can be read");
                break;
            };
            from = last + 1;
            found.extend(records.into_iter().map(|(offset, value)| ((partition, offset), value)));
        }
    }
    found
}

/// The checker: whatever was acknowledged is stored, where it was said to be; offsets leave no gap.
fn missing(acknowledged: &Acknowledged, stored: &Acknowledged) -> Vec<String> {
    let lost = acknowledged.iter().filter(|(at, value)| stored.get(at) != Some(value));
    let lost = lost.map(|(at, value)| format!("{value} at {at:?} is {:?}", stored.get(at)));
    let gaps = stored
        .keys()
        .filter(|(partition, offset)| *offset > 0 && !stored.contains_key(&(*partition, offset - 1)));
    lost.chain(gaps.map(|at| format!("nothing before {at:?}"))).collect()
}

/// One producer that sends until its connection breaks, and notes what it was told.
fn produce_until_broken(mut wire: Wire, name: String, acks: i16, acknowledged: &AtomicUsize) -> Acknowledged {
    let mut told = Acknowledged::new();
    for turn in 0.. {
        let partition = turn % PARTITIONS;
        let values: Vec<_> = (0..3).map(|part| format!("{name}.{turn}.{part}")).collect();
        let values: Vec<&str> = values.iter().map(String::as_str).collect();
        wire.send(9, produce_request(TOPIC, partition, acks, batch(&values)));
        let Ok(frame) = wire.receive_frame() else { break };
        let (_, body) =
            ouzel_protocol::header::decode_response(ouzel_protocol::ApiKey::Produce.api(), 9, &frame)
                .unwrap();
        let answer = ouzel_protocol::messages::produce::ProduceResponse::decode(9, &body).unwrap();
        let stored = &answer.topics[0].partitions[0];
        assert_eq!(stored.error_code, 0, "{:?}", stored.error_message);
        let offsets = stored.base_offset..;
        told.extend(offsets.zip(values).map(|(at, value)| ((partition, at), value.to_owned())));
        acknowledged.fetch_add(1, Ordering::Relaxed);
    }
    told
}

/// Lets producers work until they have had `enough` acknowledgements, and kills the node.
fn produce_and_kill(node: &mut Process, round: usize, enough: usize) -> Acknowledged {
    let count = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let producers: Vec<_> = [-1, 1, -1]
            .into_iter()
            .enumerate()
            .map(|(at, acks)| {
                let (wire, count) = (node.connect(), &count);
                scope.spawn(move || produce_until_broken(wire, format!("{round}-{at}"), acks, count))
            })
            .collect();
        while count.load(Ordering::Relaxed) < enough {
            assert!(producers.iter().any(|producer| !producer.is_finished()), "the producers gave up");
            std::thread::yield_now();
        }
        node.kill();
        producers.into_iter().flat_map(|producer| producer.join().unwrap()).collect()
    })
}

fn leader_epochs(wire: &mut Wire) -> Vec<i32> {
    use ouzel_protocol::messages::kafka::MetadataRequest;
    use ouzel_protocol::messages::kafka::metadata_request::MetadataRequestTopic;
    let asked = MetadataRequestTopic::default().with_name(Some(crate::support::wire::name(TOPIC)));
    let mut answer = wire.call(9, MetadataRequest::default().with_topics(Some(vec![asked])));
    let mut partitions = answer.topics.remove(0).partitions;
    partitions.sort_by_key(|partition| partition.partition_index);
    partitions.iter().map(|partition| partition.leader_epoch).collect()
}

/// Kills a node of one durability mode over and over, with another number of cores each time.
fn survives_kills(durability: &str, blocking: bool) {
    let dir = tempfile::tempdir().unwrap();
    let starting = |cores: u16| {
        let starting = Starting::new().cores(cores);
        if blocking { starting.blocking() } else { starting }
    };
    let mut node = starting(1).start(dir.path());
    // Small segments, so that kills meet rolls as well.
    node.connect().create(
        TOPIC,
        PARTITIONS,
        &[("ouzel.durability", durability), ("segment.bytes", "1048576")],
    );
    let mut acknowledged = Acknowledged::new();
    let mut epochs = leader_epochs(&mut node.connect());
    let mut random = sequence(durability.len() as u64);
    for round in 0..4 {
        acknowledged.extend(produce_and_kill(&mut node, round, 20 + (random() % 150) as usize));
        node = starting(1 + ((round as u16 + 1) % 2)).start(dir.path());
        let mut wire = node.connect();
        let stored = stored(&mut wire);
        assert_eq!(missing(&acknowledged, &stored), [""; 0], "{durability}, round {round}");
        assert!(acknowledged.len() >= 20, "the test is about something");
        let risen = leader_epochs(&mut wire);
        assert!(epochs.iter().zip(&risen).all(|(before, now)| before < now), "{epochs:?} then {risen:?}");
        epochs = risen;
    }
    node.stop();
    let node = starting(2).start(dir.path());
    assert_eq!(missing(&acknowledged, &stored(&mut node.connect())), [""; 0], "{durability}, after a stop");
}

#[test]
fn nothing_acknowledged_is_lost_to_kills_in_durable() {
    survives_kills("durable", false);
}

#[test]
fn nothing_acknowledged_is_lost_to_kills_in_write_caching() {
    survives_kills("write-caching", false);
}

#[test]
fn nothing_acknowledged_is_lost_to_kills_in_os() {
    survives_kills("os", false);
}

#[test]
fn nothing_acknowledged_is_lost_to_kills_on_the_blocking_disk() {
    survives_kills("durable", true);
}

/// Shows that the checker sees each kind of loss: it is given logs with one planted.
#[test]
fn the_checker_sees_what_is_planted() {
    let of = |values: &[(i32, i64, &str)]| -> Acknowledged {
        values.iter().map(|(partition, offset, value)| ((*partition, *offset), (*value).to_owned())).collect()
    };
    let told = of(&[(0, 0, "a"), (0, 1, "b"), (1, 0, "c")]);
    assert_eq!(missing(&told, &told), [""; 0]);
    let more = of(&[(0, 0, "a"), (0, 1, "b"), (0, 2, "unacknowledged"), (1, 0, "c")]);
    assert_eq!(missing(&told, &more), [""; 0], "more than was acknowledged is no loss");
    let planted = [
        ("acknowledged before it was written", of(&[(0, 0, "a"), (1, 0, "c")])),
        ("an offset lent out twice", of(&[(0, 0, "a"), (0, 1, "another"), (1, 0, "c")])),
        ("a duplicate accepted", of(&[(0, 0, "a"), (0, 1, "a"), (0, 2, "b"), (1, 0, "c")])),
        ("a hole", of(&[(0, 0, "a"), (0, 1, "b"), (0, 3, "d"), (1, 0, "c")])),
    ];
    for (what, stored) in planted {
        assert_ne!(missing(&told, &stored), [""; 0], "{what}");
    }
}

/// Shows the same on a whole node: acknowledged bytes are taken off the end of a killed node's log, as if they had
/// been acknowledged before they were written.
#[test]
fn an_acknowledgement_ahead_of_the_disk_would_be_caught() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Starting::new().start(dir.path());
    node.connect().create(TOPIC, PARTITIONS, &[("ouzel.durability", "os")]);
    let acknowledged = produce_and_kill(&mut node, 0, 30);
    let log = dir.path().join(format!("{TOPIC}-1/00000000000000000000.log"));
    let file = std::fs::OpenOptions::new().write(true).open(&log).unwrap();
    let held = acknowledged.keys().filter(|(partition, _)| *partition == 1).count();
    assert!(held > 3, "there is something to lose");
    file.set_len(100).unwrap();
    let node = Starting::new().start(dir.path());
    assert_ne!(missing(&acknowledged, &stored(&mut node.connect())), [""; 0]);
}

/// A small file system in memory; gone with its owner.
struct SmallDisk {
    at: PathBuf,
    _dir: tempfile::TempDir,
}

impl SmallDisk {
    /// `None` where this process may not mount.
    fn mount(mib: u64) -> Option<SmallDisk> {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().to_owned();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={mib}m"), "tmpfs"])
            .arg(&at)
            .stderr(std::process::Stdio::null())
            .status();
        mounted.is_ok_and(|status| status.success()).then_some(SmallDisk { at, _dir: dir })
    }

    /// Makes room.
    fn grow(&self, mib: u64) {
        let options = format!("remount,size={mib}m");
        assert!(Command::new("mount").args(["-o", &options]).arg(&self.at).status().unwrap().success());
    }

    fn path(&self) -> &Path {
        &self.at
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // A mount that stays is seen by whoever looks; the test's verdict stands.
        let _ = Command::new("umount").arg("-l").arg(&self.at).status();
    }
}

#[test]
fn a_full_disk_refuses_appends_and_recovers_without_a_restart() {
    // The node wants 64 MiB to stay free.
    let Some(disk) = SmallDisk::mount(100) else {
        eprintln!("skipped: this process may not mount a small file system");
        return;
    };
    let mut node = Starting::new().start(&disk.path().join("data"));
    let mut wire = node.connect();
    wire.create(TOPIC, PARTITIONS, &[]);
    assert_eq!(wire.store(TOPIC, 0, batch(&["before"])), 0);

    let ballast = disk.path().join("ballast");
    std::fs::write(&ballast, vec![0; 60 << 20]).unwrap();
    let refused = await_some("it is full", || {
        Some(wire.produce(TOPIC, 0, batch(&["x"])).error_code).filter(|code| *code != 0)
    });
    assert_eq!(refused, ErrorCode::KafkaStorageError.code());
    node.await_log("the disk is nearly full");
    let held = records(&wire.fetch(TOPIC, 0, 0));
    assert_eq!(held[0], (0, "before".to_owned()), "reads go on");

    std::fs::remove_file(&ballast).unwrap();
    await_that("there is room again", || wire.produce(TOPIC, 0, batch(&["after"])).error_code == 0);
    node.await_log("the disk has room again");
    let after = records(&wire.fetch(TOPIC, 0, 0));
    assert_eq!(&after[..held.len()], held, "nothing was lost");
    assert_eq!(after.last().unwrap().1, "after");
    node.assert_alive();
}

/// A writer may be faster than the look at the free space: what the file system itself refuses is no loss either.
#[test]
fn a_disk_that_fills_faster_than_it_is_watched_loses_nothing_acknowledged() {
    let Some(disk) = SmallDisk::mount(90) else {
        eprintln!("skipped: this process may not mount a small file system");
        return;
    };
    let starting = Starting::new().set("log.ouzel.durability", "os");
    let mut node = starting.start(&disk.path().join("data"));
    let mut wire = node.connect();
    wire.create(TOPIC, PARTITIONS, &[]);
    let (mut acknowledged, mut refused) = (0, 0);
    // It is judged by what it says no to, not by when: the look at the free space may well come first.
    while refused < 50 && acknowledged < 1_000 {
        match wire.produce(TOPIC, 0, batch_of_bytes(900_000)).error_code {
            0 => acknowledged += 1,
            _ => refused += 1,
        }
    }
    assert_eq!(refused, 50, "the disk was never full");
    assert!(acknowledged > 10);
    node.assert_alive();
    assert_eq!(wire.fetch(TOPIC, 0, 0).error_code, 0, "reads go on");
    assert!(wire.fetch(TOPIC, 0, 0).high_watermark >= acknowledged);
    node.kill();
    disk.grow(300);
    let node = starting.start(&disk.path().join("data"));
    let high_watermark = node.connect().fetch(TOPIC, 0, 0).high_watermark;
    assert!(high_watermark >= acknowledged, "{acknowledged} were acknowledged, {high_watermark} are there");
}
