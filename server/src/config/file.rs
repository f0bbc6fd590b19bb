//! The layer of the configuration file: TOML. At the top stand the flags' names without their dashes; every other key,
//! with its dots, is one of Kafka's.
//!
//! ```toml
//! data-dir = "/var/lib/ouzel"
//! memory = "2GiB"
//! num.partitions = 3
//!
//! [log.retention]
//! hours = 24
//! ```

use std::path::Path;

use super::{Layer, Name, Source, UsageError};

/// Reads the file at `path`.
pub(crate) fn layer(path: &Path) -> Result<Layer, UsageError> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        let reason = crate::failure::reason(&error);
        UsageError(format!(
            "the configuration file {} cannot be read ({reason}): give --config a TOML file",
            path.display()
        ))
    })?;
    parse(&text, path)
}

/// Reads the text of a file; `path` is for the blame.
fn parse(text: &str, path: &Path) -> Result<Layer, UsageError> {
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
        let place = error.span().map(|span| place(text, span.start)).unwrap_or_default();
        // A message may span lines; its words are one sentence.
        let fault = error.message().split_whitespace().collect::<Vec<_>>().join(" ");
        UsageError(format!("{}{place} is not valid TOML: {fault}", path.display()))
    })?;
    let mut layer =
        Layer { source: Source::File(path.to_owned()), values: Default::default(), settings: Vec::new() };
    for (key, value) in &table {
        match Name::ALL.into_iter().find(|name| name.word() == key) {
            Some(name) => {
                let (text, form) = match name {
                    Name::Seeds => (list(value), "a text, or a list of these"),
                    _ => (scalar(value), "one value"),
                };
                let text = text.ok_or_else(|| {
                    UsageError(format!("{key} in {} cannot be {}: write {form}", path.display(), kind(value)))
                })?;
                layer.values.insert(name, text);
            }
            None => flatten(key, value, path, &mut layer.settings)?,
        }
    }
    Ok(layer)
}

/// Line and column of a byte, from 1.
fn place(text: &str, at: usize) -> String {
    let before = &text.as_bytes()[..at.min(text.len())];
    let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
    let column = before.iter().rev().take_while(|byte| **byte != b'\n').count() + 1;
    format!(", line {line}, column {column},")
}

/// TOML reads `num.partitions` as a table `num` that holds `partitions`; Kafka means one key.
fn flatten(
    key: &str,
    value: &toml::Value,
    path: &Path,
    settings: &mut Vec<(String, String)>,
) -> Result<(), UsageError> {
    if let toml::Value::Table(table) = value {
        for (part, value) in table {
            flatten(&format!("{key}.{part}"), value, path, settings)?;
        }
        return Ok(());
    }
    let text = list(value).ok_or_else(|| {
        UsageError(format!(
            "{key} in {} cannot be {}: write a text, a number, a boolean, or a list of these",
            path.display(),
            kind(value)
        ))
    })?;
    settings.push((key.to_owned(), text));
    Ok(())
}

/// One value, or several with commas between them.
fn list(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::Array(items) => {
            items.iter().map(scalar).collect::<Option<Vec<_>>>().map(|items| items.join(","))
        }
        value => scalar(value),
    }
}

fn scalar(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Float(number) => Some(number.to_string()),
        toml::Value::Boolean(truth) => Some(truth.to_string()),
        toml::Value::Datetime(_) | toml::Value::Array(_) | toml::Value::Table(_) => None,
    }
}

fn kind(value: &toml::Value) -> &'static str {
    match value {
        toml::Value::Datetime(_) => "a date",
        toml::Value::Array(_) => "such a list",
        toml::Value::Table(_) => "a table",
        _ => "this",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Layer, String> {
        parse(text, Path::new("/etc/ouzel.toml")).map_err(|error| error.to_string())
    }

    #[test]
    fn names_and_kafkas_keys_stand_side_by_side() {
        let layer = read(
            r#"
            data-dir = "/var/lib/ouzel"
            cores = 2
            pin = true
            seeds = ["a:1", "b:2"]
            num.partitions = 3
            "log.cleanup.policy" = ["compact", "delete"]
            auto.create.topics.enable = false
            [log.retention]
            hours = 24
            check.interval.ms = "1000"
            "#,
        )
        .unwrap();
        assert_eq!(layer.source, Source::File("/etc/ouzel.toml".into()));
        let mut values: Vec<(Name, &str)> =
            layer.values.iter().map(|(n, text)| (*n, text.as_str())).collect();
        values.sort();
        assert_eq!(
            values,
            [
                (Name::DataDir, "/var/lib/ouzel"),
                (Name::Seeds, "a:1,b:2"),
                (Name::Cores, "2"),
                (Name::Pin, "true")
            ]
        );
        let mut settings: Vec<(&str, &str)> =
            layer.settings.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        settings.sort();
        assert_eq!(
            settings,
            [
                ("auto.create.topics.enable", "false"),
                ("log.cleanup.policy", "compact,delete"),
                ("log.retention.check.interval.ms", "1000"),
                ("log.retention.hours", "24"),
                ("num.partitions", "3"),
            ]
        );
    }

    #[test]
    fn what_is_wrong_with_a_file_is_one_sentence_with_its_place() {
        for (text, sentence) in [
            ("cores = ", "/etc/ouzel.toml, line 1, column 9, is not valid TOML: "),
            ("a = 1\nb = [", "/etc/ouzel.toml, line 2, column "),
            ("cores = [1]", "cores in /etc/ouzel.toml cannot be such a list: write one value"),
            ("seeds.a = 1", "seeds in /etc/ouzel.toml cannot be a table: write a text, or a list of these"),
            ("memory.max = 1", "memory in /etc/ouzel.toml cannot be a table: write one value"),
            (
                "log.retention.ms = 2026-01-01",
                "log.retention.ms in /etc/ouzel.toml cannot be a date: write a text, a number, a boolean, or a list of these",
            ),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.starts_with(sentence), "{text:?}: {error}");
            assert!(!error.contains('\n'), "{text:?}: {error}");
        }
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let error = layer(Path::new("/nowhere/ouzel.toml")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the configuration file /nowhere/ouzel.toml cannot be read (no such file or directory): \
             give --config a TOML file"
        );
    }
}
