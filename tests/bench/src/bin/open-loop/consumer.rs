//! One connection that fetches all partitions, from given offsets on.

use std::io;
use std::net::TcpStream;

use ouzel_bench::batch;
use ouzel_bench::connection::Connection;
use ouzel_bench::wire::{FETCH, FETCH_VERSION, Put, Reader, TOPIC, request};

use crate::task::Task;

/// How long a fetch may wait for data, in milliseconds; the clients' default.
const WAIT_MAX_MS: i32 = 500;
/// Bytes of one partition in one answer; the clients' default.
const PARTITION_BYTES_MAX: i32 = 1 << 20;
/// Bytes of one answer; the clients' default.
const ANSWER_BYTES_MAX: i32 = 50 << 20;

#[derive(Debug)]
pub(crate) struct Consumer {
    pub(crate) connection: Connection,
    /// The next offset of each partition.
    pub(crate) offsets: Vec<i64>,
    /// The last answer had nothing beyond what is read.
    pub(crate) is_at_end: bool,
    again: bool,
}

/// What a consumer was given of one partition in one answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Got {
    pub(crate) partition: usize,
    /// Offsets from here to before there.
    pub(crate) from: i64,
    pub(crate) to: i64,
}

impl Consumer {
    /// Connects; `offsets` are where it begins, one for each partition.
    pub(crate) fn connect(task: &Task, offsets: &[i64]) -> io::Result<Consumer> {
        Ok(Consumer {
            connection: Connection::new(TcpStream::connect(("127.0.0.1", task.port))?)?,
            offsets: offsets.to_vec(),
            is_at_end: false,
            again: task.again,
        })
    }

    /// Asks for what follows. Only one fetch is ever under way.
    pub(crate) fn ask(&mut self) -> io::Result<()> {
        let body = fetch(&self.offsets);
        self.connection.outbox.push(request(FETCH, FETCH_VERSION, &body));
        self.connection.send().map(|_| ())
    }

    /// Reads answers and asks on; `got` is told what came.
    pub(crate) fn receive(&mut self, mut got: impl FnMut(Got)) -> io::Result<()> {
        let mut is_answered = false;
        loop {
            let may_be_more = self.connection.receive()?;
            let (offsets, is_at_end, again) = (&mut self.offsets, &mut self.is_at_end, self.again);
            self.connection.frames(|frame, _| {
                is_answered = true;
                *is_at_end = take_in(frame, offsets, &mut got)?;
                if again && *is_at_end {
                    offsets.fill(0);
                }
                Ok(true)
            })?;
            if !may_be_more {
                return if is_answered { self.ask() } else { Ok(()) };
            }
        }
    }
}

fn fetch(offsets: &[i64]) -> Vec<u8> {
    let mut body = Vec::with_capacity(64 + offsets.len() * 16);
    body.put_i32(-1); // no replica
    body.put_i32(WAIT_MAX_MS);
    body.put_i32(1); // fewest bytes
    body.put_i32(ANSWER_BYTES_MAX);
    body.put_i8(0); // all that is committed
    body.put_i32(1);
    body.put_string(TOPIC);
    body.put_i32(offsets.len() as i32);
    for (partition, offset) in offsets.iter().enumerate() {
        body.put_i32(partition as i32);
        body.put_i64(*offset);
        body.put_i32(PARTITION_BYTES_MAX);
    }
    body
}

/// Takes an answer in. Whether every partition is read to its end.
fn take_in(frame: &[u8], offsets: &mut [i64], got: &mut impl FnMut(Got)) -> io::Result<bool> {
    let mut reader = Reader::new(frame);
    reader.i32()?; // correlation id
    reader.i32()?; // throttle time
    let mut all_at_end = true;
    for _ in 0..reader.i32()? {
        reader.string()?;
        for _ in 0..reader.i32()? {
            let (partition, code, high_watermark) = (reader.i32()?, reader.i16()?, reader.i64()?);
            if code != 0 {
                return Err(io::Error::other(format!(
                    "partition {partition} refuses a fetch with error {code}"
                )));
            }
            reader.i64()?; // last stable offset
            for _ in 0..reader.i32()?.max(0) {
                reader.take(16)?; // an aborted transaction
            }
            let records = reader.bytes()?;
            let Some(offset) = offsets.get_mut(partition as usize) else {
                return Err(io::Error::other(format!("partition {partition} was not asked for")));
            };
            let from = *offset;
            batch::walk(records, |header| *offset = (*offset).max(header.base_offset + header.offsets));
            if *offset > from {
                got(Got { partition: partition as usize, from, to: *offset });
            }
            all_at_end &= *offset >= high_watermark;
        }
    }
    Ok(all_at_end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ouzel_bench::batch::{Shape, build};

    fn answer(records: &[u8], high_watermark: i64, code: i16) -> Vec<u8> {
        let mut frame = Vec::new();
        frame.put_i32(0);
        frame.put_i32(0);
        frame.put_i32(1);
        frame.put_string(TOPIC);
        frame.put_i32(1);
        frame.put_i32(1); // the partition
        frame.put_i16(code);
        frame.put_i64(high_watermark);
        frame.put_i64(high_watermark);
        frame.put_i32(-1);
        frame.put_i32(records.len() as i32);
        frame.put(records);
        frame
    }

    #[test]
    fn offsets_follow_whole_batches() {
        let batch = build(Shape { records: 4, value_bytes: 10, keyed: false }, 1, 0);
        let cut = [&batch[..], &batch[..30]].concat();
        let (mut offsets, mut seen) = (vec![0, 2], Vec::new());
        let at_end = take_in(&answer(&cut, 9, 0), &mut offsets, &mut |got| seen.push(got)).unwrap();
        assert!(!at_end);
        assert_eq!((offsets, seen), (vec![0, 4], vec![Got { partition: 1, from: 2, to: 4 }]));
        let mut offsets = vec![0, 0];
        assert!(take_in(&answer(&batch, 4, 0), &mut offsets, &mut |_| {}).unwrap());
        assert!(take_in(&answer(&[], 0, 6), &mut offsets, &mut |_| {}).is_err());
    }
}
