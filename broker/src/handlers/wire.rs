//! Small conversions between the wire's values and ours.

use std::sync::Arc;

use ouzel_model::{TopicId, TopicName};
use ouzel_protocol::StrBytes;
use ouzel_protocol::messages::kafka as messages;

use uuid::Uuid;

/// Our text as the wire's.
pub(super) fn text(value: &str) -> StrBytes {
    StrBytes::from_string(value.to_owned())
}

/// The wire's text as ours.
pub(super) fn shared(value: &StrBytes) -> Arc<str> {
    value.as_str().into()
}

/// A topic's id as the wire's.
pub(super) fn uuid(id: TopicId) -> Uuid {
    Uuid::from_bytes(id.0)
}

/// The wire's id as ours; zero says "none".
pub(super) fn topic_id(id: Uuid) -> TopicId {
    TopicId(id.into_bytes())
}

/// A topic's name as the wire's.
pub(super) fn topic_name(name: &TopicName) -> messages::TopicName {
    messages::TopicName(text(name.as_str()))
}
