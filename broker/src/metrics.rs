//! What a core counts, and how the counts of all cores become one exposition.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::time::Duration;

use ouzel_model::LeaderEpoch;
use ouzel_protocol::{ApiKey, Response};
use ouzel_runtime::held::HoldTimes;
use ouzel_runtime::net::FileSent;
use ouzel_storage::log::Compacted;

/// Upper bounds of the latency buckets, in seconds; from a hot produce to a long poll.
pub const LATENCY_BOUNDS_S: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// One core's counters: plain cells, as only its thread touches them.
#[derive(Debug, Default)]
pub struct CoreMetrics {
    requests: RefCell<BTreeMap<(ApiKey, i16), u64>>,
    latencies: RefCell<BTreeMap<ApiKey, Histogram>>,
    bytes_received: Cell<u64>,
    bytes_sent: Cell<u64>,
    file_slices: Cell<FileSent>,
    connections_opened: Cell<u64>,
    connections_closed: Cell<u64>,
    connections_refused: Cell<u64>,
    cleaner: RefCell<CleanerSample>,
    tails_given_up: Cell<u64>,
    inherited: Cell<u64>,
    reversions: Cell<u64>,
    elections: Cell<u64>,
    in_sync_shrinks: Cell<u64>,
    in_sync_expands: Cell<u64>,
}

/// Counts per bucket, the last one without bound, with their sum.
#[derive(Clone, Debug, Default)]
pub struct Histogram {
    /// Observations per bucket, not cumulative.
    pub counts: [u64; LATENCY_BOUNDS_S.len() + 1],
    /// All observations together, in seconds.
    pub sum_s: f64,
}

impl Histogram {
    fn observe(&mut self, took: Duration) {
        let seconds = took.as_secs_f64();
        let bucket = LATENCY_BOUNDS_S.partition_point(|bound| *bound < seconds);
        self.counts[bucket] += 1;
        self.sum_s += seconds;
    }

    fn add(&mut self, other: &Histogram) {
        self.counts.iter_mut().zip(other.counts).for_each(|(count, more)| *count += more);
        self.sum_s += other.sum_s;
    }
}

fn count(cell: &Cell<u64>, more: u64) {
    cell.set(cell.get() + more);
}

impl CoreMetrics {
    /// A response is about to leave.
    pub fn request_answered(&self, response: &Response, took: Duration) {
        let api = response.api_key();
        *self.requests.borrow_mut().entry((api, top_error(response))).or_default() += 1;
        self.latencies.borrow_mut().entry(api).or_default().observe(took);
    }

    /// Bytes came in.
    pub fn bytes_received(&self, bytes: usize) {
        count(&self.bytes_received, bytes as u64);
    }

    /// Bytes went out.
    pub fn bytes_sent(&self, bytes: usize) {
        count(&self.bytes_sent, bytes as u64);
    }

    /// A range of a file went out.
    pub fn file_sent(&self, sent: FileSent) {
        let mut all = self.file_slices.get();
        all += sent;
        self.file_slices.set(all);
    }

    /// A connection began.
    pub fn connection_opened(&self) {
        count(&self.connections_opened, 1);
    }

    /// A connection ended.
    pub fn connection_closed(&self) {
        count(&self.connections_closed, 1);
    }

    /// A connection was closed because of what it sent.
    pub fn connection_refused(&self) {
        count(&self.connections_refused, 1);
    }

    /// A partition's standing changed where it leads, from what it was the last time it led here, if it ever did: the
    /// epoch, and how many are in sync.
    pub fn led(&self, was: Option<(LeaderEpoch, usize)>, is: (LeaderEpoch, usize)) {
        match was {
            Some((epoch, in_sync)) if epoch == is.0 => {
                count(&self.in_sync_shrinks, u64::from(is.1 < in_sync));
                count(&self.in_sync_expands, u64::from(is.1 > in_sync));
            }
            _ => count(&self.elections, 1),
        }
    }

    /// A log was compacted.
    pub fn cleaned(&self, done: &Compacted, took: Duration) {
        let mut cleaner = self.cleaner.borrow_mut();
        cleaner.passes += 1;
        cleaner.seconds += took.as_secs_f64();
        cleaner.bytes_read += done.bytes_mapped + done.counts.bytes_read;
        cleaner.bytes_written += done.counts.bytes_kept;
        cleaner.records_removed += done.counts.records_read - done.counts.records_kept;
        cleaner.buffer_utilization = done.map_utilization;
    }

    /// A log could not be compacted.
    pub fn cleaner_failed(&self) {
        self.cleaner.borrow_mut().failures += 1;
    }

