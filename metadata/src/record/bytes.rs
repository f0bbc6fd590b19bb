//! The bytes of a record in the controller's log.
//!
//! ```text
//! kind u8 | version u8 | fields of that kind and version, in the order they are written below
//! ```
//! Integers are big endian. A text is a u32 length and UTF-8; a list is a u32 count and its items; an optional field is
//! one byte, 0 or 1, and then the field if 1. Nothing may follow the last field.
//!
//! Versions above 1: a broker (kind 2) tells its directory, its address for other brokers, whether it is fenced and what
//! features it knows; partitions (kinds 4, 6, 7) have replicas with incarnations and say what comes and goes, and
//! nothing of leaders. Version 1 of these is what single nodes wrote before there were clusters; what it says of leaders
//! and in-sync replicas is read and dropped: there was one replica. Version 3 of them, and version 2 of who keeps the
//! controller's log (kind 12), name an heir, if there is one; versions 4 and 3 tell the founders. Before, those were the replicas
//! of what had never changed, and nobody otherwise.
//!
//! A kind and version, once released, keep their layout for ever: a new field is a new version, and every version ever
//! written stays readable.

use std::collections::BTreeMap;

use ouzel_model::{InvalidTopicName, NodeId, PartitionIndex, ReplicaId, TopicId, TopicName};

use super::{ConfigResource, Record};
use crate::configs::Overrides;
use crate::features::{Features, LevelRange};
use crate::image::{Broker, BrokerScope, Endpoint, SecurityProtocol};
use crate::partition::{Heir, Partition};

/// Why bytes are no record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// A kind of record this release does not know.
    #[error(
        "metadata record of kind {kind} was written by a newer release; run that release, or a later one"
    )]
    NewerKind {
        /// The kind.
        kind: u8,
    },
    /// A layout of a known record that this release does not know.
    #[error(
        "metadata record of kind {kind} has version {version}, this release reads up to {newest}; run the release that wrote it, or a later one"
    )]
    NewerVersion {
        /// The kind.
        kind: u8,
        /// Its version.
        version: u8,
        /// The newest this release reads.
        newest: u8,
    },
    /// The bytes end inside a field.
    #[error("metadata record ends at byte {position}, where {field} needs {needed} more")]
    Truncated {
        /// Where the field starts.
        position: usize,
        /// Which field.
        field: &'static str,
        /// Bytes it needs at least.
        needed: usize,
    },
    /// A field has a value it cannot have.
    #[error("metadata record has {found} at byte {position}, which is no {field}")]
    BadField {
        /// Where.
        position: usize,
        /// Which field.
        field: &'static str,
        /// What stands there.
        found: String,
    },
    /// A topic's name is not one.
    #[error("metadata record names a topic badly: {0}")]
    BadTopicName(#[from] InvalidTopicName),
    /// Bytes after the last field.
    #[error("metadata record of kind {kind} has {extra} bytes after its last field")]
    TrailingBytes {
        /// The kind.
        kind: u8,
        /// How many.
        extra: usize,
    },
}

const CLUSTER_CREATED: u8 = 1;
const BROKER_REGISTERED: u8 = 2;
const BROKER_UNREGISTERED: u8 = 3;
const TOPIC_CREATED: u8 = 4;
const TOPIC_DELETED: u8 = 5;
const PARTITIONS_ADDED: u8 = 6;
const PARTITION_CHANGED: u8 = 7;
const CONFIG_SET: u8 = 8;
const CONFIG_REMOVED: u8 = 9;
const PRODUCER_IDS_ALLOCATED: u8 = 10;
const BROKER_FENCED: u8 = 11;
const CONTROLLER_CHANGED: u8 = 12;
const FEATURES_SET: u8 = 13;
const SNAPSHOT_STARTED: u8 = 14;
const SNAPSHOT_PIECE: u8 = 15;
const SNAPSHOT_ENDED: u8 = 16;

/// The newest version of a kind: what is written.
const fn newest(kind: u8) -> u8 {
    match kind {
        BROKER_REGISTERED => 2,
        TOPIC_CREATED | PARTITIONS_ADDED | PARTITION_CHANGED => 4,
        CONTROLLER_CHANGED => 3,
        _ => 1,
    }
}

