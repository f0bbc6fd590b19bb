//! The checker of producing: what was sent and acknowledged against what was read. Pure: histories in, faults out.

use std::collections::BTreeMap;

use super::records::{Shape, digest};

/// A record as some reader saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) partition: i32,
    pub(super) offset: i64,
    pub(super) timestamp_ms: i64,
    /// `producer|seq`, as the record itself says.
    pub(super) who: String,
    pub(super) digest: u32,
}

/// What one producer was told to do, and what it was told by the broker.
#[derive(Debug, Clone)]
pub(super) struct Sent {
    pub(super) producer: String,
    pub(super) shape: Shape,
    pub(super) count: u64,
    pub(super) partitions: u64,
    /// Record `seq` carries this plus `seq`; `None` when the client sets the time itself.
    pub(super) timestamp_ms: Option<i64>,
    /// By sequence number: partition, and offset if the client was told one.
    pub(super) acknowledged: BTreeMap<u64, (i32, Option<i64>)>,
    /// By sequence number, with the client's words.
    pub(super) failed: BTreeMap<u64, String>,
}

/// What the acknowledgement mode promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Promise {
    /// Each record once, in the order sent, and the client saw no failure.
    ExactlyOnce,
    /// Whatever was acknowledged is there; more than once is allowed and counted.
    AcknowledgedIsStored,
    /// Nothing but that whatever is there is right.
    Nothing,
}

/// What a history that kept its promise looks like.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) stored: usize,
    pub(super) acknowledged: usize,
    /// Records that lie in the log more often than once.
    pub(super) duplicates: usize,
    pub(super) failed: usize,
}

/// Faults beyond this many say nothing new.
const FAULTS_TOLD: usize = 8;

/// Judges the whole log of a topic, read from its first offset to its end, against the one producer that wrote it.
pub(super) fn judge(sent: &Sent, promise: Promise, log: &[Seen]) -> Result<Tally, String> {
    let mut faults = Vec::new();
    let mut places: BTreeMap<u64, Vec<(i32, i64)>> = BTreeMap::new();
    let mut following: BTreeMap<i32, i64> = BTreeMap::new();
    for seen in log {
        let expected = following.entry(seen.partition).or_insert(0);
        if seen.offset != *expected {
            faults.push(format!(
                "gap: partition {} goes on at offset {} where {} was due",
                seen.partition, seen.offset, expected
            ));
        }
        *expected = seen.offset + 1;
        match identify(sent, seen) {
            Ok(seq) => places.entry(seq).or_default().push((seen.partition, seen.offset)),
            Err(fault) => faults.push(fault),
        }
    }
    for (seq, (partition, offset)) in &sent.acknowledged {
        let found = places.get(seq).map_or(&[][..], Vec::as_slice);
        let stored_there = match offset {
            Some(offset) => found.contains(&(*partition, *offset)),
            None => !found.is_empty(),
        };
        if promise == Promise::Nothing || stored_there {
            continue;
        }
        faults.push(match found {
            [] => format!("lost: record {seq} was acknowledged ({partition}:{offset:?}) and is nowhere"),
            _ => {
                format!(
                    "misplaced: record {seq} was acknowledged at {partition}:{offset:?} but lies at {found:?}"
                )
            }
        });
    }
    let duplicates = places.values().map(|found| found.len() - 1).sum();
    if promise == Promise::ExactlyOnce {
        for (seq, found) in places.iter().filter(|(_, found)| found.len() > 1) {
            faults.push(format!("duplicate: record {seq} lies at {found:?}"));
        }
        faults.extend(sent.failed.iter().map(|(seq, reason)| format!("failed: record {seq}: {reason}")));
        let unanswered = sent.count as usize - sent.acknowledged.len() - sent.failed.len();
        if unanswered > 0 {
            faults.push(format!("unanswered: {unanswered} of {} records", sent.count));
        }
        faults.extend(out_of_order(&places));
    }
    match faults.len() {
        0 => Ok(Tally {
            stored: log.len(),
            acknowledged: sent.acknowledged.len(),
            duplicates,
            failed: sent.failed.len(),
        }),
        _ => Err(told(&faults)),
    }
}

