//! Whose broker runs in a row, and what it promises there.

use std::path::Path;

use super::pinning::Pinning;
use crate::broker_process::{Against, BrokerProcess, free_ports};
use crate::cluster::Cluster;
use crate::provision;

/// A broker that takes part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Contender {
    Ouzel,
    Kafka,
    /// The floor: receives, checks the CRC, writes to the page cache, answers.
    Null,
}

impl Contender {
    pub(super) fn name(self) -> &'static str {
        match self {
            Contender::Ouzel => "ouzel",
            Contender::Kafka => "kafka",
            Contender::Null => "null",
        }
    }

    /// Gets the brokers of a row ready on fresh data, pinned to their core.
    pub(super) fn prepare(self, place: &Place<'_>) -> Result<Cluster, String> {
        let (partitions, replicas) = (place.partitions.to_string(), place.nodes.to_string());
        let mut settings = vec![("num.partitions", partitions.as_str())];
        if place.nodes > 1 {
            settings.push(("default.replication.factor", replicas.as_str()));
            settings.push(("min.insync.replicas", "2"));
        }
        settings.extend_from_slice(place.mode.settings(self));
        settings.extend_from_slice(place.settings);
        let folders = Cluster::folders(place.folder, place.nodes as usize);
        let of =
            |against| BrokerProcess::prepare_measured(place.root, against, place.ouzel, &folders, &settings);
        let mut nodes = match self {
            Contender::Ouzel => of(Against::Ouzel)?,
            Contender::Kafka => of(Against::Kafka)?,
            Contender::Null => {
                provision::create_dir(place.folder)?;
                let [port] = free_ports()?;
                let program = place.tools.join("null-broker").display().to_string();
                let data = place.folder.join("data").display().to_string();
                let command = vec![program, port.to_string(), partitions, data];
                vec![BrokerProcess::of_command(command, place.folder, port)]
            }
        };
        nodes.iter_mut().for_each(|node| node.start_through(&place.pinning.broker()));
        Ok(Cluster::of(nodes))
    }
}

/// What a broker of a row is made of.
#[derive(Debug)]
pub(super) struct Place<'a> {
    pub(super) root: &'a Path,
    /// Where the broker keeps its data; must be new.
    pub(super) folder: &'a Path,
    pub(super) ouzel: &'a Path,
    /// The folder of the bench's own binaries.
    pub(super) tools: &'a Path,
    pub(super) pinning: &'a Pinning,
    pub(super) mode: Mode,
    /// Brokers of one cluster, with a replica of every partition each.
    pub(super) nodes: u32,
    /// Of every topic that is made by naming it.
    pub(super) partitions: u32,
    /// Kafka's keys that the workload itself is about, alike for both.
    pub(super) settings: &'a [(&'a str, &'a str)],
}

/// What an acknowledgement of acks=1 and acks=all means in a row: never more on one side than on the other, but in
/// [`Mode::Defaults`], which says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// In the page cache; nobody flushes.
    PageCache,
    /// Flushed to disk.
    Flushed,
    /// Whatever each does unasked: ouzel flushes before it acknowledges acks=all, Kafka does not.
    Defaults,
}

impl Mode {
    /// The word on the row.
    pub(super) fn word(self) -> &'static str {
        match self {
            Mode::PageCache => "no flush",
            Mode::Flushed => "flushed",
            Mode::Defaults => "defaults",
        }
    }

    /// What one side does in this mode, for the reader of a result.
    pub(super) fn of(self, contender: Contender) -> &'static str {
        match (self, contender) {
            (_, Contender::Null) => "page cache, never flushes",
            (Mode::PageCache, Contender::Ouzel) => {
                "log.ouzel.durability=os: acknowledges from the page cache"
            }
            (Mode::PageCache, Contender::Kafka) => "as shipped: acknowledges from the page cache",
            (Mode::Flushed, Contender::Ouzel) => "log.ouzel.durability=durable: acks=all after the flush",
            (Mode::Flushed, Contender::Kafka) => {
                "log.flush.interval.messages=1: acknowledges after the flush"
            }
            (Mode::Defaults, Contender::Ouzel) => "as shipped (durable): acks=all after the flush",
            (Mode::Defaults, Contender::Kafka) => "as shipped: acknowledges from the page cache",
        }
    }

    fn settings(self, contender: Contender) -> &'static [(&'static str, &'static str)] {
        match (self, contender) {
            (Mode::PageCache, Contender::Ouzel) => &[("log.ouzel.durability", "os")],
            (Mode::Flushed, Contender::Ouzel) => &[("log.ouzel.durability", "durable")],
            (Mode::Flushed, Contender::Kafka) => &[("log.flush.interval.messages", "1")],
            _ => &[],
        }
    }

    /// Whose promise this mode is. The null broker has none but the page cache's.
    pub(super) fn contenders(self) -> &'static [Contender] {
        match self {
            Mode::PageCache => &[Contender::Ouzel, Contender::Kafka, Contender::Null],
            Mode::Flushed | Mode::Defaults => &[Contender::Ouzel, Contender::Kafka],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An unfair row is worse than none: only one side flushing is allowed where the row is named after it.
    #[test]
    fn either_both_flush_or_neither() {
        let flushes = |mode: Mode, contender| {
            let settings = mode.settings(contender);
            // ouzel's default is durable, Kafka's is not.
            match contender {
                Contender::Ouzel => !settings.contains(&("log.ouzel.durability", "os")),
                _ => settings.contains(&("log.flush.interval.messages", "1")),
            }
        };
        for (mode, both) in [(Mode::PageCache, [false, false]), (Mode::Flushed, [true, true])] {
            assert_eq!([flushes(mode, Contender::Ouzel), flushes(mode, Contender::Kafka)], both);
        }
        assert!(Mode::Defaults.settings(Contender::Ouzel).is_empty());
        assert!(Mode::Defaults.settings(Contender::Kafka).is_empty());
        assert!(!Mode::Flushed.contenders().contains(&Contender::Null));
    }
}
