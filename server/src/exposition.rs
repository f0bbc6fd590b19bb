//! Prometheus's text format, version 0.0.4: families with their help and type, samples with their labels.
//!
//! Written by hand: the counts live in the cores and are summed at the scrape, so a registry would only hold copies.

use std::fmt::Write;

/// What the text is, for the HTTP header.
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What a family's numbers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

impl Kind {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        }
    }
}

/// Samples of one name.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Family {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    /// The names of the labels every sample carries, in order.
    pub(crate) labels: &'static [&'static str],
    pub(crate) help: &'static str,
}

/// A text in the making. A family's samples follow its beginning.
#[derive(Default)]
pub(crate) struct Exposition {
    text: String,
    current: Option<&'static Family>,
}

impl Exposition {
    /// Begins a family.
    pub(crate) fn begin(&mut self, family: &'static Family) -> &mut Exposition {
        self.text.push_str("# HELP ");
        self.text.push_str(family.name);
        self.text.push(' ');
        escape(family.help, Escape::Help, &mut self.text);
        self.text.push_str("\n# TYPE ");
        self.text.push_str(family.name);
        self.text.push(' ');
        self.text.push_str(family.kind.word());
        self.text.push('\n');
        self.current = Some(family);
        self
    }

    /// One sample of the family begun last, with a value for each of its labels.
    pub(crate) fn sample(&mut self, labels: &[&str], value: impl Into<Value>) -> &mut Exposition {
        self.line("", labels, None, value.into());
        self
    }

    /// One histogram of the family begun last. `counts` are observations by bucket, not cumulative, with one more than
    /// there are bounds.
    pub(crate) fn histogram(&mut self, labels: &[&str], bounds: &[f64], counts: &[u64], sum: f64) {
        assert_eq!(counts.len(), bounds.len() + 1, "the last bucket has no bound");
        let mut below = 0;
        for (nth, count) in counts.iter().enumerate() {
            below += count;
            let bound = bounds.get(nth).map_or_else(|| "+Inf".to_owned(), f64::to_string);
            self.line("_bucket", labels, Some(&bound), Value::Whole(below));
        }
        self.line("_sum", labels, None, Value::Real(sum));
        self.line("_count", labels, None, Value::Whole(below));
    }

    /// The whole text.
    pub(crate) fn finish(self) -> String {
        self.text
    }

    fn line(&mut self, suffix: &str, labels: &[&str], bound: Option<&str>, value: Value) {
        let family = self.current.expect("a sample belongs to a family");
        assert_eq!(labels.len(), family.labels.len(), "{} has other labels", family.name);
        self.text.push_str(family.name);
        self.text.push_str(suffix);
        let pairs =
            family.labels.iter().copied().zip(labels.iter().copied()).chain(bound.map(|bound| ("le", bound)));
        let mut open = '{';
        for (name, label) in pairs {
            self.text.push(open);
            self.text.push_str(name);
            self.text.push_str("=\"");
            escape(label, Escape::Label, &mut self.text);
            self.text.push('"');
            open = ',';
        }
        if open == ',' {
            self.text.push('}');
        }
        // Writing into a String cannot fail.
        let _ = match value {
            Value::Whole(whole) => writeln!(self.text, " {whole}"),
            Value::Signed(whole) => writeln!(self.text, " {whole}"),
            Value::Real(real) => writeln!(self.text, " {real}"),
        };
    }
}

/// A sample's number.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Value {
    Whole(u64),
    Signed(i64),
    Real(f64),
}

impl From<u64> for Value {
    fn from(whole: u64) -> Value {
        Value::Whole(whole)
    }
}

impl From<i64> for Value {
    fn from(whole: i64) -> Value {
        Value::Signed(whole)
    }
}

impl From<f64> for Value {
    fn from(real: f64) -> Value {
        Value::Real(real)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Escape {
    Help,
    Label,
}

fn escape(text: &str, how: Escape, into: &mut String) {
    for c in text.chars() {
        match c {
            '\\' => into.push_str("\\\\"),
            '\n' => into.push_str("\\n"),
            '"' if how == Escape::Label => into.push_str("\\\""),
            c => into.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static PLAIN: Family =
        Family { name: "a_bytes", kind: Kind::Gauge, labels: &[], help: "A \\ and\na line." };
    static LABELLED: Family =
        Family { name: "b_total", kind: Kind::Counter, labels: &["x", "y"], help: "B." };
    static TIMES: Family = Family { name: "c_seconds", kind: Kind::Histogram, labels: &["x"], help: "C." };

    #[test]
    fn the_text_is_prometheuss() {
        let mut exposition = Exposition::default();
        exposition.begin(&PLAIN).sample(&[], 7_u64);
        exposition
            .begin(&LABELLED)
            .sample(&["1", "2"], -3_i64)
            .sample(&["say \"hi\"\n", "back\\slash"], 0.25);
        exposition.begin(&TIMES).histogram(&["p"], &[0.5, 1.0], &[2, 0, 1], 60.5);
        assert_eq!(
            exposition.finish(),
            r#"# HELP a_bytes A \\ and\na line.
# TYPE a_bytes gauge
a_bytes 7
# HELP b_total B.
# TYPE b_total counter
b_total{x="1",y="2"} -3
b_total{x="say \"hi\"\n",y="back\\slash"} 0.25
# HELP c_seconds C.
# TYPE c_seconds histogram
c_seconds_bucket{x="p",le="0.5"} 2
c_seconds_bucket{x="p",le="1"} 2
c_seconds_bucket{x="p",le="+Inf"} 3
c_seconds_sum{x="p"} 60.5
c_seconds_count{x="p"} 3
"#
        );
    }
}