    /// The logs were looked over: the largest part of dirty bytes, and how many are left alone.
    pub fn cleaner_looked(&self, dirty_ratio_max: f64, uncleanable: usize) {
        let mut cleaner = self.cleaner.borrow_mut();
        (cleaner.dirty_ratio_max, cleaner.uncleanable) = (dirty_ratio_max, uncleanable as u64);
    }

    /// A replica goes on though a power cut may have taken what it acknowledged.
    pub fn tail_given_up(&self) {
        count(&self.tails_given_up, 1);
    }

    /// A replica goes on alone, without what only others had.
    pub fn inherited(&self) {
        count(&self.inherited, 1);
    }

    /// A replica that saw so many others come back with less than they had acknowledged is open no more.
    pub fn replicas_reverted(&self, replicas: u64) {
        count(&self.reversions, replicas);
    }

    /// A copy of all counts.
    pub fn sample(&self) -> CoreSample {
        CoreSample {
            requests: self.requests.borrow().clone(),
            latencies: self.latencies.borrow().clone(),
            bytes_received: self.bytes_received.get(),
            bytes_sent: self.bytes_sent.get(),
            file_slices: self.file_slices.get(),
            connections_opened: self.connections_opened.get(),
            connections_closed: self.connections_closed.get(),
            connections_refused: self.connections_refused.get(),
            cleaner: *self.cleaner.borrow(),
            tails_given_up: self.tails_given_up.get(),
            inherited: self.inherited.get(),
            reversions: self.reversions.get(),
            elections: self.elections.get(),
            in_sync_shrinks: self.in_sync_shrinks.get(),
            in_sync_expands: self.in_sync_expands.get(),
            ..CoreSample::default()
        }
    }
}

/// The error a response carries as a whole, or the first one of its parts.
fn top_error(response: &Response) -> i16 {
    let mut parts: Box<dyn Iterator<Item = i16>> = match response {
        Response::Produce(r) => {
            Box::new(r.topics.iter().flat_map(|t| t.partitions.iter().map(|p| p.error_code)))
        }
        Response::Fetch(r) => {
            let parts = r.topics.iter().flat_map(|t| t.partitions.iter().map(|p| p.error_code));
            Box::new(std::iter::once(r.error_code).chain(parts))
        }
        Response::ListOffsets(r) => {
            Box::new(r.topics.iter().flat_map(|t| t.partitions.iter().map(|p| p.error_code)))
        }
        Response::Metadata(r) => Box::new(r.topics.iter().map(|t| t.error_code)),
        Response::OffsetCommit(r) => {
            Box::new(r.topics.iter().flat_map(|t| t.partitions.iter().map(|p| p.error_code)))
        }
        Response::OffsetFetch(r) => {
            Box::new(std::iter::once(r.error_code).chain(r.groups.iter().map(|g| g.error_code)))
        }
        Response::FindCoordinator(r) => {
            Box::new(std::iter::once(r.error_code).chain(r.coordinators.iter().map(|c| c.error_code)))
        }
        Response::JoinGroup(r) => Box::new(std::iter::once(r.error_code)),
        Response::Heartbeat(r) => Box::new(std::iter::once(r.error_code)),
        Response::LeaveGroup(r) => {
            Box::new(std::iter::once(r.error_code).chain(r.members.iter().map(|m| m.error_code)))
        }
        Response::SyncGroup(r) => Box::new(std::iter::once(r.error_code)),
        Response::DescribeGroups(r) => Box::new(r.groups.iter().map(|g| g.error_code)),
        Response::ListGroups(r) => Box::new(std::iter::once(r.error_code)),
        Response::ApiVersions(r) => Box::new(std::iter::once(r.error_code)),
        Response::CreateTopics(r) => Box::new(r.topics.iter().map(|t| t.error_code)),
        Response::DeleteTopics(r) => Box::new(r.responses.iter().map(|t| t.error_code)),
        Response::InitProducerId(r) => Box::new(std::iter::once(r.error_code)),
        Response::OffsetForLeaderEpoch(r) => {
            Box::new(r.topics.iter().flat_map(|t| t.partitions.iter().map(|p| p.error_code)))
        }
        Response::DescribeConfigs(r) => Box::new(r.results.iter().map(|c| c.error_code)),
        Response::DeleteGroups(r) => Box::new(r.results.iter().map(|g| g.error_code)),
        Response::IncrementalAlterConfigs(r) => Box::new(r.responses.iter().map(|c| c.error_code)),
        Response::OffsetDelete(r) => Box::new(std::iter::once(r.error_code)),
        Response::DescribeCluster(r) => Box::new(std::iter::once(r.error_code)),
        Response::DescribeLogDirs(r) => {
            Box::new(std::iter::once(r.error_code).chain(r.results.iter().map(|d| d.error_code)))
        }
        Response::CreatePartitions(r) => Box::new(r.results.iter().map(|topic| topic.error_code)),
        Response::ElectLeaders(r) => {
            let parts = r.replica_election_results.iter().flat_map(|topic| &topic.partition_result);
            Box::new(std::iter::once(r.error_code).chain(parts.map(|p| p.error_code)))
        }
        Response::AlterPartitionReassignments(r) => {
            let parts = r.responses.iter().flat_map(|topic| &topic.partitions);
            Box::new(std::iter::once(r.error_code).chain(parts.map(|p| p.error_code)))
        }
        Response::ListPartitionReassignments(r) => Box::new(std::iter::once(r.error_code)),
        Response::DescribeQuorum(r) => {
            let parts = r.topics.iter().flat_map(|topic| &topic.partitions);
            Box::new(std::iter::once(r.error_code).chain(parts.map(|p| p.error_code)))
        }
        Response::UpdateFeatures(r) => Box::new(std::iter::once(r.error_code)),
        Response::UnregisterBroker(r) => Box::new(std::iter::once(r.error_code)),
    };
    parts.find(|code| *code != 0).unwrap_or(0)
}

