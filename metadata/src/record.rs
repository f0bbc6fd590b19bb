//! One decision of the controller, as it is logged.

mod bytes;

use ouzel_model::{NodeId, PartitionIndex, TopicId, TopicName};

use crate::configs::Overrides;
use crate::features::Features;
use crate::image::{Broker, BrokerScope};
use crate::partition::Partition;

pub use bytes::DecodeError;

/// One decision of the controller.
///
/// Each stands on its own: no crash between two records leaves half a topic, since a topic and all its partitions are
/// one record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// The cluster was founded.
    ClusterCreated {
        /// Its name: Kafka shows 22 characters of base64, but any text will do.
        cluster_id: String,
    },
    /// A broker came up, or came back at other addresses.
    BrokerRegistered(Broker),
    /// A broker left for good.
    BrokerUnregistered {
        /// Which.
        node: NodeId,
    },
    /// A topic exists from here on.
    TopicCreated {
        /// Its name.
        name: TopicName,
        /// Its id.
        topic_id: TopicId,
        /// Its partitions from 0 on.
        partitions: Vec<Partition>,
        /// Its own settings.
        configs: Overrides,
    },
    /// A topic, its partitions and settings are gone.
    TopicDeleted {
        /// Which incarnation.
        topic_id: TopicId,
    },
    /// A topic has more partitions.
    PartitionsAdded {
        /// Which topic.
        topic_id: TopicId,
        /// The index of the first new one: the number of partitions until now.
        first_index: PartitionIndex,
        /// The new ones.
        partitions: Vec<Partition>,
    },
    /// Where a partition is to live changed, or it got there.
    PartitionChanged {
        /// Which topic.
        topic_id: TopicId,
        /// Which of its partitions.
        index: PartitionIndex,
        /// Its state from here on.
        partition: Partition,
    },
    /// A key got a value.
    ConfigSet {
        /// Whose.
        resource: ConfigResource,
        /// Which key.
        key: String,
        /// The value as its author wrote it.
        value: String,
    },
    /// A key fell back to its default.
    ConfigRemoved {
        /// Whose.
        resource: ConfigResource,
        /// Which key.
        key: String,
    },
    /// All producer ids below `next_producer_id` belong to somebody.
    ProducerIdsAllocated {
        /// The broker that took the newest block.
        node: NodeId,
        /// The first id still free.
        next_producer_id: i64,
    },
    /// A broker was found dead, or alive again.
    BrokerFenced {
        /// Which.
        node: NodeId,
        /// Whether it is taken for dead from here on.
        fenced: bool,
    },
    /// Who keeps the controller's own log changed.
    ControllerChanged {
        /// Where it is to live from here on.
        controller: Partition,
    },
    /// The levels of features changed.
    FeaturesSet(Features),
    /// A snapshot begins: pieces follow that make the image again, from nothing. See [`crate::snapshot`].
    SnapshotStarted,
    /// A piece of the snapshot that began last. It changes nothing: it says what is so already.
    SnapshotPiece {
        /// What a reader applies that begins with the snapshot; no record of a snapshot itself.
        record: Box<Record>,
    },
    /// The snapshot that began last is whole.
    SnapshotEnded {
        /// How many pieces it has.
        pieces: u32,
    },
}

/// Whose setting it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConfigResource {
    /// A topic's, by id: a topic re-created under the same name starts without settings.
    Topic(TopicId),
    /// One broker's, or the default of all.
    Broker(BrokerScope),
}

impl Record {
    /// The record as a Kafka record's value in the controller's log; the key stays empty.
    pub fn encode(&self) -> Vec<u8> {
        bytes::encode(self)
    }

    /// Reads what [`Record::encode`] wrote. No input makes it allocate more than a small multiple of its own length.
    ///
    /// # Errors
    /// See [`DecodeError`]; a record of a newer release is told apart from a damaged one.
    pub fn decode(bytes: &[u8]) -> Result<Record, DecodeError> {
        bytes::decode(bytes)
    }
}
