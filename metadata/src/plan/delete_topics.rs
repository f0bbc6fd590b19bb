//! Deleting topics.

use std::collections::BTreeSet;

use ouzel_model::{TopicId, TopicName};

use crate::configs::BrokerConfig;
use crate::image::Image;
use crate::record::Record;

/// A topic by what a request calls it. A name need not be legal.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TopicRef {
    /// By name.
    Name(String),
    /// By id.
    Id(TopicId),
}

/// A topic that goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeletedTopic {
    /// Its name.
    pub name: TopicName,
    /// Its id.
    pub topic_id: TopicId,
    /// The decision.
    pub record: Record,
}

/// Why a topic stays.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeleteTopicError {
    /// delete.topic.enable is false.
    #[error("Topic deletion is disabled.")]
    DeletionDisabled,
    /// No topic of this name.
    #[error("This server does not host this topic-partition.")]
    UnknownName {
        /// The name.
        name: String,
    },
    /// No topic of this id.
    #[error("This server does not host this topic ID.")]
    UnknownId {
        /// The id.
        topic_id: TopicId,
    },
    /// Named more than once in one request.
    #[error("{}", match topic { TopicRef::Name(_) => "Duplicate topic name.", TopicRef::Id(_) => "Duplicate topic id." })]
    Duplicate {
        /// What was repeated.
        topic: TopicRef,
    },
}

/// Decides one request; the answers stand in its order.
///
/// A topic that is named twice, by whatever means, is not deleted at all: the first answer could not tell which of its
/// two halves was meant.
pub fn plan_delete_topics(
    image: &Image,
    broker: &BrokerConfig,
    topics: &[TopicRef],
) -> Vec<Result<DeletedTopic, DeleteTopicError>> {
    let resolve = |topic: &TopicRef| match topic {
        TopicRef::Name(name) => image.topic(name),
        TopicRef::Id(id) => image.topic_by_id(*id),
    };
    let mut seen = BTreeSet::new();
    let mut repeated = BTreeSet::new();
    for found in topics.iter().filter_map(resolve) {
        if !seen.insert(found.id) {
            repeated.insert(found.id);
        }
    }
    let decide = |topic: &TopicRef| {
        if !broker.delete_topics {
            return Err(DeleteTopicError::DeletionDisabled);
        }
        let found = resolve(topic).ok_or_else(|| match topic {
            TopicRef::Name(name) => DeleteTopicError::UnknownName { name: name.clone() },
            TopicRef::Id(topic_id) => DeleteTopicError::UnknownId { topic_id: *topic_id },
        })?;
        if repeated.contains(&found.id) {
            return Err(DeleteTopicError::Duplicate { topic: topic.clone() });
        }
        let record = Record::TopicDeleted { topic_id: found.id };
        Ok(DeletedTopic { name: found.name.clone(), topic_id: found.id, record })
    };
    topics.iter().map(decide).collect()
}
