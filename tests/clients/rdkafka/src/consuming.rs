//! `read`, `group`, `commit` and `committed`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::{ClientContext, types::RDKafkaErrorCode};
use serde_json::json;

use crate::records::say_record;
use crate::{Failure, Order, Outcome, say};

const PATIENCE: Duration = Duration::from_secs(30);

fn offset_of(offset: Offset) -> i64 {
    match offset {
        Offset::Offset(offset) => offset,
        _ => -1,
    }
}

fn partitions(order: &Order, offset: Offset) -> Result<TopicPartitionList, KafkaError> {
    let mut list = TopicPartitionList::new();
    for partition in 0..order.number("partitions") {
        list.add_partition_offset(order.text("topic"), partition as i32, offset)?;
    }
    Ok(list)
}

pub(crate) fn read(order: &Order) -> Outcome {
    let consumer: BaseConsumer = order
        .config()
        .set("group.id", "unused-by-assigned-readers")
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "error")
        .set("check.crcs", "true")
        .set("fetch.wait.max.ms", "100")
        .create()?;
    let topic = order.text("topic");
    let mut starts = BTreeMap::new();
    let mut ends = BTreeMap::new();
    for partition in 0..order.number("partitions") as i32 {
        let (start, end) = consumer.fetch_watermarks(topic, partition, PATIENCE)?;
        starts.insert(partition, start);
        ends.insert(partition, end);
    }
    match order.text("from") {
        "time" => {
            let asked = partitions(order, Offset::Offset(order.number("timestamp_ms")))?;
            for found in consumer.offsets_for_times(asked, PATIENCE)?.elements() {
                let at = match offset_of(found.offset()) {
                    -1 => ends[&found.partition()],
                    offset => offset,
                };
                starts.insert(found.partition(), at);
            }
        }
        "end" => starts = ends.clone(),
        _ => {}
    }
    let mut list = TopicPartitionList::new();
    for (partition, first) in &starts {
        say(&json!({"t": "range", "p": partition, "first": first, "end": ends[partition]}));
        let from = if order.text("from") == "start" { Offset::Beginning } else { Offset::Offset(*first) };
        list.add_partition_offset(topic, *partition, from)?;
    }
    consumer.assign(&list)?;
    say(&json!({"t": "ready"}));
    let from_end = order.text("from") == "end";
    let mut count = 0;
    let mut behind: BTreeSet<i32> =
        starts.iter().filter(|(p, first)| **first < ends[p]).map(|(p, _)| *p).collect();
    let deadline = Instant::now() + Duration::from_secs(order.number("timeout_s") as u64);
    while if from_end { count < order.number("count") } else { !behind.is_empty() } {
        if Instant::now() > deadline {
            return Err(Failure::Broken(format!(
                "{count} records read, partitions {behind:?} are not at their end"
            )));
        }
        let message = match consumer.poll(Duration::from_millis(200)) {
            None => continue,
            Some(Err(error)) if passes(&error) => {
                say(&json!({"t": "note", "e": error.to_string()}));
                continue;
            }
            Some(message) => message?,
        };
        say_record(&message);
        count += 1;
        if message.offset() + 1 >= ends[&message.partition()] {
            behind.remove(&message.partition());
        }
    }
    Ok(())
}

/// Whether the crate tells of something that librdkafka itself mends: a connection that ended.
fn passes(error: &KafkaError) -> bool {
    matches!(
        error,
        KafkaError::MessageConsumption(
            RDKafkaErrorCode::BrokerTransportFailure | RDKafkaErrorCode::AllBrokersDown
        )
    )
}

/// A member's place in what it was assigned: partition and the offset behind the last record told.
struct Member {
    topic: String,
    following: Mutex<BTreeMap<i32, i64>>,
}

impl Member {
    fn commit(&self, consumer: &BaseConsumer<Member>) {
        let following = self.following.lock().map(|following| following.clone()).unwrap_or_default();
        if following.is_empty() {
            return;
        }
        let list = match offers(&self.topic, following.iter().map(|(p, o)| (*p, *o, format!("m{o}")))) {
            Ok(list) => list,
            Err(error) => return say(&json!({"t": "not-committed", "e": error.to_string()})),
        };
        match consumer.commit(&list, CommitMode::Sync) {
            Ok(()) => {
                for (partition, offset) in following {
                    say(&json!({"t": "committed", "p": partition, "o": offset}));
                }
            }
            Err(error) => say(&json!({"t": "not-committed", "e": error.to_string()})),
        }
    }

