//! kafka-dump-log over the stopped brokers' data directories: every file that is Kafka's must read as Kafka's.

use std::fs;
use std::path::{Path, PathBuf};

use super::compaction::STEM;
use super::stage::Stage;

const DUMP: &str = "org.apache.kafka.tools.DumpLogSegments";

/// Words by which the tool complains. It ends with status 0 all the same.
const COMPLAINTS: &[&str] =
    &["Mismatches in", "mismatch", "isvalid: false", "out of order", "Exception", "corrupt"];

/// What of the data directory is dumped together.
#[derive(Debug, Clone, Copy)]
pub(super) enum Part {
    /// Segments and their indexes of ordinary topics.
    Segments,
    /// The same, and the keys and values, of the offsets topic.
    Offsets,
    /// Producer snapshots.
    Snapshots,
}

impl Part {
    pub(super) const ALL: [Part; 3] = [Part::Segments, Part::Offsets, Part::Snapshots];

    pub(super) fn name(self) -> &'static str {
        match self {
            Part::Segments => "dump-log: segments and indexes",
            Part::Offsets => "dump-log: __consumer_offsets, decoded",
            Part::Snapshots => "dump-log: producer snapshots",
        }
    }

    fn wants(self, path: &Path) -> bool {
        let folder =
            path.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy().into_owned();
        let extension = path.extension().unwrap_or_default().to_string_lossy().into_owned();
        let offsets = folder.starts_with("__consumer_offsets-");
        match self {
            Part::Segments => {
                !folder.starts_with("__") && matches!(extension.as_str(), "log" | "index" | "timeindex")
            }
            Part::Offsets => offsets && matches!(extension.as_str(), "log" | "index" | "timeindex"),
            Part::Snapshots => extension == "snapshot" && !folder.starts_with("__cluster_metadata"),
        }
    }
}

/// Dumps a part of every broker's data directory. The brokers are stopped.
///
/// `groups_were`: members committed offsets in this run, so the offsets topic must hold some.
pub(super) fn check(stage: &Stage<'_>, part: Part, groups_were: bool) -> Result<String, String> {
    let mut files = Vec::new();
    for data in stage.cluster().data_dirs() {
        for folder in listed(&data)?.iter().filter(|path| is_partition(path)) {
            files.extend(listed(folder)?.into_iter().filter(|path| part.wants(path)));
        }
    }
    // An index that was given room and holds nothing yet says nothing either.
    files.retain(|path| {
        path.extension().is_some_and(|e| e == "log" || e == "snapshot") || holds_entries(path)
    });
    if files.is_empty() {
        return Err("no data directory holds such a file".to_owned());
    }
    let mut lines = 0;
    let mut records = 0;
    for some in files.chunks(200) {
        let list = some.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(",");
        let mut arguments = vec!["--deep-iteration", "--files", &list];
        if matches!(part, Part::Offsets) {
            arguments.extend(["--offsets-decoder"]);
        }
        let (status, text) = stage.tool(DUMP, &arguments, "")?;
        if status != 0 {
            return Err(format!("status {status}: {}", tail(&text)));
        }
        if let Some(complaint) = complaint(&text) {
            return Err(format!("the tool complains: {complaint}"));
        }
        lines += text.lines().count();
        records += text.lines().filter(|line| line.starts_with("| offset:")).count();
    }
    let must_hold_records = match part {
        Part::Segments => true,
        Part::Offsets => groups_were,
        Part::Snapshots => false,
    };
    if records == 0 && must_hold_records {
        return Err(format!("{} files without one record", files.len()));
    }
    Ok(format!("{} files, {lines} lines, {records} records", files.len()))
}

/// The first complaint in a dump, with the lines around it.
fn complaint(text: &str) -> Option<String> {
    let mut may_have_gaps = false;
    let mut complains = |line: &str| {
        let line = line.trim_start();
        if let Some(file) = line.strip_prefix("Non-consecutive offsets in ") {
            may_have_gaps = is_compacted(Path::new(file));
        }
        // Under "Non-consecutive offsets in ..." the tool of 4.3 also lists the first offset of every segment but the
        // first, Kafka's own segments too, as following -1.
        let gap =
            line.contains(" is followed by ") && !line.starts_with("-1 is followed by ") && !may_have_gaps;
        gap || COMPLAINTS.iter().any(|word| line.contains(word))
    };
    let place = text.lines().position(&mut complains)?;
    let around: Vec<&str> = text.lines().skip(place.saturating_sub(2)).take(5).collect();
    Some(around.join(" / "))
}

/// Whether a file is of a topic from which compaction has taken records.
fn is_compacted(file: &Path) -> bool {
    let folder = file.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy();
    folder.starts_with(STEM)
}

/// A folder of a partition that is not on its way out.
fn is_partition(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let numbered = name.rsplit_once('-').is_some_and(|(_, number)| number.parse::<u32>().is_ok());
    path.is_dir() && numbered && !name.starts_with("__cluster_metadata")
}

/// Whether an index file has anything but zeroes in it.
fn holds_entries(path: &Path) -> bool {
    fs::read(path).is_ok_and(|bytes| bytes.iter().any(|byte| *byte != 0))
}

fn listed(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let entries = fs::read_dir(folder).map_err(|e| format!("list {}: {e}", folder.display()))?;
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect();
    paths.sort();
    Ok(paths)
}

fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(8)..].join(" / ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complaints_are_told_from_the_tool_s_own_quirk() {
        let good = "Dumping x.log\n| offset: 7 isvalid: true\nNon-consecutive offsets in x.log\n  -1 is followed by 7\n";
        assert_eq!(complaint(good), None);
        assert!(complaint(&good.replace("-1 is", "5 is")).unwrap().contains("5 is followed by 7"));
        assert!(complaint(&good.replace("true", "false")).unwrap().contains("isvalid: false"));
        let compacted = "Non-consecutive offsets in d/compacted-3-0/0.log\n  5 is followed by 7\n";
        assert_eq!(complaint(compacted), None);
        assert!(complaint(&compacted.replace("compacted-3", "flights")).is_some());
        assert!(complaint("Mismatches in :x.index\n  Index offset: 3, log offset: 4\n").is_some());
    }

    #[test]
    fn each_file_is_in_the_part_it_belongs_to() {
        let offsets = Path::new("d/__consumer_offsets-3/0.log");
        let segment = Path::new("d/flights-0/0.timeindex");
        assert!(Part::Offsets.wants(offsets) && !Part::Segments.wants(offsets));
        assert!(Part::Segments.wants(segment) && !Part::Offsets.wants(segment));
        assert!(Part::Snapshots.wants(Path::new("d/flights-0/7.snapshot")));
        assert!(!Part::Segments.wants(Path::new("d/flights-0/partition.metadata")));
    }
}
