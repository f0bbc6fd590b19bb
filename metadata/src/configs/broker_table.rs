//! The keys of a broker, in alphabetical order: Kafka 4.3's that mean something here or that clients and tools look up,
//! and our own.

use super::definition::ConfigType::{Boolean, Double, Int, List, Long, Short, String};
use super::definition::{ConfigDef, ConfigType, Rule};
use super::vocabulary::{
    CLEANUP_POLICIES, COMMITS_OUTLAST, COMPRESSION_TYPES, DURABILITIES, FLUSH_MS, GZIP_LEVELS, LZ4_LEVELS,
    NO_BUFFERS, NO_FETCHING_FOLLOWERS, NO_FOLLOWER_READS, NO_LEVELS, NO_LIMIT, NO_NEW_GROUPS,
    NO_OFFSET_CODEC, NO_POOLS, NO_PREALLOCATION, NO_QUEUE, NO_THROTTLES, NO_TIERS, NO_TRANSACTIONS,
    NO_UNCLEAN_ELECTIONS, ONE_CLEANER, ONE_DATA_DIRECTORY, RETENTION_MS, ROLL_JITTER_MS, ROLL_MS,
    TIMESTAMP_TYPES, UNLIMITED_OR_POSITIVE, ZSTD_LEVELS,
};

const fn key(name: &'static str, kind: ConfigType, default: &'static str) -> ConfigDef {
    ConfigDef::new(name, kind, default)
}

