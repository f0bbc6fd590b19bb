//! One connection that produces, with requests that are encoded before the run.

use std::collections::VecDeque;
use std::io;
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use ouzel_bench::batch::{self, Shape};
use ouzel_bench::connection::Connection;
use ouzel_bench::wire::{PRODUCE, PRODUCE_VERSION, Put, Reader, TOPIC, request};

use crate::tally::Tally;
use crate::task::Task;

/// Batches of different contents that producers send in turn.
const CONTENTS: u64 = 16;

/// Requests that a connection has unanswered at most; the clients' default.
const IN_FLIGHT_MAX: usize = 5;

/// How long a broker may take to acknowledge, in milliseconds; the clients' default.
const TIMEOUT_MS: i32 = 30_000;

/// All batches, shared by the producers.
pub(crate) fn batches(task: &Task, now_ms: i64) -> Vec<Arc<[u8]>> {
    let shape = Shape { records: task.records, value_bytes: task.value_bytes, keyed: task.keyed };
    (0..CONTENTS).map(|seed| batch::build(shape, seed, now_ms).into()).collect()
}

#[derive(Debug)]
pub(crate) struct Producer {
    pub(crate) connection: Connection,
    /// Everything of a request before its batch, for each partition of this producer.
    heads: Vec<(u32, Arc<[u8]>)>,
    batches: Vec<Arc<[u8]>>,
    sent: usize,
    /// Due, and not sent: the broker has not answered those before.
    backlog: VecDeque<Duration>,
    /// Sent and not answered, in order.
    in_flight: VecDeque<Duration>,
    acks: i16,
    records: u64,
    /// A closed loop sends whenever it may; no more once it is told to end.
    closed_loop: bool,
}

/// A batch that was given to the connection: of which partition, due when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sent {
    pub(crate) partition: u32,
    pub(crate) due: Duration,
}

impl Producer {
    pub(crate) fn connect(task: &Task, index: u32, batches: &[Arc<[u8]>]) -> io::Result<Producer> {
        let heads = partitions_of(task, index)
            .map(|partition| (partition, head(partition, task.acks, batches[0].len()).into()))
            .collect();
        Ok(Producer {
            connection: Connection::new(TcpStream::connect(("127.0.0.1", task.port))?)?,
            heads,
            batches: batches.to_vec(),
            // Producers begin at different batches and partitions.
            sent: index as usize,
            backlog: VecDeque::new(),
            in_flight: VecDeque::new(),
            acks: task.acks,
            records: u64::from(task.records),
            closed_loop: task.rate.is_none(),
        })
    }

    /// A batch became due.
    pub(crate) fn take_on(&mut self, due: Duration) {
        self.backlog.push_back(due);
    }

    /// No more batches are due.
    pub(crate) fn end(&mut self) {
        self.closed_loop = false;
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.backlog.is_empty() && self.in_flight.is_empty()
    }

    /// What was due and has no answer.
    pub(crate) fn left(&self) -> impl Iterator<Item = Duration> {
        self.in_flight.iter().chain(&self.backlog).copied()
    }

    /// What was due and has not been sent.
    pub(crate) fn unsent(&self) -> impl Iterator<Item = Duration> {
        self.backlog.iter().copied()
    }

    /// Sends what may be sent; `sent` is told of each batch before it goes. Whether more could be sent at once: only a closed
    /// loop without acknowledgements says so, since nothing else would call on it again.
    pub(crate) fn pump(
        &mut self,
        now: Duration,
        tally: &mut Tally,
        mut sent: impl FnMut(Sent),
    ) -> io::Result<bool> {
        loop {
            while self.in_flight.len() < IN_FLIGHT_MAX {
                let due = match self.backlog.pop_front() {
                    Some(due) => due,
                    None if self.closed_loop => now,
                    None => break,
                };
                let (partition, head) = &self.heads[self.sent % self.heads.len()];
                let batch = &self.batches[(self.sent / self.heads.len()) % self.batches.len()];
                sent(Sent { partition: *partition, due });
                self.connection.outbox.push(Arc::clone(head));
                self.connection.outbox.push(Arc::clone(batch));
                self.in_flight.push_back(due);
                self.sent += 1;
            }
            let all_is_sent = self.connection.send()?;
            if self.acks != 0 || !all_is_sent || self.in_flight.is_empty() {
                return Ok(false);
            }
            // Without acknowledgements a batch is done when the socket has it; there is no latency to tell.
            tally.produced(now, self.records * self.in_flight.len() as u64);
            self.in_flight.clear();
            if self.closed_loop {
                return Ok(true);
            }
        }
    }

