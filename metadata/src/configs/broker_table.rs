//! The keys of a broker, in alphabetical order: Kafka 4.3's that mean something here or that clients and tools look up,
//! and our own.

use super::definition::ConfigType::{Boolean, Double, Int, List, Long, Short, String};
use super::definition::{ConfigDef, Rule, Synonym, Unit};

const NO_BUFFERS: &str = "buffers are sized by --memory and by the operating system";
const NO_COMPACTION: &str = "compaction does not run yet, so a compacted topic keeps every record";
const NO_LIMIT: &str = "connections are bounded by max.connections and by the files the process may open";
const NO_NEW_GROUPS: &str = "only classic groups are served in this release";
const NO_POOLS: &str = "each core runs one thread; --cores says how many";
const NO_RECOMPRESSION: &str = "batches are stored as their producer compressed them";
const NO_REPLICATION: &str = "partitions have a single replica in this release";
const NO_TIERS: &str = "there is no tiered storage";
const NO_TRANSACTIONS: &str = "transactions are not served in this release";

/// -1 for no limit, or something to count; 0 would drop everything at once.
const UNLIMITED_OR_POSITIVE: Rule = Rule::BetweenOr(1, i64::MAX, -1);

const RETENTION_MS: &[Synonym] = &[
    Synonym::same("log.retention.ms"),
    Synonym { key: "log.retention.minutes", unit: Unit::Minutes },
    Synonym { key: "log.retention.hours", unit: Unit::Hours },
];
const ROLL_MS: &[Synonym] =
    &[Synonym::same("log.roll.ms"), Synonym { key: "log.roll.hours", unit: Unit::Hours }];
const ROLL_JITTER_MS: &[Synonym] =
    &[Synonym::same("log.roll.jitter.ms"), Synonym { key: "log.roll.jitter.hours", unit: Unit::Hours }];
const FLUSH_MS: &[Synonym] =
    &[Synonym::same("log.flush.interval.ms"), Synonym::same("log.flush.scheduler.interval.ms")];