pub(super) fn encode(record: &Record) -> Vec<u8> {
    let mut w = Writer(Vec::with_capacity(64));
    match record {
        Record::ClusterCreated { cluster_id } => {
            w.start(CLUSTER_CREATED);
            w.text(cluster_id);
        }
        Record::BrokerRegistered(broker) => {
            w.start(BROKER_REGISTERED);
            w.broker(broker);
        }
        Record::BrokerUnregistered { node } => {
            w.start(BROKER_UNREGISTERED);
            w.i32(node.0);
        }
        Record::TopicCreated { name, topic_id, partitions, configs } => {
            w.start(TOPIC_CREATED);
            w.text(name.as_str());
            w.0.extend_from_slice(&topic_id.0);
            w.list(partitions.iter(), Writer::partition);
            w.list(configs.iter(), |w, (key, value)| {
                w.text(key);
                w.text(value);
            });
        }
        Record::TopicDeleted { topic_id } => {
            w.start(TOPIC_DELETED);
            w.0.extend_from_slice(&topic_id.0);
        }
        Record::PartitionsAdded { topic_id, first_index, partitions } => {
            w.start(PARTITIONS_ADDED);
            w.0.extend_from_slice(&topic_id.0);
            w.i32(first_index.0);
            w.list(partitions.iter(), Writer::partition);
        }
        Record::PartitionChanged { topic_id, index, partition } => {
            w.start(PARTITION_CHANGED);
            w.0.extend_from_slice(&topic_id.0);
            w.i32(index.0);
            w.partition(partition);
        }
        Record::ConfigSet { resource, key, value } => {
            w.start(CONFIG_SET);
            w.resource(resource);
            w.text(key);
            w.text(value);
        }
        Record::ConfigRemoved { resource, key } => {
            w.start(CONFIG_REMOVED);
            w.resource(resource);
            w.text(key);
        }
        Record::ProducerIdsAllocated { node, next_producer_id } => {
            w.start(PRODUCER_IDS_ALLOCATED);
            w.i32(node.0);
            w.i64(*next_producer_id);
        }
        Record::BrokerFenced { node, fenced } => {
            w.start(BROKER_FENCED);
            w.i32(node.0);
            w.0.push((*fenced).into());
        }
        Record::ControllerChanged { controller } => {
            w.start(CONTROLLER_CHANGED);
            w.partition(controller);
        }
        Record::FeaturesSet(features) => {
            w.start(FEATURES_SET);
            w.i64(features.epoch);
            w.list(features.levels.iter(), |w, (name, level)| {
                w.text(name);
                w.i16(*level);
            });
        }
        Record::SnapshotStarted => w.start(SNAPSHOT_STARTED),
        Record::SnapshotPiece { record } => {
            w.start(SNAPSHOT_PIECE);
            w.0.extend_from_slice(&encode(record));
        }
        Record::SnapshotEnded { pieces } => {
            w.start(SNAPSHOT_ENDED);
            w.0.extend_from_slice(&pieces.to_be_bytes());
        }
    }
    w.0
}

