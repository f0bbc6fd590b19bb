use ouzel_model::batch::{BatchBuilder, Codec, Header, RecordParts};
use ouzel_model::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, TimestampMs};

use super::super::Producers;
use super::{SnapshotError, Windows, encode, load};

const NOW: TimestampMs = TimestampMs(5000);
const LATER: TimestampMs = TimestampMs(9000);

fn append(producers: &mut Producers, id: i64, epoch: i16, sequence: i32, count: i64) {
    let offset = producers.end();
    let mut builder = BatchBuilder::new(Codec::None)
        .producer(ProducerId(id), ProducerEpoch(epoch), sequence)
        .place(offset, LeaderEpoch(0));
    for _ in 0..count {
        builder.push(TimestampMs(0x100 + offset.value()), &RecordParts::default());
    }
    producers.update(&Header::parse(&builder.build()).unwrap(), NOW);
}

fn two_producers() -> Producers {
    let mut producers = Producers::new(Offset(16));
    append(&mut producers, 0x0102, 3, 0, 2);
    append(&mut producers, 0x0102, 3, 2, 4);
    append(&mut producers, 0x0a, 0, 9, 1);
    producers
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|two| u8::from_str_radix(std::str::from_utf8(two).unwrap(), 16).unwrap()).collect()
}

/// The CRCs in the golden bytes below were computed by other programs' CRC-32C.
#[test]
fn golden_bytes() {
    let (snapshot, windows) = encode(&two_producers());
    let expected_snapshot = hex(
        "0001 CRCCRC__ 00000002
         000000000000000a 0000 00000009 0000000000000016 00000000 0000000000000116 ffffffff ffffffffffffffff
         0000000000000102 0003 00000005 0000000000000015 00000003 0000000000000112 ffffffff ffffffffffffffff"
            .replace("CRCCRC__", SNAPSHOT_CRC)
            .as_str(),
    );
    assert_eq!(snapshot, expected_snapshot);
    let expected_windows = hex(format!(
        "0001 {WINDOWS_CRC} {SNAPSHOT_CRC} 00000002
             000000000000000a 0000 0000000000001388 00
             0000000000000102 0003 0000000000001388 01 00000001 0000000000000011 00000001 0000000000000110"
    )
    .as_str());
    assert_eq!(windows, expected_windows);
}

const SNAPSHOT_CRC: &str = "f0fa98b9";
const WINDOWS_CRC: &str = "bb40f455";

#[test]
fn both_files_give_the_state_back() {
    let mut producers = two_producers();
    for i in 0..9 {
        append(&mut producers, 5, 1, i * 3, 3);
    }
    let (snapshot, windows) = encode(&producers);
    let (loaded, whole) = load(&snapshot, Some(&windows), producers.end(), LATER).unwrap();
    assert_eq!((loaded, whole), (producers, Windows::Whole));
}

#[test]
fn an_empty_state_has_its_bytes_too() {
    let producers = Producers::new(Offset(3));
    let (snapshot, windows) = encode(&producers);
    assert_eq!((snapshot.len(), windows.len()), (10, 14));
    let loaded = load(&snapshot, Some(&windows), Offset(3), LATER).unwrap();
    assert_eq!(loaded, (producers, Windows::Whole));
}

#[test]
fn without_windows_the_newest_batches_remain_and_a_walk_brings_the_others() {
    let producers = two_producers();
    let (snapshot, _) = encode(&producers);
    let (loaded, windows) = load(&snapshot, None, producers.end(), LATER).unwrap();
    assert_eq!(windows, Windows::NewestOnly(None));
    for (id, entry) in loaded.iter() {
        assert_eq!(entry.window[..], producers.get(id).unwrap().window[entry_len(&producers, id) - 1..]);
        assert_eq!(entry.last_seen, LATER, "nobody knows since when it is idle");
    }
    // A walk from the start of a log that has lost the first producer's batches to a trim.
    let mut walked = Producers::new(Offset(16));
    append(&mut walked, 0x0102, 3, 0, 2);
    append(&mut walked, 0x0102, 3, 2, 4);
    walked.adopt_missing(&loaded);
    assert_eq!(walked.get(ProducerId(0x0102)), producers.get(ProducerId(0x0102)));
    assert_eq!(walked.get(ProducerId(0x0a)), loaded.get(ProducerId(0x0a)));
}

