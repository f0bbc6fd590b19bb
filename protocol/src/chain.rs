//! A response as it leaves: pieces in order, so that records go out from where they lie.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

/// A piece of a message.
#[derive(Clone, Debug, PartialEq)]
pub enum Piece {
    /// In memory.
    Bytes(Bytes),
    /// Somewhere that only who sends it knows.
    Elsewhere(Elsewhere),
}

impl Piece {
    /// Its length.
    pub fn len(&self) -> usize {
        match self {
            Piece::Bytes(bytes) => bytes.len(),
            Piece::Elsewhere(elsewhere) => elsewhere.len,
        }
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes, if it is in memory: what was received always is.
    pub fn bytes(&self) -> Option<&Bytes> {
        match self {
            Piece::Bytes(bytes) => Some(bytes),
            Piece::Elsewhere(_) => None,
        }
    }
}

impl From<Bytes> for Piece {
    fn from(bytes: Bytes) -> Piece {
        Piece::Bytes(bytes)
    }
}

/// So many bytes that are not in memory, such as a range of a file.
#[derive(Clone)]
pub struct Elsewhere {
    len: usize,
    place: Arc<dyn Any + Send + Sync>,
}

impl Elsewhere {
    /// `len` bytes at a place that who sends them understands.
    pub fn new<T: Any + Send + Sync>(len: usize, place: T) -> Elsewhere {
        Elsewhere { len, place: Arc::new(place) }
    }

    /// The place, if it is of this kind.
    pub fn place<T: Any>(&self) -> Option<&T> {
        self.place.downcast_ref()
    }
}

impl fmt::Debug for Elsewhere {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Elsewhere({} bytes)", self.len)
    }
}

impl PartialEq for Elsewhere {
    fn eq(&self, other: &Elsewhere) -> bool {
        self.len == other.len && Arc::ptr_eq(&self.place, &other.place)
    }
}

/// A message in several pieces, with their total length.
#[derive(Clone, Debug, Default)]
pub struct Chain {
    segments: Vec<Piece>,
    bytes: usize,
}

impl Chain {
    /// A chain of nothing.
    pub fn new() -> Chain {
        Chain::default()
    }

    /// Adds a piece at the end, without copying. Empty pieces leave no segment.
    pub fn push(&mut self, segment: impl Into<Piece>) {
        let segment = segment.into();
        if !segment.is_empty() {
            self.bytes += segment.len();
            self.segments.push(segment);
        }
    }

    /// Puts a piece in front.
    pub fn push_front(&mut self, segment: Bytes) {
        if !segment.is_empty() {
            self.bytes += segment.len();
            self.segments.insert(0, segment.into());
        }
    }

    /// Takes the first piece away if it is in memory and not longer than this; else empty.
    pub(crate) fn pop_front_up_to(&mut self, bytes_max: usize) -> Bytes {
        match self.segments.first() {
            Some(Piece::Bytes(first)) if first.len() <= bytes_max => {
                let first = first.clone();
                self.segments.remove(0);
                self.bytes -= first.len();
                first
            }
            _ => Bytes::new(),
        }
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
    pub fn segments(&self) -> &[Piece] {
        &self.segments
    }

    /// The pieces, given away.
    pub fn into_segments(self) -> Vec<Piece> {
        self.segments
    }

    /// All of it in one piece; copies unless it is one already.
    ///
    /// # Panics
    /// If a piece is not in memory: only responses to fetches have such, and those are sent piece by piece.
    pub fn into_bytes(self) -> Bytes {
        let mut pieces = self.segments.iter().map(|piece| piece.bytes().expect("all pieces are in memory"));
        if self.segments.len() <= 1 {
            return pieces.next().cloned().unwrap_or_default();
        }
        let mut joined = BytesMut::with_capacity(self.bytes);
        pieces.for_each(|piece| joined.extend_from_slice(piece));
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
    fn a_piece_may_lie_where_only_its_sender_knows() {
        let elsewhere = Elsewhere::new(1000, "a shelf");
        let mut chain = Chain::from(Bytes::from_static(b"ab"));
        chain.push(Piece::Elsewhere(elsewhere.clone()));
        chain.push(Piece::Elsewhere(Elsewhere::new(0, "nowhere")));
        assert_eq!((chain.len(), chain.segments().len()), (1002, 2));
        assert_eq!(chain.pop_front_up_to(1), Bytes::new(), "too long");
        assert_eq!(chain.pop_front_up_to(2), &b"ab"[..]);
        assert_eq!(chain.pop_front_up_to(2000), Bytes::new(), "it is not in memory");
        assert_eq!(chain.len(), 1000);
        let [Piece::Elsewhere(piece)] = chain.segments() else { panic!("{chain:?}") };
        assert_eq!((piece.place::<&str>(), piece.place::<String>()), (Some(&"a shelf"), None));
        assert_eq!(*piece, elsewhere);
        assert_ne!(*piece, Elsewhere::new(1000, "a shelf"), "another place");
    }

    #[test]
    fn one_piece_is_not_copied() {
        let piece = Bytes::from(vec![7; 100]);
        assert_eq!(Chain::from(piece.clone()).into_bytes().as_ptr(), piece.as_ptr());
    }
}
