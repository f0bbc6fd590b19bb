//! DescribeLogDirs (KIP-113): how much each partition takes on this node's disk. There is one directory.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use ouzel_model::TopicName;
use ouzel_protocol::ErrorCode;
use ouzel_protocol::messages::kafka::describe_log_dirs_response::{
    DescribeLogDirsPartition, DescribeLogDirsResult, DescribeLogDirsTopic,
};
use ouzel_protocol::messages::kafka::{DescribeLogDirsRequest, DescribeLogDirsResponse};

use super::wire::{text, topic_name};
use crate::core::Core;

/// Answers from all cores of this node; what is asked for and not here is not told.
pub(crate) async fn describe(core: &Rc<Core>, request: DescribeLogDirsRequest) -> DescribeLogDirsResponse {
    let named: Option<BTreeMap<String, BTreeSet<i32>>> = request.topics.map(|topics| {
        let named = topics
            .into_iter()
            .map(|topic| (topic.topic.as_str().to_owned(), topic.partitions.into_iter().collect()));
        named.collect()
    });
    let mut topics: BTreeMap<TopicName, Vec<DescribeLogDirsPartition>> = BTreeMap::new();
    for to in core.cores.ids() {
        let held = core.call(to, |core| {
            let partitions = core.partitions.all();
            let sizes = partitions
                .iter()
                .map(|partition| (partition.topic_partition().clone(), partition.log_handle().size_bytes()));
            std::future::ready(sizes.collect::<Vec<_>>())
        });
        let Ok(held) = held.await else {
            return DescribeLogDirsResponse::default().with_error_code(ErrorCode::KafkaStorageError.code());
        };
        for (at, size_bytes) in held {
            let index = at.partition.0;
            let is_asked = |named: &BTreeMap<String, BTreeSet<i32>>| {
                named.get(at.topic.as_str()).is_some_and(|indexes| indexes.contains(&index))
            };
            if named.as_ref().is_none_or(is_asked) {
                let partition = DescribeLogDirsPartition::default()
                    .with_partition_index(index)
                    .with_partition_size(i64::try_from(size_bytes).unwrap_or(i64::MAX));
                topics.entry(at.topic).or_default().push(partition);
            }
        }
    }
    let topics = topics.into_iter().map(|(name, mut partitions)| {
        partitions.sort_by_key(|partition| partition.partition_index);
        DescribeLogDirsTopic::default().with_name(topic_name(&name)).with_partitions(partitions)
    });
    let directory = &core.node.config.data_dir;
    let free = core.runtime.disk.free_bytes(directory).await.ok();
    let directory = DescribeLogDirsResult::default()
        .with_log_dir(text(&directory.display().to_string()))
        .with_topics(topics.collect())
        .with_usable_bytes(free.and_then(|bytes| i64::try_from(bytes).ok()).unwrap_or(-1));
    DescribeLogDirsResponse::default().with_results(vec![directory])
}
