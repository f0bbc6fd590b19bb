//! Format strings for records that are read: the same verbs, parted by literal text, or told their lengths first.
//!
//! `%k %v\n` reads a key up to the blank and a value up to the end of the line. `%V{big32}%v` reads a binary length and
//! so many bytes. Verbs: `%t` topic, `%p` partition, `%d` timestamp in ms, `%k` `%v` bytes (with `{hex}`, `{base64}`),
//! `%K` `%V` their lengths, `%h{..}` is not read.

use crate::encoding::Encoding;
use crate::record_format::parse_escape;

/// A record as it was read. What the format does not name is `None`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct InputRecord {
    pub(crate) topic: Option<String>,
    pub(crate) partition: Option<i32>,
    pub(crate) timestamp_ms: Option<i64>,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
}

/// A format string, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct InputFormat {
    pieces: Vec<Piece>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Literal(Vec<u8>),
    Text(Field, Encoding),
    /// The length of the key or value that follows.
    Length(Field, Width),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Topic,
    Partition,
    Timestamp,
    Key,
    Value,
}

/// How a length is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Width {
    /// Decimal digits up to the literal text behind them.
    Digits,
    Big(usize),
    Little(usize),
}

/// What one look at the buffer gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Read {
    /// A record, and how many bytes of the buffer it took.
    Record(InputRecord, usize),
    /// More bytes are needed.
    Incomplete,
}

impl InputFormat {
    /// Reads a format string.
    pub(crate) fn parse(text: &str) -> Result<InputFormat, String> {
        let mut pieces: Vec<Piece> = Vec::new();
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            let piece = match first {
                '%' => {
                    let (piece, behind) = parse_verb(&rest[1..])?;
                    rest = behind;
                    piece
                }
                '\\' => {
                    let (byte, behind) = parse_escape(&rest[1..])?;
                    rest = behind;
                    Piece::Literal(vec![byte])
                }
                other => {
                    rest = &rest[other.len_utf8()..];
                    Piece::Literal(other.to_string().into_bytes())
                }
            };
            match (pieces.last_mut(), piece) {
                (Some(Piece::Literal(literal)), Piece::Literal(more)) => literal.extend(more),
                (_, piece) => pieces.push(piece),
            }
        }
        let format = InputFormat { pieces };
        format.check()?;
        Ok(format)
    }

    /// A field needs an end: literal text behind it, or a length before it.
    fn check(&self) -> Result<(), String> {
        if !self.pieces.iter().any(|piece| matches!(piece, Piece::Text(..))) {
            return Err("the format reads no field; name at least %v".to_owned());
        }
        for (nth, piece) in self.pieces.iter().enumerate() {
            let sized = matches!(piece, Piece::Text(field, _) if self.has_length_before(*field, nth))
                || matches!(piece, Piece::Length(_, Width::Big(_) | Width::Little(_)) | Piece::Literal(_));
            let ended = matches!(self.pieces.get(nth + 1), Some(Piece::Literal(_)));
            if !sized && !ended {
                return Err("a field has no end: put literal text such as \\n behind it, or its length (%K, %V) before it".to_owned());
            }
        }
        Ok(())
    }

    fn has_length_before(&self, field: Field, nth: usize) -> bool {
        self.pieces[..nth].iter().any(|piece| matches!(piece, Piece::Length(sized, _) if *sized == field))
    }

    /// Reads one record from the front of the buffer. At the end of the input the last piece of literal text may be missing, as
    /// the last line's break often is.
    pub(crate) fn read(&self, buffer: &[u8], at_end: bool) -> Result<Read, String> {
        let mut record = InputRecord::default();
        let mut lengths: [Option<usize>; 2] = [None; 2];
        let mut position = 0;
        for (nth, piece) in self.pieces.iter().enumerate() {
            let rest = &buffer[position..];
            let last_literal = nth + 1 == self.pieces.len();
            match piece {
                Piece::Literal(literal) if rest.starts_with(literal) => position += literal.len(),
                Piece::Literal(_) if at_end && last_literal && rest.is_empty() => {}
                Piece::Literal(literal) if literal.starts_with(rest) => return Ok(Read::Incomplete),
                Piece::Literal(literal) => {
                    return Err(format!(
                        "expected {:?}, found {:?}",
                        String::from_utf8_lossy(literal),
                        String::from_utf8_lossy(&rest[..rest.len().min(20)])
                    ));
                }
                Piece::Length(field, width) => {
                    let Some((length, taken)) = self.read_length(*width, rest, nth, at_end)? else {
                        return Ok(Read::Incomplete);
                    };
                    lengths[usize::from(*field == Field::Value)] = Some(length);
                    position += taken;
                }
                Piece::Text(field, encoding) => {
                    let sized = match field {
                        Field::Key => lengths[0],
                        Field::Value => lengths[1],
                        _ => None,
                    };
                    let end = match sized {
                        Some(length) if length <= rest.len() => Some(length),
                        Some(_) => None,
                        None => self.end_of_field(rest, nth, at_end),
                    };
                    let Some(end) = end else { return Ok(Read::Incomplete) };
                    record.set(*field, &rest[..end], *encoding)?;
                    position += end;
                }
            }
        }
        Ok(Read::Record(record, position))
    }

    /// Where the literal text behind piece `nth` begins in `rest`.
    fn end_of_field(&self, rest: &[u8], nth: usize, at_end: bool) -> Option<usize> {
        let Some(Piece::Literal(literal)) = self.pieces.get(nth + 1) else { return None };
        let found = rest.windows(literal.len()).position(|window| window == literal);
        found.or((at_end && nth + 2 == self.pieces.len()).then_some(rest.len()))
    }

    fn read_length(
        &self,
        width: Width,
        rest: &[u8],
        nth: usize,
        at_end: bool,
    ) -> Result<Option<(usize, usize)>, String> {
        let (Width::Big(bytes) | Width::Little(bytes)) = width else {
            let Some(end) = self.end_of_field(rest, nth, at_end) else { return Ok(None) };
            let text = String::from_utf8_lossy(&rest[..end]).into_owned();
            let length = text.parse().map_err(|_| format!("{text:?} is no length"))?;
            return Ok(Some((length, end)));
        };
        let Some(taken) = rest.get(..bytes) else { return Ok(None) };
        let mut word = [0; 8];
        match width {
            Width::Little(_) => word[..bytes].copy_from_slice(taken),
            _ => word[8 - bytes..].copy_from_slice(taken),
        }
        let length = if matches!(width, Width::Little(_)) {
            u64::from_le_bytes(word)
        } else {
            u64::from_be_bytes(word)
        };
        // A length that no record can have is a wrong format, not a wish for more bytes.
        match usize::try_from(length).ok().filter(|length| *length <= 1 << 30) {
            Some(length) => Ok(Some((length, bytes))),
            None => Err(format!("a length of {length} bytes is more than a record can hold")),
        }
    }
}

