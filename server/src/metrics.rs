//! `/metrics`: which families there are, and how a sample of the node becomes them.
//!
//! `families!` is the table; `docs/operations.md` shows it, and a test holds the two together.

use std::collections::{BTreeMap, HashMap};

use ouzel_broker::metrics::{CleanerSample, CoreSample, LATENCY_BOUNDS_S, PartitionSample, PeerSample};
use ouzel_protocol::ErrorCode;
use ouzel_runtime::held;

use crate::exposition::{Exposition, Family, Kind};
use crate::machine::ProcessUse;

const fn family(
    kind: Kind,
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
) -> Family {
    Family { name, kind, labels, help }
}

macro_rules! families {
    ($($constant:ident = $kind:ident $name:literal $labels:tt $help:literal;)*) => {
        $(static $constant: Family = family(Kind::$kind, $name, &$labels, $help);)*
        /// Every family, in the order of the exposition.
        #[cfg(test)]
        pub(crate) static FAMILIES: &[&Family] = &[$(&$constant),*];
    };
}

#[rustfmt::skip]
families! {
    BUILD = Gauge "ouzel_build_info" ["version"] "Always 1; the version is in the label.";
    NODE = Gauge "ouzel_node_info" ["node_id", "cluster_id"] "Always 1; who this node is, in the labels.";
    DISK_BACKEND = Gauge "ouzel_disk_backend_info" ["backend"] "Always 1; how files are read and written, in the label.";
    CORES = Gauge "ouzel_cores" [] "Cores that serve.";
    READY = Gauge "ouzel_ready" [] "1 while the node serves clients, else 0.";
    UPTIME = Gauge "ouzel_uptime_seconds" [] "Time since the process started.";

    REQUESTS = Counter "ouzel_requests_total" ["api", "error"] "Requests answered, by API and by the first error of the answer.";
    REQUEST_TIMES = Histogram "ouzel_request_duration_seconds" ["api"] "Time from a request's receipt to its answer, long polls and waits for replicas included.";
    HELD = Histogram "ouzel_core_held_seconds" [] "How long tasks held a core at a time, while all else there waited; the time in which the machine ran something else is part of it.";
    RECEIVED = Counter "ouzel_received_bytes_total" [] "Bytes received from Kafka clients.";
    SENT = Counter "ouzel_sent_bytes_total" [] "Bytes sent to Kafka clients.";
    FILE_SLICES = Counter "ouzel_fetch_file_slices_total" ["how"] "Slices of segment files sent to Kafka clients: resident in memory, read_in from the disk before, or copied as they did not stay in memory.";
    CONNECTIONS = Gauge "ouzel_connections" [] "Connections of Kafka clients that are open.";
    CONNECTIONS_OPENED = Counter "ouzel_connections_opened_total" [] "Connections of Kafka clients that were accepted.";
    CONNECTIONS_REFUSED = Counter "ouzel_connections_refused_total" [] "Connections that were closed because of what they sent.";
    FETCH_SESSIONS = Gauge "ouzel_fetch_sessions" [] "Incremental fetch sessions that are remembered.";
    REQUEST_MEMORY = Gauge "ouzel_request_memory_free_bytes" [] "Bytes of requests that may still be taken in before sockets are no longer read.";

    TOPIC_APPENDED_BYTES = Counter "ouzel_topic_appended_bytes_total" ["topic"] "Bytes of record batches appended to the topic.";
    TOPIC_APPENDED_RECORDS = Counter "ouzel_topic_appended_records_total" ["topic"] "Records appended to the topic.";
    TOPIC_FETCHED_BYTES = Counter "ouzel_topic_fetched_bytes_total" ["topic"] "Bytes of record batches fetched from the topic.";
    TOPIC_FETCHED_RECORDS = Counter "ouzel_topic_fetched_records_total" ["topic"] "Records fetched from the topic, by their offsets: from the one asked for to the end of what was sent; offsets that compaction left empty count too.";

    PARTITIONS = Gauge "ouzel_partitions" [] "Partitions this node holds.";
    PARTITIONS_FENCED = Gauge "ouzel_partitions_fenced" [] "Partitions that take no more records because their log failed.";
    PARTITIONS_LED = Gauge "ouzel_partitions_led" [] "Partitions this node leads.";
    UNDER_REPLICATED = Gauge "ouzel_partitions_under_replicated" [] "Partitions this node leads that have fewer replicas in sync than they ought to have replicas.";
    ELECTIONS = Counter "ouzel_leader_elections_total" [] "Times a partition with several replicas came to be led by this node.";
    IN_SYNC_SHRINKS = Counter "ouzel_in_sync_shrinks_total" [] "Times replicas of a partition this node leads fell out of sync.";
    IN_SYNC_EXPANDS = Counter "ouzel_in_sync_expands_total" [] "Times replicas of a partition this node leads got in sync again.";
    LOG_START = Gauge "ouzel_partition_log_start_offset" ["topic", "partition"] "Offset of the partition's first record.";
    LOG_END = Gauge "ouzel_partition_log_end_offset" ["topic", "partition"] "Offset the partition's next record will get.";
    HIGH_WATERMARK = Gauge "ouzel_partition_high_watermark" ["topic", "partition"] "Offset up to which consumers may read, exclusive.";
    PARTITION_BYTES = Gauge "ouzel_partition_size_bytes" ["topic", "partition"] "Bytes of the partition's log on disk.";

    DATA_LOSS = Counter "ouzel_data_loss_events_total" ["cause"] "Losses of acknowledged records that may have happened: disk, a follower came back with less than it had acknowledged; power, a replica goes on after a power cut though nobody can vouch for what was acknowledged and not flushed; unclean, somebody asked for an unclean election, and a replica goes on alone.";

    WAL_COMMITS = Counter "ouzel_wal_commits_total" [] "Commits of the write-ahead files, which hold votes, terms and purge points; each is one flush.";

    PEER_CALLS = Counter "ouzel_peer_calls_total" ["peer", "lane", "outcome"] "Calls to another node, by node id, lane and how they ended.";
    PEER_SENT = Counter "ouzel_peer_sent_bytes_total" ["peer", "lane"] "Bytes sent over connections this node made to another.";
    PEER_RECEIVED = Counter "ouzel_peer_received_bytes_total" ["peer", "lane"] "Bytes received over connections this node made to another.";
    PEER_CONNECTIONS = Gauge "ouzel_peer_connections" ["peer", "lane"] "Connections this node made to another that are open, at most one for each core.";
    PEER_SERVED = Counter "ouzel_peer_calls_served_total" [] "Calls of other nodes that were handled.";

    CLEANER_PASSES = Counter "ouzel_log_cleaner_passes_total" [] "Passes of compaction over a log that came to their end.";
    CLEANER_FAILURES = Counter "ouzel_log_cleaner_failures_total" [] "Passes of compaction that failed.";
    CLEANER_SECONDS = Counter "ouzel_log_cleaner_clean_seconds_total" [] "Time that passes of compaction took.";
    CLEANER_READ = Counter "ouzel_log_cleaner_read_bytes_total" [] "Bytes that compaction read from segments, for the keys and to write segments anew.";
    CLEANER_WRITTEN = Counter "ouzel_log_cleaner_written_bytes_total" [] "Bytes that compaction wrote.";
    CLEANER_REMOVED = Counter "ouzel_log_cleaner_removed_records_total" [] "Records that compaction removed.";
    CLEANER_UNCLEANABLE = Gauge "ouzel_log_cleaner_uncleanable_partitions" [] "Partitions that compaction leaves alone for an hour, as its last pass failed.";
    CLEANER_DIRTY = Gauge "ouzel_log_cleaner_max_dirty_ratio" [] "Largest part of a compacted log's bytes that is dirty, 0 to 1, at the last look.";
    CLEANER_BUFFER = Gauge "ouzel_log_cleaner_max_buffer_utilization_ratio" [] "How much of the memory for keys the last pass of compaction used, 0 to 1, on the core that used most.";

    GROUPS = Gauge "ouzel_groups" ["state"] "Consumer groups this node coordinates, by state.";
    GROUP_LAG = Gauge "ouzel_group_lag_records" ["group"] "Offsets between what the group has committed and the high watermarks, all its partitions together.";
    GROUP_PARTITION_LAG = Gauge "ouzel_group_partition_lag_records" ["group", "topic", "partition"] "Offsets between what the group has committed and the high watermark.";
    GROUP_PARTITION_COMMITTED = Gauge "ouzel_group_partition_committed_offset" ["group", "topic", "partition"] "The next offset the group will read.";

    PROCESS_CPU = Counter "process_cpu_seconds_total" [] "User and system CPU time of the process.";
    PROCESS_RESIDENT = Gauge "process_resident_memory_bytes" [] "Memory of the process that is in RAM.";
    PROCESS_VIRTUAL = Gauge "process_virtual_memory_bytes" [] "Address space of the process.";
    PROCESS_FDS = Gauge "process_open_fds" [] "Open file descriptors.";
    PROCESS_FDS_MAX = Gauge "process_max_fds" [] "Most file descriptors that may be open.";
    PROCESS_THREADS = Gauge "process_threads" [] "Threads of the process.";
    PROCESS_STARTED = Gauge "process_start_time_seconds" [] "When the process started, in seconds since 1970.";
}