    fn forget(&self) {
        if let Ok(mut following) = self.following.lock() {
            following.clear();
        }
    }
}

fn offers(
    topic: &str,
    offsets: impl Iterator<Item = (i32, i64, String)>,
) -> Result<TopicPartitionList, KafkaError> {
    let mut list = TopicPartitionList::new();
    for (partition, offset, metadata) in offsets {
        let mut element = list.add_partition(topic, partition);
        element.set_offset(Offset::Offset(offset))?;
        element.set_metadata(metadata);
    }
    Ok(list)
}

fn numbers(list: &TopicPartitionList) -> Vec<i32> {
    let mut numbers: Vec<i32> = list.elements().iter().map(|element| element.partition()).collect();
    numbers.sort_unstable();
    numbers
}

impl ClientContext for Member {}

impl ConsumerContext for Member {
    fn pre_rebalance(&self, consumer: &BaseConsumer<Member>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Revoke(list) = rebalance {
            if !consumer.assignment_lost() {
                self.commit(consumer);
            }
            self.forget();
            say(&json!({"t": "revoked", "parts": numbers(list)}));
        }
    }

    fn post_rebalance(&self, _: &BaseConsumer<Member>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Assign(list) = rebalance {
            self.forget();
            say(&json!({"t": "assigned", "parts": numbers(list)}));
        }
    }
}

pub(crate) fn group(order: &Order) -> Outcome {
    let mut config = order.config();
    config
        .set("group.id", order.text("group"))
        .set("client.id", order.text("client"))
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "earliest")
        .set("partition.assignment.strategy", "range")
        .set("session.timeout.ms", order.number("session_ms").to_string())
        .set("heartbeat.interval.ms", "500")
        .set("max.poll.interval.ms", "30000")
        .set("fetch.wait.max.ms", "100");
    if !order.text("instance").is_empty() {
        config.set("group.instance.id", order.text("instance"));
    }
    let member = Member { topic: order.text("topic").to_owned(), following: Mutex::default() };
    let consumer: BaseConsumer<Member> = config.create_with_context(member)?;
    consumer.subscribe(&[order.text("topic")])?;
    let mut since_commit = 0;
    while !order.stopped() {
        let message = match consumer.poll(Duration::from_millis(100)) {
            None => continue,
            Some(Ok(message)) => message,
            Some(Err(error @ KafkaError::MessageConsumptionFatal(_))) => return Err(error.into()),
            Some(Err(error)) => {
                say(&json!({"t": "note", "e": error.to_string()}));
                continue;
            }
        };
        say_record(&message);
        if let Ok(mut following) = consumer.context().following.lock() {
            following.insert(message.partition(), message.offset() + 1);
        }
        since_commit += 1;
        if since_commit >= order.number("commit_every") {
            consumer.context().commit(&consumer);
            since_commit = 0;
        }
    }
    consumer.context().commit(&consumer);
    consumer.context().forget();
    consumer.unsubscribe();
    Ok(())
}

pub(crate) fn commit(order: &Order) -> Outcome {
    let consumer: BaseConsumer = order.config().set("group.id", order.text("group")).create()?;
    let asked = order.field("offsets").as_object().cloned().unwrap_or_default();
    let asked = asked.iter().map(|(partition, offer)| {
        let metadata = offer[1].as_str().unwrap_or("").to_owned();
        (partition.parse().unwrap_or(-1), offer[0].as_i64().unwrap_or(-1), metadata)
    });
    let list = offers(order.text("topic"), asked)?;
    match consumer.commit(&list, CommitMode::Sync) {
        Err(KafkaError::ConsumerCommit(code)) | Err(KafkaError::Global(code))
            if code != RDKafkaErrorCode::NoError =>
        {
            Err(Failure::Refused { code: code as i32, fatal: false, message: code.to_string() })
        }
        other => Ok(other?),
    }
}

pub(crate) fn committed(order: &Order) -> Outcome {
    let consumer: BaseConsumer = order.config().set("group.id", order.text("group")).create()?;
    let found = consumer.committed_offsets(partitions(order, Offset::Invalid)?, PATIENCE)?;
    for element in found.elements() {
        say(&json!({
            "t": "committed", "p": element.partition(), "o": offset_of(element.offset()), "m": element.metadata(),
        }));
    }
    Ok(())
}
