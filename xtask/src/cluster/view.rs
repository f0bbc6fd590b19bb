//! What one broker says of its cluster, by a Metadata request of its own: which brokers there are, and of each partition
//! the leader, the replicas and those in sync.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// How long a broker may take to answer; a JVM in its collection is slow.
const ANSWER_LONGEST: Duration = Duration::from_secs(10);

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct View {
    brokers: Vec<i32>,
    partitions: Vec<Partition>,
}

#[derive(Debug, PartialEq, Eq)]
struct Partition {
    topic: String,
    index: i32,
    leader: i32,
    replicas: usize,
    in_sync: usize,
}

impl Partition {
    fn is_whole(&self) -> bool {
        self.leader >= 0 && self.in_sync == self.replicas
    }
}

/// Metadata in version 1, correlation id 1, no client id, all topics.
const REQUEST: [u8; 18] = [0, 0, 0, 14, 0, 3, 0, 1, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];

impl View {
    /// Asks the broker on that port of the loopback address.
    pub(super) fn of(port: u16) -> Result<View, String> {
        let speak = || -> std::io::Result<Vec<u8>> {
            let mut stream = TcpStream::connect(("127.0.0.1", port))?;
            stream.set_read_timeout(Some(ANSWER_LONGEST))?;
            stream.write_all(&REQUEST)?;
            let mut size = [0; 4];
            stream.read_exact(&mut size)?;
            let mut body = vec![0; u32::from_be_bytes(size).min(64 << 20) as usize];
            stream.read_exact(&mut body)?;
            Ok(body)
        };
        let body = speak().map_err(|e| format!("ask for metadata: {e}"))?;
        let mut rest = &body[..];
        parse(&mut rest).ok_or_else(|| "the answer about metadata cannot be read".to_owned())
    }

    pub(super) fn partition_count(&self) -> usize {
        self.partitions.len()
    }

    pub(super) fn led_by(&self, node: i32) -> usize {
        self.partitions.iter().filter(|partition| partition.leader == node).count()
    }

    pub(super) fn is_whole(&self, brokers: usize) -> Result<(), String> {
        self.knows(brokers)?;
        self.all(Partition::is_whole)
    }

    /// Whether so many brokers are known.
    pub(super) fn knows(&self, brokers: usize) -> Result<(), String> {
        match self.brokers.len() == brokers {
            true => Ok(()),
            false => Err(format!("it knows the brokers {:?}, {brokers} are due", self.brokers)),
        }
    }

    /// The partitions without a leader, or with replicas that are not in sync.
    pub(super) fn lacking(&self) -> impl Iterator<Item = String> {
        let lacking = self.partitions.iter().filter(|partition| !partition.is_whole());
        lacking.map(|partition| format!("{}-{}", partition.topic, partition.index))
    }

    /// Whether every partition that another node can lead has a leader, and none of them is that node.
    pub(super) fn is_led_without(&self, node: i32) -> Result<(), String> {
        self.all(|partition| partition.replicas == 1 || (partition.leader >= 0 && partition.leader != node))
    }

    fn all(&self, is: impl Fn(&Partition) -> bool) -> Result<(), String> {
        let faults: Vec<&Partition> = self.partitions.iter().filter(|partition| !is(partition)).collect();
        match faults.first() {
            None => Ok(()),
            Some(first) => Err(format!(
                "{} partitions are not as they are to be, the first {}-{} has leader {} and {} of {} replicas in sync",
                faults.len(),
                first.topic,
                first.index,
                first.leader,
                first.in_sync,
                first.replicas
            )),
        }
    }
}

fn parse(rest: &mut &[u8]) -> Option<View> {
    let mut view = View::default();
    number(rest)?; // correlation id
    for _ in 0..number(rest)? {
        view.brokers.push(number(rest)?);
        text(rest)?; // host
        number(rest)?; // port
        text(rest)?; // rack
    }
    number(rest)?; // controller
    for _ in 0..number(rest)? {
        short(rest)?;
        let topic = text(rest)?;
        take(rest, 1)?; // whether it is internal
        for _ in 0..number(rest)? {
            short(rest)?;
            view.partitions.push(Partition {
                topic: topic.clone(),
                index: number(rest)?,
                leader: number(rest)?,
                replicas: numbers(rest)?,
                in_sync: numbers(rest)?,
            });
        }
    }
    Some(view)
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (part, left) = rest.split_at_checked(length)?;
    *rest = left;
    Some(part)
}

fn short(rest: &mut &[u8]) -> Option<i16> {
    Some(i16::from_be_bytes(take(rest, 2)?.try_into().ok()?))
}

fn number(rest: &mut &[u8]) -> Option<i32> {
    Some(i32::from_be_bytes(take(rest, 4)?.try_into().ok()?))
}

/// A text; a null one is empty.
fn text(rest: &mut &[u8]) -> Option<String> {
    let length = usize::try_from(short(rest)?).unwrap_or(0);
    Some(String::from_utf8_lossy(take(rest, length)?).into_owned())
}

/// How many numbers a list holds.
fn numbers(rest: &mut &[u8]) -> Option<usize> {
    let count = usize::try_from(number(rest)?).ok()?;
    take(rest, count.checked_mul(4)?)?;
    Some(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two brokers, and a topic `t` with one partition on both that has one replica in sync.
    const ANSWER: &[u8] = &[
        0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 1, 0, 1, b'a', 0, 0, 0, 7, 0xff, 0xff, 0, 0, 0, 2, 0, 1, b'b', 0, 0,
        0, 8, 0, 1, b'r', 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, b't', 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        2, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 2,
    ];

    #[test]
    fn an_answer_is_read_and_judged() {
        let mut rest = ANSWER;
        let mut view = parse(&mut rest).unwrap();
        assert!(rest.is_empty());
        assert_eq!(view.brokers, [1, 2]);
        let reason = view.is_whole(2).unwrap_err();
        assert!(reason.contains("t-0 has leader 2 and 1 of 2 replicas in sync"), "{reason}");
        assert!(view.is_whole(3).unwrap_err().contains("3 are due"));
        assert_eq!(view.lacking().collect::<Vec<_>>(), ["t-0"]);
        assert!(view.is_led_without(2).is_err());
        assert_eq!(view.is_led_without(1), Ok(()));
        view.partitions[0].replicas = 1;
        assert_eq!(view.is_led_without(2), Ok(()), "nobody else has it");
        view.partitions[0].replicas = 2;
        view.partitions[0].in_sync = 2;
        assert_eq!(view.is_whole(2), Ok(()));
        for cut in 0..ANSWER.len() {
            assert_eq!(parse(&mut &ANSWER[..cut]), None, "cut at {cut}");
        }
    }
}