/// One look at the node.
pub(crate) struct Scrape<'a> {
    pub(crate) version: &'a str,
    pub(crate) node_id: i32,
    pub(crate) cluster_id: &'a str,
    pub(crate) disk_backend: &'a str,
    pub(crate) cores: u16,
    pub(crate) ready: bool,
    pub(crate) uptime_s: f64,
    pub(crate) process: ProcessUse,
    /// All cores together.
    pub(crate) sample: CoreSample,
}

/// The exposition of one look.
pub(crate) fn render(scrape: Scrape<'_>) -> String {
    let mut sample = scrape.sample;
    sample.partitions.sort_by(|a, b| (&a.topic, a.partition).cmp(&(&b.topic, b.partition)));
    sample
        .committed
        .sort_by(|a, b| (&a.group, &a.topic, a.partition).cmp(&(&b.group, &b.topic, b.partition)));
    let mut out = Exposition::default();

    out.begin(&BUILD).sample(&[scrape.version], 1_u64);
    out.begin(&NODE).sample(&[&scrape.node_id.to_string(), scrape.cluster_id], 1_u64);
    out.begin(&DISK_BACKEND).sample(&[scrape.disk_backend], 1_u64);
    out.begin(&CORES).sample(&[], u64::from(scrape.cores));
    out.begin(&READY).sample(&[], u64::from(scrape.ready));
    out.begin(&UPTIME).sample(&[], scrape.uptime_s);

    traffic(&mut out, &sample);
    partitions(&mut out, &sample);
    out.begin(&DATA_LOSS)
        .sample(&["disk"], sample.reversions)
        .sample(&["power"], sample.tails_given_up)
        .sample(&["unclean"], sample.inherited);
    out.begin(&WAL_COMMITS).sample(&[], sample.wal_commits);
    peers(&mut out, &sample);
    cleaner(&mut out, &sample.cleaner);
    groups(&mut out, &sample);
    process(&mut out, &scrape.process);
    out.finish()
}

