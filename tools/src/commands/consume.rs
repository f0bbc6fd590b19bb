//! `ouk topic consume`.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ouzel_client::{Consumed, Consumer, ConsumerConfig, Isolation, OffsetSpec};
use ouzel_model::batch::Record;
use ouzel_model::{Offset, TimestampMs};
use regex::bytes::Regex;
use serde_json::{Value, json};
use signal_hook::consts::SIGINT;

use super::{Done, Session};
use crate::cli::{self, Consume};
use crate::encoding::Encoding;
use crate::failure::{Exit, Failure, exit_of_items};
use crate::offsets::{self, Place, Range};
use crate::output::{Format, Stream};
use crate::record_format::{Fields, RecordFormat};

/// How a table shows a record: one line each, nothing aligned, because the widest may be still to come.
const TABLE: &str = "%t\\t%p\\t%o\\t%d{rfc3339}\\t%k\\t%v\\n";
const TABLE_HEAD: &str = "TOPIC\tPARTITION\tOFFSET\tTIMESTAMP\tKEY\tVALUE\n";

pub(super) async fn consume(session: &Session, wanted: &Consume) -> Result<Done, Failure> {
    let range = offsets::parse(&wanted.offset, session.runtime.clock.wall_ms()).map_err(Failure::usage)?;
    let interrupted = Interrupted::listen()?;
    let mut sink = Sink::new(wanted, session.settings.format).map_err(Failure::usage)?;
    let only = wanted.grep.as_deref().map(pattern).transpose()?;
    let (metadata, mut failures) = session.named_topics(&wanted.topics).await?;
    let mut partitions = Vec::new();
    for (name, topic) in &metadata.topics {
        if wanted.partitions.is_empty() {
            partitions.extend(topic.partitions.keys().map(|index| (name.clone(), *index)));
            continue;
        }
        for index in &wanted.partitions {
            match topic.partitions.contains_key(index) {
                true => partitions.push((name.clone(), *index)),
                false => {
                    failures.push(Failure::new(Exit::NotFound, format!("{name} has no partition {index}")))
                }
            }
        }
    }
    for failure in &failures {
        eprintln!("ouk: {failure}");
    }
    let isolation = match wanted.isolation {
        cli::Isolation::ReadUncommitted => Isolation::ReadUncommitted,
        cli::Isolation::ReadCommitted => Isolation::ReadCommitted,
    };
    let spans = spans(session, &partitions, range, isolation).await?;
    let reading = Reading { isolation, only, num: wanted.num };
    let mut out = io::stdout().lock();
    match read(session, spans, &reading, &interrupted, &mut sink, &mut out).await {
        // Whoever reads from us has seen enough, as `head` does.
        Err(Ended::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {}
        Err(Ended::Output(error)) => return Err(error.into()),
        Err(Ended::Failed(failure)) => return Err(failure),
        Ok(()) => {}
    }
    Ok(Done { report: None, exit: exit_of_items(wanted.topics.len(), &failures) })
}

/// Which records are wanted, beside their places.
struct Reading {
    isolation: Isolation,
    only: Option<Regex>,
    num: Option<u64>,
}

impl Reading {
    fn wants(&self, record: &Record) -> bool {
        let Some(only) = &self.only else { return true };
        [&record.key, &record.value].into_iter().flatten().any(|bytes| only.is_match(bytes))
    }
}

/// Reads the value of `--grep`.
fn pattern(text: &str) -> Result<Regex, Failure> {
    Regex::new(text).map_err(|error| {
        // The engine's own message draws the place over several lines; its last line is the reason.
        let words = error.to_string();
        let reason = words.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
        Failure::usage(format!("--grep '{text}' is no regular expression: {reason}"))
    })
}

/// Ctrl-C: the first one ends the reading in order, the second one the process.
struct Interrupted {
    flag: Arc<AtomicBool>,
}

/// How soon an interruption is seen.
const LOOK_EVERY: Duration = Duration::from_millis(50);

impl Interrupted {
    fn listen() -> io::Result<Interrupted> {
        let flag = Arc::new(AtomicBool::new(false));
        // In this order: the first signal finds the flag down and raises it, the next one finds it up.
        signal_hook::flag::register_conditional_default(SIGINT, flag.clone())?;
        signal_hook::flag::register(SIGINT, flag.clone())?;
        Ok(Interrupted { flag })
    }

    async fn wait(&self, session: &Session) {
        while !self.flag.load(Ordering::Relaxed) {
            session.sleep(LOOK_EVERY).await;
        }
    }
}

/// What of one partition is read: from, inclusive, until, exclusive.
type Spans = BTreeMap<(String, i32), (i64, Option<i64>)>;

/// Looks up where the range begins and ends in each partition.
async fn spans(
    session: &Session,
    partitions: &[(String, i32)],
    range: Range,
    isolation: Isolation,
) -> Result<Spans, Failure> {
    let mut spans = Spans::new();
    if partitions.is_empty() {
        return Ok(spans);
    }
    let ask = |spec: OffsetSpec| {
        partitions.iter().map(|(topic, index)| (topic.clone(), *index, spec)).collect::<Vec<_>>()
    };
    let starts = session.client.list_offsets(&ask(OffsetSpec::Earliest)).await?;
    let end = match isolation {
        Isolation::ReadUncommitted => OffsetSpec::Latest,
        Isolation::ReadCommitted => OffsetSpec::LastStable,
    };
    let ends = session.client.list_offsets(&ask(end)).await?;
    let mut by_time = BTreeMap::new();
    for place in [Some(range.from), range.until].into_iter().flatten() {
        if let Place::Time(at) = place {
            by_time
                .insert(at, session.client.list_offsets(&ask(OffsetSpec::AtOrAfter(TimestampMs(at)))).await?);
        }
    }
    for partition in partitions {
        let known = |offsets: &BTreeMap<_, ouzel_client::FoundOffset>| {
            offsets.get(partition).and_then(|found| found.offset).map(Offset::value)
        };
        let (start, end) = (known(&starts).unwrap_or(0), known(&ends).unwrap_or(0));
        // Where no record is that new, the place is the end.
        let resolve = |place| offset_of(place, start, end, |at| by_time.get(&at).and_then(known));
        spans.insert(partition.clone(), (resolve(range.from), range.until.map(resolve)));
    }
    Ok(spans)
}

/// A place in a log from `start` to `end`, never outside of it.
fn offset_of(place: Place, start: i64, end: i64, at_time: impl Fn(i64) -> Option<i64>) -> i64 {
    let offset = match place {
        Place::Start => start,
        Place::End => end,
        Place::AfterStart(count) => start.saturating_add(count),
        Place::BeforeEnd(count) => end.saturating_sub(count),
        Place::At(offset) => offset,
        Place::Time(at) => at_time(at).unwrap_or(end),
    };
    offset.clamp(start, end.max(start))
}

/// Why reading stopped before its end.
enum Ended {
    Failed(Failure),
    Output(io::Error),
}

impl From<io::Error> for Ended {
    fn from(error: io::Error) -> Ended {
        Ended::Output(error)
    }
}

async fn read(
    session: &Session,
    spans: Spans,
    reading: &Reading,
    interrupted: &Interrupted,
    sink: &mut Sink,
    out: &mut dyn Write,
) -> Result<(), Ended> {
    let config = ConsumerConfig { isolation: reading.isolation, ..ConsumerConfig::default() };
    let mut consumer = Consumer::new(&session.client, config);
    let mut open: BTreeMap<(String, i32), Option<i64>> = BTreeMap::new();
    for ((topic, partition), (from, until)) in spans {
        if until.is_none_or(|until| from < until) {
            consumer.seek(&topic, partition, Offset(from));
            open.insert((topic, partition), until);
        }
    }
    sink.begin(out)?;
    let mut left = reading.num.unwrap_or(u64::MAX);
    while !open.is_empty() && left > 0 {
        let consumed = tokio::select! {
            biased;
            // Whoever follows a topic ends it this way: what was begun is closed, and that is a success.
            () = interrupted.wait(session) => break,
            consumed = consumer.poll() => consumed.map_err(|error| Ended::Failed(error.into()))?,
        };
        for record in &consumed {
            let until = open.get(&(record.topic.clone(), record.partition)).copied().flatten();
            let due = until.is_none_or(|until| record.record.offset.value() < until);
            if left > 0 && due && reading.wants(&record.record) {
                sink.write(record, out)?;
                left -= 1;
            }
        }
        out.flush()?;
        // Positions go past the last record over what is not one, so an end within such a gap is met as well.
        open.retain(|(topic, partition), until| {
            let position = consumer.position(topic, *partition).map_or(0, Offset::value);
            let done = until.is_some_and(|until| position >= until);
            if done {
                consumer.forget(topic, *partition);
            }
            !done
        });
    }
    sink.finish(out)?;
    Ok(())
}

/// Where records go, and how they look there.
struct Sink {
    lines: Option<(RecordFormat, bool)>,
    stream: Option<Stream>,
    count: u64,
    buffer: Vec<u8>,
}

impl Sink {
    fn new(wanted: &Consume, format: Format) -> Result<Sink, String> {
        let lines = match (&wanted.record_format, format) {
            (Some(text), _) => Some((RecordFormat::parse(text)?, false)),
            (None, Format::Table) => Some((RecordFormat::parse(TABLE)?, true)),
            (None, Format::Json | Format::Yaml) => None,
        };
        let stream = lines.is_none().then(|| Stream::new("topic.consume", format));
        Ok(Sink { lines, stream, count: 0, buffer: Vec::new() })
    }

    fn begin(&self, out: &mut dyn Write) -> io::Result<()> {
        match &self.lines {
            Some((_, true)) => out.write_all(TABLE_HEAD.as_bytes()),
            _ => Ok(()),
        }
    }

    fn write(&mut self, consumed: &Consumed, out: &mut dyn Write) -> io::Result<()> {
        self.count += 1;
        if let Some((format, _)) = &self.lines {
            self.buffer.clear();
            format.write(&fields(consumed), self.count, &mut self.buffer);
            out.write_all(&self.buffer)?;
        }
        match &mut self.stream {
            Some(stream) => stream.write_item(&item(consumed), out),
            None => Ok(()),
        }
    }

    fn finish(&mut self, out: &mut dyn Write) -> io::Result<()> {
        if let Some(stream) = self.stream.take() {
            stream.finish(out)?;
        }
        out.flush()
    }
}

fn fields(consumed: &Consumed) -> Fields<'_> {
    Fields {
        topic: &consumed.topic,
        partition: consumed.partition,
        offset: consumed.record.offset.value(),
        timestamp_ms: consumed.record.timestamp.value(),
        key: consumed.record.key.as_deref(),
        value: consumed.record.value.as_deref(),
        headers: &consumed.record.headers,
    }
}

