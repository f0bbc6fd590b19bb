//! Directories of partitions that no topic has any more: a crash came between the decision to delete a topic and the
//! renaming of its directories, or one of them stood in the way of another topic. The cluster's metadata knows better than
//! the directory.

use std::io;
use std::path::{Path, PathBuf};

use ouzel_model::{PartitionIndex, TopicId, TopicIdPartition, TopicName, TopicPartition};
use ouzel_runtime::Runtime;

use crate::checkpoint::PartitionMetadata;
use crate::layout;

/// Removes the directories in `data_dir` whose `partition.metadata` names a partition that is not `wanted`, those of them
/// that were set aside as well, and what earlier deletions left behind. Gives the paths that are gone. To be called at a
/// start, before any log is opened.
///
/// A directory that does not say whose it is stays: opening a log under its name finds out. So does one whose name is no
/// partition's. Of those that were set aside and stay it is told: they take up room, and nobody reads them.
///
/// # Errors
/// When the data directory cannot be listed. What cannot be read or removed stays, with a warning.
pub async fn remove_strays(
    runtime: &Runtime,
    data_dir: &Path,
    wanted: impl Fn(&TopicIdPartition) -> bool,
) -> io::Result<Vec<PathBuf>> {
    let disk = &runtime.disk;
    let mut gone = Vec::new();
    for entry in disk.list_dir(data_dir).await?.into_iter().filter(|entry| entry.is_dir) {
        let path = data_dir.join(&entry.name);
        let path = if layout::is_deleted_dir(&entry.name) {
            path
        } else {
            let stray = layout::name_before_stray(&entry.name);
            let of = async {
                let partition = partition_of(stray.unwrap_or(&entry.name))?.partition;
                Some(TopicIdPartition { topic_id: topic_of(runtime, &path).await?, partition })
            };
            let Some(of) = of.await.filter(|of| !wanted(of)) else {
                if stray.is_some() {
                    tracing::warn!(dir = %path.display(), "a directory that was set aside is kept, for no topic is known to have had it; remove it if nobody misses it");
                }
                continue;
            };
            tracing::warn!(dir = %path.display(), topic_id = %of.topic_id, "no topic has this partition; removing its directory");
            match out_of_the_way(runtime, &path).await {
                Ok(aside) => aside,
                Err(error) => {
                    tracing::warn!(dir = %path.display(), %error, "a directory without a topic stays");
                    continue;
                }
            }
        };
        match disk.remove_dir_all(&path).await {
            Ok(()) => gone.push(data_dir.join(&entry.name)),
            Err(error) => {
                tracing::warn!(dir = %path.display(), %error, "a deleted partition's directory stays until the next start");
            }
        }
    }
    if !gone.is_empty() {
        disk.sync_dir(data_dir).await?;
    }
    Ok(gone)
}

/// Removes the directory of a partition that is not open, if it is there and says that it is that topic's. Gives whether
/// it did.
///
/// # Errors
/// When it cannot be removed; the next start tries again.
pub async fn remove_closed(runtime: &Runtime, dir: &Path, topic_id: TopicId) -> io::Result<bool> {
    if topic_of(runtime, dir).await != Some(topic_id) {
        return Ok(false);
    }
    let aside = out_of_the_way(runtime, dir).await?;
    runtime.disk.remove_dir_all(&aside).await?;
    runtime.disk.sync_dir(dir.parent().unwrap_or(Path::new("/"))).await?;
    Ok(true)
}

/// Whose a partition's directory says it is.
async fn topic_of(runtime: &Runtime, dir: &Path) -> Option<TopicId> {
    let bytes = runtime.disk.read(&dir.join(layout::PARTITION_METADATA)).await.ok()?;
    PartitionMetadata::decode(&bytes).ok().map(|metadata| metadata.topic_id)
}

/// A crash while a directory is removed must not leave half a log under its name.
async fn out_of_the_way(runtime: &Runtime, dir: &Path) -> io::Result<PathBuf> {
    let aside = layout::deleted_dir(dir, runtime.entropy.uuid());
    runtime.disk.rename(dir, &aside).await?;
    Ok(aside)
}

