//! Small files that are replaced as a whole: Kafka's checkpoints and marks, so that a stopped Kafka's data directory can be
//! read and one of ours left to Kafka.
//!
//! | file | where | content |
//! |---|---|---|
//! | `leader-epoch-checkpoint` | partition | [`LeaderEpochs`](crate::leader_epochs::LeaderEpochs) |
//! | `partition.metadata` | partition | [`PartitionMetadata`] |
//! | `recovery-point-offset-checkpoint`, `log-start-offset-checkpoint` | data directory | [`OffsetCheckpoint`] |
//! | `meta.properties` | data directory | [`MetaProperties`] |
//! | `.kafka_cleanshutdown` | data directory | [`CleanShutdown`] |
//!
//! Encoders and decoders are pure; [`read`] and [`fn@write`] are the doers. A write goes through
//! [`Disk::write_atomic`]: after a crash there is the old content or the new one.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use ouzel_model::{NodeId, Offset, PartitionIndex, TopicId, TopicName, TopicPartition};
use ouzel_runtime::Disk;

/// First offset that a start must read again, per partition.
pub const RECOVERY_POINTS: &str = "recovery-point-offset-checkpoint";
/// First offset that may be read, per partition where it is not a segment's.
pub const LOG_STARTS: &str = "log-start-offset-checkpoint";
/// Whose data directory it is.
pub const META_PROPERTIES: &str = "meta.properties";
/// There while the data directory is at rest after a clean stop.
pub const CLEAN_SHUTDOWN: &str = ".kafka_cleanshutdown";

/// Entries beyond this are taken for damage: no directory holds as many partitions, no partition as many epochs.
const LINES_MAX: usize = 10_000_000;

/// The version in the first line of the text checkpoints.
const TEXT_VERSION: &str = "0";

/// A line that is not what it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: expected {expected}, found {found}")]
pub struct MalformedLine {
    /// Counted from 1.
    pub line: usize,
    /// What should stand there.
    pub expected: String,
    /// What does.
    pub found: String,
}

impl MalformedLine {
    fn new(line: usize, expected: impl Into<String>, found: impl Into<String>) -> MalformedLine {
        MalformedLine { line, expected: expected.into(), found: found.into() }
    }
}

/// Why a checkpoint could not be read.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The disk said no.
    #[error("read {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the disk said.
        source: io::Error,
    },
    /// The content is not what it should be.
    #[error("{}, {source}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Which line, and why.
        source: MalformedLine,
    },
}

