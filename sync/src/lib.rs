//! What cores share without a lock: the queue behind a mailbox, and the offsets a partition publishes.
//!
//! Everything mutable in Ouzel belongs to one task on one core. Two things still cross from core to core, and
//! both live here, alone, so that each can be checked by exhaustive search over thread interleavings:
//!
//! * [`mailbox::Queue`]: many cores hand values to one owner, which takes all of them at once.
//! * [`published::PublishedOffsets`]: one owner publishes how far its partition reaches, any core reads it.
//!
//! This room deliberately does not know tokio, wakers, I/O or Kafka. A queue only *tells* whether its owner
//! must be woken; `runtime` does the waking.
//!
//! Reading order: `shim` (the atomics, real or searched), [`mailbox`], [`published`].
//!
//! The search: `RUSTFLAGS="--cfg loom" cargo test -p ouzel-sync --release --target-dir target/loom`.
#![expect(unsafe_code, reason = "a lock-free list owns raw nodes; every block carries its argument")]

pub mod mailbox;
pub mod published;
mod shim;
