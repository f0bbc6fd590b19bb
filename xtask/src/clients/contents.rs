//! What one family writes, another reads: every codec and every acks, from the start, the end and a timestamp, with
//! exact bytes, offsets, headers and times.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use serde_json::json;

use super::driver::{Driver, Event};
use super::families::Family;
use super::history::{Promise, Sent, judge};
use super::kcat;
use super::records::Shape;
use super::scenario::Scenario;
use super::stage::{PATIENCE, Production, Reading, Stage, eventually};

const CODECS: [&str; 5] = ["none", "gzip", "snappy", "lz4", "zstd"];
const ACKS: [&str; 3] = ["all", "1", "0"];
const FROM: [&str; 3] = ["start", "end", "time"];
const PARTITIONS: u64 = 3;

/// Indices into `ACKS` and `FROM` by writer and codec, found by search: no short formula reaches every pair.
const ACKS_OF: [[usize; 5]; 5] =
    [[2, 0, 0, 0, 1], [0, 2, 1, 2, 1], [2, 1, 0, 2, 2], [2, 2, 0, 1, 1], [1, 2, 2, 1, 0]];
const FROM_OF: [[usize; 5]; 5] =
    [[1, 0, 0, 1, 2], [2, 1, 0, 2, 0], [2, 2, 1, 0, 1], [0, 2, 2, 1, 2], [0, 2, 0, 0, 1]];

/// One cell of the pairwise table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Case {
    writer: Family,
    reader: Family,
    codec: &'static str,
    acks: &'static str,
    from: &'static str,
}

/// Every pair of values of any two of the five columns occurs in some case; a test counts them.
fn cases() -> Vec<Case> {
    let count = Family::DRIVEN.len();
    (0..count)
        .flat_map(|writer| (0..CODECS.len()).map(move |codec| (writer, codec)))
        .map(|(writer, codec)| Case {
            writer: Family::DRIVEN[writer],
            reader: Family::DRIVEN[(writer + codec + 1) % count],
            codec: CODECS[codec],
            acks: ACKS[ACKS_OF[writer][codec]],
            from: FROM[FROM_OF[writer][codec]],
        })
        .collect()
}

pub(super) fn scenarios() -> Vec<Scenario> {
    let mut scenarios: Vec<Scenario> = cases()
        .into_iter()
        .enumerate()
        .map(|(number, case)| {
            let name = format!(
                "contents: {} writes {} acks={}, {} reads from {}",
                case.writer.name(),
                case.codec,
                case.acks,
                case.reader.name(),
                case.from
            );
            let scenario =
                Scenario::new(name, &[case.writer, case.reader], move |stage| write_and_read(stage, case));
            let scenario = if case.acks == "all" { scenario.bearing_restarts() } else { scenario };
            // A diagonal: each writer, each codec once.
            if number % 6 == 0 { scenario.quick() } else { scenario }
        })
        .collect();
    for (number, codec) in CODECS.into_iter().enumerate() {
        let acks = ACKS[number % 3];
        let other = Family::DRIVEN[number];
        let name = format!("contents: kcat writes {codec} acks={acks}, kcat and {} read", other.name());
        let scenario =
            Scenario::new(name, &[Family::Kcat, other], move |stage| kcat_writes(stage, codec, acks, other));
        scenarios.push(if number == 0 { scenario.quick() } else { scenario });
        let name = format!("contents: {} writes {codec}, kcat reads", other.name());
        let play = move |stage: &Stage<'_>| kcat_reads(stage, codec, other);
        scenarios.push(Scenario::new(name, &[Family::Kcat, other], play).bearing_restarts());
    }
    // franz-go makes no topic unless told to.
    for writer in [Family::Confluent, Family::KafkaPython, Family::Java, Family::Rdkafka] {
        let name = format!("auto-create: {} writes to a topic that is not there", writer.name());
        scenarios
            .push(Scenario::new(name, &[writer], move |stage| auto_create(stage, writer)).bearing_restarts());
    }
    let name = "auto-create: kcat writes to a topic that is not there";
    scenarios.push(Scenario::new(name, &[Family::Kcat], |stage| {
        let topic = stage.unique("made");
        kcat::produce(stage, &topic, "w", 50, "none", "all")?;
        match kcat::consume(stage, &topic)?.len() {
            50 => Ok(String::new()),
            count => Err(format!("{count} records of 50")),
        }
    }));
    scenarios
}

fn production(topic: &str, case: Case) -> Production {
    Production {
        codec: case.codec,
        acks: case.acks,
        // Half of the acks=all cases, so that both kinds of batches are seen.
        idempotent: case.acks == "all" && case.from != "end",
        ..Production::new(case.writer, topic)
    }
}

fn write_and_read(stage: &Stage<'_>, case: Case) -> Result<String, String> {
    let topic = stage.unique("contents");
    stage.create_topic(case.writer, &topic, PARTITIONS, &json!({}))?;
    let production = production(&topic, case);
    let promise = if case.acks == "0" { Promise::Nothing } else { Promise::ExactlyOnce };
    if case.acks == "0" {
        // Nobody tells such a producer that a leader does not know its partition yet, and nobody sends again.
        stage.read(case.reader, &topic, PARTITIONS, json!({}))?;
    }
    if case.from == "end" {
        return follow(stage, case, &production, promise);
    }
    let events = stage.produce(&production)?;
    let sent = production.sent(events.iter());
    let whole = stage.read_at_least(case.reader, &topic, PARTITIONS, production.count)?;
    let tally = judge(&sent, promise, &whole.records)?;
    if tally.stored as u64 != production.count {
        return Err(format!("{} records stored of {} sent", tally.stored, production.count));
    }
    if case.from == "time" {
        from_the_middle(stage, case, &production, &whole)?;
    }
    Ok(format!("{} records", tally.stored))
}

