//! Which version of an API both sides have.

use std::collections::BTreeMap;

use ouzel_protocol::ApiKey;
use ouzel_protocol::messages::kafka::ApiVersionsResponse;

/// What a broker offers, as it said in its ApiVersions response.
#[derive(Clone, Debug, Default)]
pub struct Versions {
    ranges: BTreeMap<i16, (i16, i16)>,
}

impl Versions {
    /// Takes the ranges out of a response.
    pub fn of(response: &ApiVersionsResponse) -> Versions {
        let ranges = response.api_keys.iter().map(|api| (api.api_key, (api.min_version, api.max_version)));
        Versions { ranges: ranges.collect() }
    }

    /// The broker's range, if it has the API.
    pub fn range(&self, api: ApiKey) -> Option<(i16, i16)> {
        self.ranges.get(&(api as i16)).copied()
    }

    /// The highest version that both sides have and that is not above `version_max`.
    pub fn choose(&self, api: ApiKey, version_max: i16) -> Option<i16> {
        let (theirs_min, theirs_max) = self.range(api)?;
        let ours = api.api();
        let highest = ours.max.min(theirs_max).min(version_max);
        (highest >= ours.served_min.max(theirs_min)).then_some(highest)
    }

    /// The broker's range in words.
    pub fn offered(&self, api: ApiKey) -> String {
        self.range(api)
            .map_or_else(|| "nothing of it".to_owned(), |(min, max)| format!("versions {min} to {max}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ouzel_protocol::messages::kafka::api_versions_response::ApiVersion;

    #[test]
    fn the_highest_common_version_is_chosen() {
        let with = |min, max| {
            let mut response = ApiVersionsResponse::default();
            let range = ApiVersion::default().with_api_key(ApiKey::Fetch as i16);
            response.api_keys = vec![range.with_min_version(min).with_max_version(max)];
            Versions::of(&response)
        };
        assert_eq!(with(0, 99).choose(ApiKey::Fetch, i16::MAX), Some(18));
        assert_eq!(with(0, 11).choose(ApiKey::Fetch, i16::MAX), Some(11));
        assert_eq!(with(0, 99).choose(ApiKey::Fetch, 12), Some(12));
        assert_eq!(with(0, 3).choose(ApiKey::Fetch, i16::MAX), None, "below ours");
        assert_eq!(with(19, 20).choose(ApiKey::Fetch, i16::MAX), None, "above ours");
        assert_eq!(with(0, 99).choose(ApiKey::Produce, i16::MAX), None);
        assert_eq!(with(0, 3).offered(ApiKey::Fetch), "versions 0 to 3");
        assert_eq!(with(0, 3).offered(ApiKey::Produce), "nothing of it");
    }
}
