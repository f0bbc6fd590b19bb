//! Handing out producer ids.

use ouzel_model::{NodeId, ProducerId};

use crate::image::Image;
use crate::record::Record;

/// Ids handed to a broker at a time, as in Kafka: one record of the controller's log per thousand producers.
pub const PRODUCER_ID_BLOCK_SIZE: i32 = 1_000;

/// Ids that belong to one broker. Those it has not given away when it stops are lost, never given twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerIdBlock {
    /// The first.
    pub first: ProducerId,
    /// How many.
    pub size: i32,
}

impl ProducerIdBlock {
    /// The ids.
    pub fn ids(&self) -> impl Iterator<Item = ProducerId> {
        (self.first.0..self.first.0 + i64::from(self.size)).map(ProducerId)
    }
}

/// There are no ids left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("all producer ids are taken")]
pub struct ProducerIdsExhausted;

/// Takes the next block for a broker. Its ids may be used once the record is safe.
///
/// # Errors
/// All ids are taken.
pub fn plan_producer_id_block(
    image: &Image,
    node: NodeId,
) -> Result<(Record, ProducerIdBlock), ProducerIdsExhausted> {
    let first = image.next_producer_id();
    let next_producer_id = first.checked_add(PRODUCER_ID_BLOCK_SIZE.into()).ok_or(ProducerIdsExhausted)?;
    let block = ProducerIdBlock { first: ProducerId(first), size: PRODUCER_ID_BLOCK_SIZE };
    Ok((Record::ProducerIdsAllocated { node, next_producer_id }, block))
}
