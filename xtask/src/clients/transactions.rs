//! A transactional client: Kafka carries its transaction out; a broker that has no transactions yet must end it with a
//! fatal error within seconds, not leave it waiting.

use std::time::{Duration, Instant};

use serde_json::json;

use super::driver::Trouble;
use super::families::Family;
use super::scenario::Scenario;
use super::stage::Stage;
use crate::broker_process::Against;

/// What a person would still call a prompt answer.
const PROMPT: Duration = Duration::from_secs(10);

pub(super) fn scenarios() -> Vec<Scenario> {
    [Family::Java, Family::Confluent, Family::Rdkafka]
        .into_iter()
        .map(|family| {
            let name = format!("transactions: {} gets a prompt answer", family.name());
            Scenario::new(name, &[family], move |stage| transact(stage, family))
        })
        .collect()
}

fn transact(stage: &Stage<'_>, family: Family) -> Result<String, String> {
    let topic = stage.unique("transaction");
    stage.create_topic(family, &topic, 1, &json!({}))?;
    let order = json!({
        "cmd": "transact", "bootstrap": stage.bootstrap, "topic": topic, "transactional_id": stage.unique("id"),
    });
    let began = Instant::now();
    let outcome = stage.call(family, &order);
    let seconds = began.elapsed().as_secs_f64();
    match (stage.against, outcome) {
        (Against::Kafka, Ok(_)) => Ok("Kafka commits it".to_owned()),
        (Against::Kafka, Err(trouble)) => Err(trouble.into()),
        (Against::Ouzel, Ok(_)) => Err("the transaction was committed by a broker that has none".to_owned()),
        (Against::Ouzel, Err(Trouble::Refused { fatal: true, message, .. })) if began.elapsed() < PROMPT => {
            Ok(format!("fatal after {seconds:.1}s: {message}"))
        }
        (Against::Ouzel, Err(trouble)) => Err(format!(
            "no fatal error within {PROMPT:?} but after {seconds:.1}s: {}",
            String::from(trouble)
        )),
    }
}
