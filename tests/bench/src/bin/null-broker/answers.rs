//! Request in, response out: the six requests that a producer and a consumer without a group need.

use std::io;
use std::time::Duration;

use ouzel_bench::outbox::Outbox;
use ouzel_bench::wire::{
    API_VERSIONS, FETCH, FETCH_VERSION, INIT_PRODUCER_ID, LIST_OFFSETS, LIST_OFFSETS_VERSION, METADATA,
    METADATA_VERSION, PRODUCE, PRODUCE_VERSION, Put, Reader, TOPIC, response,
};

use crate::log::{Logs, Slice};

const UNSUPPORTED_VERSION: i16 = 35;
const UNKNOWN_TOPIC_OR_PARTITION: i16 = 3;
const CORRUPT_MESSAGE: i16 = 2;
const NODE_ID: i32 = 1;

/// What a fetch wants, kept while there is nothing for it.
#[derive(Debug)]
pub(crate) struct Fetch {
    correlation: i32,
    pub(crate) wait_max: Duration,
    bytes_max: usize,
    topics: Vec<(String, Vec<Wanted>)>,
}

#[derive(Debug, Clone, Copy)]
struct Wanted {
    partition: i32,
    offset: i64,
    bytes_max: usize,
}

/// Answers a request, or gives back the fetch that must wait.
pub(crate) fn answer(
    port: u16,
    logs: &mut Logs,
    frame: &mut [u8],
    out: &mut Outbox,
) -> io::Result<Option<Fetch>> {
    let mut reader = Reader::new(frame);
    let (key, version, correlation) = (reader.i16()?, reader.i16()?, reader.i32()?);
    reader.string()?; // client id
    let body_at = frame.len() - reader.remaining();
    match (key, version) {
        (PRODUCE, PRODUCE_VERSION) => produce(logs, correlation, &mut frame[body_at..], out)?,
        (FETCH, FETCH_VERSION) => {
            let fetch = read_fetch(correlation, reader)?;
            if !serve_fetch(logs, &fetch, false, out) {
                return Ok(Some(fetch));
            }
        }
        (LIST_OFFSETS, LIST_OFFSETS_VERSION) => out.push(list_offsets(logs, correlation, reader)?),
        (METADATA, METADATA_VERSION) => out.push(metadata(port, logs, correlation, reader)?),
        (API_VERSIONS, version) => out.push(api_versions(correlation, version)),
        (INIT_PRODUCER_ID, 0) => {
            let mut body = Vec::new();
            body.put_i32(0); // throttle time
            body.put_i16(0);
            body.put_i64(1);
            body.put_i16(0);
            out.push(response(correlation, &body));
        }
        (key, version) => {
            let what = format!("the null broker knows no request {key} of version {version}");
            return Err(io::Error::new(io::ErrorKind::Unsupported, what));
        }
    }
    Ok(None)
}

fn api_versions(correlation: i32, version: i16) -> Vec<u8> {
    let mut body = Vec::new();
    body.put_i16(if version == 0 { 0 } else { UNSUPPORTED_VERSION });
    let served = [
        (PRODUCE, PRODUCE_VERSION),
        (FETCH, FETCH_VERSION),
        (LIST_OFFSETS, LIST_OFFSETS_VERSION),
        (METADATA, METADATA_VERSION),
        (API_VERSIONS, 0),
        (INIT_PRODUCER_ID, 0),
    ];
    body.put_i32(served.len() as i32);
    for (key, version) in served {
        body.put_i16(key);
        body.put_i16(version);
        body.put_i16(version);
    }
    response(correlation, &body)
}

fn metadata(port: u16, logs: &Logs, correlation: i32, mut request: Reader<'_>) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    body.put_i32(0); // throttle time
    body.put_i32(1);
    body.put_i32(NODE_ID);
    body.put_string("127.0.0.1");
    body.put_i32(i32::from(port));
    body.put_i16(-1); // no rack
    body.put_string("null");
    body.put_i32(NODE_ID); // controller
    let named = request.i32()?;
    // None are named: all are meant.
    let topics = if named < 0 { 1 } else { named };
    body.put_i32(topics);
    for _ in 0..topics {
        body.put_i16(0);
        body.put_string(if named < 0 { TOPIC } else { request.string()? });
        body.put_i8(0); // not internal
        body.put_i32(logs.logs.len() as i32);
        for partition in 0..logs.logs.len() {
            body.put_i16(0);
            body.put_i32(partition as i32);
            // Leader, then replicas and those in sync, of which it is the only one.
            for field in [NODE_ID, 1, NODE_ID, 1, NODE_ID] {
                body.put_i32(field);
            }
        }
    }
    Ok(response(correlation, &body))
}

fn list_offsets(logs: &mut Logs, correlation: i32, mut request: Reader<'_>) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    request.i32()?; // replica
    let topics = request.i32()?.max(0);
    body.put_i32(topics);
    for _ in 0..topics {
        body.put_string(request.string()?);
        let partitions = request.i32()?.max(0);
        body.put_i32(partitions);
        for _ in 0..partitions {
            let (partition, timestamp) = (request.i32()?, request.i64()?);
            let end = logs.get(partition).map(|log| log.end_offset);
            body.put_i32(partition);
            body.put_i16(if end.is_some() { 0 } else { UNKNOWN_TOPIC_OR_PARTITION });
            body.put_i64(-1); // timestamp
            body.put_i64(if timestamp == -1 { end.unwrap_or(-1) } else { 0 });
        }
    }
    Ok(response(correlation, &body))
}