pub(super) fn decode(bytes: &[u8]) -> Result<Record, DecodeError> {
    let mut r = Reader { bytes, position: 0 };
    let kind = r.u8("kind of record")?;
    if !(CLUSTER_CREATED..=SNAPSHOT_ENDED).contains(&kind) {
        return Err(match kind {
            0 => r.bad("kind of record", "0"),
            _ => DecodeError::NewerKind { kind },
        });
    }
    let version = r.u8("version")?;
    let newest = newest(kind);
    match version {
        0 => return Err(r.bad("version", "0")),
        _ if version > newest => return Err(DecodeError::NewerVersion { kind, version, newest }),
        _ => {}
    }
    let partition = |r: &mut Reader<'_>| match newest - version {
        0 => r.partition(),
        1 => r.partition_without_founders(),
        2 => r.partition_without_heir(),
        _ => r.partition_of_single_node(),
    };
    let record = match kind {
        CLUSTER_CREATED => Record::ClusterCreated { cluster_id: r.text("cluster id")? },
        BROKER_REGISTERED => Record::BrokerRegistered(r.broker(version)?),
        BROKER_UNREGISTERED => Record::BrokerUnregistered { node: r.node()? },
        TOPIC_CREATED => Record::TopicCreated {
            name: TopicName::new(&r.text("topic name")?)?,
            topic_id: r.topic_id()?,
            partitions: r.list("partitions", partition)?,
            configs: r
                .list("topic settings", |r| Ok((r.text("key")?, r.text("value")?)))?
                .into_iter()
                .collect::<Overrides>(),
        },
        TOPIC_DELETED => Record::TopicDeleted { topic_id: r.topic_id()? },
        PARTITIONS_ADDED => Record::PartitionsAdded {
            topic_id: r.topic_id()?,
            first_index: PartitionIndex(r.i32("first partition index")?),
            partitions: r.list("partitions", partition)?,
        },
        PARTITION_CHANGED => Record::PartitionChanged {
            topic_id: r.topic_id()?,
            index: PartitionIndex(r.i32("partition index")?),
            partition: partition(&mut r)?,
        },
        CONFIG_SET => {
            Record::ConfigSet { resource: r.resource()?, key: r.text("key")?, value: r.text("value")? }
        }
        CONFIG_REMOVED => Record::ConfigRemoved { resource: r.resource()?, key: r.text("key")? },
        PRODUCER_IDS_ALLOCATED => {
            Record::ProducerIdsAllocated { node: r.node()?, next_producer_id: r.i64("next producer id")? }
        }
        BROKER_FENCED => Record::BrokerFenced { node: r.node()?, fenced: r.bool("fenced")? },
        CONTROLLER_CHANGED => Record::ControllerChanged { controller: partition(&mut r)? },
        FEATURES_SET => {
            Record::FeaturesSet(Features { epoch: r.i64("epoch")?, levels: r.map("features", Reader::i16)? })
        }
        SNAPSHOT_STARTED => Record::SnapshotStarted,
        SNAPSHOT_PIECE => {
            // A piece holds one record and ends with it; pieces of pieces would nest as deep as their writer liked.
            let inner = r.rest();
            if inner.first().is_some_and(|kind| (SNAPSHOT_STARTED..=SNAPSHOT_ENDED).contains(kind)) {
                return Err(DecodeError::BadField {
                    position: 2,
                    field: "piece of a snapshot",
                    found: format!("a record of kind {}", inner[0]),
                });
            }
            Record::SnapshotPiece { record: Box::new(decode(inner)?) }
        }
        // The range was checked above, so this is SNAPSHOT_ENDED.
        _ => Record::SnapshotEnded { pieces: r.u32("pieces")? },
    };
    match bytes.len() - r.position {
        0 => Ok(record),
        extra => Err(DecodeError::TrailingBytes { kind, extra }),
    }
}

struct Writer(Vec<u8>);

impl Writer {
    fn start(&mut self, kind: u8) {
        self.0.extend_from_slice(&[kind, newest(kind)]);
    }

    fn u32(&mut self, length: usize) {
        let length =
            u32::try_from(length).expect("a record's texts and lists came in a request, which is smaller");
        self.0.extend_from_slice(&length.to_be_bytes());
    }

    fn i16(&mut self, number: i16) {
        self.0.extend_from_slice(&number.to_be_bytes());
    }

    fn i32(&mut self, number: i32) {
        self.0.extend_from_slice(&number.to_be_bytes());
    }

    fn i64(&mut self, number: i64) {
        self.0.extend_from_slice(&number.to_be_bytes());
    }

    fn text(&mut self, text: &str) {
        self.u32(text.len());
        self.0.extend_from_slice(text.as_bytes());
    }

    fn list<T>(&mut self, items: impl ExactSizeIterator<Item = T>, mut each: impl FnMut(&mut Writer, T)) {
        self.u32(items.len());
        items.for_each(|item| each(self, item));
    }

    fn optional<T>(&mut self, field: Option<T>, write: impl FnOnce(&mut Writer, T)) {
        self.0.push(field.is_some().into());
        if let Some(field) = field {
            write(self, field);
        }
    }

    fn broker(&mut self, broker: &Broker) {
        self.i32(broker.node.0);
        self.0.extend_from_slice(&broker.incarnation);
        self.list(broker.endpoints.iter(), |w, endpoint| {
            w.text(&endpoint.listener);
            w.text(&endpoint.host);
            w.0.extend_from_slice(&endpoint.port.to_be_bytes());
            w.0.push(match endpoint.security {
                SecurityProtocol::Plaintext => 0,
                SecurityProtocol::Ssl => 1,
                SecurityProtocol::SaslPlaintext => 2,
                SecurityProtocol::SaslSsl => 3,
            });
        });
        self.optional(broker.rack.as_deref(), Writer::text);
        self.0.extend_from_slice(&broker.directory_id.0);
        self.text(&broker.rpc_address);
        self.0.push(broker.fenced.into());
        self.list(broker.features.iter(), |w, (name, range)| {
            w.text(name);
            w.i16(range.min);
            w.i16(range.max);
        });
    }

