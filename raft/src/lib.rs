//! Replication of one log: what the rest of the house appends to, whether one replica holds it or several.
//!
//! [`ReplicatedLog`] is the contract. [`Solo`] is its implementation for a single replica: no Raft object, no Raft file,
//! nothing that ticks. [`RaftGroup`] is the one for several, over openraft, which nobody outside this crate sees. This
//! crate knows nothing of Kafka's messages and error codes, of topics' settings, or of who waits for what.
//!
//! Reading order: [`replicated_log`], [`solo`], [`replica`], [`transport`], [`group`]; below it `entry` (what an entry
//! holds), `submission` (a batch's way to its place), `replica_state`, `store` and `state_machine` (what openraft calls),
//! `members_at` (who the members are at an entry), `vouching` (who may go on under its name),
//! `network`, `snapshot` and `codec` (what goes between replicas), `in_sync` and `catching_up` (who keeps up, and who takes
//! another way meanwhile), `types` and `runtime`; [`peers`] (what carries it between nodes), [`liveness`] (who is
//! there, and which groups elect), [`gossip`] (who leads what), [`forming`] (how nodes become a cluster). `suite` (for tests) is
//! what every implementation must show.
#![forbid(unsafe_code)]

mod bytes_codec;
mod catching_up;
mod codec;
mod entry;
pub mod forming;
mod genesis;
pub mod gossip;
pub mod group;
mod in_sync;
pub mod liveness;
mod members_at;
mod network;
pub mod peers;
#[cfg_attr(not(feature = "planted"), allow(dead_code, unreachable_pub))]
mod planted;
pub mod replica;
mod replica_state;
pub mod replicated_log;
mod runtime;
mod snapshot;
pub mod solo;
mod state_machine;
mod store;
mod submission;
#[cfg(any(test, feature = "suite"))]
pub mod suite;
pub mod transport;
mod types;
mod vouching;

pub use codec::{Envelope, envelope};
pub use entry::Retention;
pub use genesis::genesis_of;
pub use group::{
    GroupSettings, GroupStatus, OpenGroup, OpenGroupError, RaftGroup, ReconfigureError, RetainError, Role,
    Ticks, TransferError,
};
pub use in_sync::LastSeen;
#[cfg(feature = "planted")]
pub use planted::{Planted, plant};
pub use replica::Replica;
pub use replicated_log::{AppendRefused, Placed, Receipt, ReplicaOffsets, ReplicatedLog, Unacknowledged};
pub use solo::Solo;
pub use transport::{CallError, Lane, LocalBoxFuture, PeerMessage, Transport};
pub use vouching::vouches;
