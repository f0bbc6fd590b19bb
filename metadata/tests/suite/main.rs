//! The crate through its public door. One binary, so that it links once.

mod alter_configs;
mod applying;
mod broker_settings;
mod brokers;
mod config_tables;
mod describe;
mod features;
mod moving;
mod placing;
mod records;
mod support;
mod topics;