/// The first few faults, and how many more there are.
pub(super) fn told(faults: &[String]) -> String {
    let mut text = faults[..faults.len().min(FAULTS_TOLD)].join("; ");
    if faults.len() > FAULTS_TOLD {
        text.push_str(&format!("; and {} more", faults.len() - FAULTS_TOLD));
    }
    text
}

/// The sequence number of a record, if all of it is as it was sent.
pub(super) fn identify(sent: &Sent, seen: &Seen) -> Result<u64, String> {
    let place = format!("{}:{}", seen.partition, seen.offset);
    let seq = seen.who.split_once('|').filter(|(producer, _)| *producer == sent.producer);
    let seq = seq.and_then(|(_, seq)| seq.parse::<u64>().ok()).filter(|seq| *seq < sent.count);
    let seq = seq.ok_or_else(|| format!("stranger: {place} holds {:?}, which nobody sent", seen.who))?;
    if seq % sent.partitions != seen.partition as u64 {
        return Err(format!("astray: record {seq} lies at {place}"));
    }
    if seen.digest != digest(sent.shape, &sent.producer, seq) {
        return Err(format!("altered: record {seq} at {place} is not as it was sent"));
    }
    match sent.timestamp_ms.map(|base| base + seq as i64) {
        Some(timestamp) if timestamp != seen.timestamp_ms => {
            Err(format!("altered: record {seq} at {place} says {} ms, sent {timestamp}", seen.timestamp_ms))
        }
        _ => Ok(seq),
    }
}

/// Records of one partition that lie in another order than they were sent in.
fn out_of_order(places: &BTreeMap<u64, Vec<(i32, i64)>>) -> Vec<String> {
    let mut last: BTreeMap<i32, (i64, u64)> = BTreeMap::new();
    let mut faults = Vec::new();
    for (seq, found) in places {
        let Some((partition, offset)) = found.first() else { continue };
        if let Some((before, earlier)) = last.insert(*partition, (*offset, *seq))
            && before > *offset
        {
            faults.push(format!(
                "reordered: record {seq} lies at {partition}:{offset}, {earlier} sent before it at {before}"
            ));
        }
    }
    faults
}