/// The reader waits at the end before anything is written: it sees exactly what comes after.
fn follow(
    stage: &Stage<'_>,
    case: Case,
    production: &Production,
    promise: Promise,
) -> Result<String, String> {
    let from = json!({"from": "end", "count": production.count});
    let order = stage.read_order(&production.topic, PARTITIONS, from);
    let ready = |reader: &Driver| {
        reader.await_that("the reader at the end", PATIENCE, |heard| {
            heard.iter().any(|heard| heard.event == Event::Ready).then_some(())
        })
    };
    let deadline = Instant::now() + PATIENCE;
    let mut reader = loop {
        let mut reader = stage.borrow(case.reader)?;
        reader.begin(&order)?;
        match ready(&reader) {
            Ok(()) => break reader,
            // Not every client asks a second time for where a log ends.
            Err(_) if stage.is_disturbed() && Instant::now() < deadline => {}
            Err(reason) => return Err(reason),
        }
    };
    let events = stage.produce(production)?;
    let heard = reader.finish(PATIENCE * 2)?;
    stage.give_back(case.reader, reader);
    let read = Reading::of(heard.into_iter().map(|heard| heard.event).collect());
    let tally = judge(&production.sent(events.iter()), promise, &read.records)?;
    Ok(format!("{} records", tally.stored))
}

/// From a timestamp in the middle: each partition begins at its first record of that time or later.
fn from_the_middle(
    stage: &Stage<'_>,
    case: Case,
    production: &Production,
    whole: &Reading,
) -> Result<(), String> {
    let middle = production.timestamp_ms + (production.count / 2) as i64;
    let from = json!({"from": "time", "timestamp_ms": middle});
    let late = stage.read(case.reader, &production.topic, PARTITIONS, from)?;
    let due: BTreeSet<(i32, i64)> = whole
        .records
        .iter()
        .filter(|seen| seen.timestamp_ms >= middle)
        .map(|seen| (seen.partition, seen.offset))
        .collect();
    let found: BTreeSet<(i32, i64)> = late.records.iter().map(|seen| (seen.partition, seen.offset)).collect();
    if found != due {
        return Err(format!(
            "from time {middle}: {} records read, {} due; begun at {:?}",
            found.len(),
            due.len(),
            late.ranges
        ));
    }
    let nothing = json!({"from": "time", "timestamp_ms": production.timestamp_ms + production.count as i64});
    let nothing = stage.read(case.reader, &production.topic, PARTITIONS, nothing)?;
    match nothing.records.first() {
        None => Ok(()),
        Some(seen) => Err(format!("from a time after the last record: {seen:?} was read")),
    }
}

fn auto_create(stage: &Stage<'_>, writer: Family) -> Result<String, String> {
    let topic = stage.unique("made");
    let production = Production { partitions: 1, count: 50, ..Production::new(writer, &topic) };
    let events = stage.produce(&production)?;
    let longest = if stage.is_disturbed() { PATIENCE } else { Duration::ZERO };
    eventually(longest, || stage.described(writer, &topic, 1))?;
    let read = stage.read(writer, &topic, 1, json!({}))?;
    judge(&production.sent(events.iter()), Promise::ExactlyOnce, &read.records)?;
    Ok(String::new())
}

fn kcat_writes(stage: &Stage<'_>, codec: &str, acks: &'static str, other: Family) -> Result<String, String> {
    let topic = stage.unique("kcat");
    stage.create_topic(other, &topic, 1, &json!({}))?;
    let count = 300;
    kcat::produce(stage, &topic, "w", count, codec, acks)?;
    let sent = Sent {
        producer: "w".to_owned(),
        shape: Shape::Plain,
        count,
        partitions: 1,
        timestamp_ms: None,
        acknowledged: (0..count).map(|seq| (seq, (0, None))).collect(),
        failed: BTreeMap::new(),
    };
    let theirs = stage.read_at_least(other, &topic, 1, count)?.records;
    judge(&sent, Promise::ExactlyOnce, &theirs)?;
    let own = kcat::consume(stage, &topic)?;
    if own != theirs {
        return Err(format!("kcat and {} differ on what they read", other.name()));
    }
    Ok(format!("{} records", own.len()))
}

fn kcat_reads(stage: &Stage<'_>, codec: &'static str, writer: Family) -> Result<String, String> {
    let topic = stage.unique("contents");
    stage.create_topic(writer, &topic, PARTITIONS, &json!({}))?;
    let production = Production { codec, ..Production::new(writer, &topic) };
    let events = stage.produce(&production)?;
    let mut read = kcat::consume(stage, &topic)?;
    read.sort_by_key(|seen| (seen.partition, seen.offset));
    let tally = judge(&production.sent(events.iter()), Promise::ExactlyOnce, &read)?;
    Ok(format!("{} records", tally.stored))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pair_of_values_meets_in_some_case() {
        let columns =
            |case: &Case| [case.writer.name(), case.reader.name(), case.codec, case.acks, case.from];
        let families: Vec<&str> = Family::DRIVEN.iter().map(|family| family.name()).collect();
        let values: [&[&str]; 5] = [&families, &families, &CODECS, &ACKS, &FROM];
        let mut missing = Vec::new();
        for (a, b) in (0..5).flat_map(|a| (a + 1..5).map(move |b| (a, b))) {
            for (x, y) in values[a].iter().flat_map(|x| values[b].iter().map(move |y| (*x, *y))) {
                if !cases().iter().any(|case| columns(case)[a] == x && columns(case)[b] == y) {
                    missing.push((a, b, x, y));
                }
            }
        }
        assert!(missing.is_empty(), "{missing:?}");
    }
}
