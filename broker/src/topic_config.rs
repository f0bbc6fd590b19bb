//! The effective settings of every topic, resolved once per image instead of once per request.

use std::collections::HashMap;
use std::sync::Arc;

use ouzel_metadata::{Image, TopicConfig};
use ouzel_model::TopicId;

use crate::config::NodeConfig;

/// Settings by topic id; topics without settings of their own share one value.
pub struct TopicConfigs {
    defaults: Arc<TopicConfig>,
    own: HashMap<TopicId, Arc<TopicConfig>>,
}

impl TopicConfigs {
    /// Resolves all topics of an image.
    pub fn resolve(node: &NodeConfig, image: &Image) -> TopicConfigs {
        let layers = node.layers(image);
        let none = ouzel_metadata::Overrides::new();
        let own = image
            .topics()
            .filter(|topic| !topic.configs.is_empty())
            .map(|topic| (topic.id, Arc::new(TopicConfig::resolve(&topic.configs, &layers))));
        TopicConfigs { own: own.collect(), defaults: Arc::new(TopicConfig::resolve(&none, &layers)) }
    }

    /// A topic's settings.
    pub fn of(&self, topic: TopicId) -> Arc<TopicConfig> {
        self.own.get(&topic).unwrap_or(&self.defaults).clone()
    }
}
