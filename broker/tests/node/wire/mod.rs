//! What a node answers on the wire, request by request.

mod administration;
mod configs;
mod coordination;
mod divergence;
mod fetch;
mod metadata;
mod offsets;
mod produce;
mod sessions;
mod topics;
mod versions;
