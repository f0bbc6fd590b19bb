//! What a command found, in the three formats that every command has. Data goes to stdout; words go to stderr.

use std::io::{self, Write};

use clap::ValueEnum;
use serde_json::{Value, json};

/// `--format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Format {
    /// Aligned columns for people; what they are may change.
    #[default]
    Table,
    /// One object: kind, version, items.
    Json,
    /// The same as YAML.
    Yaml,
}

/// The version of every kind's items. A field may join without a new one; it never changes its meaning or goes.
const VERSION: u32 = 1;

/// The result of one command.
#[derive(Debug, Clone)]
pub(crate) struct Report {
    /// Names the items' shape, such as `topic.list`.
    kind: &'static str,
    /// The table's columns: heading, and the item's field. JSON and YAML show every field.
    columns: &'static [(&'static str, &'static str)],
    items: Vec<Value>,
}

impl Report {
    pub(crate) fn new(kind: &'static str, columns: &'static [(&'static str, &'static str)]) -> Report {
        Report { kind, columns, items: Vec::new() }
    }

    /// Adds an item, an object.
    pub(crate) fn push(&mut self, item: Value) {
        debug_assert!(item.is_object(), "an item has named fields");
        self.items.push(item);
    }

    /// Writes everything in the format.
    pub(crate) fn write(&self, format: Format, out: &mut dyn Write) -> io::Result<()> {
        match format {
            Format::Table => self.write_table(out),
            Format::Json => writeln!(out, "{:#}", self.envelope()),
            Format::Yaml => {
                let text = serde_yaml_ng::to_string(&self.envelope()).map_err(io::Error::other)?;
                out.write_all(text.as_bytes())
            }
        }
    }

    fn envelope(&self) -> Value {
        json!({ "kind": self.kind, "version": VERSION, "items": self.items })
    }

    fn write_table(&self, out: &mut dyn Write) -> io::Result<()> {
        let headings = self.columns.iter().map(|(heading, _)| (*heading).to_owned()).collect();
        let rows =
            self.items.iter().map(|item| self.columns.iter().map(|(_, field)| cell(&item[*field])).collect());
        let rows: Vec<Vec<String>> = std::iter::once(headings).chain(rows).collect();
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..self.columns.len()).map(width).collect();
        for row in &rows {
            let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
            let line = cells.collect::<Vec<_>>().join("  ");
            writeln!(out, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// A value as a table shows it. Words of the cluster may hold anything; control characters would break the table.
fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) if text.is_empty() => "-".to_owned(),
        Value::String(text) => text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect(),
        Value::Array(values) => values.iter().map(cell).collect::<Vec<_>>().join(","),
        Value::Object(fields) => {
            fields.iter().map(|(name, value)| format!("{name}={}", cell(value))).collect::<Vec<_>>().join(",")
        }
        other => other.to_string(),
    }
}

/// Items that come one by one and may never end, in the same envelope: the head first, each item as it comes, the
/// foot when the stream ends well.
#[derive(Debug)]
pub(crate) struct Stream {
    kind: &'static str,
    format: Format,
    begun: bool,
}

impl Stream {
    pub(crate) fn new(kind: &'static str, format: Format) -> Stream {
        Stream { kind, format, begun: false }
    }

    /// Writes one item. A table's stream is the caller's own business.
    pub(crate) fn write_item(&mut self, item: &Value, out: &mut dyn Write) -> io::Result<()> {
        let first = !std::mem::replace(&mut self.begun, true);
        match self.format {
            Format::Table => Ok(()),
            Format::Json if first => write!(out, "{}{item}", self.json_head()),
            Format::Json => write!(out, ",\n{item}"),
            Format::Yaml => {
                if first {
                    writeln!(out, "{}items:", self.yaml_head())?;
                }
                let text = serde_yaml_ng::to_string(item).map_err(io::Error::other)?;
                for (nth, line) in text.lines().enumerate() {
                    writeln!(out, "{}{line}", if nth == 0 { "- " } else { "  " })?;
                }
                Ok(())
            }
        }
    }

    /// Closes the envelope.
    pub(crate) fn finish(self, out: &mut dyn Write) -> io::Result<()> {
        match (self.format, self.begun) {
            (Format::Table, _) | (Format::Yaml, true) => Ok(()),
            (Format::Json, true) => writeln!(out, "\n]}}"),
            (Format::Json, false) => writeln!(out, "{}]}}", self.json_head().trim_end()),
            (Format::Yaml, false) => writeln!(out, "{}items: []", self.yaml_head()),
        }
    }

    fn json_head(&self) -> String {
        format!("{{\"kind\":{},\"version\":{VERSION},\"items\":[\n", json!(self.kind))
    }

    fn yaml_head(&self) -> String {
        format!("kind: {}\nversion: {VERSION}\n", self.kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let mut report = Report::new("topic.list", &[("NAME", "name"), ("PARTITIONS", "partitions")]);
        report.push(json!({ "name": "flights", "partitions": 6, "internal": false }));
        report.push(json!({ "name": "a", "partitions": null, "internal": true }));
        report
    }

    fn text(format: Format) -> String {
        let mut out = Vec::new();
        report().write(format, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_table_has_its_columns_aligned() {
        assert_eq!(text(Format::Table), "NAME     PARTITIONS\nflights  6\na        -\n");
    }

    #[test]
    fn json_and_yaml_carry_kind_version_and_every_field() {
        let json: Value = serde_json::from_str(&text(Format::Json)).unwrap();
        assert_eq!((&json["kind"], &json["version"]), (&json!("topic.list"), &json!(1)));
        assert_eq!(json["items"][1]["internal"], json!(true));
        let yaml: Value = serde_yaml_ng::from_str(&text(Format::Yaml)).unwrap();
        assert_eq!(yaml, json);
    }

    #[test]
    fn cells_hold_lists_and_never_a_line_break() {
        assert_eq!(cell(&json!([1, 2])), "1,2");
        assert_eq!(cell(&json!({"a": 1})), "a=1");
        assert_eq!(cell(&json!("a\nb\tc")), "a\u{fffd}b\u{fffd}c");
    }

    #[test]
    fn a_stream_is_the_same_envelope() {
        for format in [Format::Json, Format::Yaml] {
            for count in 0..3 {
                let mut stream = Stream::new("records", format);
                let mut out = Vec::new();
                for nth in 0..count {
                    stream
                        .write_item(&json!({ "offset": nth, "headers": [{ "key": "a" }] }), &mut out)
                        .unwrap();
                }
                stream.finish(&mut out).unwrap();
                let text = String::from_utf8(out).unwrap();
                let read: Value = serde_yaml_ng::from_str(&text).unwrap();
                assert_eq!(read["kind"], json!("records"), "{text}");
                assert_eq!(read["items"].as_array().map(Vec::len), Some(count), "{text}");
                if format == Format::Json {
                    assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), read);
                }
            }
        }
    }
}
