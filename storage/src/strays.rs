//! Directories of partitions that no topic has any more: a crash came between the decision to delete a topic and the
//! renaming of its directories. The cluster's metadata knows better than the directory.

use std::io;
use std::path::{Path, PathBuf};

use ouzel_model::{PartitionIndex, TopicIdPartition, TopicName, TopicPartition};
use ouzel_runtime::Runtime;

use crate::checkpoint::PartitionMetadata;
use crate::layout;

/// Removes the directories in `data_dir` whose `partition.metadata` names a partition that is not `wanted`, and what
/// earlier deletions left behind. Gives the paths that are gone. To be called at a start, before any log is opened.
///
/// A directory that does not say whose it is stays: opening a log under its name finds out. So does one whose name is no
/// partition's.
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
            let Some(of) = partition_of(&entry.name) else { continue };
            let Ok(bytes) = disk.read(&path.join(layout::PARTITION_METADATA)).await else { continue };
            let Ok(PartitionMetadata { topic_id }) = PartitionMetadata::decode(&bytes) else { continue };
            if wanted(&TopicIdPartition { topic_id, partition: of.partition }) {
                continue;
            }
            tracing::warn!(dir = %path.display(), %topic_id, "no topic has this partition; removing its directory");
            // Out of the way first: a crash while it is removed must not leave half a log under its name.
            let aside = layout::deleted_dir(&path, runtime.entropy.uuid());
            match disk.rename(&path, &aside).await {
                Ok(()) => aside,
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

/// Reads a directory's name as `<topic>-<partition>`.
fn partition_of(name: &str) -> Option<TopicPartition> {
    let (topic, index) = name.rsplit_once('-')?;
    let index: i32 = index.parse().ok().filter(|_| index.bytes().all(|digit| digit.is_ascii_digit()))?;
    Some(TopicPartition { topic: TopicName::new(topic).ok()?, partition: PartitionIndex(index) })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use ouzel_model::TopicId;
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
            assert_eq!(gone.len(), 3);
            node.disk().power_cut();
            for (name, _, stays) in cases {
                assert_eq!(node.runtime().disk.exists(&data.join(name)).await.unwrap(), stays, "{name}");
            }
            let names = node.runtime().disk.list_dir(data).await.unwrap();
            assert_eq!(names.len(), 5, "nothing is left aside: {names:?}");
        });
    }
}
