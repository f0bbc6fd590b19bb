//! Makes topics, gives them more partitions and other settings, and deletes them while faults happen, and looks in the end
//! what there is.

use std::collections::BTreeSet;
use std::time::Duration;

use ouzel_client::{Client, ClientError, ConfigChange, ConfigResource, NewTopic, Topics};
use ouzel_protocol::messages::kafka::CreatePartitionsRequest;
use ouzel_protocol::messages::kafka::create_partitions_request::CreatePartitionsTopic;
use ouzel_protocol::{ErrorCode, StrBytes};
use ouzel_runtime::Runtime;
use ouzel_runtime::cores::CoreResult;
use ouzel_runtime::sim::{Rng, SimRuntime};

use super::super::shared::{Phase, Shared, Topic};
use super::wire::{Wire, judge_error};
use crate::check::verdict::{Kind, Violation};

const WHO: &str = "maker";
/// Topics that are there at once, at most.
const TOPICS_MAX: usize = 3;

/// The setting that is changed, and what topics are made with.
const SETTING: &str = "max.message.bytes";
const SETTING_AT_FIRST: &str = "1048588";
/// Partitions of a topic, at most.
const PARTITIONS_MAX: i32 = 4;

/// Makes, changes and deletes topics until the load is over.
pub(in super::super) async fn make_topics(
    node: SimRuntime,
    bootstrap: String,
    replication_factor: i16,
    shared: Shared,
) -> CoreResult {
    let runtime = node.runtime();
    let mut rng = Rng::new(node.seed()).fork(0x70b1);
    let wire = Wire::new(&runtime, &bootstrap);
    let mut maker = Maker { runtime, wire, replication_factor, shared, may_come_late: BTreeSet::new() };
    let mut made: Vec<String> = Vec::new();
    let mut next = 0;
    while maker.shared.phase() == Phase::Opening {
        maker.runtime.clock.sleep(Duration::from_millis(20)).await;
    }
    while maker.shared.phase() == Phase::Load {
        let which = rng.below(made.len().max(1) as u64) as usize;
        if made.is_empty() || (made.len() < TOPICS_MAX && rng.chance(1, 3)) {
            let name = format!("made-{next}");
            next += 1;
            maker.make(&name, 1 + rng.below(2) as i32).await;
            made.push(name);
        } else {
            match rng.below(4) {
                0 => maker.grow(&made[which]).await,
                1 => maker.reconfigure(&made[which], 100_000 + rng.below(900_000)).await,
                _ => maker.delete(&made.remove(which)).await,
            }
        }
        let pause = rng.below(800);
        maker.runtime.clock.sleep(Duration::from_millis(pause)).await;
    }
    Ok(())
}

struct Maker {
    runtime: Runtime,
    wire: Wire,
    replication_factor: i16,
    shared: Shared,
    /// Topics that somebody was asked to make and did not answer: a broker that goes on with that may do it late, after the topic was
    /// made by another attempt and deleted.
    may_come_late: BTreeSet<String>,
}

/// What came of asking until there is an answer.
struct Insisted {
    is_done: bool,
    /// How many attempts before had none.
    unanswered: u32,
}

impl Maker {
    /// Asks until there is an answer, or the load is over. `done` is what says that an attempt before has done it: ours, or
    /// one of the broker that asked its controller again.
    async fn insist<T>(
        &mut self,
        what: &str,
        done: ErrorCode,
        mut ask: impl AsyncFnMut(&Client) -> Result<T, ClientError>,
    ) -> Insisted {
        let mut unanswered = 0;
        while self.shared.phase() == Phase::Load {
            let answer = ask(self.wire.client()).await.map(|_| ());
            self.shared.note(&self.runtime, WHO, format_args!("{what}: {answer:?}"));
            match answer {
                Ok(()) => return Insisted { is_done: true, unanswered },
                Err(error) if error.code() == Some(done) => return Insisted { is_done: true, unanswered },
                Err(error) => {
                    let is_open = error.code().is_none_or(|code| code == ErrorCode::RequestTimedOut);
                    unanswered += u32::from(is_open);
                    // Of three brokers one may be away, and a topic may not be known to all yet.
                    let expected = [ErrorCode::InvalidReplicationFactor, ErrorCode::UnknownTopicOrPartition];
                    judge_error(&self.shared, WHO, &error, &expected);
                    self.wire.failed(&error);
                }
            }
            self.runtime.clock.sleep(Duration::from_millis(100)).await;
        }
        Insisted { is_done: false, unanswered }
    }

