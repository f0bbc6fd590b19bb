//! `ouk topic produce`.

use std::collections::BTreeMap;
use std::fs::File;

use bytes::Bytes;
use ouzel_client::{Acks, NewRecord, Producer, ProducerConfig};
use ouzel_model::TimestampMs;
use ouzel_model::batch::{Codec, RecordHeader};
use serde_json::json;

use super::{Done, Session};
use crate::cli::{self, Compression, Produce};
use crate::failure::{Exit, Failure};
use crate::input_format::{InputFormat, InputRecord, Read};
use crate::output::Report;

/// How much of the input is read at once; all records in it are sent together.
const CHUNK_BYTES: usize = 256 << 10;
/// A record that does not end within this much of the input never will.
const RECORD_BYTES_MAX: usize = 1 << 30;

pub(super) async fn produce(session: &Session, wanted: Produce) -> Result<Done, Failure> {
    session.must_be_writable()?;
    let format = InputFormat::parse(&wanted.record_format).map_err(Failure::usage)?;
    let mut input: Box<dyn std::io::Read> = match &wanted.from {
        Some(path) => {
            let opened = File::open(path);
            Box::new(opened.map_err(|error| Failure::usage(format!("open {}: {error}", path.display())))?)
        }
        None => Box::new(std::io::stdin()),
    };
    let mut producer = Producer::new(&session.client, producer_config(&wanted));
    let mut stored = Places::new();
    let outcome = produce_all(&mut producer, &wanted, &format, &mut input, &mut stored).await;
    let report = report_of(&stored);
    if let Err(failure) = outcome {
        // What was stored before is still told.
        eprintln!("ouk: {failure}");
        return Ok(Done { report: Some(report), exit: Some(failure.exit) });
    }
    Ok(Done::with(report))
}

fn producer_config(wanted: &Produce) -> ProducerConfig {
    ProducerConfig {
        acks: match wanted.acks {
            cli::Acks::All => Acks::All,
            cli::Acks::Leader => Acks::Leader,
            cli::Acks::None => Acks::None,
        },
        codec: match wanted.compression {
            Compression::None => Codec::None,
            Compression::Gzip => Codec::Gzip,
            Compression::Snappy => Codec::Snappy,
            Compression::Lz4 => Codec::Lz4,
            Compression::Zstd => Codec::Zstd,
        },
        idempotent: wanted.acks == cli::Acks::All,
        ..ProducerConfig::default()
    }
}

/// What was stored in one partition.
#[derive(Debug, Default, PartialEq, Eq)]
struct Share {
    records: u64,
    first_offset: Option<i64>,
    last_offset: Option<i64>,
}

type Places = BTreeMap<(String, i32), Share>;

fn report_of(stored: &Places) -> Report {
    let columns = &[
        ("TOPIC", "topic"),
        ("PARTITION", "partition"),
        ("RECORDS", "records"),
        ("FIRST-OFFSET", "first_offset"),
        ("LAST-OFFSET", "last_offset"),
    ];
    let mut report = Report::new("topic.produce", columns);
    for ((topic, partition), share) in stored {
        report.push(json!({
            "topic": topic,
            "partition": partition,
            "records": share.records,
            "first_offset": share.first_offset,
            "last_offset": share.last_offset,
        }));
    }
    report
}