/// Reads a directory's name as `<topic>-<partition>`.
fn partition_of(name: &str) -> Option<TopicPartition> {
    let (topic, index) = name.rsplit_once('-')?;
    let index: i32 = index.parse().ok().filter(|_| index.bytes().all(|digit| digit.is_ascii_digit()))?;
    Some(TopicPartition { topic: TopicName::new(topic).ok()?, partition: PartitionIndex(index) })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use ouzel_runtime::sim;

    use super::*;

    #[test]
    fn only_directories_of_unwanted_partitions_go() {
        sim::run(1, |node| async move {
            let (runtime, data) = (node.runtime(), node.data_dir());
            let kept = TopicId([1; 16]);
            let cases = [
                ("t-0", Some(PartitionMetadata { topic_id: kept }.encode()), true),
                ("t-1", Some(PartitionMetadata { topic_id: kept }.encode()), false),
                ("t-2", Some(PartitionMetadata { topic_id: TopicId([2; 16]) }.encode()), false),
                ("u-0", Some("version: 0\ntopic_id: AgI".to_owned()), true),
                ("v-0", None, true),
                ("core-0", None, true),
                ("backup", Some(PartitionMetadata { topic_id: TopicId([2; 16]) }.encode()), true),
                ("w-0.00000000000000000000000000000001-delete", None, false),
                // Set aside: of a topic that was deleted, of nobody who is known, and what only looks like it.
                (
                    "x-0.00000000000000000000000000000002-stray",
                    Some(PartitionMetadata { topic_id: TopicId([2; 16]) }.encode()),
                    false,
                ),
                (
                    "x-0.00000000000000000000000000000003-stray",
                    Some(PartitionMetadata { topic_id: kept }.encode()),
                    true,
                ),
                ("x-0.00000000000000000000000000000004-stray", None, true),
                ("x-0-stray", Some(PartitionMetadata { topic_id: TopicId([2; 16]) }.encode()), true),
            ];
            for (name, metadata, _) in &cases {
                runtime.disk.create_dir_all(&data.join(name)).await.unwrap();
                if let Some(text) = metadata {
                    let path = data.join(name).join(layout::PARTITION_METADATA);
                    runtime.disk.write_atomic(&path, Bytes::from(text.clone())).await.unwrap();
                }
            }
            let wanted = |of: &TopicIdPartition| of.topic_id == kept && of.partition == PartitionIndex(0);
            let gone = remove_strays(&runtime, data, wanted).await.unwrap();
            assert_eq!(gone.len(), 4);
            node.disk().power_cut();
            for (name, _, stays) in cases {
                assert_eq!(node.runtime().disk.exists(&data.join(name)).await.unwrap(), stays, "{name}");
            }
            let names = node.runtime().disk.list_dir(data).await.unwrap();
            assert_eq!(names.len(), 8, "nothing is left aside: {names:?}");
        });
    }

    #[test]
    fn a_closed_directory_goes_only_if_it_is_that_topics() {
        sim::run(1, |node| async move {
            let (runtime, data) = (node.runtime(), node.data_dir());
            let [own, other] = [TopicId([1; 16]), TopicId([2; 16])];
            let dir = data.join("t-0");
            assert!(!remove_closed(&runtime, &dir, own).await.unwrap(), "it is not there");
            runtime.disk.create_dir_all(&dir).await.unwrap();
            let text = PartitionMetadata { topic_id: own }.encode();
            runtime
                .disk
                .write_atomic(&dir.join(layout::PARTITION_METADATA), Bytes::from(text))
                .await
                .unwrap();
            assert!(!remove_closed(&runtime, &dir, other).await.unwrap());
            assert!(runtime.disk.exists(&dir).await.unwrap());
            assert!(remove_closed(&runtime, &dir, own).await.unwrap());
            node.disk().power_cut();
            assert!(node.runtime().disk.list_dir(data).await.unwrap().is_empty());
        });
    }
}
