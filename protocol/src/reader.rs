//! The one bounded reader: every length it reads is held against the bytes that are left before anything acts on it.
//!
//! It copies nothing (strings, bytes and records are slices of the frame) and allocates nothing. The walk over the
//! shapes and the decoders of our own read through it, so a bound is written once.

use bytes::Bytes;
use kafka_protocol::protocol::StrBytes;

/// Longest string Kafka's encodings carry; compact strings could say more, Kafka refuses it all the same.
pub const STRING_BYTES_MAX: usize = i16::MAX as usize;

/// Most structures and strings in arrays, and tagged fields, in one message.
///
/// The bytes left already bound each array, but an element of two bytes may decode into a structure of a hundred;
/// this bounds what a whole message can make of itself (some 30 MiB), far above what any client sends.
pub const ELEMENTS_MAX: usize = 1 << 18;

/// What is wrong with bytes that should have been a message. `at` is a position in the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// It ends in the middle of a value.
    #[error("byte {at}: {needed} bytes needed, {left} left")]
    Short {
        /// Where the value begins.
        at: usize,
        /// How long it is or claims to be.
        needed: usize,
        /// What there is.
        left: usize,
    },
    /// A negative length other than the -1 of a null.
    #[error("byte {at}: negative length {length}")]
    NegativeLength {
        /// Where the length stands.
        at: usize,
        /// As read.
        length: i32,
    },
    /// A null where the protocol has none.
    #[error("byte {at}: null where this version has no null")]
    Null {
        /// Where the length stands.
        at: usize,
    },
    /// A string longer than [`STRING_BYTES_MAX`].
    #[error("byte {at}: a string of {length} bytes, more than {STRING_BYTES_MAX}")]
    LongString {
        /// Where the length stands.
        at: usize,
        /// As read.
        length: usize,
    },
    /// An array that claims more elements than the bytes left could hold.
    #[error(
        "byte {at}: an array claims {count} elements of at least {element_bytes_min} bytes, {left} bytes left"
    )]
    Count {
        /// Where the count stands.
        at: usize,
        /// As read.
        count: usize,
        /// The least that one element takes.
        element_bytes_min: usize,
        /// What there is.
        left: usize,
    },
    /// More than [`ELEMENTS_MAX`] structures, strings and tagged fields.
    #[error("byte {at}: more than {ELEMENTS_MAX} elements in one message")]
    Elements {
        /// Where the count stands that was one too many.
        at: usize,
    },
    /// A variable-length integer that does not end within five bytes or exceeds 32 bits.
    #[error("byte {at}: a variable-length integer of more than 32 bits")]
    Varint {
        /// Where it begins.
        at: usize,
    },
    /// A string that is not UTF-8.
    #[error("byte {at}: a string that is not UTF-8")]
    Utf8 {
        /// Where its bytes begin.
        at: usize,
    },
    /// A known tagged field whose content is shorter than its size.
    #[error("byte {at}: tagged field {tag} has {left} bytes too many")]
    TagSize {
        /// Where the content ends.
        at: usize,
        /// Which field.
        tag: u32,
        /// Bytes of its size that nothing used.
        left: usize,
    },
    /// Bytes after the end of the message.
    #[error("byte {at}: {left} bytes after the end of the message")]
    Trailing {
        /// Where the message ends.
        at: usize,
        /// How many follow.
        left: usize,
    },
}

/// Reads one body from front to back.
pub struct Reader<'a> {
    frame: &'a Bytes,
    at: usize,
    /// Nothing at or beyond this position is read: the end of the frame, or of the tagged field being read.
    end: usize,
    flexible: bool,
    elements_left: usize,
}

