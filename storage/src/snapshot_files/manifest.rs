//! What a snapshot consists of, as a value and as bytes. Pure.
//!
//! ```text
//! magic "OUZELSNP" | version u32 = 1 | entry: index u64, term i32 | next offset i64 | log start i64
//! | membership: bytes u32, bytes | epochs: bytes u32, text | files u32 | per file: name bytes u16, name, bytes u64, crc32c u32
//! | crc32c of all before u32
//! ```
//! Integers are big endian.

use std::collections::BTreeSet;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use ouzel_model::{EntryId, EntryIndex, LeaderEpoch, Offset};

use crate::layout;
use crate::leader_epochs::LeaderEpochs;

const MAGIC: &[u8; 8] = b"OUZELSNP";
const VERSION: u32 = 1;
const FIXED_BYTES: usize = 8 + 4 + 12 + 8 + 8 + 4 + 4 + 4 + 4;
const FILE_FIXED_BYTES: usize = 2 + 8 + 4;

/// One file of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotFile {
    /// Its name in the partition's directory.
    pub name: String,
    /// Its length.
    pub bytes: u64,
    /// CRC-32C of all of it.
    pub crc32c: u32,
}

/// What a snapshot consists of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The entry it goes up to.
    pub entry: EntryId,
    /// The next offset behind that entry (absolute).
    pub next_offset: Offset,
    /// The first readable offset; not above `next_offset`.
    pub log_start: Offset,
    /// The members as of the entry; the replication's own bytes.
    pub membership: Bytes,
    /// The leader epochs up to there.
    pub epochs: LeaderEpochs,
    /// Segments, oldest first, then the producers.
    pub files: Vec<SnapshotFile>,
}

/// Why bytes are no manifest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the manifest of a snapshot is wrong: {0}")]
pub struct BadManifest(String);

fn bad<T>(what: impl Into<String>) -> Result<T, BadManifest> {
    Err(BadManifest(what.into()))
}

impl Manifest {
    /// Bytes of all files together.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }

    /// The bytes that [`Manifest::decode`] reads.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(FIXED_BYTES + self.membership.len() + self.files.len() * 44);
        out.put_slice(MAGIC);
        out.put_u32(VERSION);
        out.put_u64(self.entry.index.value());
        out.put_i32(self.entry.term.value());
        out.put_i64(self.next_offset.value());
        out.put_i64(self.log_start.value());
        out.put_u32(self.membership.len() as u32);
        out.put_slice(&self.membership);
        let epochs = self.epochs.encode();
        out.put_u32(epochs.len() as u32);
        out.put_slice(epochs.as_bytes());
        out.put_u32(self.files.len() as u32);
        for file in &self.files {
            out.put_u16(file.name.len() as u16);
            out.put_slice(file.name.as_bytes());
            out.put_u64(file.bytes);
            out.put_u32(file.crc32c);
        }
        out.put_u32(crc32c::crc32c(&out));
        out.freeze()
    }

    /// Reads a manifest that came from elsewhere. Every name in it is one that a snapshot up to there may have.
    ///
    /// # Errors
    /// When the bytes are none, or it is one that no replica makes.
    pub fn decode(bytes: &[u8]) -> Result<Manifest, BadManifest> {
        if bytes.len() < FIXED_BYTES || &bytes[..8] != MAGIC {
            return bad(format!("{} bytes without its magic", bytes.len()));
        }
        let (whole, mut crc) = bytes.split_at(bytes.len() - 4);
        let (found, computed) = (crc.get_u32(), crc32c::crc32c(whole));
        if found != computed {
            return bad(format!("CRC-32C {found:08x}, expected {computed:08x}"));
        }
        let mut rest = &whole[8..];
        let version = rest.get_u32();
        if version != VERSION {
            return bad(format!("version {version}, known is {VERSION}"));
        }
        let entry = EntryId { index: EntryIndex(rest.get_u64()), term: LeaderEpoch(rest.get_i32()) };
        let (next_offset, log_start) = (Offset(rest.get_i64()), Offset(rest.get_i64()));
        let membership = Bytes::copy_from_slice(take_long(&mut rest)?);
        let epochs = LeaderEpochs::decode(take_long(&mut rest)?);
        let epochs = epochs.map_err(|error| BadManifest(format!("leader epochs: {error}")))?;
        let count = take_u32(&mut rest)? as usize;
        if count > rest.len() / FILE_FIXED_BYTES {
            return bad(format!("{count} files in {} bytes", rest.len()));
        }
        let mut files = Vec::with_capacity(count);
        for _ in 0..count {
            files.push(take_file(&mut rest)?);
        }
        if !rest.is_empty() {
            return bad(format!("{} bytes behind its end", rest.len()));
        }
        let manifest = Manifest { entry, next_offset, log_start, membership, epochs, files };
        manifest.check()?;
        Ok(manifest)
    }

    fn check(&self) -> Result<(), BadManifest> {
        if self.next_offset < Offset::ZERO || !(Offset::ZERO..=self.next_offset).contains(&self.log_start) {
            return bad(format!("a log from {} to {}", self.log_start, self.next_offset));
        }
        let mut names = BTreeSet::new();
        for SnapshotFile { name, bytes, .. } in &self.files {
            let fits = match layout::parse_segment_file(name) {
                Some((base, layout::LOG)) => base < self.next_offset && *bytes > 0,
                Some((base, layout::SNAPSHOT | layout::PRODUCERS)) => base == self.next_offset,
                _ => false,
            };
            if !fits || !names.insert(name) {
                return bad(format!("a file {name:?} of {bytes} bytes"));
            }
        }
        let has = |extension| names.contains(&layout::segment_name(self.next_offset, extension));
        if has(layout::SNAPSHOT) && has(layout::PRODUCERS) { Ok(()) } else { bad("no producers") }
    }
}