    async fn make(&mut self, name: &str, partitions: i32) {
        let topic = NewTopic {
            name: name.to_owned(),
            partitions: Some(partitions),
            replication_factor: Some(self.replication_factor),
            configs: [(SETTING.to_owned(), SETTING_AT_FIRST.to_owned())].into(),
        };
        self.shared.set_topic(name, Topic::Unknown);
        let ask = async |client: &Client| client.create_topic(&topic, false).await;
        let made = self.insist(&format!("makes {name}"), ErrorCode::TopicAlreadyExists, ask).await;
        if made.unanswered > 0 {
            self.may_come_late.insert(name.to_owned());
        }
        if made.is_done {
            let batch_bytes_max = [SETTING_AT_FIRST.to_owned()].into();
            self.shared
                .set_topic(name, Topic::Made { partitions: (partitions, partitions), batch_bytes_max });
            self.shared.events().add("topics-made", 1);
        }
    }

    async fn delete(&mut self, name: &str) {
        self.shared.set_topic(name, Topic::Unknown);
        let ask = async |client: &Client| client.delete_topic(name).await;
        let deleted = self.insist(&format!("deletes {name}"), ErrorCode::UnknownTopicOrPartition, ask).await;
        if deleted.is_done {
            if !self.may_come_late.contains(name) {
                self.shared.set_topic(name, Topic::Deleted);
            }
            self.shared.events().add("topics-deleted", 1);
        }
    }

    async fn grow(&mut self, name: &str) {
        let Some(Topic::Made { partitions: (now, _), batch_bytes_max }) = self.shared.topics().remove(name)
        else {
            return;
        };
        if now >= PARTITIONS_MAX {
            return;
        }
        let made = |partitions| Topic::Made { partitions, batch_bytes_max: batch_bytes_max.clone() };
        self.shared.set_topic(name, made((now, now + 1)));
        let ask = async |client: &Client| add_partitions(client, name, now + 1).await;
        // It has as many already.
        if self.insist(&format!("grows {name}"), ErrorCode::InvalidPartitions, ask).await.is_done {
            self.shared.set_topic(name, made((now + 1, now + 1)));
            self.shared.events().add("topics-grown", 1);
        }
    }

    async fn reconfigure(&mut self, name: &str, value: u64) {
        let Some(Topic::Made { partitions, mut batch_bytes_max }) = self.shared.topics().remove(name) else {
            return;
        };
        batch_bytes_max.insert(value.to_string());
        self.shared.set_topic(name, Topic::Made { partitions, batch_bytes_max });
        let changes = [(SETTING.to_owned(), ConfigChange::Set(value.to_string()))].into();
        let resource = ConfigResource::Topic(name.to_owned());
        let ask = async |client: &Client| client.alter_configs(&resource, &changes, false).await;
        if self.insist(&format!("reconfigures {name}"), ErrorCode::None, ask).await.is_done {
            let batch_bytes_max = [value.to_string()].into();
            self.shared.set_topic(name, Topic::Made { partitions, batch_bytes_max });
            self.shared.events().add("topics-reconfigured", 1);
        }
    }
}

async fn add_partitions(client: &Client, name: &str, count: i32) -> Result<(), ClientError> {
    let topic = CreatePartitionsTopic::default()
        .with_name(StrBytes::from_string(name.to_owned()).into())
        .with_count(count)
        .with_assignments(None);
    let request = CreatePartitionsRequest::default().with_topics(vec![topic]).with_timeout_ms(1000);
    let response = client.controller().await?.call(request).await?;
    let what = || format!("add partitions to {name}");
    let result = { response.results }.pop().ok_or_else(|| ClientError::Missing { what: what() })?;
    ClientError::check(result.error_code, result.error_message.as_deref(), what)
}

