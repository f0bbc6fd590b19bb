//! A compacted topic, written and read by Kafka's own tools: what is left is the newest of each key, wherever it was.
//!
//! Its segments stay for the rows of dump-log, which know its folder by its name.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use serde_json::json;

use super::families::Family;
use super::records::digest_of;
use super::scenario::Scenario;
use super::stage::{Stage, eventually};
use super::tools::{CONSOLE_CONSUMER, CONSOLE_PRODUCER, run};

/// How the folders of compacted topics begin: theirs may hold gaps.
pub(super) const STEM: &str = "compacted";

const KEYS: u64 = 40;
const RECORDS: u64 = 16_000;
/// The cleaner's pause is short here, see `stage::SETTINGS`, but everything else runs beside it.
const CLEANED_WITHIN: Duration = Duration::from_secs(90);

pub(super) fn scenarios() -> Vec<Scenario> {
    let one = |name: &str, codec: &'static str| {
        Scenario::new(name, &[Family::Java], move |stage: &Stage<'_>| {
            cleaned(stage, codec).map(|(_, left)| format!("{left} of {RECORDS} records left"))
        })
    };
    vec![
        one("compaction: the newest of each key is left", "none").quick(),
        one("compaction: the same, compressed", "lz4"),
        Scenario::new("compaction: every family reads what is left", &READERS, |stage: &Stage<'_>| {
            let topic = cleaned(stage, "none")?.0;
            READERS.iter().try_for_each(|family| read_by(stage, *family, &topic))?;
            Ok(String::new())
        }),
    ]
}

/// Gaps between batches, batches without a record and tombstones are new to each of them in its own way.
const READERS: [Family; 5] =
    [Family::Confluent, Family::KafkaPython, Family::Franz, Family::Java, Family::Rdkafka];

/// A line for the console producer; a record of every seventh key is a tombstone in the end.
fn record(seq: u64) -> (String, Option<String>) {
    let key = seq % KEYS;
    let is_last = seq + KEYS >= RECORDS;
    if key.is_multiple_of(7) && is_last {
        return (format!("k{key}"), None);
    }
    // Text that no codec makes much smaller: the topic is to have several segments.
    let mut noise = seq.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut value = format!("console|{seq}|");
    for _ in 0..16 {
        noise ^= noise << 13;
        noise ^= noise >> 7;
        noise ^= noise << 17;
        // Writing to a string does not fail.
        let _ = write!(value, "{noise:016x}");
    }
    (format!("k{key}"), Some(value))
}

/// Writes a topic and reads it until the cleaner has been there; gives it, and how many records were left.
fn cleaned(stage: &Stage<'_>, codec: &str) -> Result<(String, usize), String> {
    let topic = stage.unique(STEM);
    let configs = json!({
        "cleanup.policy": "compact", "segment.bytes": "1048576", "min.cleanable.dirty.ratio": "0.01",
    });
    stage.create_topic(Family::Java, &topic, 1, &configs)?;
    let mut lines = String::new();
    let mut expected = BTreeMap::new();
    for seq in 0..RECORDS {
        let (key, value) = record(seq);
        // Writing to a string does not fail.
        let _ = writeln!(lines, "{key}:{}", value.as_deref().unwrap_or("NULL"));
        match value {
            Some(value) => expected.insert(key, value),
            None => expected.remove(&key),
        };
    }
    let produce = [
        "--topic",
        &topic,
        "--compression-codec",
        codec,
        "--reader-property",
        "parse.key=true",
        "--reader-property",
        "key.separator=:",
        "--reader-property",
        "null.marker=NULL",
    ];
    run(stage, CONSOLE_PRODUCER, &produce, &lines, &[])?;
    let consume = [
        "--topic",
        &topic,
        "--from-beginning",
        "--timeout-ms",
        "4000",
        "--formatter-property",
        "print.key=true",
        "--formatter-property",
        "print.offset=true",
    ];
    let left = eventually(CLEANED_WITHIN, || {
        let text = run(stage, CONSOLE_CONSUMER, &consume, "", &[])?;
        let records = records(&text)?;
        let mut state = BTreeMap::new();
        for (offset, key, value) in &records {
            let (due_key, due_value) = record(*offset);
            if (key, value) != (&due_key, &due_value) {
                return Err(format!("offset {offset} holds {key} and {value:?}"));
            }
            match value {
                Some(value) => state.insert(key.clone(), value.clone()),
                None => state.remove(key),
            };
        }
        if state != expected {
            return Err("the state a reader builds is not the one that was written".to_owned());
        }
        if records.len() as u64 > RECORDS / 2 {
            return Err(format!("{} of {RECORDS} records are still there", records.len()));
        }
        Ok(records.len())
    })?;
    Ok((topic, left))
}

/// One family reads the topic from its start: each record is the one that was written there, and the newest of each key
/// is among them.
fn read_by(stage: &Stage<'_>, family: Family, topic: &str) -> Result<(), String> {
    let reading = stage.read(family, topic, 1, json!({}))?;
    let mut newest = BTreeMap::new();
    for seen in &reading.records {
        let seq = u64::try_from(seen.offset).map_err(|_| format!("offset {}", seen.offset))?;
        let (key, value) = record(seq);
        let due = digest_of(Some(key.as_bytes()), value.as_deref().map(str::as_bytes), &[]);
        if seen.digest != due {
            return Err(format!("{} read another record at offset {seq}", family.name()));
        }
        newest.insert(key, seq);
    }
    let due: BTreeMap<_, _> = (RECORDS - KEYS..RECORDS).map(|seq| (record(seq).0, seq)).collect();
    if newest == due {
        Ok(())
    } else {
        Err(format!("{} read {newest:?} as the newest, not {due:?}", family.name()))
    }
}

/// Offset, key and value of each record the console consumer printed.
fn records(text: &str) -> Result<Vec<(u64, String, Option<String>)>, String> {
    let lines = text.lines().filter_map(|line| line.strip_prefix("Offset:"));
    lines
        .map(|line| {
            let mut words = line.split('\t');
            let parsed = (|| {
                let offset = words.next()?.parse().ok()?;
                let key = words.next()?.to_owned();
                let value = words.next()?.to_owned();
                Some((offset, key, (value != "null").then_some(value)))
            })();
            parsed.ok_or_else(|| format!("a line that is no record: {line:?}"))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_console_prints_is_read_back() {
        let text = "Offset:7\tk7\tv7\nOffset:47\tk7\tnull\nProcessed a total of 2 messages\n";
        let read = records(text).unwrap();
        assert_eq!(read, [(7, "k7".to_owned(), Some("v7".to_owned())), (47, "k7".to_owned(), None)]);
        assert!(records("Offset:x\tk\tv").is_err());
    }

    #[test]
    fn some_keys_end_with_a_tombstone() {
        let last: BTreeMap<_, _> = (0..RECORDS).map(record).collect();
        assert_eq!(last.len() as u64, KEYS);
        assert!(last.values().any(Option::is_none) && last.values().any(Option::is_some));
    }
}
