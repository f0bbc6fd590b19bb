//! Format strings for records that are written: franz-go's verbs, which users of its tools know already.
//!
//! ```text
//! %t %T   topic, its length      %p  partition
//! %k %K   key, its length        %o  offset
//! %v %V   value, its length      %d  timestamp in ms; %d{strftime[%F %T]}, %d{rfc3339}
//! %h{..}  each header by the format within (%k and %v)
//! %H      how many headers       %i  count of records so far, from 1
//! %% %{ %}  the characters themselves
//! ```
//! Bytes take `{hex}`, `{base64}` or `{base64raw}`; numbers take `{hex}`, `{big8}` to `{big64}`, `{little8}` to `{little64}`.
//! `\n \t \r \\ \0 \xNN` are read outside of verbs.

use ouzel_model::batch::RecordHeader;

use crate::calendar;
use crate::encoding::Encoding;

/// A record as it is written. Missing keys and values are written as nothing.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fields<'a> {
    pub(crate) topic: &'a str,
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    pub(crate) timestamp_ms: i64,
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) value: Option<&'a [u8]>,
    pub(crate) headers: &'a [RecordHeader],
}

/// A format string, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RecordFormat {
    pieces: Vec<Piece>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Literal(Vec<u8>),
    Bytes(BytesField, Encoding),
    Number(NumberField, Numeral),
    Time(String),
    Headers(RecordFormat),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BytesField {
    Topic,
    Key,
    Value,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NumberField {
    TopicLength,
    KeyLength,
    ValueLength,
    HeaderCount,
    Partition,
    Offset,
    Timestamp,
    Count,
}

/// How a number is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Numeral {
    Decimal,
    Hex,
    /// Binary of so many bytes, the high ones cut off.
    Big(usize),
    Little(usize),
}

impl RecordFormat {
    /// Reads a format string.
    pub(crate) fn parse(text: &str) -> Result<RecordFormat, String> {
        let mut pieces = Vec::new();
        let mut literal = Vec::new();
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            match first {
                '%' => {
                    let (piece, behind) = parse_verb(&rest[1..])?;
                    rest = behind;
                    match piece {
                        Piece::Literal(bytes) => literal.extend(bytes),
                        piece => {
                            flush(&mut literal, &mut pieces);
                            pieces.push(piece);
                        }
                    }
                }
                '\\' => {
                    let (byte, behind) = parse_escape(&rest[1..])?;
                    literal.push(byte);
                    rest = behind;
                }
                other => {
                    literal.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes());
                    rest = &rest[other.len_utf8()..];
                }
            }
        }
        flush(&mut literal, &mut pieces);
        Ok(RecordFormat { pieces })
    }

    /// Writes one record; `count` is its number, from 1.
    pub(crate) fn write(&self, record: &Fields<'_>, count: u64, out: &mut Vec<u8>) {
        for piece in &self.pieces {
            match piece {
                Piece::Literal(bytes) => out.extend_from_slice(bytes),
                Piece::Bytes(field, encoding) => {
                    let bytes = match field {
                        BytesField::Topic => record.topic.as_bytes(),
                        BytesField::Key => record.key.unwrap_or_default(),
                        BytesField::Value => record.value.unwrap_or_default(),
                    };
                    encoding.encode(bytes, out);
                }
                Piece::Number(field, numeral) => numeral.write(field.of(record, count), out),
                Piece::Time(pattern) => out.extend(calendar::strftime(pattern, record.timestamp_ms).bytes()),
                Piece::Headers(format) => {
                    for header in record.headers {
                        let key = Some(header.key.as_bytes());
                        let header = Fields { key, value: header.value.as_deref(), headers: &[], ..*record };
                        format.write(&header, count, out);
                    }
                }
            }
        }
    }
}

fn flush(literal: &mut Vec<u8>, pieces: &mut Vec<Piece>) {
    if !literal.is_empty() {
        pieces.push(Piece::Literal(std::mem::take(literal)));
    }
}

