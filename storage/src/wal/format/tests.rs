use std::path::Path;

use super::super::replay::parse_file;
use super::*;

fn key(n: u8) -> TopicIdPartition {
    TopicIdPartition { topic_id: TopicId([n; 16]), partition: PartitionIndex(i32::from(n)) }
}

fn state(epoch: i32) -> SoloState {
    SoloState {
        incarnation: 2,
        leader_epoch: LeaderEpoch(epoch),
        flushed: Offset(0x0102),
        boot: BootId([0xb0; 16]),
        closed_at: None,
    }
}

const PLACEMENT: Placement = Placement { generation: 9, core: 1, core_count: 4 };

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|two| u8::from_str_radix(std::str::from_utf8(two).unwrap(), 16).unwrap()).collect()
}

/// The CRCs were computed by another program.
#[test]
fn golden_bytes() {
    let file = encode_file(PLACEMENT, 70, [(key(7), Kept::Solo(state(5)))].into_iter());
    let expected = hex("4f555a454c57414c 00000002 b6e06e7c
         9f158f32 0000005a 0000000000000046
         03 0000000000000009 0001 0004 00000001
         01 07070707070707070707070707070707 00000007 0000000000000002 00000005 0000000000000102
            b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0 ffffffffffffffff");
    assert_eq!(file.bytes, expected);
    assert_eq!(file.sequence_next, 71);

    let frames =
        encode_frames(71, &[Change::Put(key(7), state(5).closed(Offset(3))), Change::Remove(key(1))]);
    let expected = hex("8c384cf4 0000005e 0000000000000047
         01 07070707070707070707070707070707 00000007 0000000000000002 00000005 0000000000000003
            b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0 0000000000000003
         02 01010101010101010101010101010101 00000001");
    assert_eq!(frames.bytes, expected);
}

fn group() -> GroupState {
    GroupState {
        replica: ReplicaId { node: ouzel_model::NodeId(3), incarnation: 2 },
        term: LeaderEpoch(6),
        voted_for: Some(ReplicaId::first(ouzel_model::NodeId(1))),
        vote_committed: true,
        committed: Some(EntryId { term: LeaderEpoch(5), index: EntryIndex(0x0203) }),
        purged: None,
        membership_at_purge: Bytes::from_static(b"us"),
        flushed: Offset(0x0102),
        is_durable: true,
        boot: BootId([0xb0; 16]),
        closed_at: None,
    }
}

#[test]
fn a_groups_golden_bytes_read_back() {
    let change = Change::PutGroup(key(7), group());
    let frames = encode_frames(71, std::slice::from_ref(&change));
    let entry = &frames.bytes[FRAME_HEADER_BYTES..];
    let expected = hex("04 07070707070707070707070707070707 00000007 0000000300000002 00000006
         01 0000000100000000 01 01 0000000000000203 00000005 00 0000000000000000 00000000
         0000000000000102 01 b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0 ffffffffffffffff 00000002 7573");
    assert_eq!(entry, expected);
    assert_eq!(decode_frame(&frames.bytes).unwrap().entries, [Entry::Change(change)]);
    for len in 1..expected.len() {
        assert!(decode_entry(&mut &expected[..len]).is_err(), "{len} bytes");
    }
}

#[test]
fn what_a_release_without_groups_wrote_is_read() {
    let (mut bytes, _) = three_commits();
    bytes[8..12].copy_from_slice(&1u32.to_be_bytes());
    let crc = crc32c::crc32c(&bytes[..12]);
    bytes[12..16].copy_from_slice(&crc.to_be_bytes());
    assert_eq!(parse(&bytes).unwrap(), (4, false));
}

fn three_commits() -> (Vec<u8>, Vec<usize>) {
    let mut file = encode_file(
        PLACEMENT,
        1,
        [(key(1), Kept::Solo(state(1))), (key(2), Kept::Solo(state(1)))].into_iter(),
    );
    let mut ends = vec![file.bytes.len()];
    for epoch in 2..5 {
        let frames =
            encode_frames(file.sequence_next, &[Change::Put(key(1), state(epoch)), Change::Remove(key(2))]);
        file.bytes.extend(frames.bytes);
        file.sequence_next = frames.sequence_next;
        ends.push(file.bytes.len());
    }
    (file.bytes, ends)
}

const PATH: &str = "core-1/meta.wal.0000000009";

fn parse(bytes: &[u8]) -> Result<(i32, bool), WalError> {
    let file = parse_file(Path::new(PATH), bytes)?;
    let Some(Kept::Solo(state)) = &file.states[&key(1)].1 else { panic!("a single replica's record") };
    Ok((state.leader_epoch.value(), file.torn.is_some()))
}

#[test]
fn a_file_cut_anywhere_gives_the_commits_before_the_cut() {
    let (bytes, ends) = three_commits();
    for len in 0..=bytes.len() {
        let whole = ends.iter().filter(|end| **end <= len).count();
        match parse(&bytes[..len]) {
            Ok((epoch, torn)) => {
                assert_eq!((epoch, torn), (whole as i32, !ends.contains(&len)), "{len} bytes")
            }
            Err(error) => assert_eq!(whole, 0, "{len} bytes: {error}"),
        }
    }
}

#[test]
fn a_flipped_bit_is_damage_unless_it_is_in_the_last_commit() {
    let (bytes, ends) = three_commits();
    for bit in 0..bytes.len() * 8 {
        let mut bad = bytes.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        let frame = ends.iter().filter(|end| **end <= bit / 8).count();
        match parse(&bad) {
            Ok(found) => assert_eq!((frame, found), (3, (3, true)), "bit {bit}"),
            Err(WalError::Damaged { position, .. }) => {
                let start = frame.checked_sub(1).map_or(16, |before| ends[before]);
                assert!(position < 16 || position as usize == start, "bit {bit}: position {position}");
            }
            Err(error) => panic!("bit {bit}: {error}"),
        }
    }
}

#[test]
fn damage_says_where_and_what() {
    let (mut bytes, ends) = three_commits();
    bytes[ends[0] + 30] ^= 1;
    let error = parse(&bytes).unwrap_err();
    let text = error.to_string();
    let start = format!("{PATH} is damaged at position {}: expected CRC-32C ", ends[0]);
    assert!(text.starts_with(&start) && text.contains(", found "), "{text}");
}

#[test]
fn a_commit_that_is_missing_shows() {
    let (bytes, ends) = three_commits();
    let without_second = [&bytes[..ends[0]], &bytes[ends[1]..]].concat();
    let error = parse(&without_second).unwrap_err().to_string();
    assert!(error.ends_with("expected sequence 2, found sequence 3"), "{error}");
}

#[test]
fn another_format_version_is_named() {
    let (mut bytes, _) = three_commits();
    bytes[11] = 3;
    let crc = crc32c::crc32c(&bytes[..12]);
    bytes[12..16].copy_from_slice(&crc.to_be_bytes());
    assert!(matches!(parse(&bytes), Err(WalError::OtherVersion { found: 3, known: 2, .. })));
}

#[test]
fn frames_bound_what_they_claim() {
    for length in [0, 7, u32::MAX, 1 << 31] {
        let mut bytes = vec![0; 64];
        bytes[4..8].copy_from_slice(&u32::to_be_bytes(length));
        assert!(decode_frame(&bytes).is_err(), "length {length}");
    }
    // Entries that lie under a right checksum.
    for entry in [&[9][..], &[1, 0, 0], &[2; 20], &[3; 16], &[0]] {
        let mut frames = Frames { bytes: Vec::new(), sequence_next: 1 };
        frames.push(|out| out.extend(entry));
        let (expected, found) = decode_frame(&frames.bytes).unwrap_err();
        assert!(expected.starts_with("an entry 16 bytes"), "{expected}, {found}");
    }
}
