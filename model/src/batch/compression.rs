//! The four codecs, as Kafka frames them inside a batch.

use std::fmt;
use std::io::{self, BufRead, BufReader, Cursor, Read, Write};
use std::str::FromStr;

/// How a batch's records are compressed: as one blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Codec {
    /// Not at all.
    None,
    /// RFC 1952.
    Gzip,
    /// Snappy blocks in the framing of Java's xerial library, or one bare block as librdkafka writes.
    Snappy,
    /// LZ4 frames.
    Lz4,
    /// Zstandard frames (KIP-110).
    Zstd,
}

impl Codec {
    /// All of them, in the order of their ids.
    pub const ALL: [Codec; 5] = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];

    /// The number in a batch's attributes.
    pub const fn id(self) -> u8 {
        self as u8
    }

    /// The codec of a number in a batch's attributes.
    pub fn from_id(id: u8) -> Option<Codec> {
        Codec::ALL.get(usize::from(id)).copied()
    }

    /// Kafka's name for it (`compression.type`).
    pub const fn name(self) -> &'static str {
        match self {
            Codec::None => "none",
            Codec::Gzip => "gzip",
            Codec::Snappy => "snappy",
            Codec::Lz4 => "lz4",
            Codec::Zstd => "zstd",
        }
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Codec {
    type Err = UnknownCodec;
    fn from_str(name: &str) -> Result<Codec, UnknownCodec> {
        Codec::ALL.into_iter().find(|c| c.name() == name).ok_or_else(|| UnknownCodec(name.to_owned()))
    }
}

/// A text that names no codec.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no codec; use none, gzip, snappy, lz4 or zstd")]
pub struct UnknownCodec(String);

/// Why a payload does not decompress.
#[derive(Debug, thiserror::Error)]
pub enum CompressionError {
    /// The bytes are not what the codec writes.
    #[error("the {codec} payload is damaged: {source}")]
    Damaged {
        /// The codec that was tried.
        codec: Codec,
        /// What it said.
        source: io::Error,
    },
    /// The payload unfolds into more than the caller is willing to look at.
    #[error("the {codec} payload unfolds into more than {bytes_max} bytes")]
    TooLarge {
        /// The codec.
        codec: Codec,
        /// The bound.
        bytes_max: usize,
    },
}

/// Xerial's stream header: magic, version 1, lowest compatible version 1.
const XERIAL_HEADER: [u8; 16] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0, 0, 0, 0, 1, 0, 0, 0, 1];
/// What Java's and our writers put into one xerial block.
const XERIAL_BLOCK_BYTES: usize = 32 * 1024;

/// Compresses `plain` as a batch's payload.
///
/// # Errors
/// Only if a codec's library fails, which for memory to memory means out of memory.
pub fn compress(codec: Codec, plain: &[u8]) -> io::Result<Vec<u8>> {
    match codec {
        Codec::None => Ok(plain.to_vec()),
        Codec::Gzip => {
            let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            out.write_all(plain)?;
            out.finish()
        }
        Codec::Snappy => {
            let mut out = XERIAL_HEADER.to_vec();
            let mut encoder = snap::raw::Encoder::new();
            for block in plain.chunks(XERIAL_BLOCK_BYTES) {
                let packed = encoder.compress_vec(block).map_err(io::Error::other)?;
                out.extend((packed.len() as i32).to_be_bytes());
                out.extend(packed);
            }
            Ok(out)
        }
        Codec::Lz4 => {
            let mut out = lz4_flex::frame::FrameEncoder::new(Vec::new());
            out.write_all(plain)?;
            out.finish().map_err(io::Error::other)
        }
        Codec::Zstd => zstd::stream::encode_all(plain, 3),
    }
}

/// A reader over the plain bytes of `payload` that never yields more than `bytes_max`.
///
/// The bound holds for memory too: nothing is allocated because a length in the payload says so. Going past it shows as
/// an `io::Error` that wraps [`CompressionError::TooLarge`].
///
/// # Errors
/// A payload whose very start is not the codec's.
pub fn plain_reader<'a>(
    codec: Codec,
    payload: &'a [u8],
    bytes_max: usize,
) -> io::Result<Box<dyn BufRead + 'a>> {
    Ok(match codec {
        Codec::None => Box::new(payload),
        Codec::Gzip => bounded(codec, flate2::bufread::MultiGzDecoder::new(payload), bytes_max),
        Codec::Snappy => match payload.strip_prefix(&XERIAL_HEADER[..8]) {
            Some(rest) => {
                let blocks = rest.get(8..).ok_or(io::ErrorKind::UnexpectedEof)?;
                bounded(codec, XerialReader { blocks, plain: Cursor::default(), bytes_max }, bytes_max)
            }
            None => Box::new(Cursor::new(unpack_block(payload, bytes_max)?)),
        },
        Codec::Lz4 => bounded(codec, lz4_flex::frame::FrameDecoder::new(payload), bytes_max),
        Codec::Zstd => bounded(codec, zstd::stream::read::Decoder::with_buffer(payload)?, bytes_max),
    })
}

