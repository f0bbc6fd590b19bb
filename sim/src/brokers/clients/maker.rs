//! Makes topics and deletes them while faults happen, and looks in the end what there is.

use std::time::Duration;

use ouzel_client::{ClientError, NewTopic, Topics};
use ouzel_protocol::ErrorCode;
use ouzel_runtime::Runtime;
use ouzel_runtime::cores::CoreResult;
use ouzel_runtime::sim::{Rng, SimRuntime};

use super::super::shared::{Phase, Shared, Topic};
use super::wire::Wire;
use crate::check::verdict::{Kind, Violation};

const WHO: &str = "maker";
/// Topics that are there at once, at most.
const TOPICS_MAX: usize = 3;

/// Makes and deletes topics until the load is over.
pub(in super::super) async fn make_topics(
    node: SimRuntime,
    bootstrap: String,
    replication_factor: i16,
    shared: Shared,
) -> CoreResult {
    let runtime = node.runtime();
    let mut rng = Rng::new(node.seed()).fork(0x70b1);
    let mut wire = Wire::new(&runtime, &bootstrap);
    let mut made: Vec<(String, i32)> = Vec::new();
    let mut next = 0;
    while shared.phase() == Phase::Opening {
        runtime.clock.sleep(Duration::from_millis(20)).await;
    }
    while shared.phase() == Phase::Load {
        if made.is_empty() || (made.len() < TOPICS_MAX && rng.chance(1, 2)) {
            let topic = (format!("made-{next}"), 1 + rng.below(2) as i32);
            next += 1;
            make(&mut wire, &topic, replication_factor, &runtime, &shared).await;
            made.push(topic);
        } else {
            let topic = made.remove(rng.below(made.len() as u64) as usize);
            delete(&mut wire, &topic, &runtime, &shared).await;
        }
        let pause = rng.below(800);
        runtime.clock.sleep(Duration::from_millis(pause)).await;
    }
    Ok(())
}

/// Asks until there is an answer, or the load is over.
async fn make(
    wire: &mut Wire,
    (name, partitions): &(String, i32),
    replication_factor: i16,
    runtime: &Runtime,
    shared: &Shared,
) {
    let topic = NewTopic {
        name: name.clone(),
        partitions: Some(*partitions),
        replication_factor: Some(replication_factor),
        configs: Default::default(),
    };
    while shared.phase() == Phase::Load {
        shared.set_topic(name, Topic::Unknown);
        let answer = wire.client().create_topic(&topic, false).await;
        shared.note(runtime, WHO, format_args!("makes {name}: {:?}", answer.as_ref().map(|_| ())));
        match answer {
            Ok(_) => return shared.set_topic(name, Topic::Made { partitions: *partitions }),
            // An attempt before has done it: ours, or one of the broker that asked its controller again.
            Err(error) if error.code() == Some(ErrorCode::TopicAlreadyExists) => {
                return shared.set_topic(name, Topic::Made { partitions: *partitions });
            }
            Err(error) => wire.failed(&error),
        }
        runtime.clock.sleep(Duration::from_millis(100)).await;
    }
}

/// As [`make`].
async fn delete(wire: &mut Wire, (name, _): &(String, i32), runtime: &Runtime, shared: &Shared) {
    while shared.phase() == Phase::Load {
        shared.set_topic(name, Topic::Unknown);
        let answer = wire.client().delete_topic(name).await;
        shared.note(runtime, WHO, format_args!("deletes {name}: {answer:?}"));
        match answer {
            Ok(()) => return shared.set_topic(name, Topic::Deleted),
            Err(error) if error.code() == Some(ErrorCode::UnknownTopicOrPartition) => {
                return shared.set_topic(name, Topic::Deleted);
            }
            Err(error) => wire.failed(&error),
        }
        runtime.clock.sleep(Duration::from_millis(100)).await;
    }
}

/// Whether what is there is what was asked for: `None` while it is not, or nobody answers.
pub(super) async fn is_as_asked(wire: &mut Wire, shared: &Shared) -> Result<(), Violation> {
    let unanswered =
        |error: ClientError| Violation { kind: Kind::NoProgress, facts: format!("the topics: {error}") };
    let found = wire.client().metadata(Topics::All).await;
    let found = match found {
        Ok(found) => found,
        Err(error) => {
            wire.failed(&error);
            return Err(unanswered(error));
        }
    };
    for (name, topic) in shared.topics() {
        let there = found.topics.get(&name);
        match (topic, there) {
            (Topic::Made { .. }, None) => return Err(lost(&name, "it is not there")),
            (Topic::Made { partitions }, Some(there)) => {
                if there.partitions.len() != partitions as usize {
                    return Err(lost(&name, "it has other partitions"));
                }
                if there.partitions.values().any(|partition| partition.leader < 0) {
                    let facts = format!("topic {name} has a partition without a leader");
                    return Err(Violation { kind: Kind::NoProgress, facts });
                }
            }
            (Topic::Deleted, Some(_)) => {
                return Err(Violation { kind: Kind::TopicCameBack, facts: format!("topic {name} is there") });
            }
            (Topic::Deleted, None) | (Topic::Unknown, _) => {}
        }
    }
    Ok(())
}

fn lost(name: &str, how: &str) -> Violation {
    Violation { kind: Kind::LostTopic, facts: format!("topic {name} was made: {how}") }
}