/// Two sights of the same offsets must be of the same bytes.
pub(super) fn same_at_each_sight<'a>(sights: impl Iterator<Item = &'a Seen>) -> Result<usize, String> {
    let mut first: BTreeMap<(i32, i64), &Seen> = BTreeMap::new();
    let mut faults = Vec::new();
    for seen in sights {
        let known = first.entry((seen.partition, seen.offset)).or_insert(seen);
        if *known != seen {
            faults.push(format!("changed: {known:?} was later seen as {seen:?}"));
        }
    }
    if faults.is_empty() { Ok(first.len()) } else { Err(told(&faults)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape = Shape::Full { value_bytes: 64, null_headers: true };

    fn sent(count: u64) -> Sent {
        let acknowledged = (0..count).map(|seq| (seq, ((seq % 2) as i32, Some((seq / 2) as i64)))).collect();
        Sent {
            producer: "p".to_owned(),
            shape: SHAPE,
            count,
            partitions: 2,
            timestamp_ms: Some(1_000),
            acknowledged,
            failed: BTreeMap::new(),
        }
    }

    fn seen(seq: u64, offset: i64) -> Seen {
        Seen {
            partition: (seq % 2) as i32,
            offset,
            timestamp_ms: 1_000 + seq as i64,
            who: format!("p|{seq}"),
            digest: digest(SHAPE, "p", seq),
        }
    }

    fn log(count: u64) -> Vec<Seen> {
        (0..count).map(|seq| seen(seq, (seq / 2) as i64)).collect()
    }

    #[track_caller]
    fn check(promise: Promise, log: &[Seen], fault: &str) {
        let message = judge(&sent(10), promise, log).unwrap_err();
        assert!(message.contains(fault), "{message:?} does not name {fault:?}");
    }

    #[test]
    fn a_history_that_kept_its_promise_passes() {
        let tally = judge(&sent(10), Promise::ExactlyOnce, &log(10)).unwrap();
        assert_eq!(tally, Tally { stored: 10, acknowledged: 10, duplicates: 0, failed: 0 });
    }

    #[test]
    fn a_lost_acknowledged_record_is_caught() {
        check(Promise::AcknowledgedIsStored, &log(9), "lost: record 9");
        check(Promise::ExactlyOnce, &log(9), "lost: record 9");
    }

    #[test]
    fn a_record_that_was_never_acknowledged_may_be_missing_or_there() {
        let mut partly = sent(10);
        partly.acknowledged.remove(&9);
        judge(&partly, Promise::AcknowledgedIsStored, &log(9)).unwrap();
        judge(&partly, Promise::AcknowledgedIsStored, &log(10)).unwrap();
        let message = judge(&partly, Promise::ExactlyOnce, &log(10)).unwrap_err();
        assert!(message.contains("unanswered: 1"), "{message}");
    }

    #[test]
    fn a_duplicate_is_counted_or_caught_by_promise() {
        let mut twice = log(10);
        twice.push(seen(9, 5));
        assert_eq!(judge(&sent(10), Promise::AcknowledgedIsStored, &twice).unwrap().duplicates, 1);
        check(Promise::ExactlyOnce, &twice, "duplicate: record 9");
    }

    #[test]
    fn reordering_is_caught() {
        let mut swapped = log(10);
        swapped[2] = seen(4, 1);
        swapped[4] = seen(2, 2);
        let mut quiet = sent(10);
        quiet.acknowledged.values_mut().for_each(|(_, offset)| *offset = None);
        let message = judge(&quiet, Promise::ExactlyOnce, &swapped).unwrap_err();
        assert!(message.contains("reordered: record 4"), "{message}");
        check(Promise::AcknowledgedIsStored, &swapped, "misplaced: record 2");
    }

    #[test]
    fn altered_bytes_times_and_places_are_caught() {
        let mut bytes = log(10);
        bytes[3].digest ^= 1;
        check(Promise::Nothing, &bytes, "altered: record 3");
        let mut time = log(10);
        time[3].timestamp_ms += 1;
        check(Promise::Nothing, &time, "altered: record 3");
        let mut astray = log(10);
        astray[9] = Seen { partition: 0, offset: 5, ..astray[9].clone() };
        check(Promise::Nothing, &astray, "astray: record 9");
        let mut stranger = log(10);
        stranger[9].who = "q|9".to_owned();
        check(Promise::Nothing, &stranger, "stranger");
    }

    #[test]
    fn a_gap_in_the_offsets_is_caught() {
        let mut gap = log(10);
        gap.remove(4);
        check(Promise::Nothing, &gap, "gap: partition 0 goes on at offset 3 where 2 was due");
        let late: Vec<Seen> = log(10).into_iter().filter(|seen| seen.offset > 0).collect();
        check(Promise::Nothing, &late, "gap");
    }

    #[test]
    fn a_failure_breaks_exactly_once_alone() {
        let mut failing = sent(10);
        failing.acknowledged.remove(&9);
        failing.failed.insert(9, "no".to_owned());
        assert_eq!(judge(&failing, Promise::AcknowledgedIsStored, &log(9)).unwrap().failed, 1);
        let message = judge(&failing, Promise::ExactlyOnce, &log(9)).unwrap_err();
        assert!(message.contains("failed: record 9: no"), "{message}");
    }

    #[test]
    fn bytes_that_change_between_two_sights_are_caught() {
        let mut twice = log(4);
        twice.extend(log(4));
        assert_eq!(same_at_each_sight(twice.iter()), Ok(4));
        twice[7].digest ^= 1;
        assert!(same_at_each_sight(twice.iter()).unwrap_err().contains("changed"));
    }
}