/// Reads a small file and decodes it; `None` if there is none.
///
/// # Errors
/// See [`CheckpointError`].
pub async fn read<T>(
    disk: &Disk,
    path: &Path,
    decode: impl FnOnce(&[u8]) -> Result<T, MalformedLine>,
) -> Result<Option<T>, CheckpointError> {
    match disk.read(path).await {
        Ok(bytes) => match decode(&bytes) {
            Ok(value) => Ok(Some(value)),
            Err(source) => Err(CheckpointError::Malformed { path: path.to_owned(), source }),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(CheckpointError::Io { path: path.to_owned(), source }),
    }
}

/// Replaces a small file as a whole; durable when it returns.
///
/// # Errors
/// Those of [`Disk::write_atomic`].
pub async fn write(disk: &Disk, path: &Path, content: String) -> io::Result<()> {
    disk.write_atomic(path, Bytes::from(content)).await
}

/// Writes Kafka's text form: version, number of entries, one entry a line.
pub fn encode_lines(entries: impl ExactSizeIterator<Item = String>) -> String {
    let mut text = format!("{TEXT_VERSION}\n{}\n", entries.len());
    for entry in entries {
        text.push_str(&entry);
        text.push('\n');
    }
    text
}

/// Reads Kafka's text form. `parse` gets the words of a line. An empty file, and one with a version only, has no entries:
/// Kafka creates such.
///
/// # Errors
/// The first line that is not what it should be.
pub fn decode_lines<T>(
    bytes: &[u8],
    expected: &str,
    mut parse: impl FnMut(&[&str]) -> Option<T>,
) -> Result<Vec<T>, MalformedLine> {
    let mut lines = lines_of(bytes)?;
    let Some((line, version)) = lines.next() else { return Ok(Vec::new()) };
    if version != TEXT_VERSION {
        return Err(MalformedLine::new(line, format!("version {TEXT_VERSION}"), version));
    }
    let Some((line, count)) = lines.next() else { return Ok(Vec::new()) };
    let count: usize = match count.parse() {
        Ok(count) if count <= LINES_MAX => count,
        _ => return Err(MalformedLine::new(line, "the number of entries", count)),
    };
    let mut entries = Vec::new();
    for (line, text) in lines {
        if entries.len() == count {
            return Err(MalformedLine::new(
                line,
                format!("the end of the file behind {count} entries"),
                text,
            ));
        }
        let words: Vec<&str> = text.split_ascii_whitespace().collect();
        entries.push(parse(&words).ok_or_else(|| MalformedLine::new(line, expected, text))?);
    }
    if entries.len() < count {
        let expected = format!("entry {} of {count}", entries.len() + 1);
        return Err(MalformedLine::new(entries.len() + 3, expected, "the end of the file"));
    }
    Ok(entries)
}

/// Numbered lines, from 1.
fn lines_of(bytes: &[u8]) -> Result<impl Iterator<Item = (usize, &str)>, MalformedLine> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(text.lines().enumerate().map(|(i, text)| (i + 1, text))),
        Err(error) => {
            let good = &bytes[..error.valid_up_to()];
            let line = 1 + good.iter().filter(|byte| **byte == b'\n').count();
            let found = format!("byte {:02x}", bytes[error.valid_up_to()]);
            Err(MalformedLine::new(line, "UTF-8 text", found))
        }
    }
}

/// An offset per partition: `topic partition offset` a line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OffsetCheckpoint(pub BTreeMap<TopicPartition, Offset>);

impl OffsetCheckpoint {
    /// Writes the text.
    pub fn encode(&self) -> String {
        encode_lines(self.0.iter().map(|(of, offset)| format!("{} {} {offset}", of.topic, of.partition)))
    }

    /// Reads the text. Of two lines for one partition the later one holds, as in Kafka.
    ///
    /// # Errors
    /// The first line that is not what it should be.
    pub fn decode(bytes: &[u8]) -> Result<OffsetCheckpoint, MalformedLine> {
        let entries = decode_lines(bytes, "a topic, a partition and an offset", |words| {
            let [topic, partition, offset] = words else { return None };
            let topic = TopicName::new(topic).ok()?;
            let partition = PartitionIndex(partition.parse().ok().filter(|index| *index >= 0)?);
            let offset = Offset(offset.parse().ok().filter(|offset| *offset >= 0)?);
            Some((TopicPartition { topic, partition }, offset))
        })?;
        Ok(OffsetCheckpoint(entries.into_iter().collect()))
    }
}

/// Which topic incarnation a partition's directory belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionMetadata {
    /// The topic's id.
    pub topic_id: TopicId,
}

impl PartitionMetadata {
    /// Writes the text; like Kafka's, without a newline at the end.
    pub fn encode(&self) -> String {
        format!("version: 0\ntopic_id: {}", self.topic_id)
    }

    /// Reads the text. Later versions are read too, as in Kafka: they only add lines.
    ///
    /// # Errors
    /// The first line that is not what it should be.
    pub fn decode(bytes: &[u8]) -> Result<PartitionMetadata, MalformedLine> {
        let mut lines = lines_of(bytes)?;
        let mut field = |number: usize, name: &str| match lines.next() {
            Some((_, text)) => {
                let value = text.strip_prefix(name).and_then(|rest| rest.strip_prefix(':')).map(str::trim);
                value
                    .map(|value| (value, text))
                    .ok_or_else(|| MalformedLine::new(number, format!("{name}: ..."), text))
            }
            None => Err(MalformedLine::new(number, format!("{name}: ..."), "the end of the file")),
        };
        let (version, line) = field(1, "version")?;
        if version.parse::<u16>().is_err() {
            return Err(MalformedLine::new(1, "version: 0", line));
        }
        let (id, line) = field(2, "topic_id")?;
        match id.parse::<TopicId>() {
            Ok(topic_id) if !topic_id.is_zero() => Ok(PartitionMetadata { topic_id }),
            _ => Err(MalformedLine::new(
                2,
                "topic_id: and 22 characters of URL-safe base64, not all zero",
                line,
            )),
        }
    }
}