/// Decompresses a whole payload.
///
/// # Errors
/// Damage, or more than `bytes_max` plain bytes.
pub fn decompress_bounded(
    codec: Codec,
    payload: &[u8],
    bytes_max: usize,
) -> Result<Vec<u8>, CompressionError> {
    let mut plain = Vec::new();
    plain_reader(codec, payload, bytes_max)
        .and_then(|mut reader| reader.read_to_end(&mut plain))
        .map_err(|source| classify(codec, source))?;
    Ok(plain)
}

/// Tells "too large" from "damaged" in an error of a [`plain_reader`].
pub(super) fn classify(codec: Codec, source: io::Error) -> CompressionError {
    match source.get_ref().and_then(|inner| inner.downcast_ref::<TooLarge>()) {
        Some(TooLarge { bytes_max }) => CompressionError::TooLarge { codec, bytes_max: *bytes_max },
        None => CompressionError::Damaged { codec, source },
    }
}

#[derive(Debug, thiserror::Error)]
#[error("more than {bytes_max} bytes when decompressed")]
struct TooLarge {
    bytes_max: usize,
}

fn too_large(bytes_max: usize) -> io::Error {
    io::Error::other(TooLarge { bytes_max })
}

fn bounded<'a>(_codec: Codec, reader: impl Read + 'a, bytes_max: usize) -> Box<dyn BufRead + 'a> {
    Box::new(BufReader::with_capacity(16 * 1024, Bounded { reader, left: bytes_max, bytes_max }))
}

/// Fails, instead of ending early, once `bytes_max` bytes have passed and more follow.
struct Bounded<R> {
    reader: R,
    left: usize,
    bytes_max: usize,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(buf)?;
        self.left = self.left.checked_sub(read).ok_or_else(|| too_large(self.bytes_max))?;
        Ok(read)
    }
}

/// Xerial's framing: blocks of `i32` length and bare snappy.
struct XerialReader<'a> {
    blocks: &'a [u8],
    plain: Cursor<Vec<u8>>,
    bytes_max: usize,
}

impl Read for XerialReader<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = self.plain.read(buf)?;
            if read > 0 || buf.is_empty() || self.blocks.is_empty() {
                return Ok(read);
            }
            let (length, rest) = self.blocks.split_first_chunk::<4>().ok_or(io::ErrorKind::UnexpectedEof)?;
            let length =
                usize::try_from(i32::from_be_bytes(*length)).map_err(|_| io::ErrorKind::InvalidData)?;
            let block = rest.get(..length).ok_or(io::ErrorKind::UnexpectedEof)?;
            self.blocks = &rest[length..];
            self.plain = Cursor::new(unpack_block(block, self.bytes_max)?);
        }
    }
}

/// Unpacks one bare snappy block; its claimed size is believed only up to the bound and to what snappy can reach.
fn unpack_block(block: &[u8], bytes_max: usize) -> io::Result<Vec<u8>> {
    let claimed = snap::raw::decompress_len(block).map_err(io::Error::other)?;
    if claimed > bytes_max {
        return Err(too_large(bytes_max));
    }
    // A copy of up to 64 bytes takes three bytes of input: a claim beyond that ratio is a lie.
    if claimed > block.len().saturating_mul(64) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    snap::raw::Decoder::new().decompress_vec(block).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_codec_gives_back_what_it_took() {
        let plain: Vec<u8> = (0..200_000u32).flat_map(|i| (i / 7).to_le_bytes()).collect();
        for codec in Codec::ALL {
            for plain in [&plain[..0], &plain[..1], &plain[..]] {
                let packed = compress(codec, plain).unwrap();
                assert_eq!(decompress_bounded(codec, &packed, plain.len()).unwrap(), plain, "{codec}");
            }
        }
    }

    #[test]
    fn a_bare_snappy_block_is_read_as_librdkafka_writes_it() {
        let packed = snap::raw::Encoder::new().compress_vec(b"hello hello hello").unwrap();
        assert_eq!(decompress_bounded(Codec::Snappy, &packed, 100).unwrap(), b"hello hello hello");
    }

    #[test]
    fn bombs_and_damage_are_refused_in_bounded_memory() {
        let zeroes = vec![0; 1 << 20];
        for codec in Codec::ALL.into_iter().skip(1) {
            let packed = compress(codec, &zeroes).unwrap();
            let error = decompress_bounded(codec, &packed, 4096).unwrap_err();
            assert!(matches!(error, CompressionError::TooLarge { bytes_max: 4096, .. }), "{codec}: {error}");
            let error = decompress_bounded(codec, &packed[..packed.len() / 2], 1 << 21).unwrap_err();
            assert!(matches!(error, CompressionError::Damaged { .. }), "{codec}: {error}");
        }
        // A bare block that claims 1 GiB in six bytes.
        let lie = [0x80, 0x80, 0x80, 0x80, 0x04, 0x00];
        assert!(decompress_bounded(Codec::Snappy, &lie, usize::MAX).is_err());
    }
}
