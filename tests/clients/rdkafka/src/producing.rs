//! `produce` and `transact`.

use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use serde_json::json;

use crate::records::{headers_of, key_of, value_of};
use crate::{Order, Outcome, say};

/// Tells of every record what became of it.
struct Deliveries;

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Box<i64>;

    fn delivery(&self, result: &DeliveryResult<'_>, seq: Box<i64>) {
        say(&match result {
            Ok(message) => {
                json!({"t": "ack", "s": *seq, "p": message.partition(), "o": message.offset().max(-1)})
            }
            Err((error, _)) => json!({"t": "fail", "s": *seq, "e": error.to_string()}),
        });
    }
}

pub(crate) fn produce(order: &Order) -> Outcome {
    let producer: BaseProducer<Deliveries> = order
        .config()
        .set("acks", order.text("acks"))
        .set("enable.idempotence", order.flag("idempotent").to_string())
        .set("compression.type", order.text("codec"))
        .set("linger.ms", order.number("linger_ms").to_string())
        .set("message.timeout.ms", "90000")
        .set("request.timeout.ms", "10000")
        .set("retry.backoff.ms", "50")
        .create_with_context(Deliveries)?;
    let begun = Instant::now();
    let (name, partitions) = (order.text("producer"), order.number("partitions"));
    for seq in (0..order.number("count")).take_while(|_| !order.stopped()) {
        let (key, value) = (key_of(seq), value_of(name, seq, order.number("value_bytes")));
        let mut record =
            BaseRecord::<[u8], [u8], Box<i64>>::with_opaque_to(order.text("topic"), Box::new(seq))
                .partition((seq % partitions) as i32)
                .timestamp(order.number("timestamp_ms") + seq)
                .headers(headers_of(name, seq));
        if let Some(key) = &key {
            record = record.key(key);
        }
        if let Some(value) = &value {
            record = record.payload(value);
        }
        while let Err((error, same)) = producer.send(record) {
            if error.rdkafka_error_code() != Some(RDKafkaErrorCode::QueueFull) {
                return Err(error.into());
            }
            record = same;
            producer.poll(Duration::from_millis(100));
        }
        producer.poll(Duration::ZERO);
        let per_second = order.number("per_second");
        if per_second > 0 {
            let due = begun + Duration::from_secs_f64((seq + 1) as f64 / per_second as f64);
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
        }
    }
    Ok(producer.flush(Duration::from_secs(100))?)
}

pub(crate) fn transact(order: &Order) -> Outcome {
    let producer: BaseProducer = order
        .config()
        .set("transactional.id", order.text("transactional_id"))
        .set("transaction.timeout.ms", "10000")
        .create()?;
    let patience = Duration::from_secs(30);
    producer.init_transactions(patience)?;
    producer.begin_transaction()?;
    let record = BaseRecord::<[u8], [u8]>::to(order.text("topic")).payload(b"in a transaction").partition(0);
    producer.send(record).map_err(|(error, _): (KafkaError, _)| error)?;
    Ok(producer.commit_transaction(patience)?)
}
