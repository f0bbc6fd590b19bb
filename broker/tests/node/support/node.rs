//! A node in this process, stopped with its owner; or, for holding the tests themselves against a judge, a broker that
//! runs elsewhere.

use std::net::SocketAddr;
use std::path::Path;

use ouzel_broker::metrics::CoreSample;
use ouzel_broker::{NodeConfig, RunningNode, Setup, start};
use ouzel_metadata::{BrokerConfig, Layers, StaticConfig};
use ouzel_model::NodeId;
use ouzel_runtime::disk::BackendChoice;

use super::wire::Wire;

/// Names a broker to run the tests of the wire against, instead of nodes of our own: Apache Kafka is the judge of what
/// they expect.
const AGAINST: &str = "OUZEL_TEST_AGAINST";

/// A running node with data of its own.
pub(crate) struct Node {
    address: SocketAddr,
    own: Option<RunningNode>,
    /// Goes with the node, where that has a directory to itself.
    dir: Option<tempfile::TempDir>,
}

impl Node {
    /// A node of one core with Kafka's defaults, which forgets nothing while a test runs.
    pub(crate) fn start() -> Node {
        Node::start_with(1, &[])
    }

    /// A node with so many cores and these settings.
    pub(crate) fn start_with(cores: u16, settings: &[(&str, &str)]) -> Node {
        if let Ok(address) = std::env::var(AGAINST) {
            return Node { address: address.parse().unwrap(), own: None, dir: None };
        }
        let dir = tempfile::tempdir().unwrap();
        let mut node = Node::start_at(dir.path(), cores, settings);
        node.dir = Some(dir);
        node
    }

    /// A life of a node over a directory that outlives it.
    pub(crate) fn start_at(dir: &Path, cores: u16, settings: &[(&str, &str)]) -> Node {
        let node = start(setup(dir, cores, settings), Box::new(|_, _| Box::pin(async {}))).unwrap();
        Node { address: node.handle().kafka_address(), own: Some(node), dir: None }
    }

    /// Whether it is a node of ours, with the settings the test gave it.
    pub(crate) fn is_own(&self) -> bool {
        self.own.is_some()
    }

    /// What its cores have counted, together.
    pub(crate) fn sample(&self) -> CoreSample {
        let handle = self.own.as_ref().expect("a node of ours").handle();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(handle.sample()).unwrap()
    }

    /// What keeps it from being whole, in words.
    pub(crate) fn faults(&self) -> Vec<String> {
        let handle = self.own.as_ref().expect("a node of ours").handle();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(handle.faults()).unwrap()
    }

    /// A connection that has said nothing yet.
    pub(crate) fn connect(&self) -> Wire {
        Wire::connect(self.address)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let Some(node) = self.own.take() else { return };
        node.stop();
        let stopped = node.join();
        if !std::thread::panicking() {
            stopped.unwrap();
        }
    }
}

/// A node with its data in `dir`.
pub(crate) fn setup(dir: &Path, cores: u16, settings: &[(&str, &str)]) -> Setup {
    let settings = StaticConfig::from_settings(settings.iter().copied()).unwrap();
    let config = NodeConfig {
        node_id: NodeId(1),
        data_dir: dir.to_owned(),
        kafka_listener: "127.0.0.1:0".to_owned(),
        advertised: None,
        rpc_listener: "127.0.0.1:0".to_owned(),
        seeds: Vec::new(),
        memory_bytes: 64 << 20,
        broker: BrokerConfig::resolve(&Layers::of_static(&settings)),
        settings,
    };
    Setup { config, cores, pin: false, backend: BackendChoice::Auto }
}