fn take_u32(rest: &mut &[u8]) -> Result<u32, BadManifest> {
    if rest.len() < 4 { bad("it ends within a number") } else { Ok(rest.get_u32()) }
}

fn take_long<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], BadManifest> {
    let length = take_u32(rest)? as usize;
    let Some((taken, behind)) = rest.split_at_checked(length) else {
        return bad(format!("{length} bytes, where {} are left", rest.len()));
    };
    *rest = behind;
    Ok(taken)
}

fn take_file(rest: &mut &[u8]) -> Result<SnapshotFile, BadManifest> {
    if rest.len() < FILE_FIXED_BYTES {
        return bad("it ends within a file");
    }
    let length = usize::from(rest.get_u16());
    if rest.len() < length + FILE_FIXED_BYTES - 2 {
        return bad("it ends within a file's name");
    }
    let (name, behind) = rest.split_at(length);
    *rest = behind;
    let name = std::str::from_utf8(name).map_err(|error| BadManifest(format!("a name: {error}")))?.to_owned();
    Ok(SnapshotFile { name, bytes: rest.get_u64(), crc32c: rest.get_u32() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, bytes: u64) -> SnapshotFile {
        SnapshotFile { name: name.to_owned(), bytes, crc32c: 0x0102_0304 }
    }

    fn manifest() -> Manifest {
        let mut epochs = LeaderEpochs::default();
        epochs.assign(LeaderEpoch(2), Offset(3));
        Manifest {
            entry: EntryId { term: LeaderEpoch(4), index: EntryIndex(9) },
            next_offset: Offset(40),
            log_start: Offset(5),
            membership: Bytes::from_static(b"us"),
            epochs,
            files: vec![
                file("00000000000000000003.log", 700),
                file("00000000000000000040.snapshot", 10),
                file("00000000000000000040.producers", 20),
            ],
        }
    }

    #[test]
    fn it_survives_its_bytes_and_nothing_else_does() {
        let bytes = manifest().encode();
        assert_eq!(Manifest::decode(&bytes), Ok(manifest()));
        for len in 0..bytes.len() {
            assert!(Manifest::decode(&bytes[..len]).is_err(), "{len} bytes");
        }
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(Manifest::decode(&flipped).is_err(), "bit {bit}");
        }
    }

    /// It comes from the network: what it names is written into a directory of ours.
    #[test]
    fn it_names_nothing_but_files_of_its_own() {
        let of = |change: &dyn Fn(&mut Manifest)| {
            let mut manifest = manifest();
            change(&mut manifest);
            Manifest::decode(&manifest.encode())
        };
        assert!(of(&|_| ()).is_ok());
        for name in [
            "../00000000000000000003.log",
            "partition.metadata",
            "00000000000000000003.raft",
            "00000000000000000003.log.swap",
            "00000000000000000040.log",
            "00000000000000000041.snapshot",
            "manifest",
            "",
        ] {
            assert!(of(&|manifest| manifest.files.push(file(name, 1))).is_err(), "{name:?}");
        }
        assert!(of(&|manifest| manifest.files.push(manifest.files[0].clone())).is_err(), "twice");
        assert!(of(&|manifest| manifest.files[0].bytes = 0).is_err(), "an empty segment");
        assert!(of(&|manifest| manifest.files.truncate(2)).is_err(), "no windows");
        assert!(of(&|manifest| manifest.log_start = Offset(41)).is_err(), "a start behind the end");
    }

    /// The CRC is right, the counts are not: nothing is reserved for them.
    #[test]
    fn counts_are_bounded_by_what_is_there() {
        let mut bytes = manifest().encode().to_vec();
        let membership_at = 8 + 4 + 12 + 16;
        bytes[membership_at..membership_at + 4].copy_from_slice(&u32::MAX.to_be_bytes());
        let end = bytes.len() - 4;
        let crc = crc32c::crc32c(&bytes[..end]);
        bytes[end..].copy_from_slice(&crc.to_be_bytes());
        let error = Manifest::decode(&bytes).expect_err("no such membership");
        assert!(error.to_string().contains("4294967295 bytes, where"), "{error}");
    }
}