/// Every key a broker takes.
#[rustfmt::skip] // A row is what the key is, and below it what it is for.
pub static BROKER_CONFIGS: &[ConfigDef] = &[
    key("advertised.listeners", List, "").unset().shown("--advertised-kafka-listener")
        .doc("Addresses clients are told to connect to."),
    key("auto.create.topics.enable", Boolean, "true")
        .doc("Whether asking for a topic that does not exist creates it."),
    key("auto.leader.rebalance.enable", Boolean, "true")
        .doc("Whether leadership goes back to preferred leaders by itself."),
    key("background.threads", Int, "10").at_least(1).dynamic().without_effect(NO_POOLS)
        .doc("Threads for background work."),
    key("broker.id", Int, "-1").shown("--node-id")
        .doc("The broker's number; the older name of node.id."),
    key("broker.rack", String, "").unset()
        .doc("The rack the broker stands in, for clients that like to read nearby."),
    key("compression.gzip.level", Int, "-1").rule(GZIP_LEVELS).dynamic().without_effect(NO_LEVELS)
        .doc("Default of the topics' compression.gzip.level."),
    key("compression.lz4.level", Int, "9").rule(LZ4_LEVELS).dynamic().without_effect(NO_LEVELS)
        .doc("Default of the topics' compression.lz4.level."),
    key("compression.type", String, "producer").rule(COMPRESSION_TYPES).dynamic()
        .doc("Default of the topics' compression.type."),
    key("compression.zstd.level", Int, "3").rule(ZSTD_LEVELS).dynamic().without_effect(NO_LEVELS)
        .doc("Default of the topics' compression.zstd.level."),
    key("connections.max.idle.ms", Long, "600000")
        .doc("Close a connection that has been silent this long; negative for never."),
    key("controlled.shutdown.enable", Boolean, "true")
        .doc("Whether a stopping broker hands its leaderships over first."),
    key("cordoned.log.dirs", List, "").per_broker().without_effect(ONE_DATA_DIRECTORY)
        .doc("Data directories that get no new partitions."),
    key("default.replication.factor", Int, "1").rule(Rule::Between(1, 32767))
        .doc("Replicas of a topic whose creator leaves the choice to the broker."),
    key("delete.topic.enable", Boolean, "true")
        .doc("Whether topics can be deleted."),
    key("fetch.max.bytes", Int, "57671680").at_least(1024)
        .doc("Largest answer to a fetch, whatever the client asks for; a single larger batch still passes."),
    key("follower.replication.throttled.rate", Long, "9223372036854775807").at_least(0).dynamic()
        .without_effect(NO_THROTTLES)
        .doc("Bytes per second that throttled followers may receive."),
    key("group.consumer.assignment.interval.ms", Int, "1000").at_least(0).dynamic()
        .without_effect(NO_NEW_GROUPS)
        .doc("Least time between two assignments of a new-style group."),
    key("group.consumer.assignors", List, "uniform,range").without_effect(NO_NEW_GROUPS)
        .doc("Assignors that new-style groups may choose from."),
    key("group.consumer.heartbeat.interval.ms", Int, "5000").at_least(1).without_effect(NO_NEW_GROUPS)
        .doc("How often members of new-style groups report."),
    key("group.consumer.max.heartbeat.interval.ms", Int, "15000").at_least(1).without_effect(NO_NEW_GROUPS)
        .doc("Most that a new-style group may set its heartbeat interval to."),
    key("group.consumer.max.session.timeout.ms", Int, "60000").at_least(1).without_effect(NO_NEW_GROUPS)
        .doc("Most that a new-style group may set its session timeout to."),
    key("group.consumer.max.size", Int, "2147483647").at_least(1).without_effect(NO_NEW_GROUPS)
        .doc("Most members of a new-style group."),
    key("group.consumer.migration.policy", String, "bidirectional")
        .rule(Rule::OneOf(&["disabled", "downgrade", "upgrade", "bidirectional"]))
        .without_effect(NO_NEW_GROUPS)
        .doc("Which way groups may move between the classic and the new protocol."),
    key("group.consumer.min.heartbeat.interval.ms", Int, "5000").at_least(1).without_effect(NO_NEW_GROUPS)
        .doc("Least that a new-style group may set its heartbeat interval to."),
    key("group.consumer.min.session.timeout.ms", Int, "45000").at_least(1).without_effect(NO_NEW_GROUPS)
        .doc("Least that a new-style group may set its session timeout to."),
    key("group.consumer.session.timeout.ms", Int, "45000").at_least(1).without_effect(NO_NEW_GROUPS)
        .doc("Silence after which a member of a new-style group is taken for dead."),
    key("group.initial.rebalance.delay.ms", Int, "3000").at_least(0)
        .doc("How long the first rebalance of an empty group waits for more members."),
    key("group.max.session.timeout.ms", Int, "1800000").at_least(1)
        .doc("Longest session timeout a member may ask for."),
    key("group.max.size", Int, "2147483647").at_least(1)
        .doc("Most members of a group."),
    key("group.min.session.timeout.ms", Int, "6000").at_least(0)
        .doc("Shortest session timeout a member may ask for."),
    key("group.share.assignment.interval.ms", Int, "1000").at_least(0).dynamic().without_effect(NO_NEW_GROUPS)
        .doc("Least time between two assignments of a share group."),
    key("group.streams.assignment.interval.ms", Int, "1000").at_least(0).dynamic()
        .without_effect(NO_NEW_GROUPS)
        .doc("Least time between two assignments of a streams group."),
    key("leader.imbalance.check.interval.seconds", Long, "300").at_least(1)
        .doc("How often leadership is compared with the preferred leaders."),
    key("leader.replication.throttled.rate", Long, "9223372036854775807").at_least(0).dynamic()
        .doc("Bytes per second that the node sends to replicas that catch up: 100 MiB if it is left alone, none at 0."),
    key("listener.security.protocol.map", String, "PLAINTEXT:PLAINTEXT").shown("--kafka-listener")
        .doc("What protects each listener."),
    key("listeners", List, "PLAINTEXT://:9092").shown("--kafka-listener")
        .doc("Addresses the broker listens on."),
    key("log.cleaner.backoff.ms", Long, "15000").at_least(0).dynamic()
        .doc("Pause of the cleaner when nothing is dirty."),
    key("log.cleaner.dedupe.buffer.size", Long, "134217728").dynamic()
        .doc("Memory of the cleaner for the keys of one pass."),
    key("log.cleaner.delete.retention.ms", Long, "86400000").at_least(0).dynamic()
        .doc("Default of the topics' delete.retention.ms."),
    key("log.cleaner.enable", Boolean, "true")
        .doc("Whether the cleaner runs."),
    key("log.cleaner.io.buffer.load.factor", Double, "0.9").dynamic()
        .doc("How full the cleaner's key table may get."),
    key("log.cleaner.io.buffer.size", Int, "524288").at_least(0).dynamic()
        .doc("Memory of the cleaner for reading and writing."),
    key("log.cleaner.io.max.bytes.per.second", Double, "1.7976931348623157E308").dynamic()
        .doc("Most bytes the cleaner reads and writes in a second."),
    key("log.cleaner.max.compaction.lag.ms", Long, "9223372036854775807").at_least(1).dynamic()
        .doc("Default of the topics' max.compaction.lag.ms."),
    key("log.cleaner.min.cleanable.ratio", Double, "0.5").rule(Rule::Fraction(0.0, 1.0)).dynamic()
        .doc("Default of the topics' min.cleanable.dirty.ratio."),
    key("log.cleaner.min.compaction.lag.ms", Long, "0").at_least(0).dynamic()
        .doc("Default of the topics' min.compaction.lag.ms."),
    key("log.cleaner.threads", Int, "1").at_least(0).dynamic().without_effect(ONE_CLEANER)
        .doc("Threads of the cleaner."),
    key("log.cleanup.policy", List, "delete").rule(CLEANUP_POLICIES).dynamic()
        .doc("Default of the topics' cleanup.policy."),
    key("log.dir", List, "").unset().shown("--data-dir")
        .doc("Where the data is; log.dirs says the same."),
    key("log.dirs", List, "").unset().shown("--data-dir")
        .doc("Where the data is."),
    key("log.flush.interval.messages", Long, "9223372036854775807").at_least(1).dynamic()
        .doc("Default of the topics' flush.messages."),
    key("log.flush.interval.ms", Long, "").unset().at_least(0).dynamic().synonyms(FLUSH_MS)
        .doc("Default of the topics' flush.ms; log.flush.scheduler.interval.ms where it is not set."),
    key("log.flush.scheduler.interval.ms", Long, "9223372036854775807").at_least(0)
        .doc("Default of log.flush.interval.ms."),
    key("log.index.interval.bytes", Int, "4096").at_least(0).dynamic()
        .doc("Default of the topics' index.interval.bytes."),
    key("log.index.size.max.bytes", Int, "10485760").at_least(4).dynamic()
        .doc("Default of the topics' segment.index.bytes."),
    key("log.local.retention.bytes", Long, "-2").at_least(-2).dynamic().without_effect(NO_TIERS)
        .doc("Default of the topics' local.retention.bytes."),
    key("log.local.retention.ms", Long, "-2").at_least(-2).dynamic().without_effect(NO_TIERS)
        .doc("Default of the topics' local.retention.ms."),
    key("log.message.timestamp.after.max.ms", Long, "3600000").at_least(0).dynamic()
        .doc("Default of the topics' message.timestamp.after.max.ms."),
    key("log.message.timestamp.before.max.ms", Long, "9223372036854775807").at_least(0).dynamic()
        .doc("Default of the topics' message.timestamp.before.max.ms."),
    key("log.message.timestamp.type", String, "CreateTime").rule(TIMESTAMP_TYPES).dynamic()
        .doc("Default of the topics' message.timestamp.type."),
    key("log.ouzel.durability", String, "durable").rule(DURABILITIES).dynamic()
        .doc("Default of the topics' ouzel.durability."),
    key("log.preallocate", Boolean, "false").dynamic().without_effect(NO_PREALLOCATION)
        .doc("Default of the topics' preallocate."),
    key("log.retention.bytes", Long, "-1").dynamic()
        .doc("Default of the topics' retention.bytes."),
    key("log.retention.check.interval.ms", Long, "300000").at_least(1)
        .doc("How often segments are checked for retention."),
    key("log.retention.hours", Int, "168").rule(UNLIMITED_OR_POSITIVE).synonyms(RETENTION_MS)
        .doc("Default of the topics' retention.ms, in hours; log.retention.minutes and log.retention.ms win \
              over it."),
    key("log.retention.minutes", Int, "").unset().rule(UNLIMITED_OR_POSITIVE).synonyms(RETENTION_MS)
        .doc("Default of the topics' retention.ms, in minutes; log.retention.ms wins over it."),
    key("log.retention.ms", Long, "").unset().rule(UNLIMITED_OR_POSITIVE).dynamic().synonyms(RETENTION_MS)
        .doc("Default of the topics' retention.ms."),
    key("log.roll.hours", Int, "168").at_least(1).synonyms(ROLL_MS)
        .doc("Default of the topics' segment.ms, in hours; log.roll.ms wins over it."),
    key("log.roll.jitter.hours", Int, "0").at_least(0).synonyms(ROLL_JITTER_MS)
        .doc("Default of the topics' segment.jitter.ms, in hours; log.roll.jitter.ms wins over it."),
    key("log.roll.jitter.ms", Long, "").unset().at_least(0).dynamic().synonyms(ROLL_JITTER_MS)
        .doc("Default of the topics' segment.jitter.ms."),
    key("log.roll.ms", Long, "").unset().at_least(1).dynamic().synonyms(ROLL_MS)
        .doc("Default of the topics' segment.ms."),
    key("log.segment.bytes", Int, "1073741824").at_least(1 << 20).dynamic()
        .doc("Default of the topics' segment.bytes."),
    key("log.segment.delete.delay.ms", Long, "60000").at_least(0).dynamic()
        .doc("Default of the topics' file.delete.delay.ms."),
    key("max.connection.creation.rate", Int, "2147483647").at_least(0).dynamic().without_effect(NO_LIMIT)
        .doc("Most connections accepted in a second."),
    key("max.connections", Int, "2147483647").at_least(0).dynamic()
        .doc("Most connections at one time."),
    key("max.connections.per.ip", Int, "2147483647").at_least(0).dynamic().without_effect(NO_LIMIT)
        .doc("Most connections of one address at one time."),
    key("max.connections.per.ip.overrides", String, "").dynamic().without_effect(NO_LIMIT)
        .doc("Exceptions from max.connections.per.ip: 'address:count' pairs."),
    key("max.incremental.fetch.session.cache.slots", Int, "1000").at_least(0)
        .doc("Fetch sessions the broker remembers; clients beyond that send full fetches."),
    key("message.max.bytes", Int, "1048588").at_least(0).dynamic()
        .doc("Default of the topics' max.message.bytes."),
    key("metadata.log.max.record.bytes.between.snapshots", Long, "20971520").at_least(1)
        .doc("Bytes of the controller's records after which it takes a snapshot; what lies before that goes."),
    key("metric.reporters", List, "org.apache.kafka.common.metrics.JmxReporter").dynamic()
        .without_effect("metrics are served at /metrics")
        .doc("Classes that report metrics."),
    key("min.insync.replicas", Int, "1").at_least(1).dynamic()
        .doc("Default of the topics' min.insync.replicas."),
    key("node.id", Int, "").unset().at_least(0).shown("--node-id")
        .doc("The broker's number in the cluster."),
    key("num.io.threads", Int, "8").at_least(1).dynamic().without_effect(NO_POOLS)
        .doc("Threads that work on requests."),
    key("num.network.threads", Int, "3").at_least(1).dynamic().without_effect(NO_POOLS)
        .doc("Threads that serve sockets."),
    key("num.partitions", Int, "1").at_least(1)
        .doc("Partitions of a topic whose creator leaves the choice to the broker."),
    key("num.recovery.threads.per.data.dir", Int, "2").at_least(1).dynamic().without_effect(NO_POOLS)
        .doc("Threads that recover logs at start."),
    key("num.replica.alter.log.dirs.threads", Int, "").unset().without_effect(ONE_DATA_DIRECTORY)
        .doc("Threads that move partitions between data directories."),
    key("num.replica.fetchers", Int, "1").at_least(1).dynamic().without_effect(NO_POOLS)
        .doc("Threads that fetch from leaders."),
    key("offset.metadata.max.bytes", Int, "4096").at_least(0)
        .doc("Longest text that may accompany a committed offset."),
    key("offsets.commit.timeout.ms", Int, "5000").at_least(1).without_effect(COMMITS_OUTLAST)
        .doc("How long an offset commit may wait for its replicas."),
    key("offsets.load.buffer.size", Int, "5242880").at_least(1).without_effect(NO_BUFFERS)
        .doc("Memory for reading committed offsets back."),
    key("offsets.retention.check.interval.ms", Long, "600000").at_least(1)
        .doc("How often committed offsets are checked for expiry."),
    key("offsets.retention.minutes", Int, "10080").at_least(1)
        .doc("How long the committed offsets of an abandoned group are kept."),
    key("offsets.topic.compression.codec", Int, "0").rule(Rule::Between(0, 4))
        .without_effect(NO_OFFSET_CODEC)
        .doc("Codec of committed offsets."),
    key("offsets.topic.num.partitions", Int, "50").at_least(1)
        .doc("Partitions of the topic that holds committed offsets; fixed once it exists."),
    key("offsets.topic.replication.factor", Short, "3").at_least(1)
        .doc("Replicas of the topic that holds committed offsets; fewer while there are fewer brokers."),
    key("offsets.topic.segment.bytes", Int, "104857600").at_least(1 << 20)
        .doc("Segment size of the topic that holds committed offsets."),
    key("ouzel.disk.backend", String, "auto").rule(Rule::OneOf(&["auto", "uring", "blocking"]))
        .doc("How files are read and written: 'uring' is io_uring, 'blocking' a pool of threads, 'auto' the \
              first of them that works."),
    key("ouzel.log.format", String, "text").rule(Rule::OneOf(&["text", "json"]))
        .doc("How the broker writes its own log lines."),
    key("process.roles", List, "").unset().rule(Rule::EachOf(&["broker", "controller"])).without_effect("every node is both broker and controller")
        .doc("What the node does."),
    key("producer.id.expiration.ms", Int, "86400000").at_least(1).dynamic()
        .doc("How long the last sequence of a silent idempotent producer is remembered."),
    key("queued.max.request.bytes", Long, "-1").without_effect(NO_QUEUE)
        .doc("Most bytes of requests that wait for a worker."),
    key("queued.max.requests", Int, "500").at_least(1).without_effect(NO_QUEUE)
        .doc("Most requests that wait for a worker."),
    key("remote.fetch.max.wait.ms", Int, "500").at_least(1).dynamic().without_effect(NO_TIERS)
        .doc("Longest wait for a read from tiered storage."),
    key("remote.list.offsets.request.timeout.ms", Long, "30000").at_least(1).dynamic()
        .without_effect(NO_TIERS)
        .doc("Longest wait for an offset from tiered storage."),
    key("remote.log.index.file.cache.total.size.bytes", Long, "1073741824").at_least(1).dynamic()
        .without_effect(NO_TIERS)
        .doc("Disk space for indexes of remote segments."),
    key("remote.log.manager.copier.thread.pool.size", Int, "10").at_least(1).dynamic()
        .without_effect(NO_TIERS)
        .doc("Threads that copy segments away."),
    key("remote.log.manager.copy.max.bytes.per.second", Long, "9223372036854775807").at_least(1).dynamic()
        .without_effect(NO_TIERS)
        .doc("Most bytes copied away in a second."),
    key("remote.log.manager.expiration.thread.pool.size", Int, "10").at_least(1).dynamic()
        .without_effect(NO_TIERS)
        .doc("Threads that delete remote segments."),
    key("remote.log.manager.fetch.max.bytes.per.second", Long, "9223372036854775807").at_least(1).dynamic()
        .without_effect(NO_TIERS)
        .doc("Most bytes read from tiered storage in a second."),
    key("remote.log.manager.follower.thread.pool.size", Int, "2").at_least(1).dynamic()
        .without_effect(NO_TIERS)
        .doc("Threads that follow remote segments."),
    key("remote.log.reader.threads", Int, "10").at_least(1).dynamic().without_effect(NO_TIERS)
        .doc("Threads that read from tiered storage."),
    key("remote.log.storage.system.enable", Boolean, "false").rule(Rule::Only("false"))
        .without_effect(NO_TIERS)
        .doc("Whether there is tiered storage."),
    key("replica.alter.log.dirs.io.max.bytes.per.second", Long, "9223372036854775807").at_least(0).dynamic()
        .without_effect(ONE_DATA_DIRECTORY)
        .doc("Most bytes a second for moving partitions between data directories."),
    key("replica.fetch.max.bytes", Int, "1048576").at_least(0).without_effect(NO_FETCHING_FOLLOWERS)
        .doc("Bytes a follower asks for per partition."),
    key("replica.fetch.response.max.bytes", Int, "10485760").at_least(0).without_effect(NO_FETCHING_FOLLOWERS)
        .doc("Bytes a follower asks for in all."),
    key("replica.fetch.wait.max.ms", Int, "500").without_effect(NO_FETCHING_FOLLOWERS)
        .doc("How long a follower's fetch waits for records."),
    key("replica.lag.time.max.ms", Long, "30000")
        .doc("A follower that has not caught up for this long is out of sync."),
    key("replica.selector.class", String, "").unset().without_effect(NO_FOLLOWER_READS)
        .doc("How a replica is chosen for a consumer."),
    key("socket.listen.backlog.size", Int, "50").at_least(1).without_effect(NO_BUFFERS)
        .doc("Connections that wait to be accepted."),
    key("socket.receive.buffer.bytes", Int, "102400").without_effect(NO_BUFFERS)
        .doc("Size of the sockets' receive buffers; -1 for the system's choice."),
    key("socket.request.max.bytes", Int, "104857600").at_least(1)
        .doc("Largest request that is read; a connection that announces a larger one is closed."),
    key("socket.send.buffer.bytes", Int, "102400").without_effect(NO_BUFFERS)
        .doc("Size of the sockets' send buffers; -1 for the system's choice."),
    key("transaction.abort.timed.out.transaction.cleanup.interval.ms", Int, "10000").at_least(1)
        .without_effect(NO_TRANSACTIONS)
        .doc("How often transactions are checked for their timeout."),
    key("transaction.max.timeout.ms", Int, "900000").at_least(1).without_effect(NO_TRANSACTIONS)
        .doc("Longest transaction timeout a producer may ask for."),
    key("transaction.partition.verification.enable", Boolean, "true").dynamic()
        .without_effect(NO_TRANSACTIONS)
        .doc("Whether a transactional write is checked against its transaction."),
    key("transaction.remove.expired.transaction.cleanup.interval.ms", Int, "3600000").at_least(1)
        .without_effect(NO_TRANSACTIONS)
        .doc("How often transactional ids are checked for expiry."),
    key("transaction.state.log.load.buffer.size", Int, "5242880").at_least(1).without_effect(NO_TRANSACTIONS)
        .doc("Memory for reading transactions back."),
    key("transaction.state.log.min.isr", Int, "2").at_least(1).without_effect(NO_TRANSACTIONS)
        .doc("Replicas that must be in sync for the transaction topic."),
    key("transaction.state.log.num.partitions", Int, "50").at_least(1).without_effect(NO_TRANSACTIONS)
        .doc("Partitions of the transaction topic."),
    key("transaction.state.log.replication.factor", Short, "3").at_least(1).without_effect(NO_TRANSACTIONS)
        .doc("Replicas of the transaction topic."),
    key("transaction.state.log.segment.bytes", Int, "104857600").at_least(1).without_effect(NO_TRANSACTIONS)
        .doc("Segment size of the transaction topic."),
    key("transactional.id.expiration.ms", Int, "604800000").at_least(1).without_effect(NO_TRANSACTIONS)
        .doc("How long a silent transactional id is remembered."),
    key("unclean.leader.election.enable", Boolean, "false").dynamic().without_effect(NO_UNCLEAN_ELECTIONS)
        .doc("Default of the topics' unclean.leader.election.enable."),
];

/// The broker key of this name.
pub fn broker_config(name: &str) -> Option<&'static ConfigDef> {
    BROKER_CONFIGS.binary_search_by_key(&name, |def| def.name).ok().map(|found| &BROKER_CONFIGS[found])
}
