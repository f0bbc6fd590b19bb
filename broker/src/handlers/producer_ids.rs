//! InitProducerId: an id for an idempotent producer (KIP-98, KIP-360).

use std::rc::Rc;

use ouzel_protocol::ErrorCode;
use ouzel_protocol::messages::kafka::{self as messages, InitProducerIdRequest, InitProducerIdResponse};

use crate::controller;
use crate::core::Core;

use super::error_map::controller_code;

/// Gives a producer without a transactional id a fresh id; refuses one with.
pub(crate) async fn init(
    core: &Rc<Core>,
    version: i16,
    request: InitProducerIdRequest,
) -> InitProducerIdResponse {
    let refused = |code: ErrorCode| {
        InitProducerIdResponse::default()
            .with_error_code(code.code())
            .with_producer_id(messages::ProducerId(-1))
            .with_producer_epoch(-1)
    };
    match &request.transactional_id {
        None => {}
        Some(id) if id.is_empty() => return refused(ErrorCode::InvalidRequest),
        Some(_) => return refused(ErrorCode::TransactionalIdAuthorizationFailed),
    }
    // Both or neither; what they say is of use to transactional producers alone, others get a fresh id at each call.
    if version >= 3 && (request.producer_id.0 == -1) != (request.producer_epoch == -1) {
        return refused(ErrorCode::InvalidRequest);
    }
    match controller::next_producer_id(core).await {
        Ok(id) => InitProducerIdResponse::default()
            .with_producer_id(messages::ProducerId(id.0))
            .with_producer_epoch(0),
        Err(error) => refused(controller_code(&error)),
    }
}