impl InputRecord {
    fn set(&mut self, field: Field, text: &[u8], encoding: Encoding) -> Result<(), String> {
        let words = || String::from_utf8_lossy(text).into_owned();
        match field {
            Field::Key => self.key = Some(encoding.decode(text)?),
            Field::Value => self.value = Some(encoding.decode(text)?),
            Field::Topic => self.topic = Some(words()),
            Field::Partition => {
                self.partition = Some(words().parse().map_err(|_| format!("{:?} is no partition", words()))?);
            }
            Field::Timestamp => {
                self.timestamp_ms =
                    Some(words().parse().map_err(|_| format!("{:?} is no timestamp in ms", words()))?);
            }
        }
        Ok(())
    }
}

fn parse_verb(text: &str) -> Result<(Piece, &str), String> {
    let verb = text.chars().next().ok_or("the format ends with a lone %; write %% for the character")?;
    let rest = &text[verb.len_utf8()..];
    if matches!(verb, '%' | '{' | '}') {
        return Ok((Piece::Literal(verb.to_string().into_bytes()), rest));
    }
    let (modifier, rest) = match rest.strip_prefix('{') {
        None => (None, rest),
        Some(within) => {
            let (modifier, rest) = within.split_once('}').ok_or("a brace is not closed")?;
            (Some(modifier), rest)
        }
    };
    let unknown = || format!("%{verb} knows no {{{}}} when it is read", modifier.unwrap_or(""));
    let plain =
        |field| if modifier.is_none() { Ok(Piece::Text(field, Encoding::Plain)) } else { Err(unknown()) };
    let bytes = |field| {
        let encoding = modifier.map_or(Some(Encoding::Plain), Encoding::named).ok_or_else(unknown)?;
        Ok(Piece::Text(field, encoding))
    };
    let length = |field| {
        let width = match modifier {
            None | Some("ascii") => Some(Width::Digits),
            Some("big8") => Some(Width::Big(1)),
            Some("big16") => Some(Width::Big(2)),
            Some("big32") => Some(Width::Big(4)),
            Some("big64") => Some(Width::Big(8)),
            Some("little8") => Some(Width::Little(1)),
            Some("little16") => Some(Width::Little(2)),
            Some("little32") => Some(Width::Little(4)),
            Some("little64") => Some(Width::Little(8)),
            Some(_) => None,
        };
        width.map(|width| Piece::Length(field, width)).ok_or_else(unknown)
    };
    let piece = match verb {
        't' => plain(Field::Topic),
        'p' => plain(Field::Partition),
        'd' => plain(Field::Timestamp),
        'k' => bytes(Field::Key),
        'v' => bytes(Field::Value),
        'K' => length(Field::Key),
        'V' => length(Field::Value),
        other => Err(format!("%{other} cannot be read; there are %t %p %d %k %v %K %V and %%")),
    };
    Ok((piece?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All records of the input, however it is cut into pieces.
    fn read_all(format: &str, input: &[u8]) -> Result<Vec<InputRecord>, String> {
        let format = InputFormat::parse(format)?;
        let mut records: Vec<Vec<InputRecord>> = Vec::new();
        for step in [1, 3, usize::MAX] {
            let mut read = Vec::new();
            let (mut buffer, mut fed) = (Vec::new(), 0);
            loop {
                let at_end = fed == input.len();
                if at_end && buffer.is_empty() {
                    break;
                }
                match format.read(&buffer, at_end)? {
                    Read::Record(record, taken) if !buffer.is_empty() => {
                        read.push(record);
                        buffer.drain(..taken);
                    }
                    _ if at_end => return Err("the input ends within a record".to_owned()),
                    _ => {
                        let next = fed.saturating_add(step).min(input.len());
                        buffer.extend_from_slice(&input[fed..next]);
                        fed = next;
                    }
                }
            }
            records.push(read);
        }
        assert!(records.windows(2).all(|pair| pair[0] == pair[1]), "pieces of the input must not matter");
        Ok(records.remove(0))
    }

    fn record(key: Option<&str>, value: &str) -> InputRecord {
        InputRecord {
            key: key.map(|key| key.as_bytes().to_vec()),
            value: Some(value.as_bytes().to_vec()),
            ..InputRecord::default()
        }
    }

    #[test]
    fn lines_and_delimiters_are_read() {
        let lines = read_all("%v\\n", b"one\ntwo\n\nlast").unwrap();
        assert_eq!(lines, [record(None, "one"), record(None, "two"), record(None, ""), record(None, "last")]);
        assert_eq!(
            read_all("%k\\t%v\\n", b"a\tx y\nb\t\n").unwrap(),
            [record(Some("a"), "x y"), record(Some("b"), "")]
        );
        let full = read_all("%t %p %d %k{hex} %v{base64}\\n", b"flights 3 99 4142 Zm8=\n").unwrap();
        let wanted = InputRecord {
            topic: Some("flights".to_owned()),
            partition: Some(3),
            timestamp_ms: Some(99),
            ..record(Some("AB"), "fo")
        };
        assert_eq!(full, [wanted]);
    }

    #[test]
    fn lengths_are_read() {
        let binary = read_all("%K{big16}%k%V{little32}%v", b"\0\x01a\x02\0\0\0x\n\0\0\0\0\0\0").unwrap();
        assert_eq!(binary, [record(Some("a"), "x\n"), record(Some(""), "")]);
        assert_eq!(read_all("%V %v", b"3 abc1 d").unwrap(), [record(None, "abc"), record(None, "d")]);
    }

    #[test]
    fn nonsense_is_refused() {
        for wrong in ["", "x", "%v", "%k%v\\n", "%q\\n", "%v{rot13}\\n", "%K%k", "%h{x}\\n", "%v{hex\\n"] {
            assert!(InputFormat::parse(wrong).is_err(), "{wrong}");
        }
        assert!(read_all("%k %v\\n", b"no blank\nnone\n").is_err());
        assert!(read_all("%p %v\\n", b"x y\n").unwrap_err().contains("no partition"));
        assert!(read_all("%V{big64}%v", b"\x7f\0\0\0\0\0\0\0a").unwrap_err().contains("more than a record"));
        assert!(read_all("%V{big8}%v", b"\x05abc").unwrap_err().contains("ends within"));
    }
}
