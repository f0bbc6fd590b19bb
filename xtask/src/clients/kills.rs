//! A broker is killed with SIGKILL in the middle of producing, more than once, and what was promised is counted after. In
//! a cluster it is another broker each time, and the others have taken over before it returns.

use std::time::{Duration, Instant};

use serde_json::json;

use super::board::Row;
use super::driver::{Driver, Event};
use super::families::Family;
use super::history::{Promise, judge};
use super::stage::{PATIENCE, Production, Stage};

/// One producer that lives through the kills.
#[derive(Debug, Clone, Copy)]
pub(super) struct Survivor {
    family: Family,
    reader: Family,
    acks: &'static str,
    idempotent: bool,
    codec: &'static str,
    pub(super) quick: bool,
}

#[rustfmt::skip]
pub(super) const SURVIVORS: &[Survivor] = &[
    Survivor { family: Family::Java, reader: Family::Franz, acks: "all", idempotent: true, codec: "lz4", quick: true },
    Survivor { family: Family::Confluent, reader: Family::Java, acks: "all", idempotent: true, codec: "none", quick: true },
    Survivor { family: Family::Franz, reader: Family::Confluent, acks: "all", idempotent: true, codec: "zstd", quick: false },
    Survivor { family: Family::KafkaPython, reader: Family::Rdkafka, acks: "all", idempotent: true, codec: "none", quick: false },
    Survivor { family: Family::Rdkafka, reader: Family::KafkaPython, acks: "all", idempotent: false, codec: "none", quick: false },
    Survivor { family: Family::Java, reader: Family::Rdkafka, acks: "1", idempotent: false, codec: "none", quick: false },
    Survivor { family: Family::Franz, reader: Family::KafkaPython, acks: "1", idempotent: false, codec: "gzip", quick: true },
    Survivor { family: Family::Confluent, reader: Family::Franz, acks: "0", idempotent: false, codec: "none", quick: true },
];

/// How often the broker is killed.
const KILLS: u64 = 3;
const PER_SECOND: u64 = 300;
/// Small batches and many of them: at this pace the producers outlive all kills.
const COUNT: u64 = 4_000;
const PARTITIONS: u64 = 3;

impl Survivor {
    /// What holds through the kills of brokers of a cluster of so many. A leader that acknowledges alone keeps its word
    /// only over its own restart: where another takes over, its last records may be gone.
    fn promise(&self, nodes: usize) -> Promise {
        match (self.acks, self.idempotent) {
            (_, true) => Promise::ExactlyOnce,
            ("all", _) => Promise::AcknowledgedIsStored,
            ("1", _) if nodes == 1 => Promise::AcknowledgedIsStored,
            _ => Promise::Nothing,
        }
    }

    pub(super) fn name(&self, nodes: usize) -> String {
        let promise = match self.promise(nodes) {
            Promise::ExactlyOnce => "each record is stored once and in order",
            Promise::AcknowledgedIsStored => "nothing acknowledged is missing",
            Promise::Nothing => "keeps serving",
        };
        format!(
            "kills: {} {} acks={}: {promise}",
            self.family.name(),
            if self.idempotent { "idempotent" } else { "plain" },
            self.acks
        )
    }

    pub(super) fn needs(&self) -> [Family; 2] {
        [self.family, self.reader]
    }
}

struct Running {
    survivor: Survivor,
    production: Production,
    driver: Driver,
}

/// Runs all survivors at once through the same kills; a row each.
pub(super) fn run(stage: &Stage<'_>, survivors: &[Survivor], count: Option<u64>) -> Vec<Row> {
    let began = Instant::now();
    let count = count.unwrap_or(COUNT);
    let mut rows = Vec::new();
    let mut running = Vec::new();
    for survivor in survivors {
        match begin(stage, *survivor, count) {
            Ok(one) => running.push(one),
            Err(reason) => rows.push(Row::of(&survivor.name(stage.nodes), Err(reason), began.elapsed())),
        }
    }
    let restarts = match kill_repeatedly(stage, &running, count) {
        Ok(restarts) => restarts,
        Err(reason) => {
            let took = began.elapsed();
            let name = |one: &Running| one.survivor.name(stage.nodes);
            rows.extend(running.iter().map(|one| Row::of(&name(one), Err(reason.clone()), took)));
            return rows;
        }
    };
    for mut one in running {
        let outcome = finish(stage, &mut one).map(|note| format!("{note}, restarts took {restarts}"));
        rows.push(Row::of(&one.survivor.name(stage.nodes), outcome, began.elapsed()));
    }
    rows
}

