//! Changing what the cluster has agreed to use (KIP-584).

use crate::features::{Features, KRAFT_VERSION, METADATA_VERSION};
use crate::image::Image;
use crate::record::Record;

/// What is to become of one feature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeatureUpdate {
    /// Its name, by whatever a request calls it.
    pub name: String,
    /// The level asked for.
    pub level: i16,
    /// Which way it may go.
    pub kind: UpdateKind,
}

/// Which way a level may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpdateKind {
    /// Up only.
    Upgrade,
    /// Down, if nothing is lost by that.
    SafeDowngrade,
    /// Down, whatever is lost.
    UnsafeDowngrade,
    /// Nothing this release knows.
    Unknown,
}

/// Why all features stay as they are.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UpdateFeaturesError {
    /// The level cannot be.
    #[error("Invalid update version {level} for feature {name}. {fault}")]
    InvalidLevel {
        /// The feature.
        name: String,
        /// The level asked for.
        level: i16,
        /// Why.
        fault: LevelFault,
    },
    /// Records of the present level may be unreadable below.
    #[error("Unsupported metadata.version downgrade from {from} to {to}. {}", if *is_unsafe {
        "Unsafe metadata downgrade is not supported in this version."
    } else {
        "Refusing to perform the requested downgrade because it might delete metadata information."
    })]
    MetadataDowngrade {
        /// The level it has.
        from: i16,
        /// The level asked for.
        to: i16,
        /// Whether the caller did not mind.
        is_unsafe: bool,
    },
    /// One feature more than once.
    #[error("Feature {name} is named more than once.")]
    Duplicate {
        /// The feature.
        name: String,
    },
}

/// What is wrong with a level.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LevelFault {
    /// A kind of change nobody knows.
    #[error("The controller does not support the given upgrade type.")]
    UnknownKind,
    /// Below zero.
    #[error("A feature version cannot be less than 0.")]
    Negative,
    /// No broker knows the feature.
    #[error("Feature {0} not found.")]
    NotFound(String),
    /// A broker does not know the feature at all.
    #[error("Broker {0} does not support this feature.")]
    FeatureNotSupported(ouzel_model::NodeId),
    /// A broker knows other levels.
    #[error("Broker {node} only supports versions {known}")]
    LevelNotSupported {
        /// Which broker.
        node: ouzel_model::NodeId,
        /// What it knows.
        known: crate::features::LevelRange,
    },
    /// Down, but only up was allowed.
    #[error(
        "Can't downgrade the version of this feature without setting the upgrade type to either safe or unsafe downgrade."
    )]
    NotADowngrade,
    /// Up, but only down was allowed.
    #[error("Can't downgrade to a newer version.")]
    NotAnUpgrade,
    /// It goes up only.
    #[error("Can't downgrade the version of this feature.")]
    NoWayBack,
}

/// Decides one request: all of it, or nothing. Levels that are as they should be need no record.
///
/// # Errors
/// The first update that cannot be.
pub fn plan_update_features(
    image: &Image,
    updates: &[FeatureUpdate],
) -> Result<Option<Record>, UpdateFeaturesError> {
    let mut levels = image.features().levels.clone();
    let mut seen = std::collections::BTreeSet::new();
    for update in updates {
        if !seen.insert(&update.name) {
            return Err(UpdateFeaturesError::Duplicate { name: update.name.clone() });
        }
        check(image, update)?;
        match update.level {
            0 => levels.remove(&update.name),
            level => levels.insert(update.name.clone(), level),
        };
    }
    let changed = levels != image.features().levels;
    let epoch = image.features().epoch + 1;
    Ok(changed.then_some(Record::FeaturesSet(Features { epoch, levels })))
}

/// Asks in Kafka's order: of several faults a client is told the same one.
fn check(
    image: &Image,
    FeatureUpdate { name, level, kind }: &FeatureUpdate,
) -> Result<(), UpdateFeaturesError> {
    let invalid = |fault| Err(UpdateFeaturesError::InvalidLevel { name: name.clone(), level: *level, fault });
    let present = image.features().level(name);
    if *kind == UpdateKind::Unknown {
        return invalid(LevelFault::UnknownKind);
    }
    if *level < 0 {
        return invalid(LevelFault::Negative);
    }
    if let Some(fault) = unsupported(image, name, *level) {
        return invalid(fault);
    }
    if *level < present && *kind == UpdateKind::Upgrade {
        return invalid(LevelFault::NotADowngrade);
    }
    if *level > present && *kind != UpdateKind::Upgrade {
        return invalid(LevelFault::NotAnUpgrade);
    }
    if *level < present && name == KRAFT_VERSION {
        return invalid(LevelFault::NoWayBack);
    }
    if *level < present && name == METADATA_VERSION {
        let is_unsafe = *kind == UpdateKind::UnsafeDowngrade;
        return Err(UpdateFeaturesError::MetadataDowngrade { from: present, to: *level, is_unsafe });
    }
    Ok(())
}

/// Fenced brokers count: they may be back, and could not read what they find.
fn unsupported(image: &Image, name: &str, level: i16) -> Option<LevelFault> {
    if !image.brokers().any(|broker| broker.features.contains_key(name)) && level == 0 {
        return Some(LevelFault::NotFound(name.to_owned()));
    }
    image.brokers().find_map(|broker| match broker.features.get(name) {
        None if level == 0 => None,
        None => Some(LevelFault::FeatureNotSupported(broker.node)),
        Some(known) if known.contains(level) => None,
        Some(known) => Some(LevelFault::LevelNotSupported { node: broker.node, known: *known }),
    })
}