fn item(consumed: &Consumed) -> Value {
    let record = &consumed.record;
    let headers = record
        .headers
        .iter()
        .map(|header| json!({ "key": header.key, "value": text_of(header.value.as_deref()) }));
    json!({
        "topic": consumed.topic,
        "partition": consumed.partition,
        "offset": record.offset.value(),
        "timestamp_ms": record.timestamp.value(),
        "key": text_of(record.key.as_deref()),
        "value": text_of(record.value.as_deref()),
        "headers": headers.collect::<Vec<_>>(),
    })
}

/// Bytes as text; where they are none, as an object that says so.
fn text_of(bytes: Option<&[u8]>) -> Value {
    let Some(bytes) = bytes else { return Value::Null };
    match std::str::from_utf8(bytes) {
        Ok(text) => json!(text),
        Err(_) => {
            let mut encoded = Vec::new();
            Encoding::Base64.encode(bytes, &mut encoded);
            json!({ "base64": String::from_utf8_lossy(&encoded) })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_stay_within_the_log() {
        let at = |place| offset_of(place, 10, 20, |time| (time < 100).then_some(15));
        assert_eq!([at(Place::Start), at(Place::End)], [10, 20]);
        assert_eq!([at(Place::AfterStart(3)), at(Place::AfterStart(30))], [13, 20]);
        assert_eq!([at(Place::BeforeEnd(3)), at(Place::BeforeEnd(30))], [17, 10]);
        assert_eq!([at(Place::At(5)), at(Place::At(12)), at(Place::At(99))], [10, 12, 20]);
        assert_eq!([at(Place::Time(1)), at(Place::Time(100))], [15, 20]);
    }

    #[test]
    fn a_pattern_is_looked_for_in_key_and_value() {
        let reading = |text: &str| Reading {
            isolation: Isolation::default(),
            only: Some(pattern(text).unwrap()),
            num: None,
        };
        let record = |key: &[u8], value: Option<&[u8]>| Record {
            offset: Offset::ZERO,
            timestamp: TimestampMs(0),
            key: Some(key.to_vec()),
            value: value.map(<[u8]>::to_vec),
            headers: Vec::new(),
        };
        let flight = record(b"AF447", Some(b"\xffParis"));
        assert!(reading("^AF").wants(&flight) && reading("(?i)paris$").wants(&flight));
        assert!(!reading("^Paris").wants(&flight) && !reading("Paris").wants(&record(b"", None)));
        let failure = pattern("a(b").unwrap_err();
        assert_eq!(failure.exit, Exit::Usage);
        assert!(failure.message.contains("unclosed group") && !failure.message.contains('\n'), "{failure}");
    }

    #[test]
    fn bytes_that_are_no_text_say_so() {
        assert_eq!(text_of(None), Value::Null);
        assert_eq!(text_of(Some(b"")), json!(""));
        assert_eq!(text_of(Some("é".as_bytes())), json!("é"));
        assert_eq!(text_of(Some(b"\xff")), json!({ "base64": "/w==" }));
    }
}