fn traffic(out: &mut Exposition, sample: &CoreSample) {
    out.begin(&REQUESTS);
    for ((api, error), count) in &sample.requests {
        let error =
            ErrorCode::from_code(*error).map_or_else(|| error.to_string(), |error| error.name().to_owned());
        out.sample(&[api.name(), &error], *count);
    }
    out.begin(&REQUEST_TIMES);
    for (api, times) in &sample.latencies {
        out.histogram(&[api.name()], &LATENCY_BOUNDS_S, &times.counts, times.sum_s);
    }
    let held = &sample.held;
    out.begin(&HELD).histogram(&[], &held::BOUNDS_S, &held.counts, held.sum.as_secs_f64());
    out.begin(&RECEIVED).sample(&[], sample.bytes_received);
    out.begin(&SENT).sample(&[], sample.bytes_sent);
    out.begin(&FILE_SLICES)
        .sample(&["resident"], sample.file_slices.resident)
        .sample(&["read_in"], sample.file_slices.read_in)
        .sample(&["copied"], sample.file_slices.copied);
    // The cores are asked one after the other: a connection may be counted as closed before it is as opened.
    out.begin(&CONNECTIONS).sample(&[], sample.connections_opened.saturating_sub(sample.connections_closed));
    out.begin(&CONNECTIONS_OPENED).sample(&[], sample.connections_opened);
    out.begin(&CONNECTIONS_REFUSED).sample(&[], sample.connections_refused);
    out.begin(&FETCH_SESSIONS).sample(&[], sample.fetch_sessions);
    out.begin(&REQUEST_MEMORY).sample(&[], sample.request_memory_free_bytes);
}

/// The partitions are in the order of topics and indexes.
fn partitions(out: &mut Exposition, sample: &CoreSample) {
    let partitions = &sample.partitions;
    let by_topic = || partitions.chunk_by(|a, b| a.topic == b.topic);
    for (family, count) in [
        (&TOPIC_APPENDED_BYTES, (|p| p.bytes_in) as fn(&PartitionSample) -> u64),
        (&TOPIC_APPENDED_RECORDS, |p| p.records_in),
        (&TOPIC_FETCHED_BYTES, |p| p.bytes_out),
        (&TOPIC_FETCHED_RECORDS, |p| p.records_out),
    ] {
        out.begin(family);
        for topic in by_topic() {
            out.sample(&[&topic[0].topic], topic.iter().map(count).sum::<u64>());
        }
    }
    out.begin(&PARTITIONS).sample(&[], partitions.len() as u64);
    out.begin(&PARTITIONS_FENCED).sample(&[], partitions.iter().filter(|p| p.fenced).count() as u64);
    let led = || partitions.iter().filter(|p| p.leads);
    out.begin(&PARTITIONS_LED).sample(&[], led().count() as u64);
    out.begin(&UNDER_REPLICATED).sample(&[], led().filter(|p| p.in_sync < p.replicas).count() as u64);
    out.begin(&ELECTIONS).sample(&[], sample.elections);
    out.begin(&IN_SYNC_SHRINKS).sample(&[], sample.in_sync_shrinks);
    out.begin(&IN_SYNC_EXPANDS).sample(&[], sample.in_sync_expands);
    for (family, value) in [
        (&LOG_START, (|p| p.log_start_offset) as fn(&PartitionSample) -> i64),
        (&LOG_END, |p| p.log_end_offset),
        (&HIGH_WATERMARK, |p| p.high_watermark),
        (&PARTITION_BYTES, |p| i64::try_from(p.size_bytes).unwrap_or(i64::MAX)),
    ] {
        out.begin(family);
        for partition in partitions {
            out.sample(&[&partition.topic, &partition.partition.to_string()], value(partition));
        }
    }
}