/// Whether what is there is what was asked for.
pub(super) async fn is_as_asked(wire: &mut Wire, shared: &Shared) -> Result<(), Violation> {
    let unanswered =
        |error: ClientError| Violation { kind: Kind::NoProgress, facts: format!("the topics: {error}") };
    let found = match wire.client().metadata(Topics::All).await {
        Ok(found) => found,
        Err(error) => {
            wire.failed(&error);
            return Err(unanswered(error));
        }
    };
    for (name, topic) in shared.topics() {
        let there = found.topics.get(&name);
        let mut setting = None;
        if matches!(topic, Topic::Made { .. }) && there.is_some() {
            let configs = wire.client().describe_configs(&ConfigResource::Topic(name.clone()), false).await;
            let configs = configs.inspect_err(|error| wire.failed(error)).map_err(unanswered)?;
            let found = configs.into_iter().find(|config| config.name.as_str() == SETTING);
            setting = found.and_then(|config| config.value).map(|value| value.to_string());
        }
        judge(&name, &topic, there, setting.as_deref())?;
    }
    Ok(())
}

/// Judges one topic by what is there of it, and how it is set.
fn judge(
    name: &str,
    asked: &Topic,
    there: Option<&ouzel_client::Topic>,
    setting: Option<&str>,
) -> Result<(), Violation> {
    let broken = |kind, how: &str| Err(Violation { kind, facts: format!("topic {name} {how}") });
    match (asked, there) {
        (Topic::Made { .. }, None) => broken(Kind::LostTopic, "was made and is not there"),
        (Topic::Made { partitions: (least, most), batch_bytes_max }, Some(there)) => {
            let count = there.partitions.len() as i32;
            if !(*least..=*most).contains(&count) {
                return broken(Kind::LostTopic, &format!("has {count} partitions of {least} to {most}"));
            }
            if !setting.is_some_and(|value| batch_bytes_max.contains(value)) {
                let facts = format!("has {SETTING} at {setting:?}, and {batch_bytes_max:?} was asked for");
                return broken(Kind::LostTopic, &facts);
            }
            if there.partitions.values().any(|partition| partition.leader < 0) {
                return broken(Kind::NoProgress, "has a partition without a leader");
            }
            Ok(())
        }
        (Topic::Deleted, Some(_)) => broken(Kind::TopicCameBack, "was deleted and is there"),
        (Topic::Deleted, None) | (Topic::Unknown, _) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use ouzel_client::Partition;

    use super::*;

    fn there(leaders: &[i32]) -> ouzel_client::Topic {
        let partition = |leader: i32| Partition {
            error_code: 0,
            leader,
            leader_epoch: 1,
            replicas: vec![1],
            in_sync: vec![1],
            offline: Vec::new(),
        };
        let partitions = (0..).zip(leaders.iter().map(|leader| partition(*leader))).collect();
        ouzel_client::Topic { partitions, ..ouzel_client::Topic::default() }
    }

    #[test]
    fn a_topic_that_is_lost_comes_back_or_does_not_serve_is_named() {
        let made = Topic::Made { partitions: (1, 2), batch_bytes_max: ["7".to_owned()].into() };
        let kind = |asked: &Topic, there: Option<&ouzel_client::Topic>, setting| {
            judge("made-1", asked, there, setting).err().map(|violation| violation.kind)
        };
        assert_eq!(kind(&made, Some(&there(&[1])), Some("7")), None);
        assert_eq!(kind(&made, Some(&there(&[1, 2])), Some("7")), None);
        assert_eq!(kind(&made, None, None), Some(Kind::LostTopic));
        assert_eq!(kind(&made, Some(&there(&[1, 2, 3])), Some("7")), Some(Kind::LostTopic));
        assert_eq!(kind(&made, Some(&there(&[1])), Some("8")), Some(Kind::LostTopic));
        assert_eq!(kind(&made, Some(&there(&[1, -1])), Some("7")), Some(Kind::NoProgress));
        assert_eq!(kind(&Topic::Deleted, Some(&there(&[1])), None), Some(Kind::TopicCameBack));
        assert_eq!(kind(&Topic::Deleted, None, None), None);
        assert_eq!(kind(&Topic::Unknown, Some(&there(&[1])), None), None);
        assert_eq!(kind(&Topic::Unknown, None, None), None);
    }
}
