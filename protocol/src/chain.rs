//! A response as it leaves: pieces of bytes in order, so that records go out from where they lie.

use bytes::{Bytes, BytesMut};

/// Bytes in several pieces, with their total length. Written with one vectored write, or piece by piece.
#[derive(Clone, Debug, Default)]
pub struct Chain {
    segments: Vec<Bytes>,
    bytes: usize,
}

impl Chain {
    /// A chain of nothing.
    pub fn new() -> Chain {
        Chain::default()
    }

    /// Adds a piece at the end, without copying. Empty pieces leave no segment.
    pub fn push(&mut self, segment: Bytes) {
        if !segment.is_empty() {
            self.bytes += segment.len();
            self.segments.push(segment);
        }
    }

    /// Puts a piece in front.
    pub fn push_front(&mut self, segment: Bytes) {
        if !segment.is_empty() {
            self.bytes += segment.len();
            self.segments.insert(0, segment);
        }
    }

    /// Takes the first piece away; empty if there is none.
    pub(crate) fn pop_front(&mut self) -> Bytes {
        if self.segments.is_empty() {
            return Bytes::new();
        }
        let first = self.segments.remove(0);
        self.bytes -= first.len();
        first
    }

    /// Total length of all pieces.
    pub fn len(&self) -> usize {
        self.bytes
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// The pieces, none of them empty.
    pub fn segments(&self) -> &[Bytes] {
        &self.segments
    }

    /// The pieces, given away.
    pub fn into_segments(self) -> Vec<Bytes> {
        self.segments
    }

    /// All of it in one piece; copies unless it is one already.
    pub fn into_bytes(mut self) -> Bytes {
        if self.segments.len() <= 1 {
            return self.segments.pop().unwrap_or_default();
        }
        let mut joined = BytesMut::with_capacity(self.bytes);
        self.segments.iter().for_each(|segment| joined.extend_from_slice(segment));
        joined.freeze()
    }
}

impl From<Bytes> for Chain {
    fn from(bytes: Bytes) -> Chain {
        let mut chain = Chain::new();
        chain.push(bytes);
        chain
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_counts_and_joins_and_keeps_no_empty_piece() {
        let mut chain = Chain::new();
        assert!(chain.is_empty());
        chain.push(Bytes::from_static(b"bc"));
        chain.push(Bytes::new());
        chain.push(Bytes::from_static(b"d"));
        chain.push_front(Bytes::from_static(b"a"));
        chain.push_front(Bytes::new());
        assert_eq!((chain.len(), chain.segments().len()), (4, 3));
        assert_eq!(chain.into_bytes(), &b"abcd"[..]);
    }

    #[test]
    fn one_piece_is_not_copied() {
        let piece = Bytes::from(vec![7; 100]);
        assert_eq!(Chain::from(piece.clone()).into_bytes().as_ptr(), piece.as_ptr());
    }
}
