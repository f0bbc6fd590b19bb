//! `ouk` with brokers at hand. They run the binary that stands beside `ouk`, which `cargo test --workspace` builds; for
//! this package's tests alone, `cargo build -p ouzel` comes first.

mod consume;
mod dev;
mod joining;
mod stopping;
mod support;
