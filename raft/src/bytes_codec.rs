//! A bounded reader and its writer: numbers big-endian, lengths checked against what is left.

use bytes::{BufMut, Bytes, BytesMut};
use ouzel_model::{EntryId, EntryIndex, LeaderEpoch, ReplicaId};

/// Bytes that are not what they should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Malformed(pub(crate) String);

pub(crate) fn malformed(words: impl Into<String>) -> Malformed {
    Malformed(words.into())
}

/// Reads from the front.
pub(crate) struct Reader {
    bytes: Bytes,
}

impl Reader {
    pub(crate) fn new(bytes: Bytes) -> Reader {
        Reader { bytes }
    }

    pub(crate) fn left(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn take(&mut self, count: usize) -> Result<Bytes, Malformed> {
        if count > self.bytes.len() {
            return Err(malformed(format!("{count} bytes expected, {} left", self.bytes.len())));
        }
        Ok(self.bytes.split_to(count))
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let mut array = [0; N];
        array.copy_from_slice(&self.take(N)?);
        Ok(array)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Malformed> {
        Ok(u8::from_be_bytes(self.array()?))
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Malformed> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Malformed> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    pub(crate) fn i64(&mut self) -> Result<i64, Malformed> {
        Ok(i64::from_be_bytes(self.array()?))
    }

    pub(crate) fn bool(&mut self) -> Result<bool, Malformed> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(malformed(format!("{other} is neither yes nor no"))),
        }
    }

    /// A count of things of at least `bytes_each`: never more than the bytes left can hold.
    pub(crate) fn count(&mut self, bytes_each: usize) -> Result<usize, Malformed> {
        let count = self.u32()? as usize;
        if count > self.left() / bytes_each {
            return Err(malformed(format!("{count} things in {} bytes", self.left())));
        }
        Ok(count)
    }

    /// A length and that many bytes.
    pub(crate) fn bytes(&mut self) -> Result<Bytes, Malformed> {
        let count = self.u32()? as usize;
        self.take(count)
    }

    pub(crate) fn text(&mut self) -> Result<String, Malformed> {
        String::from_utf8(self.bytes()?.to_vec()).map_err(|_| malformed("a text is not UTF-8"))
    }

    pub(crate) fn term(&mut self) -> Result<LeaderEpoch, Malformed> {
        let term = self.u32()?;
        // The last thousand are kept back: no message can bring a partition to the end of its terms.
        i32::try_from(term)
            .ok()
            .filter(|term| *term < i32::MAX - 1_000)
            .map(LeaderEpoch)
            .ok_or_else(|| malformed(format!("{term} is no term")))
    }

    pub(crate) fn entry_id(&mut self) -> Result<EntryId, Malformed> {
        let term = self.term()?;
        let index = self.u64()?;
        if index > u64::MAX / 2 {
            return Err(malformed(format!("{index} is no index of an entry")));
        }
        Ok(EntryId { term, index: EntryIndex(index) })
    }

    pub(crate) fn option<T>(
        &mut self,
        read: impl FnOnce(&mut Reader) -> Result<T, Malformed>,
    ) -> Result<Option<T>, Malformed> {
        if self.bool()? { read(self).map(Some) } else { Ok(None) }
    }

    pub(crate) fn replica(&mut self) -> Result<ReplicaId, Malformed> {
        self.u64().map(ReplicaId::from_u64)
    }

    /// Nothing may be left.
    pub(crate) fn finish(&self) -> Result<(), Malformed> {
        if self.bytes.is_empty() {
            return Ok(());
        }
        Err(malformed(format!("{} bytes too many", self.bytes.len())))
    }
}

/// Writes what [`Reader`] reads.
#[derive(Default)]
pub(crate) struct Writer {
    bytes: BytesMut,
}

impl Writer {
    pub(crate) fn u8(&mut self, value: u8) -> &mut Writer {
        self.bytes.put_u8(value);
        self
    }

    pub(crate) fn u32(&mut self, value: u32) -> &mut Writer {
        self.bytes.put_u32(value);
        self
    }

    pub(crate) fn u64(&mut self, value: u64) -> &mut Writer {
        self.bytes.put_u64(value);
        self
    }

    pub(crate) fn i64(&mut self, value: i64) -> &mut Writer {
        self.bytes.put_i64(value);
        self
    }

    pub(crate) fn bool(&mut self, value: bool) -> &mut Writer {
        self.u8(value.into())
    }

    /// # Panics
    /// For more than `u32::MAX` things.
    pub(crate) fn count(&mut self, count: usize) -> &mut Writer {
        self.u32(u32::try_from(count).expect("counts of a message are small"))
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> &mut Writer {
        self.count(bytes.len());
        self.bytes.put_slice(bytes);
        self
    }

    pub(crate) fn term(&mut self, term: LeaderEpoch) -> &mut Writer {
        self.u32(term.value().cast_unsigned())
    }

    pub(crate) fn entry_id(&mut self, id: EntryId) -> &mut Writer {
        self.term(id.term).u64(id.index.value())
    }

    pub(crate) fn option<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Writer, T)) -> &mut Writer {
        self.bool(value.is_some());
        if let Some(value) = value {
            write(self, value);
        }
        self
    }

    pub(crate) fn replica(&mut self, replica: ReplicaId) -> &mut Writer {
        self.u64(replica.to_u64())
    }

    pub(crate) fn finish(&mut self) -> Bytes {
        std::mem::take(&mut self.bytes).freeze()
    }
}
