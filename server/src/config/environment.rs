//! The layer of the environment: `OUZEL_DATA_DIR` says what `--data-dir` says.

use std::ffi::OsString;

use super::{Layer, Name, Source, UsageError, split_setting};

/// Names the configuration file, as `--config` does.
pub(crate) const CONFIG: &str = "OUZEL_CONFIG";
/// `KEY=VALUE` pairs, one a line or with `;` between them, as many `--set` say.
pub(crate) const SETTINGS: &str = "OUZEL_SET";

/// Collects what the variables say; an empty one says nothing.
pub(crate) fn layer(lookup: impl Fn(&str) -> Option<OsString>) -> Result<Layer, UsageError> {
    let mut layer = Layer { source: Source::Environment, values: Default::default(), settings: Vec::new() };
    for name in Name::ALL {
        if let Some(text) = variable(&lookup, &name.variable())? {
            layer.values.insert(name, text);
        }
    }
    let pairs = variable(&lookup, SETTINGS)?.unwrap_or_default();
    for pair in pairs.split(['\n', ';']).map(str::trim).filter(|pair| !pair.is_empty()) {
        layer.settings.push(split_setting(pair, SETTINGS)?);
    }
    Ok(layer)
}

/// What this process was given.
pub(crate) fn of_process(name: &str) -> Option<OsString> {
    std::env::var_os(name)
}

/// One variable's text; `None` when it is not there or empty.
pub(crate) fn variable(
    lookup: impl Fn(&str) -> Option<OsString>,
    name: &str,
) -> Result<Option<String>, UsageError> {
    let text = lookup(name).map(OsString::into_string).transpose();
    let text = text.map_err(|bytes| {
        UsageError(format!("{name} cannot be '{}': write it in UTF-8", bytes.to_string_lossy()))
    })?;
    Ok(text.filter(|text| !text.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lookup(variables: &'static [(&str, &str)]) -> impl Fn(&str) -> Option<OsString> {
        |name| variables.iter().find(|(known, _)| *known == name).map(|(_, text)| OsString::from(text))
    }

    #[test]
    fn variables_become_a_layer() {
        let layer = layer(lookup(&[
            ("OUZEL_ADVERTISED_KAFKA_LISTENER", "example.org:9092"),
            ("OUZEL_PIN", "true"),
            ("OUZEL_CORES", ""),
            ("OUZEL_SET", "num.partitions=3; cleanup.policy=compact,delete\nbroker.rack = a\n"),
            ("OUZEL_SERVICE_PORT", "tcp://10.0.0.1:9092"),
        ]))
        .unwrap();
        let values: Vec<(Name, &str)> =
            layer.values.iter().map(|(name, text)| (*name, text.as_str())).collect();
        assert_eq!(values, [(Name::AdvertisedKafkaListener, "example.org:9092"), (Name::Pin, "true")]);
        let settings: Vec<(&str, &str)> =
            layer.settings.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(
            settings,
            [("num.partitions", "3"), ("cleanup.policy", "compact,delete"), ("broker.rack", "a")]
        );
    }

    #[test]
    fn a_pair_without_a_value_is_blamed_on_the_variable() {
        let error = layer(lookup(&[("OUZEL_SET", "num.partitions")])).unwrap_err();
        assert_eq!(
            error.to_string(),
            "OUZEL_SET 'num.partitions' has no value: write KEY=VALUE, as in num.partitions=3"
        );
    }
}