/// What compaction did since the start, and how it found the logs.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct CleanerSample {
    /// Passes that came to their end.
    pub passes: u64,
    /// Passes, and looks, that failed.
    pub failures: u64,
    /// Time of the passes.
    pub seconds: f64,
    /// Read from segments, for the keys and to write them anew.
    pub bytes_read: u64,
    /// Written.
    pub bytes_written: u64,
    /// Records that went.
    pub records_removed: u64,
    /// Logs that are left alone, as their last pass failed.
    pub uncleanable: u64,
    /// The largest part of dirty bytes any log had at the last look.
    pub dirty_ratio_max: f64,
    /// How much of the memory for keys the last pass used.
    pub buffer_utilization: f64,
}

impl CleanerSample {
    fn add(&mut self, other: &CleanerSample) {
        self.passes += other.passes;
        self.failures += other.failures;
        self.seconds += other.seconds;
        self.bytes_read += other.bytes_read;
        self.bytes_written += other.bytes_written;
        self.records_removed += other.records_removed;
        self.uncleanable += other.uncleanable;
        self.dirty_ratio_max = self.dirty_ratio_max.max(other.dirty_ratio_max);
        self.buffer_utilization = self.buffer_utilization.max(other.buffer_utilization);
    }
}

/// What a partition shows.
#[derive(Clone, Debug, Default)]
pub struct PartitionSample {
    /// The topic.
    pub topic: String,
    /// The index.
    pub partition: i32,
    /// Inclusive.
    pub log_start_offset: i64,
    /// Exclusive.
    pub log_end_offset: i64,
    /// Exclusive.
    pub high_watermark: i64,
    /// On disk.
    pub size_bytes: u64,
    /// Appended since start.
    pub bytes_in: u64,
    /// Appended since start.
    pub records_in: u64,
    /// Fetched since start.
    pub bytes_out: u64,
    /// Fetched since start.
    pub records_out: u64,
    /// Whether it stopped taking records.
    pub fenced: bool,
    /// Whether this node leads it.
    pub leads: bool,
    /// Replicas it ought to have, and how many of them are in sync; 0 where this node does not lead.
    pub replicas: usize,
    /// See `replicas`.
    pub in_sync: usize,
}

/// What a node did with another, on one lane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerSample {
    /// Calls, as they ended.
    pub answered: u64,
    /// The peer did not take them.
    pub refused: u64,
    /// There was no connection.
    pub unreachable: u64,
    /// No answer came in time.
    pub timed_out: u64,
    /// Bytes to the peer.
    pub bytes_sent: u64,
    /// Bytes from it.
    pub bytes_received: u64,
    /// Connections that are open.
    pub connections: u64,
}

impl PeerSample {
    fn add(&mut self, other: &PeerSample) {
        self.answered += other.answered;
        self.refused += other.refused;
        self.unreachable += other.unreachable;
        self.timed_out += other.timed_out;
        self.bytes_sent += other.bytes_sent;
        self.bytes_received += other.bytes_received;
        self.connections += other.connections;
    }
}

/// A group's progress in one partition.
#[derive(Clone, Debug)]
pub struct CommittedSample {
    /// The group.
    pub group: String,
    /// The topic.
    pub topic: String,
    /// The index.
    pub partition: i32,
    /// The next record it will read.
    pub offset: i64,
}

