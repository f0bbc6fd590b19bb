//! UpdateFeatures (KIP-584), and what ApiVersions says of features.

use std::rc::Rc;

use ouzel_metadata::Image;
use ouzel_metadata::features;
use ouzel_metadata::plan::{FeatureUpdate, UpdateKind};
use ouzel_protocol::ErrorCode;
use ouzel_protocol::messages::kafka::api_versions_response::{FinalizedFeatureKey, SupportedFeatureKey};
use ouzel_protocol::messages::kafka::update_features_request::FeatureUpdateKey;
use ouzel_protocol::messages::kafka::update_features_response::UpdatableFeatureResult;
use ouzel_protocol::messages::kafka::{ApiVersionsResponse, UpdateFeaturesRequest, UpdateFeaturesResponse};

use super::error_map::{controller_code, update_features_code};
use super::wire::text;
use crate::controller::changes;
use crate::core::Core;

/// UpdateFeatures: all of a request, or nothing.
pub(crate) async fn update(
    core: &Rc<Core>,
    version: i16,
    request: UpdateFeaturesRequest,
) -> UpdateFeaturesResponse {
    let updates = request.feature_updates.iter().map(|update| feature_update(version, update)).collect();
    let failed = |code: ErrorCode, words: &str| {
        UpdateFeaturesResponse::default().with_error_code(code.code()).with_error_message(Some(text(words)))
    };
    match changes::update_features(core, updates, version >= 1 && request.validate_only).await {
        Err(error) => failed(controller_code(&error), &error.to_string()),
        Ok(Err(error)) => {
            let words = "The update failed for all features since the following feature had an error";
            failed(update_features_code(&error), &format!("{words}: {error}"))
        }
        // From version 2 on a feature that is not told of is as it was asked to be.
        Ok(Ok(())) if version >= 2 => UpdateFeaturesResponse::default(),
        Ok(Ok(())) => {
            let updated = request.feature_updates.into_iter();
            let results =
                updated.map(|update| UpdatableFeatureResult::default().with_feature(update.feature));
            UpdateFeaturesResponse::default().with_results(results.collect())
        }
    }
}

fn feature_update(version: i16, update: &FeatureUpdateKey) -> FeatureUpdate {
    let kind = match update.upgrade_type {
        _ if version < 1 && update.allow_downgrade => UpdateKind::SafeDowngrade,
        _ if version < 1 => UpdateKind::Upgrade,
        1 => UpdateKind::Upgrade,
        2 => UpdateKind::SafeDowngrade,
        3 => UpdateKind::UnsafeDowngrade,
        _ => UpdateKind::Unknown,
    };
    FeatureUpdate { name: update.feature.as_str().to_owned(), level: update.max_version_level, kind }
}

/// Says which features there are, and at which levels.
pub(crate) fn tell(image: &Image, version: i16, response: ApiVersionsResponse) -> ApiVersionsResponse {
    if version < 3 {
        return response;
    }
    // Clients that speak version 3 take a level 0 for damage.
    let sayable = features::SUPPORTED.iter().filter(|(_, levels)| version >= 4 || levels.min > 0);
    let supported = sayable.map(|(name, levels)| {
        SupportedFeatureKey::default()
            .with_name(text(name))
            .with_min_version(levels.min)
            .with_max_version(levels.max)
    });
    let agreed = image.features();
    let finalized = agreed.levels.iter().map(|(name, level)| {
        FinalizedFeatureKey::default()
            .with_name(text(name))
            .with_min_version_level(*level)
            .with_max_version_level(*level)
    });
    response
        .with_supported_features(supported.collect())
        .with_finalized_features_epoch(agreed.epoch)
        .with_finalized_features(finalized.collect())
}