impl NumberField {
    fn of(self, record: &Fields<'_>, count: u64) -> i64 {
        let length = |length: usize| i64::try_from(length).unwrap_or(i64::MAX);
        match self {
            NumberField::TopicLength => length(record.topic.len()),
            // -1 tells a missing key or value from an empty one.
            NumberField::KeyLength => record.key.map_or(-1, |key| length(key.len())),
            NumberField::ValueLength => record.value.map_or(-1, |value| length(value.len())),
            NumberField::HeaderCount => length(record.headers.len()),
            NumberField::Partition => i64::from(record.partition),
            NumberField::Offset => record.offset,
            NumberField::Timestamp => record.timestamp_ms,
            NumberField::Count => i64::try_from(count).unwrap_or(i64::MAX),
        }
    }
}

impl Numeral {
    fn named(name: &str) -> Option<Numeral> {
        let bytes = |bits: &str| match bits {
            "8" => Some(1),
            "16" => Some(2),
            "32" => Some(4),
            "64" => Some(8),
            _ => None,
        };
        match name {
            "ascii" | "" => Some(Numeral::Decimal),
            "hex" => Some(Numeral::Hex),
            _ => match (name.strip_prefix("big"), name.strip_prefix("little")) {
                (Some(bits), _) => bytes(bits).map(Numeral::Big),
                (_, Some(bits)) => bytes(bits).map(Numeral::Little),
                _ => None,
            },
        }
    }

    fn write(self, number: i64, out: &mut Vec<u8>) {
        match self {
            Numeral::Decimal => out.extend(number.to_string().bytes()),
            Numeral::Hex => out.extend(format!("{number:x}").bytes()),
            Numeral::Big(width) => out.extend_from_slice(&number.to_be_bytes()[8 - width..]),
            Numeral::Little(width) => out.extend_from_slice(&number.to_le_bytes()[..width]),
        }
    }
}

/// One verb, from behind its `%`, and what follows it.
fn parse_verb(text: &str) -> Result<(Piece, &str), String> {
    let verb = text.chars().next().ok_or("the format ends with a lone %; write %% for the character")?;
    let rest = &text[verb.len_utf8()..];
    if matches!(verb, '%' | '{' | '}') {
        return Ok((Piece::Literal(verb.to_string().into_bytes()), rest));
    }
    let (modifier, rest) = take_modifier(rest)?;
    let bytes = |field| match modifier.map_or(Some(Encoding::Plain), Encoding::named) {
        Some(encoding) => Ok(Piece::Bytes(field, encoding)),
        None => Err(format!(
            "%{verb} knows {{hex}}, {{base64}} and {{base64raw}}, not {{{}}}",
            modifier.unwrap_or("")
        )),
    };
    let number = |field| match Numeral::named(modifier.unwrap_or("")) {
        Some(numeral) => Ok(Piece::Number(field, numeral)),
        None => Err(format!("%{verb} is a number and knows no {{{}}}", modifier.unwrap_or(""))),
    };
    let piece = match verb {
        't' => bytes(BytesField::Topic),
        'k' => bytes(BytesField::Key),
        'v' => bytes(BytesField::Value),
        'T' => number(NumberField::TopicLength),
        'K' => number(NumberField::KeyLength),
        'V' => number(NumberField::ValueLength),
        'H' => number(NumberField::HeaderCount),
        'p' => number(NumberField::Partition),
        'o' => number(NumberField::Offset),
        'i' => number(NumberField::Count),
        'd' => match modifier {
            Some("rfc3339") => Ok(Piece::Time(calendar::RFC3339.to_owned())),
            Some(pattern) if pattern.starts_with("strftime[") && pattern.ends_with(']') => {
                Ok(Piece::Time(pattern["strftime[".len()..pattern.len() - 1].to_owned()))
            }
            _ => number(NumberField::Timestamp),
        },
        'h' => {
            let within = modifier.ok_or("%h wants a format for each header, as in %h{%k=%v }")?;
            Ok(Piece::Headers(RecordFormat::parse(within)?))
        }
        other => {
            Err(format!("there is no verb %{other}; there are %t %T %k %K %v %V %h %H %p %o %d %i and %%"))
        }
    };
    Ok((piece?, rest))
}

