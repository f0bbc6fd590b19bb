//! One file for each partition, and in memory where each batch begins.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use ouzel_bench::batch::{self, Header};

/// One partition's log.
#[derive(Debug)]
pub(crate) struct Log {
    pub(crate) file: Arc<File>,
    /// Base offset and position of each batch, ascending.
    batches: Vec<(i64, u64)>,
    pub(crate) end_offset: i64,
    end: u64,
}

/// A stretch of whole batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slice {
    pub(crate) at: u64,
    pub(crate) bytes: usize,
}

impl Log {
    fn create(path: &Path) -> io::Result<Log> {
        let file = File::options().read(true).write(true).create_new(true).open(path)?;
        Ok(Log { file: Arc::new(file), batches: Vec::new(), end_offset: 0, end: 0 })
    }

    /// Checks the batch, gives it its offset and writes it to the page cache; its base offset.
    pub(crate) fn append(&mut self, bytes: &mut [u8]) -> io::Result<i64> {
        let Header { offsets, .. } = batch::check(bytes)?;
        let base_offset = self.end_offset;
        // Before what the CRC counts.
        bytes[..8].copy_from_slice(&base_offset.to_be_bytes());
        self.file.write_all_at(bytes, self.end)?;
        self.batches.push((base_offset, self.end));
        self.end += bytes.len() as u64;
        self.end_offset += offsets;
        Ok(base_offset)
    }

    /// Batches from the one that holds `offset` on: at most `bytes_max`, but at least one. None at the end or beyond.
    pub(crate) fn read(&self, offset: i64, bytes_max: usize) -> Option<Slice> {
        if offset < 0 || offset >= self.end_offset {
            return None;
        }
        let first = self.batches.partition_point(|(base, _)| *base <= offset) - 1;
        let at = self.batches[first].1;
        let position = |index: usize| self.batches.get(index).map_or(self.end, |(_, position)| *position);
        let behind = self.batches.partition_point(|(_, position)| *position <= at + bytes_max as u64);
        // `behind` is the first batch that begins beyond the limit; the one before it may end beyond it too.
        let mut stop = behind;
        if position(stop) > at + bytes_max as u64 {
            stop -= 1;
        }
        Some(Slice { at, bytes: (position(stop.max(first + 1)) - at) as usize })
    }
}

/// All partitions of the one topic.
#[derive(Debug)]
pub(crate) struct Logs {
    pub(crate) logs: Vec<Log>,
}

impl Logs {
    /// Makes empty logs in a folder, which is made if it is not there.
    pub(crate) fn create(folder: &Path, partitions: usize) -> io::Result<Logs> {
        fs::create_dir_all(folder)?;
        let logs = (0..partitions)
            .map(|partition| Log::create(&folder.join(format!("{partition}.log"))))
            .collect::<io::Result<Vec<Log>>>()?;
        Ok(Logs { logs })
    }

    pub(crate) fn get(&mut self, partition: i32) -> Option<&mut Log> {
        self.logs.get_mut(usize::try_from(partition).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ouzel_bench::batch::{Shape, build};

    #[test]
    fn reads_are_whole_batches_within_the_limit_but_at_least_one() {
        let folder = std::env::temp_dir().join(format!("ouzel-null-log-{}", std::process::id()));
        let mut logs = Logs::create(&folder, 1).unwrap();
        let log = logs.get(0).unwrap();
        let shape = Shape { records: 2, value_bytes: 50, keyed: false };
        let length = build(shape, 1, 0).len();
        for base in [0, 2, 4] {
            assert_eq!(log.append(&mut build(shape, 1, 0)).unwrap(), base);
        }
        let slice = |batch: usize, batches: usize| {
            Some(Slice { at: (batch * length) as u64, bytes: batches * length })
        };
        assert_eq!(log.read(0, 1), slice(0, 1));
        assert_eq!(log.read(1, length), slice(0, 1));
        assert_eq!(log.read(2, 2 * length - 1), slice(1, 1));
        assert_eq!(log.read(2, 2 * length), slice(1, 2));
        assert_eq!(log.read(0, usize::MAX >> 8), slice(0, 3));
        assert_eq!(log.read(5, 1 << 20), slice(2, 1));
        assert_eq!(log.read(6, 1 << 20), None);
        let mut broken = build(shape, 1, 0);
        broken[70] ^= 1;
        assert!(log.append(&mut broken).is_err());
        assert_eq!(log.end_offset, 6);
        fs::remove_dir_all(&folder).unwrap();
    }
}
