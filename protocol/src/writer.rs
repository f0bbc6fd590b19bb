//! The writer beside [`crate::reader`]: values in, a [`Chain`] out, records passed on without a copy.

use bytes::{BufMut, Bytes, BytesMut};

use crate::chain::{Chain, Piece};
use crate::reader::STRING_BYTES_MAX;

/// A tag and what writes the field's content.
pub(crate) type TaggedField<'a> = (u32, &'a dyn Fn(&mut Writer));

/// Writes one message from front to back.
pub(crate) struct Writer {
    buffer: BytesMut,
    done: Chain,
    flexible: bool,
}

impl Writer {
    /// Writes with compact lengths and tagged fields if `flexible`.
    pub(crate) fn new(flexible: bool, capacity: usize) -> Writer {
        Writer { buffer: BytesMut::with_capacity(capacity), done: Chain::new(), flexible }
    }

    /// What has been written.
    pub(crate) fn take(&mut self) -> Chain {
        self.done.push(self.buffer.split().freeze());
        std::mem::take(&mut self.done)
    }

    pub(crate) fn i8(&mut self, value: i8) {
        self.buffer.put_i8(value);
    }

    pub(crate) fn i16(&mut self, value: i16) {
        self.buffer.put_i16(value);
    }

    pub(crate) fn i32(&mut self, value: i32) {
        self.buffer.put_i32(value);
    }

    pub(crate) fn i64(&mut self, value: i64) {
        self.buffer.put_i64(value);
    }

    pub(crate) fn uuid(&mut self, value: [u8; 16]) {
        self.buffer.put_slice(&value);
    }

    pub(crate) fn varint(&mut self, mut value: u32) {
        while value >= 0x80 {
            self.buffer.put_u8(value as u8 | 0x80);
            value >>= 7;
        }
        self.buffer.put_u8(value as u8);
    }

    /// A string. One longer than the protocol can say is cut: only an error's text could be, and a cut text still helps.
    pub(crate) fn string(&mut self, value: &str) {
        let value = &value[..value.floor_char_boundary(STRING_BYTES_MAX)];
        if self.flexible {
            self.varint(value.len() as u32 + 1);
        } else {
            self.i16(value.len() as i16);
        }
        self.buffer.put_slice(value.as_bytes());
    }

    pub(crate) fn string_or_null(&mut self, value: Option<&str>) {
        match value {
            Some(value) => self.string(value),
            None if self.flexible => self.varint(0),
            None => self.i16(-1),
        }
    }

    /// The count in front of an array; `None` is null.
    pub(crate) fn array(&mut self, count: impl Into<Option<usize>>) {
        self.length(count.into());
    }

    /// The length in front of bytes and arrays. What is written here was built in memory from frames of at most
    /// `i32::MAX` bytes, so the cast holds; the debug assertion keeps it so.
    fn length(&mut self, length: Option<usize>) {
        debug_assert!(length.is_none_or(|length| length < i32::MAX as usize));
        match length {
            Some(length) if self.flexible => self.varint(length as u32 + 1),
            Some(length) => self.i32(length as i32),
            None if self.flexible => self.varint(0),
            None => self.i32(-1),
        }
    }

    pub(crate) fn bytes(&mut self, value: &[u8]) {
        self.length(Some(value.len()));
        self.buffer.put_slice(value);
    }

    pub(crate) fn bytes_or_null(&mut self, value: Option<&Bytes>) {
        match value {
            Some(value) => self.bytes(value),
            None => self.length(None),
        }
    }

    /// Records in pieces: one length, then the pieces as they are.
    pub(crate) fn records<'a>(&mut self, pieces: Option<impl Iterator<Item = &'a Piece> + Clone>) {
        let Some(pieces) = pieces else { return self.length(None) };
        self.length(Some(pieces.clone().map(Piece::len).sum()));
        for piece in pieces {
            self.done.push(self.buffer.split().freeze());
            self.done.push(piece.clone());
        }
    }

    /// The end of a structure without tagged fields.
    pub(crate) fn no_tagged(&mut self) {
        self.tagged::<0>([]);
    }

    /// The end of a structure: each field that is there, in ascending order of tags. Nothing where the version has none.
    pub(crate) fn tagged<const N: usize>(&mut self, fields: [Option<TaggedField<'_>>; N]) {
        if !self.flexible {
            return;
        }
        self.varint(fields.iter().flatten().count() as u32);
        for (tag, write) in fields.into_iter().flatten() {
            let mut content = Writer::new(true, 32);
            write(&mut content);
            self.varint(tag);
            self.varint(content.buffer.len() as u32);
            self.buffer.put_slice(&content.buffer);
        }
    }
}
