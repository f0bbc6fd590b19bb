//! The only place that knows file names.
//!
//! Names are Kafka's: a partition's directory is `<topic>-<partition>`, a segment's files carry its base offset in
//! twenty digits.

use std::path::{Path, PathBuf};

use ouzel_model::Offset;

/// A segment's batches, verbatim.
pub const LOG: &str = "log";
/// Offset to position.
pub const INDEX: &str = "index";
/// Timestamp to offset.
pub const TIME_INDEX: &str = "timeindex";
/// The entries that are no batches, where a log numbers its entries.
pub const SIDE: &str = "raft";
/// Where a sealed segment's batches end, for such a log.
pub const ENTRY_INDEX: &str = "raftindex";
/// Idempotent producers at an offset, in Kafka's format.
pub const SNAPSHOT: &str = "snapshot";
/// The rest of their windows, in ours.
pub const PRODUCERS: &str = "producers";
/// A file that is as good as gone: unlinked after `file.delete.delay.ms`, or at the next start.
pub const DELETED_SUFFIX: &str = ".deleted";
/// A segment's file as compaction writes it: nothing yet.
pub const CLEANED_SUFFIX: &str = ".cleaned";
/// The same, whole and flushed: what it was made from is about to go.
pub const SWAP_SUFFIX: &str = ".swap";
/// What is about to replace the file of that name.
pub const TEMPORARY_SUFFIX: &str = ".tmp";
/// A directory inside a partition's, where a snapshot of it is gathered that another replica sends.
pub const INSTALL_DIR: &str = "snapshot-install";
/// In it, once everything is there: what it is.
pub const INSTALL_READY: &str = "manifest";
/// A directory that stood where another partition's belongs, set aside with all that is in it.
pub const STRAY_DIR_SUFFIX: &str = "-stray";
/// A directory that is as good as gone.
pub const DELETED_DIR_SUFFIX: &str = "-delete";
/// Which topic incarnation a directory belongs to.
pub const PARTITION_METADATA: &str = "partition.metadata";
/// The partition's first readable offset, where it is not a segment's first; in the form of Kafka's file of that name.
pub const LOG_START: &str = "log-start-offset-checkpoint";
/// Up to where compaction has cleaned the partition; in the form of Kafka's file of that name.
pub const CLEANED_TO: &str = "cleaner-offset-checkpoint";
/// The history of leader epochs.
pub const LEADER_EPOCHS: &str = "leader-epoch-checkpoint";

/// The path of a file of the segment that begins at `base`.
pub fn segment_file(dir: &Path, base: Offset, extension: &str) -> PathBuf {
    dir.join(segment_name(base, extension))
}

/// Its name.
pub fn segment_name(base: Offset, extension: &str) -> String {
    format!("{:020}.{extension}", base.value())
}

/// The path with a suffix, such as [`SWAP_SUFFIX`].
pub fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Reads a file name back: base offset and extension.
pub fn parse_segment_file(name: &str) -> Option<(Offset, &str)> {
    let (digits, extension) = name.split_once('.')?;
    if digits.len() != 20 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some((Offset(digits.parse().ok()?), extension))
}

/// Where a deleted partition's directory goes: a name no topic can have, as its uuid makes it longer than any index.
pub fn deleted_dir(dir: &Path, uuid: [u8; 16]) -> PathBuf {
    aside(dir, uuid, DELETED_DIR_SUFFIX)
}

/// Where a directory goes that is in the way of a partition and may hold somebody's only copy: Kafka's name for it.
pub fn stray_dir(dir: &Path, uuid: [u8; 16]) -> PathBuf {
    aside(dir, uuid, STRAY_DIR_SUFFIX)
}

fn aside(dir: &Path, uuid: [u8; 16], suffix: &str) -> PathBuf {
    let name = dir.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    // A topic's name may have 249 bytes; with the suffix the directory's must still fit 255.
    let name: String = name.chars().take(255 - 34 - suffix.len()).collect();
    let uuid = u128::from_be_bytes(uuid);
    dir.with_file_name(format!("{name}.{uuid:032x}{suffix}"))
}

/// Whether a directory is one that [`deleted_dir`] named.
pub fn is_deleted_dir(name: &str) -> bool {
    before_aside(name, DELETED_DIR_SUFFIX).is_some()
}

/// The name that a directory had before [`stray_dir`] gave it another, if that is what named it.
pub fn name_before_stray(name: &str) -> Option<&str> {
    before_aside(name, STRAY_DIR_SUFFIX)
}

fn before_aside<'a>(name: &'a str, suffix: &str) -> Option<&'a str> {
    let (before, uuid) = name.strip_suffix(suffix)?.rsplit_once('.')?;
    (uuid.len() == 32 && uuid.bytes().all(|b| b.is_ascii_hexdigit())).then_some(before)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_kafkas_and_read_back() {
        let path = segment_file(Path::new("t-0"), Offset(42), LOG);
        assert_eq!(path, Path::new("t-0/00000000000000000042.log"));
        assert_eq!(parse_segment_file("00000000000000000042.log"), Some((Offset(42), "log")));
        assert_eq!(parse_segment_file("00000000000000000042.log.deleted"), Some((Offset(42), "log.deleted")));
        for other in ["42.log", "partition.metadata", "0000000000000000004x.log"] {
            assert_eq!(parse_segment_file(other), None);
        }
    }

    #[test]
    fn a_deleted_directory_cannot_be_taken_for_a_topics() {
        let long = format!("{}-0", "x".repeat(249));
        for name in ["t-0", &long] {
            let gone = deleted_dir(&Path::new("/data").join(name), [7; 16]);
            let gone = gone.file_name().unwrap().to_str().unwrap();
            assert!(is_deleted_dir(gone) && gone.len() <= 255, "{gone}");
        }
        assert!(!is_deleted_dir("my.topic-delete"));
        assert!(!is_deleted_dir("t-0"));
    }
}