fn begin(stage: &Stage<'_>, survivor: Survivor, count: u64) -> Result<Running, String> {
    let topic = stage.unique("kills");
    // The smallest segment Kafka allows, so that the kills also find rolled ones.
    stage.create_topic(survivor.family, &topic, PARTITIONS, &json!({"segment.bytes": "1048576"}))?;
    let production = Production {
        partitions: PARTITIONS,
        codec: survivor.codec,
        acks: survivor.acks,
        idempotent: survivor.idempotent,
        count,
        // Half as fast without acknowledgements: nobody holds such a producer back, and it is to outlive the last restart.
        per_second: if survivor.acks == "0" { PER_SECOND / 2 } else { PER_SECOND },
        value_bytes: 3_000,
        ..Production::new(survivor.family, &topic)
    };
    let mut driver = stage.start(survivor.family, "survivor")?;
    driver.begin(&production.order(stage))?;
    Ok(Running { survivor, production, driver })
}

/// Kills a broker whenever every producer is that much further; the times of the restarts.
fn kill_repeatedly(stage: &Stage<'_>, running: &[Running], count: u64) -> Result<String, String> {
    let mut restarts = Vec::new();
    for kill in 1..=KILLS {
        let due = count * kill / (KILLS + 1);
        for one in running {
            one.driver.await_that(&format!("{due} answers"), PATIENCE * 2, |heard| {
                let ended = heard.last().is_some_and(|heard| {
                    matches!(heard.event, Event::Done | Event::Refused { .. } | Event::Broken(_))
                });
                let answered =
                    |event: &Event| matches!(event, Event::Acknowledged { .. } | Event::Failed { .. });
                let enough = heard.iter().filter(|heard| answered(&heard.event)).count() as u64 >= due;
                (enough || ended).then_some(())
            })?;
        }
        restarts.push(format!("{:.1}s", stage.kill_and_restart()?.as_secs_f64()));
        println!("        kill {kill} of {KILLS}: restarted in {}", restarts[restarts.len() - 1]);
    }
    Ok(restarts.join(" "))
}

fn finish(stage: &Stage<'_>, one: &mut Running) -> Result<String, String> {
    let heard = one.driver.finish(Duration::from_secs(150))?;
    let sent = one.production.sent(heard.iter().map(|heard| &heard.event));
    let read = stage.read(one.survivor.reader, &one.production.topic, PARTITIONS, json!({}))?;
    let promise = one.survivor.promise(stage.nodes);
    let tally = judge(&sent, promise, &read.records)?;
    if promise == Promise::Nothing {
        return kept_serving(one, &tally_note(&tally), &read.records);
    }
    Ok(tally_note(&tally))
}

fn tally_note(tally: &super::history::Tally) -> String {
    format!(
        "{} stored, {} acknowledged, {} duplicates, {} failed",
        tally.stored, tally.acknowledged, tally.duplicates, tally.failed
    )
}

/// Nothing is promised about a record, but the last ones, sent long after the last kill, must have come through.
fn kept_serving(one: &Running, note: &str, records: &[super::history::Seen]) -> Result<String, String> {
    let count = one.production.count;
    // Not the very last one: who leads may change once more when a node is back.
    let last: Vec<String> =
        (count - count / 20..count).map(|seq| format!("{}|{seq}", one.production.producer)).collect();
    match records.iter().any(|seen| last.contains(&seen.who)) {
        true => Ok(note.to_owned()),
        false => Err(format!("the last records, sent after the last restart, are not there ({note})")),
    }
}