/// A copy of one core's counts, to be sent and summed.
#[derive(Clone, Debug, Default)]
pub struct CoreSample {
    /// Answered requests by API and error.
    pub requests: BTreeMap<(ApiKey, i16), u64>,
    /// Time from receipt to answer.
    pub latencies: BTreeMap<ApiKey, Histogram>,
    /// From clients.
    pub bytes_received: u64,
    /// To clients.
    pub bytes_sent: u64,
    /// Slices of files to clients, by how they went.
    pub file_slices: FileSent,
    /// Since start.
    pub connections_opened: u64,
    /// Since start.
    pub connections_closed: u64,
    /// Closed because of what they sent.
    pub connections_refused: u64,
    /// Compaction.
    pub cleaner: CleanerSample,
    /// Replicas that went on though a power cut may have taken what they had acknowledged.
    pub tails_given_up: u64,
    /// Replicas that went on alone, by an unclean election.
    pub inherited: u64,
    /// Followers of leaders here that came back with less than they had acknowledged.
    pub reversions: u64,
    /// The partitions of the core.
    pub partitions: Vec<PartitionSample>,
    /// What the groups of the core's coordinators have committed.
    pub committed: Vec<CommittedSample>,
    /// Groups by state.
    pub groups: BTreeMap<String, u64>,
    /// Fetch sessions.
    pub fetch_sessions: u64,
    /// Bytes of requests that may still be taken in.
    pub request_memory_free_bytes: u64,
    /// Times a partition came to be led here.
    pub elections: u64,
    /// Times a replica of a partition led here fell out of sync.
    pub in_sync_shrinks: u64,
    /// Times one got in sync again.
    pub in_sync_expands: u64,
    /// Traffic with other nodes, by node id and lane.
    pub peers: BTreeMap<(i32, &'static str), PeerSample>,
    /// Calls of other nodes that were handled.
    pub peer_calls_served: u64,
    /// Commits of the core's write-ahead file.
    pub wal_commits: u64,
    /// How long tasks held the core at a time.
    pub held: HoldTimes,
}

impl CoreSample {
    /// Adds another core's counts.
    pub fn add(&mut self, other: CoreSample) {
        for (key, more) in other.requests {
            *self.requests.entry(key).or_default() += more;
        }
        for (api, histogram) in other.latencies {
            self.latencies.entry(api).or_default().add(&histogram);
        }
        for (state, more) in other.groups {
            *self.groups.entry(state).or_default() += more;
        }
        self.bytes_received += other.bytes_received;
        self.bytes_sent += other.bytes_sent;
        self.file_slices += other.file_slices;
        self.connections_opened += other.connections_opened;
        self.connections_closed += other.connections_closed;
        self.connections_refused += other.connections_refused;
        self.tails_given_up += other.tails_given_up;
        self.inherited += other.inherited;
        self.reversions += other.reversions;
        self.cleaner.add(&other.cleaner);
        self.partitions.extend(other.partitions);
        self.committed.extend(other.committed);
        self.fetch_sessions += other.fetch_sessions;
        self.request_memory_free_bytes += other.request_memory_free_bytes;
        self.elections += other.elections;
        self.in_sync_shrinks += other.in_sync_shrinks;
        self.in_sync_expands += other.in_sync_expands;
        for (key, more) in &other.peers {
            self.peers.entry(*key).or_default().add(more);
        }
        self.peer_calls_served += other.peer_calls_served;
        self.wal_commits += other.wal_commits;
        self.held += other.held;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaders_count_their_elections_and_who_falls_out_of_sync() {
        let metrics = CoreMetrics::default();
        let mut was = None;
        for (epoch, in_sync) in [(1, 3), (1, 2), (1, 2), (1, 3), (4, 2), (4, 1)] {
            let is = (LeaderEpoch(epoch), in_sync);
            metrics.led(was, is);
            was = Some(is);
        }
        let sample = metrics.sample();
        assert_eq!((sample.elections, sample.in_sync_shrinks, sample.in_sync_expands), (2, 2, 1));
    }

    #[test]
    fn latencies_fall_into_their_buckets_and_add_up() {
        let mut histogram = Histogram::default();
        for ms in [0, 1, 2, 400, 60_000] {
            histogram.observe(Duration::from_millis(ms));
        }
        let mut twice = histogram.clone();
        twice.add(&histogram);
        assert_eq!(twice.counts.iter().sum::<u64>(), 10);
        assert_eq!(twice.counts[0], 2);
        assert_eq!(twice.counts[LATENCY_BOUNDS_S.len()], 2);
        assert!((twice.sum_s - 120.806).abs() < 1e-9);
    }
}
