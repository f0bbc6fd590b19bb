//! Taking a broker for dead or for alive again, and forgetting one that left for good.

use ouzel_model::NodeId;

use crate::image::Image;
use crate::record::Record;

/// Decides that a broker is dead, or alive again; `None` if that is known, or the broker is not.
pub fn plan_fence_broker(image: &Image, node: NodeId, fenced: bool) -> Option<Record> {
    let broker = image.broker(node)?;
    (broker.fenced != fenced).then_some(Record::BrokerFenced { node, fenced })
}

/// Why a broker stays registered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnregisterBrokerError {
    /// Nobody has this number.
    #[error("Broker ID {node} is not currently registered")]
    NotRegistered {
        /// The number.
        node: NodeId,
    },
    /// It would register again at once.
    #[error("Broker {node} is alive; stop it before it is unregistered.")]
    Alive {
        /// The broker.
        node: NodeId,
    },
    /// Kafka forgets the broker and leaves its replicas to nobody.
    #[error(
        "Broker {node} holds {replicas} replica(s), of {example} among others; move them to other brokers before it is \
         unregistered."
    )]
    HoldsReplicas {
        /// The broker.
        node: NodeId,
        /// How many.
        replicas: usize,
        /// Of which partition one is.
        example: String,
    },
    /// The controller needs it.
    #[error(
        "Broker {node} keeps the controller's log; it is unregistered once another broker does so in its place."
    )]
    KeepsController {
        /// The broker.
        node: NodeId,
    },
}

/// Decides that a broker has left for good.
///
/// # Errors
/// See [`UnregisterBrokerError`].
pub fn plan_unregister_broker(image: &Image, node: NodeId) -> Result<Record, UnregisterBrokerError> {
    let broker = image.broker(node).ok_or(UnregisterBrokerError::NotRegistered { node })?;
    if !broker.fenced {
        return Err(UnregisterBrokerError::Alive { node });
    }
    let mut held = image.topics().flat_map(|topic| {
        let here = topic.indexed_partitions().filter(|(_, partition)| partition.replica_on(node).is_some());
        here.map(|(index, _)| format!("{}-{index}", topic.name))
    });
    if let Some(example) = held.next() {
        return Err(UnregisterBrokerError::HoldsReplicas { node, replicas: 1 + held.count(), example });
    }
    if image.controller().is_some_and(|controller| controller.replica_on(node).is_some()) {
        return Err(UnregisterBrokerError::KeepsController { node });
    }
    Ok(Record::BrokerUnregistered { node })
}