fn produce(logs: &mut Logs, correlation: i32, frame: &mut [u8], out: &mut Outbox) -> io::Result<()> {
    let whole = frame.len();
    let mut request = Reader::new(frame);
    request.string()?; // transactional id
    let acks = request.i16()?;
    request.i32()?; // timeout
    let topics = request.i32()?.max(0);
    let mut at = whole - request.remaining();
    let mut body = Vec::new();
    body.put_i32(topics);
    for _ in 0..topics {
        let mut request = Reader::new(&frame[at..]);
        body.put_string(request.string()?);
        let partitions = request.i32()?.max(0);
        at = whole - request.remaining();
        body.put_i32(partitions);
        for _ in 0..partitions {
            let mut request = Reader::new(&frame[at..]);
            let partition = request.i32()?;
            let length = request.bytes()?.len();
            at = whole - request.remaining();
            let records = &mut frame[at - length..at];
            let (code, base_offset) = match logs.get(partition).map(|log| log.append(records)) {
                Some(Ok(base_offset)) => (0, base_offset),
                Some(Err(e)) if e.kind() == io::ErrorKind::InvalidData => (CORRUPT_MESSAGE, -1),
                Some(Err(e)) => return Err(e),
                None => (UNKNOWN_TOPIC_OR_PARTITION, -1),
            };
            body.put_i32(partition);
            body.put_i16(code);
            body.put_i64(base_offset);
            body.put_i64(-1); // log append time
            body.put_i64(0); // log start offset
        }
    }
    body.put_i32(0); // throttle time
    if acks != 0 {
        out.push(response(correlation, &body));
    }
    Ok(())
}

fn read_fetch(correlation: i32, mut request: Reader<'_>) -> io::Result<Fetch> {
    request.i32()?; // replica
    let wait_max = Duration::from_millis(request.i32()?.max(0) as u64);
    request.i32()?; // fewest bytes: one is as good as any
    let bytes_max = request.i32()?.max(0) as usize;
    request.i8()?; // isolation level
    let mut topics = Vec::new();
    for _ in 0..request.i32()?.max(0) {
        let name = request.string()?.to_owned();
        let mut wanted = Vec::new();
        for _ in 0..request.i32()?.max(0) {
            let (partition, offset) = (request.i32()?, request.i64()?);
            wanted.push(Wanted { partition, offset, bytes_max: request.i32()?.max(0) as usize });
        }
        topics.push((name, wanted));
    }
    Ok(Fetch { correlation, wait_max, bytes_max, topics })
}

/// Answers a fetch if there is something for it, or `anyway`. Whether it was answered.
pub(crate) fn serve_fetch(logs: &mut Logs, fetch: &Fetch, anyway: bool, out: &mut Outbox) -> bool {
    let mut left = fetch.bytes_max;
    let mut found: Vec<Option<Slice>> = Vec::new();
    for wanted in fetch.topics.iter().flat_map(|(_, wanted)| wanted) {
        let slice = match logs.get(wanted.partition) {
            Some(log) if left > 0 => log.read(wanted.offset, wanted.bytes_max.min(left)),
            _ => None,
        };
        left -= slice.map_or(0, |slice| slice.bytes).min(left);
        found.push(slice);
    }
    if found.iter().all(Option::is_none) && !anyway {
        return false;
    }
    // Bytes in memory up to each slice, and the slice itself.
    let mut pieces = Vec::new();
    let mut body = Vec::new();
    body.put_i32(fetch.correlation);
    body.put_i32(0); // throttle time
    body.put_i32(fetch.topics.len() as i32);
    let mut found = found.into_iter();
    for (name, wanted) in &fetch.topics {
        body.put_string(name);
        body.put_i32(wanted.len() as i32);
        for wanted in wanted {
            let end = logs.get(wanted.partition).map(|log| log.end_offset);
            body.put_i32(wanted.partition);
            body.put_i16(if end.is_some() { 0 } else { UNKNOWN_TOPIC_OR_PARTITION });
            body.put_i64(end.unwrap_or(-1)); // high watermark
            body.put_i64(end.unwrap_or(-1)); // last stable offset
            body.put_i32(-1); // no transactions were aborted
            let slice = found.next().flatten();
            body.put_i32(slice.map_or(0, |slice| slice.bytes as i32));
            pieces.push((std::mem::take(&mut body), slice.map(|slice| (wanted.partition, slice))));
        }
    }
    pieces.push((body, None));
    let length: usize =
        pieces.iter().map(|(bytes, slice)| bytes.len() + slice.map_or(0, |(_, slice)| slice.bytes)).sum();
    out.push(&(length as i32).to_be_bytes()[..]);
    for (bytes, slice) in pieces {
        if !bytes.is_empty() {
            out.push(bytes);
        }
        if let Some((partition, slice)) = slice
            && let Some(log) = logs.get(partition)
        {
            out.push_file(&log.file, slice.at, slice.bytes);
        }
    }
    true
}