fn peers(out: &mut Exposition, sample: &CoreSample) {
    out.begin(&PEER_CALLS);
    for ((node, lane), peer) in &sample.peers {
        for (outcome, count) in [
            ("answered", peer.answered),
            ("refused", peer.refused),
            ("timed_out", peer.timed_out),
            ("unreachable", peer.unreachable),
        ] {
            out.sample(&[&node.to_string(), lane, outcome], count);
        }
    }
    for (family, count) in [
        (&PEER_SENT, (|peer| peer.bytes_sent) as fn(&PeerSample) -> u64),
        (&PEER_RECEIVED, |peer| peer.bytes_received),
        (&PEER_CONNECTIONS, |peer| peer.connections),
    ] {
        out.begin(family);
        for ((node, lane), peer) in &sample.peers {
            out.sample(&[&node.to_string(), lane], count(peer));
        }
    }
    out.begin(&PEER_SERVED).sample(&[], sample.peer_calls_served);
}

fn cleaner(out: &mut Exposition, cleaner: &CleanerSample) {
    out.begin(&CLEANER_PASSES).sample(&[], cleaner.passes);
    out.begin(&CLEANER_FAILURES).sample(&[], cleaner.failures);
    out.begin(&CLEANER_SECONDS).sample(&[], cleaner.seconds);
    out.begin(&CLEANER_READ).sample(&[], cleaner.bytes_read);
    out.begin(&CLEANER_WRITTEN).sample(&[], cleaner.bytes_written);
    out.begin(&CLEANER_REMOVED).sample(&[], cleaner.records_removed);
    out.begin(&CLEANER_UNCLEANABLE).sample(&[], cleaner.uncleanable);
    out.begin(&CLEANER_DIRTY).sample(&[], cleaner.dirty_ratio_max);
    out.begin(&CLEANER_BUFFER).sample(&[], cleaner.buffer_utilization);
}

fn groups(out: &mut Exposition, sample: &CoreSample) {
    out.begin(&GROUPS);
    for (state, count) in &sample.groups {
        out.sample(&[state], *count);
    }
    let ends: HashMap<(&str, i32), i64> = sample
        .partitions
        .iter()
        .map(|partition| ((partition.topic.as_str(), partition.partition), partition.high_watermark))
        .collect();
    // Of a deleted topic there is nothing left to lag behind.
    let lags: Vec<_> = sample
        .committed
        .iter()
        .filter_map(|committed| {
            let end = ends.get(&(committed.topic.as_str(), committed.partition))?;
            Some((committed, u64::try_from(end - committed.offset).unwrap_or(0)))
        })
        .collect();
    let mut sums: BTreeMap<&str, u64> = BTreeMap::new();
    for (committed, lag) in &lags {
        *sums.entry(&committed.group).or_default() += lag;
    }
    out.begin(&GROUP_LAG);
    for (group, sum) in sums {
        out.sample(&[group], sum);
    }
    out.begin(&GROUP_PARTITION_LAG);
    for (committed, lag) in &lags {
        out.sample(&[&committed.group, &committed.topic, &committed.partition.to_string()], *lag);
    }
    out.begin(&GROUP_PARTITION_COMMITTED);
    for committed in &sample.committed {
        out.sample(&[&committed.group, &committed.topic, &committed.partition.to_string()], committed.offset);
    }
}

fn process(out: &mut Exposition, process: &ProcessUse) {
    out.begin(&PROCESS_CPU).sample(&[], process.cpu_s);
    out.begin(&PROCESS_RESIDENT).sample(&[], process.resident_bytes);
    out.begin(&PROCESS_VIRTUAL).sample(&[], process.virtual_bytes);
    out.begin(&PROCESS_FDS).sample(&[], process.open_fds);
    out.begin(&PROCESS_FDS_MAX).sample(&[], process.fds_max);
    out.begin(&PROCESS_THREADS).sample(&[], process.threads);
    out.begin(&PROCESS_STARTED).sample(&[], process.started_s);
}

#[cfg(test)]
mod tests;
