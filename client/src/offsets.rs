//! Looks offsets up: by their end of the log, or by time.

use std::collections::BTreeMap;
use std::time::Duration;

use ouzel_model::{LeaderEpoch, Offset, TimestampMs};
use ouzel_protocol::StrBytes;
use ouzel_protocol::messages::kafka::ListOffsetsRequest;
use ouzel_protocol::messages::kafka::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};

use crate::client::{Client, OnLeader};
use crate::connection::Connection;
use crate::error::ClientError;

/// Which offset is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OffsetSpec {
    /// The first one of the log.
    Earliest,
    /// The end: the high watermark.
    Latest,
    /// The end for who reads committed records alone: the last stable offset. All of one request, or none.
    LastStable,
    /// The one of the record with the largest timestamp.
    MaxTimestamp,
    /// The first one whose record is not older.
    AtOrAfter(TimestampMs),
}

impl OffsetSpec {
    /// How the request says it, and the first version that can.
    fn on_the_wire(self) -> (i64, i16) {
        match self {
            OffsetSpec::Latest => (-1, 1),
            OffsetSpec::LastStable => (-1, 2),
            OffsetSpec::Earliest => (-2, 1),
            OffsetSpec::MaxTimestamp => (-3, 7),
            OffsetSpec::AtOrAfter(at) => (at.value().max(0), 1),
        }
    }
}

/// An offset that was looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FoundOffset {
    /// The offset; `None` if no record is that new.
    pub offset: Option<Offset>,
    /// The record's time, where it was looked up by time; else `NONE`.
    pub timestamp: TimestampMs,
    /// The epoch of the record's leader; `NONE` if not told.
    pub leader_epoch: LeaderEpoch,
}

impl Client {
    /// Looks up one offset in each of the given partitions; a partition may be named once (twice is
    /// `INVALID_REQUEST`).
    ///
    /// # Errors
    /// The first partition's error that lasts.
    pub async fn list_offsets(
        &self,
        wanted: &[(String, i32, OffsetSpec)],
    ) -> Result<BTreeMap<(String, i32), FoundOffset>, ClientError> {
        self.retrying(async || {
            let found = self.try_list_offsets(wanted).await;
            if found.as_ref().is_err_and(ClientError::is_retriable) {
                wanted.iter().for_each(|(topic, ..)| self.forget_topic(topic));
            }
            found
        })
        .await
    }

    async fn try_list_offsets(
        &self,
        wanted: &[(String, i32, OffsetSpec)],
    ) -> Result<BTreeMap<(String, i32), FoundOffset>, ClientError> {
        let mut found = BTreeMap::new();
        for (connection, partitions) in self.by_leader(wanted.iter().cloned()).await? {
            found.extend(ask(&connection, partitions).await?);
        }
        for (topic, partition, _) in wanted {
            if !found.contains_key(&(topic.clone(), *partition)) {
                return Err(ClientError::Missing {
                    what: format!("look up an offset of {topic}-{partition}"),
                });
            }
        }
        Ok(found)
    }
}

async fn ask(
    connection: &Connection,
    partitions: Vec<OnLeader<OffsetSpec>>,
) -> Result<Vec<((String, i32), FoundOffset)>, ClientError> {
    let stable = partitions.iter().any(|partition| partition.value == OffsetSpec::LastStable);
    let mut topics: BTreeMap<String, Vec<ListOffsetsPartition>> = BTreeMap::new();
    for OnLeader { topic, partition, leader, value } in partitions {
        let wanted = ListOffsetsPartition::default()
            .with_partition_index(partition)
            .with_current_leader_epoch(leader.leader_epoch)
            .with_timestamp(value.on_the_wire().0);
        topics.entry(topic).or_default().push(wanted);
    }
    let topics = topics.into_iter().map(|(name, partitions)| {
        ListOffsetsTopic::default().with_name(StrBytes::from_string(name).into()).with_partitions(partitions)
    });
    let request = ListOffsetsRequest::default()
        .with_replica_id((-1).into())
        .with_isolation_level(i8::from(stable))
        .with_topics(topics.collect());
    let response = connection.call_within(request, i16::MAX, Duration::ZERO).await?;
    let mut found = Vec::new();
    for topic in response.topics {
        for partition in topic.partitions {
            let (name, index) = (topic.name.to_string(), partition.partition_index);
            ClientError::check(partition.error_code, None, || {
                format!("look up an offset of {name}-{index}")
            })?;
            let one = FoundOffset {
                offset: (partition.offset >= 0).then_some(Offset(partition.offset)),
                timestamp: TimestampMs(partition.timestamp),
                leader_epoch: LeaderEpoch(partition.leader_epoch),
            };
            found.push(((name, index), one));
        }
    }
    Ok(found)
}
