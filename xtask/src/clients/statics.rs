//! Static membership: a member that crashes and comes back under its name gets its partitions back, and nobody else
//! is disturbed.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::json;

use super::driver::{Driver, Event, Heard};
use super::families::Family;
use super::groups::{group_order, holding};
use super::scenario::Scenario;
use super::stage::{Production, Stage, eventually};

const PARTITIONS: u64 = 6;
/// Long enough that a restarted client is back before the group would give it up.
const SESSION_MS: u64 = 30_000;
const SETTLE: Duration = Duration::from_secs(60);

pub(super) fn scenarios() -> Vec<Scenario> {
    [
        [Family::Java, Family::Franz, Family::Confluent],
        [Family::Confluent, Family::KafkaPython, Family::Rdkafka],
    ]
    .into_iter()
    .map(|trio| {
        let name = format!("static members: {} is killed and returns unnoticed", trio[0].name());
        Scenario::new(name, &trio, move |stage| returns_unnoticed(stage, trio)).bearing_restarts()
    })
    .collect()
}

fn returns_unnoticed(stage: &Stage<'_>, trio: [Family; 3]) -> Result<String, String> {
    let topic = stage.unique("static");
    let group = stage.unique("static");
    stage.create_topic(trio[1], &topic, PARTITIONS, &json!({}))?;
    let join = |number: usize| -> Result<Driver, String> {
        let mut driver = stage.start(trio[number], "static")?;
        let instance = format!("instance-{number}");
        driver.begin(&group_order(stage, &group, &topic, &driver.name, &instance, SESSION_MS))?;
        Ok(driver)
    };
    let mut members = [join(0)?, join(1)?, join(2)?];
    let shares = || members.iter().map(|driver| driver.look(holding)).collect::<Vec<_>>();
    eventually(SETTLE, || {
        let shares = shares();
        let all: BTreeSet<i32> = shares.iter().flatten().copied().collect();
        match shares.iter().all(|share| share.len() == 2) && all.len() == PARTITIONS as usize {
            true => Ok(()),
            false => Err(format!("the members hold {shares:?}")),
        }
    })?;
    let before = shares();
    let changes_before: Vec<usize> = members.iter().map(|driver| driver.look(changes)).collect();
    members[0].kill();
    members[0] = join(0)?;
    eventually(SETTLE, || match members[0].look(holding) {
        own if own == before[0] => Ok(()),
        own => Err(format!("the returned member holds {own:?}, before it held {:?}", before[0])),
    })?;
    // All see records again: the returned member really fetches, and the others went on.
    let production = Production { count: 120, partitions: PARTITIONS, ..Production::new(trio[1], &topic) };
    stage.produce(&production)?;
    eventually(SETTLE, || {
        let seen: usize = members.iter().map(|driver| driver.look(records)).sum();
        if seen == 120 { Ok(()) } else { Err(format!("{seen} of 120 records were seen")) }
    })?;
    for number in [1, 2] {
        let changes = members[number].look(changes);
        if changes != changes_before[number] {
            return Err(format!("{} was rebalanced by another member's return", members[number].name));
        }
    }
    for member in &mut members {
        member.stop()?;
        member.finish(SETTLE)?;
    }
    Ok(String::new())
}

fn changes(heard: &[Heard]) -> usize {
    heard.iter().filter(|heard| matches!(heard.event, Event::Assigned(_) | Event::Revoked(_))).count()
}

fn records(heard: &[Heard]) -> usize {
    heard.iter().filter(|heard| matches!(heard.event, Event::Saw(_))).count()
}