    /// Reads answers. Without acknowledgements there are none.
    pub(crate) fn receive(
        &mut self,
        now: Duration,
        tally: &mut Tally,
        latency_counts: bool,
    ) -> io::Result<()> {
        loop {
            let may_be_more = self.connection.receive()?;
            let (in_flight, records) = (&mut self.in_flight, self.records);
            self.connection.frames(|frame, _| {
                check(frame)?;
                let Some(due) = in_flight.pop_front() else {
                    return Err(io::Error::other("an answer to nothing"));
                };
                tally.produced(now, records);
                if latency_counts {
                    tally.answered(due, now);
                }
                Ok(true)
            })?;
            if !may_be_more {
                return Ok(());
            }
        }
    }
}

/// The partitions of a producer: shared out if there are enough, otherwise one each, in turn.
fn partitions_of(task: &Task, index: u32) -> Box<dyn Iterator<Item = u32>> {
    match task.producers <= task.partitions {
        true => Box::new((index..task.partitions).step_by(task.producers as usize)),
        // Keyed records of one producer go everywhere.
        false => Box::new(0..task.partitions),
    }
}

/// A request for one batch up to where the batch begins.
fn head(partition: u32, acks: i16, batch_bytes: usize) -> Vec<u8> {
    let mut body = Vec::new();
    body.put_i16(-1); // no transactional id
    body.put_i16(acks);
    body.put_i32(TIMEOUT_MS);
    body.put_i32(1);
    body.put_string(TOPIC);
    body.put_i32(1);
    body.put_i32(partition as i32);
    body.put_i32(batch_bytes as i32);
    let mut head = request(PRODUCE, PRODUCE_VERSION, &body);
    let length = (head.len() - 4 + batch_bytes) as i32;
    head[..4].copy_from_slice(&length.to_be_bytes());
    head
}

/// An answer to one batch; any error ends the run.
fn check(frame: &[u8]) -> io::Result<()> {
    let mut reader = Reader::new(frame);
    reader.i32()?; // correlation id
    reader.i32()?; // one topic
    reader.string()?;
    reader.i32()?; // one partition
    let (partition, code) = (reader.i32()?, reader.i16()?);
    match code {
        0 => Ok(()),
        code => Err(io::Error::other(format!("partition {partition} refuses a batch with error {code}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(producers: u32, partitions: u32) -> Task {
        let words = format!("--port 1 --producers {producers} --partitions {partitions}");
        Task::parse(&words.split(' ').map(str::to_owned).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn partitions_are_shared_out_or_written_by_all() {
        let of = |task: &Task, index| partitions_of(task, index).collect::<Vec<_>>();
        let few = task(2, 5);
        assert_eq!((of(&few, 0), of(&few, 1)), (vec![0, 2, 4], vec![1, 3]));
        assert_eq!(of(&task(5, 2), 4), [0, 1]);
    }

    #[test]
    fn a_head_and_its_batch_are_one_request() {
        let head = head(3, -1, 100);
        let length = i32::from_be_bytes(std::array::from_fn(|index| head[index]));
        assert_eq!(length as usize, head.len() - 4 + 100);
        assert_eq!(head[head.len() - 8..], [0, 0, 0, 3, 0, 0, 0, 100]);
    }
}