fn entry_len(producers: &Producers, id: ProducerId) -> usize {
    producers.get(id).unwrap().window.len()
}

#[test]
fn windows_of_another_snapshot_are_left_aside() {
    let mut producers = two_producers();
    let (_, old_windows) = encode(&producers);
    append(&mut producers, 0x0a, 0, 10, 1);
    let (snapshot, _) = encode(&producers);
    let (loaded, windows) = load(&snapshot, Some(&old_windows), producers.end(), LATER).unwrap();
    assert!(matches!(windows, Windows::NewestOnly(Some(SnapshotError::OtherSnapshot { .. }))), "{windows:?}");
    assert_eq!(loaded.get(ProducerId(0x0102)).unwrap().window.len(), 1);
}

#[test]
fn every_flipped_bit_and_every_cut_is_noticed() {
    let producers = two_producers();
    let (snapshot, windows) = encode(&producers);
    let end = producers.end();
    for at in 0..snapshot.len() * 8 {
        let mut bad = snapshot.clone();
        bad[at / 8] ^= 1 << (at % 8);
        assert!(load(&bad, None, end, NOW).is_err(), "bit {at} of the snapshot");
    }
    for at in 0..windows.len() * 8 {
        let mut bad = windows.clone();
        bad[at / 8] ^= 1 << (at % 8);
        let (_, found) = load(&snapshot, Some(&bad), end, NOW).unwrap();
        assert!(matches!(found, Windows::NewestOnly(Some(_))), "bit {at} of the windows");
    }
    for len in 0..snapshot.len() {
        assert!(load(&snapshot[..len], None, end, NOW).is_err(), "{len} bytes of the snapshot");
    }
    for len in 0..windows.len() {
        let (_, found) = load(&snapshot, Some(&windows[..len]), end, NOW).unwrap();
        assert!(matches!(found, Windows::NewestOnly(Some(_))), "{len} bytes of the windows");
    }
}

/// With a CRC that is right, as an attacker or a bug would write it.
#[test]
fn lies_under_a_right_checksum_are_bounded() {
    let (snapshot, windows) = encode(&two_producers());
    let end = two_producers().end();
    let lie = |bytes: &[u8], at: usize, lie: &[u8]| {
        let mut bytes = bytes.to_vec();
        bytes[at..at + lie.len()].copy_from_slice(lie);
        super::seal(bytes)
    };
    for count in [i32::MAX, i32::MIN, -1, 0, 1, 3] {
        let error = load(&lie(&snapshot, 6, &count.to_be_bytes()), None, end, NOW).unwrap_err();
        assert!(matches!(error, SnapshotError::Size { .. }), "{count} producers: {error}");
    }
    for (what, at) in [("last offset", 24), ("offset delta", 32)] {
        let error = load(&lie(&snapshot, at, &[0x7f]), None, end, NOW).unwrap_err();
        assert!(matches!(error, SnapshotError::Field { position: 24, .. }), "{what}: {error}");
    }
    let twice = lie(&snapshot, 56, &snapshot[10..18]);
    assert!(matches!(load(&twice, None, end, NOW), Err(SnapshotError::Field { position: 56, .. })));

    for (what, at, value) in [
        ("count", 10, &i32::MAX.to_be_bytes()[..]),
        ("id", 14, &[1]),
        ("epoch", 22, &[1]),
        ("batches of the first", 32, &[1]),
        ("batches of the second", 51, &[255]),
        ("batch behind the newest", 56, &[1]),
    ] {
        let (_, found) = load(&snapshot, Some(&lie(&windows, at, value)), end, NOW).unwrap();
        assert!(matches!(found, Windows::NewestOnly(Some(_))), "{what}");
    }
    let longer = super::seal([&windows[..], &[0]].concat());
    let (_, found) = load(&snapshot, Some(&longer), end, NOW).unwrap();
    assert!(matches!(found, Windows::NewestOnly(Some(SnapshotError::Size { .. }))));
}