/// Reads records and sends them as they come, until the input ends.
async fn produce_all(
    producer: &mut Producer,
    wanted: &Produce,
    format: &InputFormat,
    input: &mut dyn std::io::Read,
    stored: &mut Places,
) -> Result<(), Failure> {
    let mut buffer = Vec::new();
    let mut at_end = false;
    let mut count: u64 = 0;
    while !at_end {
        let mut chunk = vec![0; CHUNK_BYTES];
        let length = input.read(&mut chunk)?;
        at_end = length == 0;
        buffer.extend_from_slice(&chunk[..length]);
        let mut by_topic: BTreeMap<String, Vec<NewRecord>> = BTreeMap::new();
        let mut position = 0;
        while position < buffer.len() {
            let read = format.read(&buffer[position..], at_end);
            let read =
                read.map_err(|error| Failure::usage(format!("record {} of the input: {error}", count + 1)))?;
            let Read::Record(record, taken) = read else { break };
            position += taken;
            count += 1;
            let (topic, record) = record_of(wanted, record)?;
            by_topic.entry(topic).or_default().push(record);
        }
        buffer.drain(..position);
        for (topic, records) in by_topic {
            for place in producer.send(&topic, records).await? {
                let share = stored.entry((topic.clone(), place.partition)).or_default();
                let offset = place.offset.map(|offset| offset.value());
                share.records += 1;
                share.first_offset = share.first_offset.or(offset);
                share.last_offset = offset.or(share.last_offset);
            }
        }
        if buffer.len() > RECORD_BYTES_MAX || (at_end && !buffer.is_empty()) {
            let message = format!("the input ends within record {}; does the format fit it?", count + 1);
            return Err(Failure::new(Exit::Usage, message));
        }
    }
    Ok(())
}

/// A record as it is sent: what the input says, and what the command line says for all of them.
fn record_of(wanted: &Produce, read: InputRecord) -> Result<(String, NewRecord), Failure> {
    let topic = read.topic.or_else(|| wanted.topic.clone());
    let topic = topic.ok_or_else(|| Failure::usage("no topic is named, and the format reads none (%t)"))?;
    let value = read.value.unwrap_or_default();
    let headers = wanted
        .headers
        .iter()
        .map(|(key, value)| RecordHeader { key: key.clone(), value: Some(value.clone().into_bytes()) });
    let record = NewRecord {
        key: read.key.or_else(|| wanted.key.clone().map(String::into_bytes)).map(Bytes::from),
        value: (!(wanted.tombstone && value.is_empty())).then(|| Bytes::from(value)),
        headers: headers.collect(),
        timestamp: read.timestamp_ms.map(TimestampMs),
        partition: read.partition.or(wanted.partition),
    };
    Ok((topic, record))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command, Topic};

    fn wanted(line: &str) -> Produce {
        let cli = Cli::try_parse_from(std::iter::once("ouk").chain(line.split(' '))).unwrap();
        match cli.command {
            Command::Topic(Topic::Produce(wanted)) => wanted,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_input_outranks_the_command_line() {
        let wanted = wanted("topic produce a -k K -H x:y:z -p 2");
        let read = |key: Option<&str>, partition| InputRecord {
            key: key.map(|key| key.as_bytes().to_vec()),
            partition,
            value: Some(b"v".to_vec()),
            ..InputRecord::default()
        };
        let (topic, record) = record_of(&wanted, read(None, None)).unwrap();
        assert_eq!(
            (topic.as_str(), record.key.as_deref(), record.partition),
            ("a", Some(&b"K"[..]), Some(2))
        );
        assert_eq!(record.headers, [RecordHeader { key: "x".to_owned(), value: Some(b"y:z".to_vec()) }]);
        let (_, record) = record_of(&wanted, read(Some("L"), Some(5))).unwrap();
        assert_eq!((record.key.as_deref(), record.partition), (Some(&b"L"[..]), Some(5)));
    }

    #[test]
    fn an_empty_value_is_a_tombstone_only_when_asked() {
        let empty = || InputRecord { value: Some(Vec::new()), ..InputRecord::default() };
        assert_eq!(record_of(&wanted("topic produce a"), empty()).unwrap().1.value, Some(Bytes::new()));
        assert_eq!(record_of(&wanted("topic produce a -Z"), empty()).unwrap().1.value, None);
    }

    #[test]
    fn a_record_without_a_topic_is_refused() {
        assert_eq!(
            record_of(&wanted("topic produce"), InputRecord::default()).unwrap_err().exit,
            Exit::Usage
        );
    }
}