/// `{...}` if it stands here; braces within it pair up.
fn take_modifier(text: &str) -> Result<(Option<&str>, &str), String> {
    if !text.starts_with('{') {
        return Ok((None, text));
    }
    let mut depth = 0;
    for (at, character) in text.char_indices() {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Ok((Some(&text[1..at]), &text[at + 1..]));
        }
    }
    Err(format!("a brace is not closed in {text:?}"))
}

/// One escape, from behind its backslash, and what follows it.
pub(crate) fn parse_escape(text: &str) -> Result<(u8, &str), String> {
    let mut characters = text.chars();
    let byte = match characters.next() {
        Some('n') => b'\n',
        Some('t') => b'\t',
        Some('r') => b'\r',
        Some('0') => 0,
        Some('\\') => b'\\',
        Some('x') => {
            let digits = text.get(1..3).ok_or("\\x wants two hexadecimal digits")?;
            let byte = u8::from_str_radix(digits, 16)
                .map_err(|_| format!("\\x wants two hexadecimal digits, not {digits:?}"))?;
            return Ok((byte, &text[3..]));
        }
        Some(other) => return Err(format!("there is no escape \\{other}; write \\\\ for the backslash")),
        None => return Err("the format ends with a lone backslash".to_owned()),
    };
    Ok((byte, characters.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(format: &str) -> String {
        let header = |key: &str, value: Option<&[u8]>| RecordHeader {
            key: key.to_owned(),
            value: value.map(<[u8]>::to_vec),
        };
        let headers = [header("a", Some(b"1")), header("b", None)];
        let record = Fields {
            topic: "flights",
            partition: 3,
            offset: 258,
            timestamp_ms: 1_795_264_496_789,
            key: Some(b"UA"),
            value: Some(b"\x00\xff"),
            headers: &headers,
        };
        let mut out = Vec::new();
        RecordFormat::parse(format).unwrap().write(&record, 9, &mut out);
        out.iter().map(|byte| char::from(*byte)).collect()
    }

    #[test]
    fn verbs_are_written() {
        assert_eq!(written("%t/%p/%o #%i\\n"), "flights/3/258 #9\n");
        assert_eq!(written("%T %K %V %H"), "7 2 2 2");
        assert_eq!(written("%k=%v{hex} %v{base64} %v{base64raw}"), "UA=00ff AP8= AP8");
        assert_eq!(written("%d %d{rfc3339}"), "1795264496789 2026-11-21T12:34:56.789Z");
        assert_eq!(written("%d{strftime[%F]}"), "2026-11-21");
        assert_eq!(written("[%h{%k=%v;}]"), "[a=1;b=;]");
        assert_eq!(written("100%% %{x%} \\\\ \\x41\\t"), "100% {x} \\ A\t");
        assert_eq!(written("%o{big16}%o{little16}%o{hex}%p{big8}"), "\u{1}\u{2}\u{2}\u{1}102\u{3}");
        assert_eq!(written("é"), "\u{c3}\u{a9}");
    }

    #[test]
    fn a_missing_value_is_nothing_and_its_length_tells() {
        let record = Fields {
            topic: "t",
            partition: 0,
            offset: 0,
            timestamp_ms: 0,
            key: Some(b""),
            value: None,
            headers: &[],
        };
        let mut out = Vec::new();
        RecordFormat::parse("<%k|%K|%v|%V|%h{x}>").unwrap().write(&record, 1, &mut out);
        assert_eq!(out, b"<|0||-1|>");
    }

    #[test]
    fn nonsense_is_refused_with_the_mend() {
        for (wrong, words) in [
            ("%", "%%"),
            ("%q", "no verb %q"),
            ("%k{rot13}", "base64"),
            ("%o{hex8}", "number"),
            ("%v{hex", "not closed"),
            ("%h", "%h{"),
            ("\\q", "\\\\"),
            ("\\x4", "two hexadecimal"),
            ("\\", "backslash"),
        ] {
            let message = RecordFormat::parse(wrong).unwrap_err();
            assert!(message.contains(words), "{wrong}: {message}");
        }
    }
}