    fn partition(&mut self, partition: &Partition) {
        let Partition { replicas, adding, removing, unsettled, next_incarnation, founders, heir } = partition;
        for list in [replicas, adding, removing, unsettled] {
            self.replicas(list);
        }
        self.0.extend_from_slice(&next_incarnation.to_be_bytes());
        self.optional(*heir, |w, heir| {
            w.0.extend_from_slice(&heir.replica.to_u64().to_be_bytes());
            w.0.extend_from_slice(&heir.decision.to_be_bytes());
        });
        self.replicas(founders);
    }

    fn replicas(&mut self, list: &[ReplicaId]) {
        self.list(list.iter(), |w, replica| w.0.extend_from_slice(&replica.to_u64().to_be_bytes()));
    }

    fn resource(&mut self, resource: &ConfigResource) {
        match resource {
            ConfigResource::Topic(id) => {
                self.0.push(0);
                self.0.extend_from_slice(&id.0);
            }
            ConfigResource::Broker(BrokerScope::ClusterDefault) => self.0.push(1),
            ConfigResource::Broker(BrokerScope::Broker(node)) => {
                self.0.push(2);
                self.i32(node.0);
            }
        }
    }
}

/// Walks the bytes of one record. Every length is compared with what is left before anything is allocated for it.
struct Reader<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, needed: usize, field: &'static str) -> Result<&'a [u8], DecodeError> {
        let rest = &self.bytes[self.position..];
        let Some(taken) = rest.get(..needed) else {
            return Err(DecodeError::Truncated {
                position: self.position,
                field,
                needed: needed - rest.len(),
            });
        };
        self.position += needed;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], DecodeError> {
        Ok(self.take(N, field)?.try_into().expect("take gives what it was asked for"))
    }

    /// The byte just read is no value of its field.
    fn bad(&self, field: &'static str, found: impl Into<String>) -> DecodeError {
        DecodeError::BadField { position: self.position.saturating_sub(1), field, found: found.into() }
    }

    fn u8(&mut self, field: &'static str) -> Result<u8, DecodeError> {
        Ok(self.array::<1>(field)?[0])
    }

    fn u32(&mut self, field: &'static str) -> Result<u32, DecodeError> {
        Ok(u32::from_be_bytes(self.array(field)?))
    }

    /// All that is left.
    fn rest(&mut self) -> &'a [u8] {
        let rest = &self.bytes[self.position..];
        self.position = self.bytes.len();
        rest
    }

    fn bool(&mut self, field: &'static str) -> Result<bool, DecodeError> {
        match self.u8(field)? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(self.bad(field, other.to_string())),
        }
    }

    fn i16(&mut self, field: &'static str) -> Result<i16, DecodeError> {
        Ok(i16::from_be_bytes(self.array(field)?))
    }

    fn i32(&mut self, field: &'static str) -> Result<i32, DecodeError> {
        Ok(i32::from_be_bytes(self.array(field)?))
    }

    fn i64(&mut self, field: &'static str) -> Result<i64, DecodeError> {
        Ok(i64::from_be_bytes(self.array(field)?))
    }

    fn length(&mut self, field: &'static str) -> Result<usize, DecodeError> {
        Ok(u32::from_be_bytes(self.array(field)?) as usize)
    }

    fn text(&mut self, field: &'static str) -> Result<String, DecodeError> {
        let length = self.length(field)?;
        let position = self.position;
        let bytes = self.take(length, field)?;
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(text.to_owned()),
            Err(_) => {
                Err(DecodeError::BadField { position, field, found: "bytes that are not UTF-8".to_owned() })
            }
        }
    }

    fn list<T>(
        &mut self,
        field: &'static str,
        mut each: impl FnMut(&mut Reader<'a>) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, DecodeError> {
        // No item is shorter than a node id.
        const ITEM_BYTES_MIN: usize = 4;
        let position = self.position;
        let count = self.length(field)?;
        let left = self.bytes.len() - self.position;
        if count > left / ITEM_BYTES_MIN {
            let needed = count.saturating_mul(ITEM_BYTES_MIN) - left;
            return Err(DecodeError::Truncated { position, field, needed });
        }
        (0..count).map(|_| each(self)).collect()
    }

    fn optional<T>(
        &mut self,
        field: &'static str,
        read: impl FnOnce(&mut Reader<'a>) -> Result<T, DecodeError>,
    ) -> Result<Option<T>, DecodeError> {
        if self.bool(field)? { read(self).map(Some) } else { Ok(None) }
    }

    /// Values by name. There is one spelling of each map: names rise.
    fn map<T>(
        &mut self,
        field: &'static str,
        read: impl Fn(&mut Reader<'a>, &'static str) -> Result<T, DecodeError>,
    ) -> Result<BTreeMap<String, T>, DecodeError> {
        let items = self.list(field, |r| Ok((r.text(field)?, read(r, field)?)))?;
        if items.windows(2).any(|pair| pair[0].0 >= pair[1].0) {
            return Err(self.bad(field, "names out of order"));
        }
        Ok(items.into_iter().collect())
    }

    fn levels(&mut self, field: &'static str) -> Result<LevelRange, DecodeError> {
        Ok(LevelRange { min: self.i16(field)?, max: self.i16(field)? })
    }

    fn replicas(&mut self, field: &'static str) -> Result<Vec<ReplicaId>, DecodeError> {
        self.list(field, |r| Ok(ReplicaId::from_u64(u64::from_be_bytes(r.array("replica")?))))
    }

    fn node(&mut self) -> Result<NodeId, DecodeError> {
        self.i32("node id").map(NodeId)
    }

    fn topic_id(&mut self) -> Result<TopicId, DecodeError> {
        self.array("topic id").map(TopicId)
    }

    fn broker(&mut self, version: u8) -> Result<Broker, DecodeError> {
        let mut broker = Broker {
            node: self.node()?,
            incarnation: self.array("incarnation")?,
            endpoints: self.list("endpoints", |r| {
                Ok(Endpoint {
                    listener: r.text("listener")?,
                    host: r.text("host")?,
                    port: u16::from_be_bytes(r.array("port")?),
                    security: match r.u8("security protocol")? {
                        0 => SecurityProtocol::Plaintext,
                        1 => SecurityProtocol::Ssl,
                        2 => SecurityProtocol::SaslPlaintext,
                        3 => SecurityProtocol::SaslSsl,
                        other => return Err(r.bad("security protocol", other.to_string())),
                    },
                })
            })?,
            rack: self.optional("rack", |r| r.text("rack"))?,
            directory_id: TopicId::ZERO,
            rpc_address: String::new(),
            fenced: false,
            features: BTreeMap::new(),
        };
        if version >= 2 {
            broker.directory_id = self.array("directory id").map(TopicId)?;
            broker.rpc_address = self.text("rpc address")?;
            broker.fenced = self.bool("fenced")?;
            broker.features = self.map("features", Reader::levels)?;
        }
        Ok(broker)
    }

    fn partition(&mut self) -> Result<Partition, DecodeError> {
        let partition = self.partition_without_founders()?;
        Ok(Partition { founders: self.replicas("founders")?, ..partition })
    }

    fn partition_without_founders(&mut self) -> Result<Partition, DecodeError> {
        let partition = self.partition_without_heir()?;
        let heir = self.optional("heir", |r| {
            let replica = ReplicaId::from_u64(u64::from_be_bytes(r.array("heir")?));
            Ok(Heir { replica, decision: u32::from_be_bytes(r.array("heir's decision")?) })
        })?;
        Ok(Partition { heir, ..partition })
    }

    fn partition_without_heir(&mut self) -> Result<Partition, DecodeError> {
        let made = Partition::of(self.replicas("replicas")?);
        let partition = Partition {
            adding: self.replicas("replicas that come")?,
            removing: self.replicas("replicas that go")?,
            unsettled: self.replicas("unsettled replicas")?,
            next_incarnation: u32::from_be_bytes(self.array("next incarnation")?),
            ..made
        };
        let founders = if partition.next_incarnation == 1 { partition.founders } else { Vec::new() };
        Ok(Partition { founders, ..partition })
    }

    fn partition_of_single_node(&mut self) -> Result<Partition, DecodeError> {
        let nodes = self.list("replicas", Reader::node)?;
        self.list("in-sync replicas", Reader::node)?;
        self.optional("leader", Reader::node)?;
        self.i32("leader epoch")?;
        Ok(Partition::new(nodes))
    }

    fn resource(&mut self) -> Result<ConfigResource, DecodeError> {
        match self.u8("config resource")? {
            0 => Ok(ConfigResource::Topic(self.topic_id()?)),
            1 => Ok(ConfigResource::Broker(BrokerScope::ClusterDefault)),
            2 => Ok(ConfigResource::Broker(BrokerScope::Broker(self.node()?))),
            other => Err(self.bad("config resource", other.to_string())),
        }
    }
}
