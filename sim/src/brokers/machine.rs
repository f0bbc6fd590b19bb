//! The machines that brokers run on: what they are called, and how a node is set up there.

use ouzel_broker::NodeConfig;
use ouzel_metadata::{BrokerConfig, Layers, StaticConfig};
use ouzel_model::NodeId;
use ouzel_runtime::sim::DATA_DIR;

/// Where brokers listen to Kafka's protocol.
pub const KAFKA_PORT: u16 = 9092;
const RPC_PORT: u16 = 33146;
const MEMORY_BYTES: u64 = 64 << 20;

/// The host at a place in the list.
pub fn node_name(at: usize) -> String {
    format!("node{at}")
}

/// The node at a place in the list.
pub fn id_of(at: usize) -> NodeId {
    NodeId(i32::try_from(at).unwrap_or(i32::MAX - 1) + 1)
}

/// The bootstrap servers of so many nodes.
pub fn bootstrap(nodes: usize) -> String {
    let servers: Vec<_> = (0..nodes).map(|at| format!("{}:{KAFKA_PORT}", node_name(at))).collect();
    servers.join(",")
}

/// How the node at a place in the list is set up, where the first `founders` found a cluster; none of them, if it is alone.
///
/// # Errors
/// In words, when a setting is none.
pub fn node_config(at: usize, founders: usize, settings: &[(&str, &str)]) -> Result<NodeConfig, String> {
    let settings =
        StaticConfig::from_settings(settings.iter().copied()).map_err(|error| format!("{error:?}"))?;
    let name = node_name(at);
    Ok(NodeConfig {
        node_id: id_of(at),
        data_dir: DATA_DIR.into(),
        kafka_listener: format!("0.0.0.0:{KAFKA_PORT}"),
        advertised: Some((name.clone(), KAFKA_PORT)),
        rpc_listener: format!("{name}:{RPC_PORT}"),
        seeds: (0..founders).map(|at| format!("{}:{RPC_PORT}", node_name(at))).collect(),
        memory_bytes: MEMORY_BYTES,
        broker: BrokerConfig::resolve(&Layers::of_static(&settings)),
        settings,
    })
}
