//! The one place that starts the broker and speaks to it.

use std::future::Future;

use ouzel_broker::config::NodeConfig;
use ouzel_broker::metrics::CoreSample;
use ouzel_broker::node::{FirstCore, NodeHandle, RunningNode, Setup};
use ouzel_metadata::configs::broker::DiskBackendChoice;
use ouzel_metadata::configs::broker_table::broker_config;
use ouzel_metadata::{BrokerConfig, StaticConfig};
use ouzel_runtime::disk::BackendChoice;

use crate::admin;
use crate::config::Choices;
use crate::failure::Failure;

/// Starts the node and returns once it serves. `beside` runs on core 0 next to it.
pub(crate) fn start<F>(
    choices: &Choices,
    broker: BrokerConfig,
    beside: impl FnOnce(NodeHandle) -> F + Send + 'static,
) -> Result<RunningNode, Failure>
where
    F: Future<Output = ()> + 'static,
{
    let backend = match broker.disk_backend {
        DiskBackendChoice::Auto => BackendChoice::Auto,
        DiskBackendChoice::Uring => BackendChoice::Uring,
        DiskBackendChoice::Blocking => BackendChoice::Blocking,
    };
    let config = NodeConfig {
        node_id: choices.node_id,
        data_dir: choices.data_dir.clone(),
        kafka_listener: choices.kafka_listener.to_string(),
        advertised: choices.advertised.as_ref().map(|address| (address.host.clone(), address.port)),
        rpc_listener: choices.rpc_listener.to_string(),
        seeds: choices.seeds.iter().map(ToString::to_string).collect(),
        memory_bytes: choices.memory_bytes,
        settings: choices.settings.clone(),
        broker,
    };
    let setup = Setup { config, cores: choices.cores, pin: choices.pin, backend };
    let on_first_core: FirstCore = Box::new(move |_runtime, handle| Box::pin(beside(handle)));
    ouzel_broker::node::start(setup, on_first_core).map_err(|error| Failure::not_started(error.to_string()))
}

/// How safe a batch is in a topic that does not choose for itself.
pub(crate) fn default_durability(settings: &StaticConfig) -> String {
    const KEY: &str = "log.ouzel.durability";
    let set = settings.settings().get(KEY).map(String::as_str);
    set.or_else(|| broker_config(KEY)?.default).unwrap_or_default().to_owned()
}

impl admin::Node for NodeHandle {
    fn is_ready(&self) -> bool {
        NodeHandle::is_ready(self)
    }

    fn waits_for(&self) -> Option<String> {
        NodeHandle::waits_for(self)
    }

    fn cluster_id(&self) -> Option<String> {
        self.is_ready().then(|| NodeHandle::cluster_id(self))
    }

    fn kafka_address(&self) -> Option<String> {
        self.is_ready().then(|| NodeHandle::kafka_address(self).to_string())
    }

    fn disk_backend(&self) -> String {
        NodeHandle::disk_backend(self).to_string()
    }

    async fn sample(&self) -> Option<CoreSample> {
        NodeHandle::sample(self).await.ok()
    }

    async fn faults(&self) -> Option<Vec<String>> {
        // Cores that do not take work yet would leave the question unanswered.
        match self.is_ready() {
            true => NodeHandle::faults(self).await.ok(),
            false => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_durability_is_the_settings_or_the_tables() {
        assert_eq!(default_durability(&StaticConfig::default()), "durable");
        let set = StaticConfig::from_settings([("log.ouzel.durability", "os")]).unwrap();
        assert_eq!(default_durability(&set), "os");
    }
}
