//! The classic group protocol: one file per request that moves a group, and the rebalance they all lead to.
//!
//! ```text
//!                 first join                         initial delay over
//!      Empty ───────────────────► PreparingRebalance ◄───────────────────┐
//!        ▲                           │   ▲   │  all joined, or           │ join, leave,
//!        │   nobody joined           │   │   │  rebalance timeout        │ silence
//!        └───────────────────────────┘   │   ▼                           │
//!                                        └─ CompletingRebalance ──► Stable
//!                                           join, leave, silence  ▲
//!                                                                 └ the leader's assignment is persisted
//! ```

mod heartbeat;
mod join;
mod leave;
mod rebalance;
mod sync;