/// Whose data directory it is: a broker refuses one of another node or cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetaProperties {
    /// The cluster's id, 22 characters.
    pub cluster_id: String,
    /// The node's number.
    pub node_id: NodeId,
    /// The directory's own id.
    pub directory_id: TopicId,
}

impl MetaProperties {
    /// Writes a Java properties file, version 1.
    pub fn encode(&self) -> String {
        let Self { cluster_id, node_id, directory_id } = self;
        format!("#\ncluster.id={cluster_id}\ndirectory.id={directory_id}\nnode.id={node_id}\nversion=1\n")
    }

    /// Reads a Java properties file of version 1; escapes, which its values never need, are not understood.
    ///
    /// # Errors
    /// The line of the first property that is not what it should be, or the line behind the last for a missing one.
    pub fn decode(bytes: &[u8]) -> Result<MetaProperties, MalformedLine> {
        let mut found: BTreeMap<&str, (usize, &str)> = BTreeMap::new();
        let mut lines_read = 0;
        for (line, text) in lines_of(bytes)? {
            lines_read = line;
            let text = text.trim();
            if text.is_empty() || text.starts_with(['#', '!']) {
                continue;
            }
            let Some((key, value)) = text.split_once('=') else {
                return Err(MalformedLine::new(line, "key=value", text));
            };
            found.insert(key.trim(), (line, value.trim()));
        }
        let get = |key: &str| {
            let missing = || MalformedLine::new(lines_read + 1, format!("{key}=..."), "the end of the file");
            found.get(key).copied().ok_or_else(missing)
        };
        let (line, version) = get("version")?;
        if version != "1" {
            return Err(MalformedLine::new(line, "version=1", format!("version={version}")));
        }
        let (_, cluster_id) = get("cluster.id")?;
        let (line, node_id) = get("node.id")?;
        let node_id =
            node_id.parse().map_err(|_| MalformedLine::new(line, "node.id= and a number", node_id))?;
        let (line, id) = get("directory.id")?;
        let directory_id = id.parse().map_err(|_| MalformedLine::new(line, "directory.id= and an id", id))?;
        Ok(MetaProperties { cluster_id: cluster_id.to_owned(), node_id: NodeId(node_id), directory_id })
    }
}

/// Left behind by a clean stop (KIP-966): says to Kafka that no log needs recovery, and under which broker epoch the
/// broker ran. Our own start goes by the marks in the write-ahead file; this one must be gone, durably, before the first
/// write, or a Kafka that adopts the directory would trust a torn log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CleanShutdown {
    /// The broker's epoch.
    pub broker_epoch: i64,
}

impl CleanShutdown {
    /// Writes the text.
    pub fn encode(&self) -> String {
        format!("{{\"version\":0,\"brokerEpoch\":{}}}", self.broker_epoch)
    }

    /// Reads the text. Any other than ours and Kafka's own form is malformed; a start then goes on without an epoch.
    ///
    /// # Errors
    /// When the one line is not what it should be.
    pub fn decode(bytes: &[u8]) -> Result<CleanShutdown, MalformedLine> {
        let expected = "{\"version\":0,\"brokerEpoch\":<number>}";
        let (_, text) = lines_of(bytes)?.next().unwrap_or((1, ""));
        let compact: String = text.chars().filter(|c| !c.is_ascii_whitespace()).collect();
        let fields = compact.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
        let epoch = fields
            .into_iter()
            .flat_map(|fields| fields.split(','))
            .find_map(|field| field.strip_prefix("\"brokerEpoch\":").and_then(|number| number.parse().ok()));
        match epoch {
            Some(broker_epoch) => Ok(CleanShutdown { broker_epoch }),
            None => Err(MalformedLine::new(1, expected, text)),
        }
    }
}

#[cfg(test)]
mod tests;
