//! The cluster as values: what exists, what may change, and what every key of the configuration means.
//!
//! An [`Image`] is everything the controller has decided so far. A decision is a pure function in [`plan`] from an
//! image and a request to [`Record`]s (or to an error that carries the facts); the records are written to the
//! controller's log by somebody else, and once they are safe [`Image::apply`] makes the next image of them. The same
//! records, in the same order, make the same image on every node. [`configs`] is the one table of topic and broker keys:
//! types, defaults, rules, synonyms, documentation.
//!
//! Deliberately unknown here: disks, sockets, clocks, random numbers (ids are an argument), wire messages and Kafka's
//! error codes, and how a log is replicated.
//!
//! Reading order: [`image`], [`partition`], [`claims`], [`record`], [`delta`], [`snapshot`], [`features`], [`placement`], [`plan`], then [`configs`].
#![forbid(unsafe_code)]

pub mod claims;
pub mod configs;
pub mod delta;
pub mod features;
pub mod image;
pub mod keepers;
pub mod partition;
pub mod placement;
pub mod plan;
pub mod record;
pub mod snapshot;

#[cfg(test)]
mod image_test;
#[cfg(test)]
mod partition_test;
#[cfg(test)]
mod snapshot_test;

pub use claims::{Claim, Claims};
pub use configs::{BrokerConfig, Layers, Overrides, StaticConfig, TopicConfig};
pub use delta::{ApplyError, Changes};
pub use image::{Broker, BrokerScope, Endpoint, Image, SecurityProtocol, Topic};
pub use partition::{Heir, Partition};
pub use record::{ConfigResource, DecodeError, Record};
