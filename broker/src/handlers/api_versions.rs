//! ApiVersions: what is served, and in which versions (KIP-35, KIP-511).

use ouzel_protocol::ErrorCode;
use ouzel_protocol::api::{self, ApiKey};
use ouzel_protocol::messages::kafka::api_versions_response::ApiVersion;
use ouzel_protocol::messages::kafka::{ApiVersionsRequest, ApiVersionsResponse};

use super::features;
use crate::core::Core;
use crate::dispatch::Client;

/// Answers with the whole table.
pub(crate) fn api_versions(
    core: &Core,
    client: &Client,
    version: i16,
    request: &ApiVersionsRequest,
) -> ApiVersionsResponse {
    if version >= 3 {
        let (name, software_version) = (&request.client_software_name, &request.client_software_version);
        if !is_software_word(name) || !is_software_word(software_version) {
            return ApiVersionsResponse::default().with_error_code(ErrorCode::InvalidRequest.code());
        }
        client.set_software(name, software_version);
    }
    let table = ApiVersionsResponse::default().with_api_keys(api::APIS.iter().map(row).collect());
    features::tell(&core.view().image, version, table)
}

/// The answer to a version we do not know, in version 0: the error, and the one range that lets the client try again.
pub(crate) fn unsupported() -> ApiVersionsResponse {
    ApiVersionsResponse::default()
        .with_error_code(ErrorCode::UnsupportedVersion.code())
        .with_api_keys(vec![row(ApiKey::ApiVersions.api())])
}

fn row(api: &api::Api) -> ApiVersion {
    ApiVersion::default().with_api_key(api.key as i16).with_min_version(api.min).with_max_version(api.max)
}

/// Kafka's pattern `[a-zA-Z0-9](?:[a-zA-Z0-9\-.]*[a-zA-Z0-9])?`: software names end up in metrics and logs.
fn is_software_word(word: &str) -> bool {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    edge(word.chars().next())
        && edge(word.chars().last())
        && word.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn software_words() {
        for good in ["a", "librdkafka", "apache-kafka-java", "2.15.0-rc1"] {
            assert!(is_software_word(good), "{good}");
        }
        for bad in ["", "-a", "a-", "a b", "a;b", "ä", "."] {
            assert!(!is_software_word(bad), "{bad}");
        }
    }
}