impl<'a> Reader<'a> {
    /// Reads `frame`, with compact lengths and tagged fields if `flexible`.
    pub fn new(frame: &'a Bytes, flexible: bool) -> Reader<'a> {
        Reader { frame, at: 0, end: frame.len(), flexible, elements_left: ELEMENTS_MAX }
    }

    /// Whether this version has compact lengths and tagged fields.
    pub fn is_flexible(&self) -> bool {
        self.flexible
    }

    /// Bytes not read yet.
    pub fn left(&self) -> usize {
        self.end - self.at
    }

    /// How many bytes have been read.
    pub fn position(&self) -> usize {
        self.at
    }

    /// Elements counted so far: structures and strings in arrays, and tagged fields.
    pub fn elements(&self) -> usize {
        ELEMENTS_MAX - self.elements_left
    }

    /// Ends the message.
    ///
    /// # Errors
    /// [`Malformed::Trailing`] if bytes are left.
    pub fn end(&self) -> Result<(), Malformed> {
        match self.left() {
            0 => Ok(()),
            left => Err(Malformed::Trailing { at: self.at, left }),
        }
    }

    /// Steps over `needed` bytes and returns where they began.
    fn advance(&mut self, needed: usize) -> Result<usize, Malformed> {
        let (at, left) = (self.at, self.left());
        if needed > left {
            return Err(Malformed::Short { at, needed, left });
        }
        self.at += needed;
        Ok(at)
    }

    /// Steps over `bytes` bytes.
    pub fn skip(&mut self, bytes: usize) -> Result<(), Malformed> {
        self.advance(bytes).map(|_| ())
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let at = self.advance(N)?;
        Ok(self.frame[at..at + N].try_into().expect("N bytes"))
    }

    /// An `int8`.
    pub fn i8(&mut self) -> Result<i8, Malformed> {
        self.fixed().map(i8::from_be_bytes)
    }

    /// A `bool`; Kafka reads any non-zero byte as true.
    pub fn bool(&mut self) -> Result<bool, Malformed> {
        self.i8().map(|byte| byte != 0)
    }

    /// An `int16`.
    pub fn i16(&mut self) -> Result<i16, Malformed> {
        self.fixed().map(i16::from_be_bytes)
    }

    /// An `int32`.
    pub fn i32(&mut self) -> Result<i32, Malformed> {
        self.fixed().map(i32::from_be_bytes)
    }

    /// An `int64`.
    pub fn i64(&mut self) -> Result<i64, Malformed> {
        self.fixed().map(i64::from_be_bytes)
    }

    /// A `uuid`.
    pub fn uuid(&mut self) -> Result<[u8; 16], Malformed> {
        self.fixed()
    }

    /// An unsigned variable-length integer of up to 32 bits, seven to a byte, low ones first.
    pub fn varint(&mut self) -> Result<u32, Malformed> {
        let at = self.at;
        let mut value = 0u32;
        for shift in (0..).step_by(7).take(5) {
            let [byte] = self.fixed()?;
            if shift == 28 && byte > 0x0f {
                break;
            }
            value |= u32::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Malformed::Varint { at })
    }

    /// The length in front of a string; `None` is null. The bytes are there, but not yet stepped over.
    pub fn string_length(&mut self) -> Result<Option<usize>, Malformed> {
        let at = self.at;
        let length = if self.flexible {
            (self.varint()? as usize).checked_sub(1)
        } else {
            let length = self.i16()?;
            length_or_null(i32::from(length), at)?
        };
        match length {
            Some(length) if length > STRING_BYTES_MAX => Err(Malformed::LongString { at, length }),
            length => self.there(length),
        }
    }

    /// The length in front of bytes or records; `None` is null. The bytes are there, but not yet stepped over.
    pub fn bytes_length(&mut self) -> Result<Option<usize>, Malformed> {
        let at = self.at;
        let length = if self.flexible {
            (self.varint()? as usize).checked_sub(1)
        } else {
            let length = self.i32()?;
            length_or_null(length, at)?
        };
        self.there(length)
    }

    fn there(&self, length: Option<usize>) -> Result<Option<usize>, Malformed> {
        match length {
            Some(needed) if needed > self.left() => {
                Err(Malformed::Short { at: self.at, needed, left: self.left() })
            }
            length => Ok(length),
        }
    }

    /// The count in front of an array whose elements take at least `element_bytes_min` bytes each; `None` is null.
    ///
    /// That many elements can follow, so a buffer for them is no larger than a small multiple of the frame.
    pub fn array_or_null(&mut self, element_bytes_min: usize) -> Result<Option<usize>, Malformed> {
        debug_assert!(element_bytes_min > 0, "an element of no bytes would bound nothing");
        let at = self.at;
        let count = if self.flexible {
            (self.varint()? as usize).checked_sub(1)
        } else {
            let count = self.i32()?;
            length_or_null(count, at)?
        };
        if let Some(count) = count
            && count > self.left() / element_bytes_min
        {
            return Err(Malformed::Count { at, count, element_bytes_min, left: self.left() });
        }
        Ok(count)
    }

    /// As [`Reader::array_or_null`], where null is not allowed.
    pub fn array(&mut self, element_bytes_min: usize) -> Result<usize, Malformed> {
        let at = self.at;
        self.array_or_null(element_bytes_min)?.ok_or(Malformed::Null { at })
    }

    /// Counts elements that decode into more than their own bytes against [`ELEMENTS_MAX`].
    pub fn count_elements(&mut self, count: usize) -> Result<(), Malformed> {
        self.elements_left =
            self.elements_left.checked_sub(count).ok_or(Malformed::Elements { at: self.at })?;
        Ok(())
    }

    /// A nullable string, as a slice of the frame.
    pub fn string_or_null(&mut self) -> Result<Option<StrBytes>, Malformed> {
        let Some(length) = self.string_length()? else { return Ok(None) };
        let at = self.advance(length)?;
        let string = StrBytes::from_utf8(self.frame.slice(at..at + length));
        string.map(Some).map_err(|_| Malformed::Utf8 { at })
    }

    /// A string, as a slice of the frame.
    pub fn string(&mut self) -> Result<StrBytes, Malformed> {
        let at = self.at;
        self.string_or_null()?.ok_or(Malformed::Null { at })
    }

    /// Nullable bytes or records, as a slice of the frame.
    pub fn bytes_or_null(&mut self) -> Result<Option<Bytes>, Malformed> {
        let Some(length) = self.bytes_length()? else { return Ok(None) };
        let at = self.advance(length)?;
        Ok(Some(self.frame.slice(at..at + length)))
    }

    /// Bytes, as a slice of the frame.
    pub fn bytes(&mut self) -> Result<Bytes, Malformed> {
        let at = self.at;
        self.bytes_or_null()?.ok_or(Malformed::Null { at })
    }

    /// The tagged fields at the end of a structure; nothing where the version has none.
    ///
    /// `known` is shown each field with a reader that ends where the field ends. It reads the whole of a field it
    /// knows and returns true, or returns false, and the field is stepped over.
    pub fn tagged<E: From<Malformed>>(
        &mut self,
        mut known: impl FnMut(u32, &mut Reader<'a>) -> Result<bool, E>,
    ) -> Result<(), E> {
        if !self.flexible {
            return Ok(());
        }
        let at = self.at;
        let count = self.varint()? as usize;
        // A tagged field is at least its tag and its size.
        if count > self.left() / 2 {
            return Err(Malformed::Count { at, count, element_bytes_min: 2, left: self.left() }.into());
        }
        self.count_elements(count)?;
        for _ in 0..count {
            let tag = self.varint()?;
            let size = self.varint()? as usize;
            let begin = self.advance(size)?;
            let mut field = Reader { at: begin, end: begin + size, ..*self };
            if known(tag, &mut field)? {
                if field.left() > 0 {
                    return Err(Malformed::TagSize { at: field.at, tag, left: field.left() }.into());
                }
                self.elements_left = field.elements_left;
            }
        }
        Ok(())
    }

    /// Tagged fields none of which is known.
    pub fn skip_tagged(&mut self) -> Result<(), Malformed> {
        self.tagged(|_, _| Ok(false))
    }
}

fn length_or_null(length: i32, at: usize) -> Result<Option<usize>, Malformed> {
    match length {
        -1 => Ok(None),
        _ => usize::try_from(length).map(Some).map_err(|_| Malformed::NegativeLength { at, length }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn varint_of(bytes: &'static [u8]) -> Result<u32, Malformed> {
        Reader::new(&Bytes::from_static(bytes), true).varint()
    }

    #[test]
    fn varints_end_within_five_bytes_and_32_bits() {
        assert_eq!(varint_of(&[0x00]), Ok(0));
        assert_eq!(varint_of(&[0xac, 0x02]), Ok(300));
        assert_eq!(varint_of(&[0xff, 0xff, 0xff, 0xff, 0x0f]), Ok(u32::MAX));
        assert_eq!(varint_of(&[0xff, 0xff, 0xff, 0xff, 0x1f]), Err(Malformed::Varint { at: 0 }));
        assert_eq!(varint_of(&[0x80, 0x80, 0x80, 0x80, 0x80, 0x00]), Err(Malformed::Varint { at: 0 }));
        assert_eq!(varint_of(&[0x80]), Err(Malformed::Short { at: 1, needed: 1, left: 0 }));
    }

    #[test]
    fn lengths_are_held_against_what_is_left() {
        let frame = Bytes::from_static(&[0x00, 0x05, b'a', b'b', b'c']);
        assert_eq!(Reader::new(&frame, false).string(), Err(Malformed::Short { at: 2, needed: 5, left: 3 }));
        let frame = Bytes::from_static(&[0xff, 0xfe, 0, 0]);
        assert_eq!(Reader::new(&frame, false).string(), Err(Malformed::NegativeLength { at: 0, length: -2 }));
        let frame = Bytes::from_static(&[0xff, 0xff]);
        assert_eq!(Reader::new(&frame, false).string(), Err(Malformed::Null { at: 0 }));
        assert_eq!(Reader::new(&frame, false).string_or_null(), Ok(None));
        let frame = Bytes::from_static(&[0x00, 0x01, 0xff]);
        assert_eq!(Reader::new(&frame, false).string(), Err(Malformed::Utf8 { at: 2 }));
        let frame = Bytes::from_static(&[0x00, 0x00, 0x00, 0x03, 1, 2, 3, 4, 5]);
        assert_eq!(
            Reader::new(&frame, false).array(2),
            Err(Malformed::Count { at: 0, count: 3, element_bytes_min: 2, left: 5 })
        );
        assert_eq!(Reader::new(&frame, false).array(1), Ok(3));
    }

    #[test]
    fn a_tagged_field_ends_where_its_size_says() {
        // One field, tag 7, two bytes, of which the closure reads one.
        let frame = Bytes::from_static(&[1, 7, 2, 0xaa, 0xbb]);
        let mut reader = Reader::new(&frame, true);
        let read = reader.tagged(|_, field| field.i8().map(|_| true));
        assert_eq!(read, Err(Malformed::TagSize { at: 4, tag: 7, left: 1 }));
        let mut reader = Reader::new(&frame, true);
        let read = reader.tagged(|_, field| field.i32().map(|_| true));
        assert_eq!(read, Err(Malformed::Short { at: 3, needed: 4, left: 2 }));
        let mut reader = Reader::new(&frame, true);
        assert_eq!(reader.skip_tagged(), Ok(()));
        assert_eq!(reader.end(), Ok(()));
    }

    #[test]
    fn elements_run_out() {
        let frame = Bytes::from_static(&[0]);
        let mut reader = Reader::new(&frame, false);
        assert_eq!(reader.count_elements(ELEMENTS_MAX), Ok(()));
        assert_eq!(reader.count_elements(1), Err(Malformed::Elements { at: 0 }));
    }
}
