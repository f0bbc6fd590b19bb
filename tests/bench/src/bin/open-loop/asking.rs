//! What the driver asks the broker before and after the run, on connections of their own: whether every partition has a
//! leader that serves, and how much is in the topic.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use ouzel_bench::wire::{
    LIST_OFFSETS, LIST_OFFSETS_VERSION, METADATA, METADATA_VERSION, Put, Reader, TOPIC, request,
};

use crate::task::Task;

/// How long the topic may take to have all its leaders.
const LEADERS_MAX: Duration = Duration::from_secs(60);
/// How often a topic is asked for while it has not all its leaders.
const ASK_EVERY: Duration = Duration::from_millis(1);

/// Waits until the topic has all its partitions, each with a leader that serves: a broker may name itself as the leader
/// a moment before it knows of it, and the driver, unlike a client, tries nothing again.
pub(crate) fn await_leaders(task: &Task) -> io::Result<()> {
    let began = Instant::now();
    loop {
        let led = leaders(task.port)?;
        if led >= task.partitions as usize && ends(task).is_ok() {
            return Ok(());
        }
        if began.elapsed() > LEADERS_MAX {
            return Err(io::Error::other(format!("of {} partitions {led} have a leader", task.partitions)));
        }
        std::thread::sleep(ASK_EVERY);
    }
}

/// How many partitions of the topic have a leader.
fn leaders(port: u16) -> io::Result<usize> {
    let mut body = Vec::new();
    body.put_i32(1);
    body.put_string(TOPIC);
    body.put_i8(0); // make none
    let frame = ask(port, &request(METADATA, METADATA_VERSION, &body))?;
    let mut reader = Reader::new(&frame);
    reader.i32()?; // correlation id
    reader.i32()?; // throttle time
    for _ in 0..reader.i32()? {
        reader.i32()?;
        reader.string()?;
        reader.i32()?;
        reader.string()?; // rack
    }
    reader.string()?; // cluster id
    reader.i32()?; // controller
    let mut led = 0;
    for _ in 0..reader.i32()? {
        reader.i16()?;
        reader.string()?;
        reader.i8()?;
        for _ in 0..reader.i32()? {
            let code = reader.i16()?;
            reader.i32()?; // partition
            let leader = reader.i32()?;
            for _ in 0..2 {
                for _ in 0..reader.i32()? {
                    reader.i32()?; // a replica, then one in sync
                }
            }
            led += usize::from(code == 0 && leader >= 0);
        }
    }
    Ok(led)
}

/// What ListOffsets calls both ends of a log.
const LATEST: i64 = -1;
const EARLIEST: i64 = -2;

/// The log end offset of each partition; an error if one of them does not serve.
pub(crate) fn ends(task: &Task) -> io::Result<Vec<i64>> {
    offsets(task, LATEST)
}

/// The log end offsets of all partitions together.
pub(crate) fn records(task: &Task) -> io::Result<i64> {
    Ok(ends(task)?.iter().sum())
}

/// The first offsets of all partitions together: how many records are there no more.
pub(crate) fn records_before(task: &Task) -> io::Result<u64> {
    Ok(offsets(task, EARLIEST)?.iter().sum::<i64>().max(0) as u64)
}

fn offsets(task: &Task, which: i64) -> io::Result<Vec<i64>> {
    let mut body = Vec::new();
    body.put_i32(-1); // no replica
    body.put_i32(1);
    body.put_string(TOPIC);
    body.put_i32(task.partitions as i32);
    for partition in 0..task.partitions {
        body.put_i32(partition as i32);
        body.put_i64(which);
    }
    let frame = ask(task.port, &request(LIST_OFFSETS, LIST_OFFSETS_VERSION, &body))?;
    let mut reader = Reader::new(&frame);
    reader.i32()?; // correlation id
    reader.i32()?; // one topic
    reader.string()?;
    let mut offsets = vec![0; task.partitions as usize];
    for _ in 0..reader.i32()? {
        let (partition, code) = (reader.i32()?, reader.i16()?);
        reader.i64()?; // timestamp
        let offset = reader.i64()?;
        match offsets.get_mut(partition as usize) {
            Some(place) if code == 0 => *place = offset,
            _ => {
                return Err(io::Error::other(format!(
                    "partition {partition} tells no offset, but error {code}"
                )));
            }
        }
    }
    Ok(offsets)
}

/// One request and its answer, without the answer's length.
fn ask(port: u16, request: &[u8]) -> io::Result<Vec<u8>> {
    let mut socket = TcpStream::connect(("127.0.0.1", port))?;
    socket.set_read_timeout(Some(LEADERS_MAX))?;
    socket.write_all(request)?;
    let mut length = [0; 4];
    socket.read_exact(&mut length)?;
    let mut frame = vec![0; u32::from_be_bytes(length).min(16 << 20) as usize];
    socket.read_exact(&mut frame)?;
    Ok(frame)
}