/// Every key a broker takes.
pub static BROKER_CONFIGS: &[ConfigDef] = &[
    ConfigDef::new("advertised.listeners", List, "", "Addresses clients are told to connect to.").unset().shown("--advertised-kafka-listener"),
    ConfigDef::new("auto.create.topics.enable", Boolean, "true", "Whether asking for a topic that does not exist creates it."),
    ConfigDef::new("auto.leader.rebalance.enable", Boolean, "true", "Whether leadership goes back to preferred leaders by itself.").without_effect(NO_REPLICATION),
    ConfigDef::new("background.threads", Int, "10", "Threads for background work.").at_least(1).dynamic().without_effect(NO_POOLS),
    ConfigDef::new("broker.id", Int, "-1", "The broker's number; the older name of node.id.").shown("--node-id"),
    ConfigDef::new("broker.rack", String, "", "The rack the broker stands in, for clients that like to read nearby.").unset(),
    ConfigDef::new("compression.gzip.level", Int, "-1", "Default of the topics' compression.gzip.level.").rule(Rule::BetweenOr(1, 9, -1)).dynamic().without_effect(NO_RECOMPRESSION),
    ConfigDef::new("compression.lz4.level", Int, "9", "Default of the topics' compression.lz4.level.").rule(Rule::Between(1, 17)).dynamic().without_effect(NO_RECOMPRESSION),
    ConfigDef::new("compression.type", String, "producer", "Default of the topics' compression.type.").rule(Rule::OneOf(&["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"])).dynamic().without_effect(NO_RECOMPRESSION),
    ConfigDef::new("compression.zstd.level", Int, "3", "Default of the topics' compression.zstd.level.").rule(Rule::Between(-131_072, 22)).dynamic().without_effect(NO_RECOMPRESSION),
    ConfigDef::new("connections.max.idle.ms", Long, "600000", "Close a connection that has been silent this long; negative for never."),
    ConfigDef::new("controlled.shutdown.enable", Boolean, "true", "Whether a stopping broker hands its leaderships over first.").without_effect(NO_REPLICATION),
    ConfigDef::new("cordoned.log.dirs", List, "", "Data directories that get no new partitions.").per_broker().without_effect("a broker has one data directory"),
    ConfigDef::new("default.replication.factor", Int, "1", "Replicas of a topic whose creator leaves the choice to the broker.").rule(Rule::Between(1, 32767)),
    ConfigDef::new("delete.topic.enable", Boolean, "true", "Whether topics can be deleted."),
    ConfigDef::new("fetch.max.bytes", Int, "57671680", "Largest answer to a fetch, whatever the client asks for; a single larger batch still passes.").at_least(1024),
    ConfigDef::new("follower.replication.throttled.rate", Long, "9223372036854775807", "Bytes per second that throttled followers may receive.").at_least(0).dynamic().without_effect(NO_REPLICATION),
    ConfigDef::new("group.consumer.assignment.interval.ms", Int, "1000", "Least time between two assignments of a new-style group.").at_least(0).dynamic().without_effect(NO_NEW_GROUPS),
    ConfigDef::new("group.consumer.assignors", List, "uniform,range", "Assignors that new-style groups may choose from.").without_effect(NO_NEW_GROUPS),
    ConfigDef::new("group.consumer.heartbeat.interval.ms", Int, "5000", "How often members of new-style groups report.").at_least(1).without_effect(NO_NEW_GROUPS),
    ConfigDef::new("group.consumer.max.heartbeat.interval.ms", Int, "15000", "Most that a new-style group may set its heartbeat interval to.").at_least(1).without_effect(NO_NEW_GROUPS),
    ConfigDef::new("group.consumer.max.session.timeout.ms", Int, "60000", "Most that a new-style group may set its session timeout to.").at_least(1).without_effect(NO_NEW_GROUPS),
    ConfigDef::new("group.consumer.max.size", Int, "2147483647", "Most members of a new-style group.").at_least(1).without_effect(NO_NEW_GROUPS),
    ConfigDef::new("group.consumer.migration.policy", String, "bidirectional", "Which way groups may move between the classic and the new protocol.").rule(Rule::OneOf(&["disabled", "downgrade", "upgrade", "bidirectional"])).without_effect(NO_NEW_GROUPS),
    ConfigDef::new("group.consumer.min.heartbeat.interval.ms", Int, "5000", "Least that a new-style group may set its heartbeat interval to.").at_least(1).without_effect(NO_NEW_GROUPS),
    ConfigDef::new("group.consumer.min.session.timeout.ms", Int, "45000", "Least that a new-style group may set its session timeout to.").at_least(1).without_effect(NO_NEW_GROUPS),
    ConfigDef::new("group.consumer.session.timeout.ms", Int, "45000", "Silence after which a member of a new-style group is taken for dead.").at_least(1).without_effect(NO_NEW_GROUPS),
    ConfigDef::new("group.initial.rebalance.delay.ms", Int, "3000", "How long the first rebalance of an empty group waits for more members.").at_least(0),
    ConfigDef::new("group.max.session.timeout.ms", Int, "1800000", "Longest session timeout a member may ask for.").at_least(1),
    ConfigDef::new("group.max.size", Int, "2147483647", "Most members of a group.").at_least(1),
    ConfigDef::new("group.min.session.timeout.ms", Int, "6000", "Shortest session timeout a member may ask for.").at_least(0),
    ConfigDef::new("group.share.assignment.interval.ms", Int, "1000", "Least time between two assignments of a share group.").at_least(0).dynamic().without_effect(NO_NEW_GROUPS),
    ConfigDef::new("group.streams.assignment.interval.ms", Int, "1000", "Least time between two assignments of a streams group.").at_least(0).dynamic().without_effect(NO_NEW_GROUPS),
    ConfigDef::new("leader.imbalance.check.interval.seconds", Long, "300", "How often leadership is compared with the preferred leaders.").at_least(1).without_effect(NO_REPLICATION),
    ConfigDef::new("leader.replication.throttled.rate", Long, "9223372036854775807", "Bytes per second that throttled leaders may send.").at_least(0).dynamic().without_effect(NO_REPLICATION),
    ConfigDef::new("listener.security.protocol.map", String, "SASL_SSL:SASL_SSL,PLAINTEXT:PLAINTEXT,SSL:SSL,SASL_PLAINTEXT:SASL_PLAINTEXT", "What protects each listener.").shown("--kafka-listener"),
    ConfigDef::new("listeners", List, "PLAINTEXT://:9092", "Addresses the broker listens on.").shown("--kafka-listener"),
    ConfigDef::new("log.cleaner.backoff.ms", Long, "15000", "Pause of the cleaner when nothing is dirty.").at_least(0).dynamic().without_effect(NO_COMPACTION),
    ConfigDef::new("log.cleaner.dedupe.buffer.size", Long, "134217728", "Memory of the cleaner for the keys of one pass.").dynamic().without_effect(NO_COMPACTION),
    ConfigDef::new("log.cleaner.delete.retention.ms", Long, "86400000", "Default of the topics' delete.retention.ms.").at_least(0).dynamic().without_effect(NO_COMPACTION),
    ConfigDef::new("log.cleaner.enable", Boolean, "true", "Whether the cleaner runs.").without_effect(NO_COMPACTION),
    ConfigDef::new("log.cleaner.io.buffer.load.factor", Double, "0.9", "How full the cleaner's key table may get.").dynamic().without_effect(NO_COMPACTION),
    ConfigDef::new("log.cleaner.io.buffer.size", Int, "524288", "Memory of the cleaner for reading and writing.").at_least(0).dynamic().without_effect(NO_COMPACTION),
    ConfigDef::new("log.cleaner.io.max.bytes.per.second", Double, "1.7976931348623157E308", "Most bytes the cleaner reads and writes in a second.").dynamic().without_effect(NO_COMPACTION),
    ConfigDef::new("log.cleaner.max.compaction.lag.ms", Long, "9223372036854775807", "Default of the topics' max.compaction.lag.ms.").at_least(1).dynamic().without_effect(NO_COMPACTION),
    ConfigDef::new("log.cleaner.min.cleanable.ratio", Double, "0.5", "Default of the topics' min.cleanable.dirty.ratio.").rule(Rule::Fraction(0.0, 1.0)).dynamic().without_effect(NO_COMPACTION),
    ConfigDef::new("log.cleaner.min.compaction.lag.ms", Long, "0", "Default of the topics' min.compaction.lag.ms.").at_least(0).dynamic().without_effect(NO_COMPACTION),
    ConfigDef::new("log.cleaner.threads", Int, "1", "Threads of the cleaner.").at_least(0).dynamic().without_effect(NO_COMPACTION),
    ConfigDef::new("log.cleanup.policy", List, "delete", "Default of the topics' cleanup.policy.").rule(Rule::EachOf(&["compact", "delete"])).dynamic(),
    ConfigDef::new("log.dir", List, "", "Where the data is; log.dirs says the same.").unset().shown("--data-dir"),
    ConfigDef::new("log.dirs", List, "", "Where the data is.").unset().shown("--data-dir"),
    ConfigDef::new("log.flush.interval.messages", Long, "9223372036854775807", "Default of the topics' flush.messages.").at_least(1).dynamic(),
    ConfigDef::new("log.flush.interval.ms", Long, "", "Default of the topics' flush.ms; log.flush.scheduler.interval.ms where it is not set.").unset().at_least(0).dynamic().synonyms(FLUSH_MS),
    ConfigDef::new("log.flush.scheduler.interval.ms", Long, "9223372036854775807", "Default of log.flush.interval.ms.").at_least(0),
    ConfigDef::new("log.index.interval.bytes", Int, "4096", "Default of the topics' index.interval.bytes.").at_least(0).dynamic(),
    ConfigDef::new("log.index.size.max.bytes", Int, "10485760", "Default of the topics' segment.index.bytes.").at_least(4).dynamic(),
    ConfigDef::new("log.local.retention.bytes", Long, "-2", "Default of the topics' local.retention.bytes.").at_least(-2).dynamic().without_effect(NO_TIERS),
    ConfigDef::new("log.local.retention.ms", Long, "-2", "Default of the topics' local.retention.ms.").at_least(-2).dynamic().without_effect(NO_TIERS),
    ConfigDef::new("log.message.timestamp.after.max.ms", Long, "3600000", "Default of the topics' message.timestamp.after.max.ms.").at_least(0).dynamic(),
    ConfigDef::new("log.message.timestamp.before.max.ms", Long, "9223372036854775807", "Default of the topics' message.timestamp.before.max.ms.").at_least(0).dynamic(),
    ConfigDef::new("log.message.timestamp.type", String, "CreateTime", "Default of the topics' message.timestamp.type.").rule(Rule::OneOf(&["CreateTime", "LogAppendTime"])).dynamic(),
    ConfigDef::new("log.ouzel.durability", String, "durable", "Default of the topics' ouzel.durability.").rule(Rule::OneOf(&["durable", "write-caching", "os"])).dynamic(),
    ConfigDef::new("log.preallocate", Boolean, "false", "Default of the topics' preallocate.").dynamic(),
    ConfigDef::new("log.retention.bytes", Long, "-1", "Default of the topics' retention.bytes.").dynamic(),
    ConfigDef::new("log.retention.check.interval.ms", Long, "300000", "How often segments are checked for retention.").at_least(1),
    ConfigDef::new("log.retention.hours", Int, "168", "Default of the topics' retention.ms, in hours; log.retention.minutes and log.retention.ms win over it.").rule(UNLIMITED_OR_POSITIVE).synonyms(RETENTION_MS),
    ConfigDef::new("log.retention.minutes", Int, "", "Default of the topics' retention.ms, in minutes; log.retention.ms wins over it.").unset().rule(UNLIMITED_OR_POSITIVE).synonyms(RETENTION_MS),
    ConfigDef::new("log.retention.ms", Long, "", "Default of the topics' retention.ms.").unset().rule(UNLIMITED_OR_POSITIVE).dynamic().synonyms(RETENTION_MS),
    ConfigDef::new("log.roll.hours", Int, "168", "Default of the topics' segment.ms, in hours; log.roll.ms wins over it.").at_least(1).synonyms(ROLL_MS),
    ConfigDef::new("log.roll.jitter.hours", Int, "0", "Default of the topics' segment.jitter.ms, in hours; log.roll.jitter.ms wins over it.").at_least(0).synonyms(ROLL_JITTER_MS),
    ConfigDef::new("log.roll.jitter.ms", Long, "", "Default of the topics' segment.jitter.ms.").unset().at_least(0).dynamic().synonyms(ROLL_JITTER_MS),
    ConfigDef::new("log.roll.ms", Long, "", "Default of the topics' segment.ms.").unset().at_least(1).dynamic().synonyms(ROLL_MS),
    ConfigDef::new("log.segment.bytes", Int, "1073741824", "Default of the topics' segment.bytes.").at_least(1 << 20).dynamic(),
    ConfigDef::new("log.segment.delete.delay.ms", Long, "60000", "Default of the topics' file.delete.delay.ms.").at_least(0).dynamic(),
    ConfigDef::new("max.connection.creation.rate", Int, "2147483647", "Most connections accepted in a second.").at_least(0).dynamic().without_effect(NO_LIMIT),
    ConfigDef::new("max.connections", Int, "2147483647", "Most connections at one time.").at_least(0).dynamic(),
    ConfigDef::new("max.connections.per.ip", Int, "2147483647", "Most connections of one address at one time.").at_least(0).dynamic().without_effect(NO_LIMIT),
    ConfigDef::new("max.connections.per.ip.overrides", String, "", "Exceptions from max.connections.per.ip: 'address:count' pairs.").dynamic().without_effect(NO_LIMIT),
    ConfigDef::new("max.incremental.fetch.session.cache.slots", Int, "1000", "Fetch sessions the broker remembers; clients beyond that send full fetches.").at_least(0),
    ConfigDef::new("message.max.bytes", Int, "1048588", "Default of the topics' max.message.bytes.").at_least(0).dynamic(),
    ConfigDef::new("metric.reporters", List, "org.apache.kafka.common.metrics.JmxReporter", "Classes that report metrics.").dynamic().without_effect("metrics are served at /metrics"),
    ConfigDef::new("min.insync.replicas", Int, "1", "Default of the topics' min.insync.replicas.").at_least(1).dynamic(),
    ConfigDef::new("node.id", Int, "", "The broker's number in the cluster.").unset().shown("--node-id"),
    ConfigDef::new("num.io.threads", Int, "8", "Threads that work on requests.").at_least(1).dynamic().without_effect(NO_POOLS),
    ConfigDef::new("num.network.threads", Int, "3", "Threads that serve sockets.").at_least(1).dynamic().without_effect(NO_POOLS),
    ConfigDef::new("num.partitions", Int, "1", "Partitions of a topic whose creator leaves the choice to the broker.").at_least(1),
    ConfigDef::new("num.recovery.threads.per.data.dir", Int, "2", "Threads that recover logs at start.").at_least(1).dynamic().without_effect(NO_POOLS),
    ConfigDef::new("num.replica.alter.log.dirs.threads", Int, "", "Threads that move partitions between data directories.").unset().without_effect("a broker has one data directory"),
    ConfigDef::new("num.replica.fetchers", Int, "1", "Threads that fetch from leaders.").at_least(1).dynamic().without_effect(NO_POOLS),
    ConfigDef::new("offset.metadata.max.bytes", Int, "4096", "Longest text that may accompany a committed offset.").at_least(0),
    ConfigDef::new("offsets.commit.timeout.ms", Int, "5000", "How long an offset commit may wait for its replicas.").at_least(1),
    ConfigDef::new("offsets.load.buffer.size", Int, "5242880", "Memory for reading committed offsets back.").at_least(1).without_effect(NO_BUFFERS),
    ConfigDef::new("offsets.retention.check.interval.ms", Long, "600000", "How often committed offsets are checked for expiry.").at_least(1),
    ConfigDef::new("offsets.retention.minutes", Int, "10080", "How long the committed offsets of an abandoned group are kept.").at_least(1),
    ConfigDef::new("offsets.topic.compression.codec", Int, "0", "Codec of committed offsets.").rule(Rule::Between(0, 4)).without_effect(NO_RECOMPRESSION),
    ConfigDef::new("offsets.topic.num.partitions", Int, "50", "Partitions of the topic that holds committed offsets; fixed once it exists.").at_least(1),
    ConfigDef::new("offsets.topic.replication.factor", Short, "3", "Replicas of the topic that holds committed offsets; fewer while there are fewer brokers.").at_least(1),
    ConfigDef::new("offsets.topic.segment.bytes", Int, "104857600", "Segment size of the topic that holds committed offsets.").at_least(1 << 20),
    ConfigDef::new("ouzel.disk.backend", String, "auto", "How files are read and written: 'uring' is io_uring, 'blocking' a pool of threads, 'auto' the first of them that works.").rule(Rule::OneOf(&["auto", "uring", "blocking"])),
    ConfigDef::new("ouzel.log.format", String, "text", "How the broker writes its own log lines.").rule(Rule::OneOf(&["text", "json"])),
    ConfigDef::new("process.roles", List, "", "What the node does.").without_effect("every node is both broker and controller"),
    ConfigDef::new("producer.id.expiration.ms", Int, "86400000", "How long the last sequence of a silent idempotent producer is remembered.").at_least(1).dynamic(),
    ConfigDef::new("queued.max.request.bytes", Long, "-1", "Most bytes of requests that wait for a worker.").without_effect("--memory bounds what waits"),
    ConfigDef::new("queued.max.requests", Int, "500", "Most requests that wait for a worker.").at_least(1).without_effect("--memory bounds what waits"),
    ConfigDef::new("remote.fetch.max.wait.ms", Int, "500", "Longest wait for a read from tiered storage.").at_least(1).dynamic().without_effect(NO_TIERS),
    ConfigDef::new("remote.list.offsets.request.timeout.ms", Long, "30000", "Longest wait for an offset from tiered storage.").at_least(1).dynamic().without_effect(NO_TIERS),
    ConfigDef::new("remote.log.index.file.cache.total.size.bytes", Long, "1073741824", "Disk space for indexes of remote segments.").at_least(1).dynamic().without_effect(NO_TIERS),
    ConfigDef::new("remote.log.manager.copier.thread.pool.size", Int, "10", "Threads that copy segments away.").at_least(1).dynamic().without_effect(NO_TIERS),
    ConfigDef::new("remote.log.manager.copy.max.bytes.per.second", Long, "9223372036854775807", "Most bytes copied away in a second.").at_least(1).dynamic().without_effect(NO_TIERS),
    ConfigDef::new("remote.log.manager.expiration.thread.pool.size", Int, "10", "Threads that delete remote segments.").at_least(1).dynamic().without_effect(NO_TIERS),
    ConfigDef::new("remote.log.manager.fetch.max.bytes.per.second", Long, "9223372036854775807", "Most bytes read from tiered storage in a second.").at_least(1).dynamic().without_effect(NO_TIERS),
    ConfigDef::new("remote.log.manager.follower.thread.pool.size", Int, "2", "Threads that follow remote segments.").at_least(1).dynamic().without_effect(NO_TIERS),
    ConfigDef::new("remote.log.reader.threads", Int, "10", "Threads that read from tiered storage.").at_least(1).dynamic().without_effect(NO_TIERS),
    ConfigDef::new("remote.log.storage.system.enable", Boolean, "false", "Whether there is tiered storage.").rule(Rule::Only("false")).without_effect(NO_TIERS),
    ConfigDef::new("replica.alter.log.dirs.io.max.bytes.per.second", Long, "9223372036854775807", "Most bytes a second for moving partitions between data directories.").at_least(0).dynamic().without_effect(NO_REPLICATION),
    ConfigDef::new("replica.fetch.max.bytes", Int, "1048576", "Bytes a follower asks for per partition.").at_least(0).without_effect(NO_REPLICATION),
    ConfigDef::new("replica.fetch.response.max.bytes", Int, "10485760", "Bytes a follower asks for in all.").at_least(0).without_effect(NO_REPLICATION),
    ConfigDef::new("replica.fetch.wait.max.ms", Int, "500", "How long a follower's fetch waits for records.").without_effect(NO_REPLICATION),
    ConfigDef::new("replica.lag.time.max.ms", Long, "30000", "A follower that has not caught up for this long is out of sync.").without_effect(NO_REPLICATION),
    ConfigDef::new("replica.selector.class", String, "", "How a replica is chosen for a consumer.").unset().without_effect(NO_REPLICATION),
    ConfigDef::new("socket.listen.backlog.size", Int, "50", "Connections that wait to be accepted.").at_least(1).without_effect(NO_BUFFERS),
    ConfigDef::new("socket.receive.buffer.bytes", Int, "102400", "Size of the sockets' receive buffers; -1 for the system's choice.").without_effect(NO_BUFFERS),
    ConfigDef::new("socket.request.max.bytes", Int, "104857600", "Largest request that is read; a connection that announces a larger one is closed.").at_least(1),
    ConfigDef::new("socket.send.buffer.bytes", Int, "102400", "Size of the sockets' send buffers; -1 for the system's choice.").without_effect(NO_BUFFERS),
    ConfigDef::new("transaction.abort.timed.out.transaction.cleanup.interval.ms", Int, "10000", "How often transactions are checked for their timeout.").at_least(1).without_effect(NO_TRANSACTIONS),
    ConfigDef::new("transaction.max.timeout.ms", Int, "900000", "Longest transaction timeout a producer may ask for.").at_least(1).without_effect(NO_TRANSACTIONS),
    ConfigDef::new("transaction.partition.verification.enable", Boolean, "true", "Whether a transactional write is checked against its transaction.").dynamic().without_effect(NO_TRANSACTIONS),
    ConfigDef::new("transaction.remove.expired.transaction.cleanup.interval.ms", Int, "3600000", "How often transactional ids are checked for expiry.").at_least(1).without_effect(NO_TRANSACTIONS),
    ConfigDef::new("transaction.state.log.load.buffer.size", Int, "5242880", "Memory for reading transactions back.").at_least(1).without_effect(NO_TRANSACTIONS),
    ConfigDef::new("transaction.state.log.min.isr", Int, "2", "Replicas that must be in sync for the transaction topic.").at_least(1).without_effect(NO_TRANSACTIONS),
    ConfigDef::new("transaction.state.log.num.partitions", Int, "50", "Partitions of the transaction topic.").at_least(1).without_effect(NO_TRANSACTIONS),
    ConfigDef::new("transaction.state.log.replication.factor", Short, "3", "Replicas of the transaction topic.").at_least(1).without_effect(NO_TRANSACTIONS),
    ConfigDef::new("transaction.state.log.segment.bytes", Int, "104857600", "Segment size of the transaction topic.").at_least(1).without_effect(NO_TRANSACTIONS),
    ConfigDef::new("transactional.id.expiration.ms", Int, "604800000", "How long a silent transactional id is remembered.").at_least(1).without_effect(NO_TRANSACTIONS),
    ConfigDef::new("unclean.leader.election.enable", Boolean, "false", "Default of the topics' unclean.leader.election.enable.").dynamic().without_effect(NO_REPLICATION),
];

/// The broker key of this name.
pub fn broker_config(name: &str) -> Option<&'static ConfigDef> {
    BROKER_CONFIGS.binary_search_by_key(&name, |def| def.name).ok().map(|found| &BROKER_CONFIGS[found])
}
