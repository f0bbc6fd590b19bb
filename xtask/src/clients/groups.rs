//! Groups of three members in three languages through join, a member's crash, its return, a broker's crash and a
//! leave: no gap, the same bytes at each sight, redelivery only from the last commit.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use serde_json::json;

use super::board::Row;
use super::driver::{Driver, Event, Heard};
use super::families::Family;
use super::group_history::{Told, judge_group};
use super::stage::{Production, Stage};

/// Three members of as many families.
#[derive(Debug, Clone, Copy)]
pub(super) struct Trio {
    pub(super) members: [Family; 3],
    pub(super) quick: bool,
}

#[rustfmt::skip]
pub(super) const TRIOS: &[Trio] = &[
    Trio { members: [Family::Java, Family::Confluent, Family::Franz], quick: true },
    Trio { members: [Family::KafkaPython, Family::Rdkafka, Family::Java], quick: false },
    Trio { members: [Family::Franz, Family::KafkaPython, Family::Confluent], quick: false },
];

const PARTITIONS: u64 = 6;
const PER_SECOND: u64 = 150;
/// The shortest session Kafka allows: a crash is noticed after this long.
const SESSION_MS: u64 = 6_000;
const COMMIT_EVERY: u64 = 40;
/// How long a group may take to settle after anything.
const SETTLE: Duration = Duration::from_secs(60);

impl Trio {
    pub(super) fn name(&self) -> String {
        let names = self.members.map(Family::name).join(", ");
        format!("groups: {names} through crash, return, broker kill and leave")
    }
}

struct Member {
    /// `None` while its process is gone.
    driver: Option<Driver>,
    family: Family,
    heard: Vec<Heard>,
    /// How much was heard before its process was ended.
    gone_at: Option<usize>,
}

struct Group {
    trio: Trio,
    id: String,
    topic: String,
    production: Production,
    producer: Driver,
    members: Vec<Member>,
}

/// Plays all groups at once through the same events; a row each.
pub(super) fn run(stage: &Stage<'_>, trios: &[Trio], seconds: u64) -> Vec<Row> {
    let began = Instant::now();
    let mut rows = Vec::new();
    let mut groups = Vec::new();
    for trio in trios {
        match open(stage, *trio, PER_SECOND * seconds) {
            Ok(group) => groups.push(group),
            Err(reason) => rows.push(Row::of(&trio.name(), Err(reason), began.elapsed())),
        }
    }
    let mut broken: BTreeMap<usize, String> = BTreeMap::new();
    let mut step =
        |what: &str, groups: &mut Vec<Group>, act: &mut dyn FnMut(&mut Group) -> Result<(), String>| {
            println!("        groups: {what}");
            for (number, group) in groups.iter_mut().enumerate() {
                if !broken.contains_key(&number)
                    && let Err(reason) = act(group)
                {
                    broken.insert(number, format!("{what}: {reason}"));
                }
            }
        };
    step("three members settle", &mut groups, &mut |group| settled(group, &[0, 1, 2]));
    step("one is killed", &mut groups, &mut |group| {
        let member = &mut group.members[1];
        if let Some(mut driver) = member.driver.take() {
            member.heard.extend(driver.kill());
            member.gone_at = Some(member.heard.len());
        }
        Ok(())
    });
    step("two take over", &mut groups, &mut |group| settled(group, &[0, 2]));
    step("the third returns", &mut groups, &mut |group| {
        let driver = join(stage, &group.id, &group.topic, group.members[1].family)?;
        group.members[1].driver = Some(driver);
        settled(group, &[0, 1, 2])
    });
    let restarted = stage.kill_and_restart();
    step("the broker was killed", &mut groups, &mut |group| {
        restarted.clone()?;
        moving(group)
    });
    step("one leaves", &mut groups, &mut |group| {
        let member = &mut group.members[2];
        if let Some(mut driver) = member.driver.take() {
            driver.stop()?;
            member.heard.extend(driver.finish(SETTLE)?);
        }
        settled(group, &[0, 1])
    });
    for (number, mut group) in groups.into_iter().enumerate() {
        let outcome = match broken.remove(&number) {
            Some(reason) => Err(reason),
            None => close(&mut group),
        };
        rows.push(Row::of(&group.trio.name(), outcome, began.elapsed()));
    }
    rows
}

fn open(stage: &Stage<'_>, trio: Trio, count: u64) -> Result<Group, String> {
    let topic = stage.unique("groups");
    let id = stage.unique("trio");
    stage.create_topic(Family::Rdkafka, &topic, PARTITIONS, &json!({}))?;
    let production = Production {
        partitions: PARTITIONS,
        idempotent: true,
        count,
        per_second: PER_SECOND,
        ..Production::new(Family::Rdkafka, &topic)
    };
    let mut producer = stage.start(Family::Rdkafka, "feed")?;
    producer.begin(&production.order(stage))?;
    let mut members = Vec::new();
    for family in trio.members {
        let driver = Some(join(stage, &id, &topic, family)?);
        members.push(Member { driver, family, heard: Vec::new(), gone_at: None });
    }
    Ok(Group { trio, id, topic, production, producer, members })
}

fn join(stage: &Stage<'_>, group: &str, topic: &str, family: Family) -> Result<Driver, String> {
    let mut driver = stage.start(family, "member")?;
    driver.begin(&group_order(stage, group, topic, &driver.name, "", SESSION_MS))?;
    Ok(driver)
}

/// A `group` order; `instance` is empty for a dynamic member.
pub(super) fn group_order(
    stage: &Stage<'_>,
    group: &str,
    topic: &str,
    client: &str,
    instance: &str,
    session_ms: u64,
) -> serde_json::Value {
    json!({
        "cmd": "group", "bootstrap": stage.bootstrap, "group": group, "topic": topic, "client": client,
        "instance": instance, "session_ms": session_ms, "commit_every": COMMIT_EVERY,
    })
}

/// What a member holds now, by its own words.
pub(super) fn holding(heard: &[Heard]) -> BTreeSet<i32> {
    let mut holding = BTreeSet::new();
    for heard in heard {
        match &heard.event {
            Event::Assigned(parts) => holding = parts.iter().copied().collect(),
            Event::Revoked(parts) => holding.retain(|part| !parts.contains(part)),
            _ => {}
        }
    }
    holding
}

/// Waits until these members hold all partitions, evenly, each once, and each has seen a record of that.
fn settled(group: &Group, present: &[usize]) -> Result<(), String> {
    let share = PARTITIONS as usize / present.len();
    super::stage::eventually(SETTLE, || {
        let mut all = BTreeSet::new();
        let mut sizes = Vec::new();
        for number in present {
            let driver = group.members[*number].driver.as_ref().ok_or("a member is gone")?;
            let own = driver.look(holding);
            sizes.push(own.len());
            all.extend(own);
            if driver.look(|heard| !saw_since_assigned(heard)) {
                return Err(format!("{} has seen nothing of what it holds", driver.name));
            }
        }
        match sizes.iter().all(|size| *size == share) && all.len() == PARTITIONS as usize {
            true => Ok(()),
            false => Err(format!("the members hold {sizes:?} of {PARTITIONS} partitions")),
        }
    })
}

fn saw_since_assigned(heard: &[Heard]) -> bool {
    let assigned = heard.iter().rposition(|heard| matches!(heard.event, Event::Assigned(_)));
    assigned.is_some_and(|at| heard[at..].iter().any(|heard| matches!(heard.event, Event::Saw(_))))
}

/// Waits until every member sees new records.
fn moving(group: &Group) -> Result<(), String> {
    let count = |heard: &[Heard]| heard.iter().filter(|heard| matches!(heard.event, Event::Saw(_))).count();
    for driver in group.members.iter().filter_map(|member| member.driver.as_ref()) {
        let before = driver.look(count);
        driver.await_that("a record after the restart", SETTLE, |heard| {
            (count(heard) > before).then_some(())
        })?;
    }
    Ok(())
}

/// Ends the feed, waits for the end of the reading, and judges.
fn close(group: &mut Group) -> Result<String, String> {
    group.producer.stop()?;
    let fed = group.producer.finish(Duration::from_secs(180))?;
    let sent = group.production.sent(fed.iter().map(|heard| &heard.event));
    let last = sent.acknowledged.last_key_value().map(|(seq, _)| *seq);
    if last.map(|seq| seq + 1) != Some(sent.acknowledged.len() as u64) || !sent.failed.is_empty() {
        return Err(format!(
            "the feed got {} acknowledgements, the last for record {last:?}, and {} failures",
            sent.acknowledged.len(),
            sent.failed.len()
        ));
    }
    let mut ends: BTreeMap<i32, i64> = BTreeMap::new();
    for (partition, offset) in sent.acknowledged.values() {
        let end = ends.entry(*partition).or_insert(0);
        *end = (*end).max(offset.unwrap_or(-1) + 1);
    }
    let all_seen = super::stage::eventually(SETTLE, || {
        let mut last: BTreeMap<i32, i64> = BTreeMap::new();
        for member in &group.members {
            let mut note = |heard: &[Heard]| {
                for heard in heard {
                    if let Event::Saw(seen) = &heard.event {
                        let at = last.entry(seen.partition).or_insert(0);
                        *at = (*at).max(seen.offset + 1);
                    }
                }
            };
            note(&member.heard);
            if let Some(driver) = &member.driver {
                driver.look(note);
            }
        }
        if last == ends { Ok(()) } else { Err(format!("seen up to {last:?}, written up to {ends:?}")) }
    });
    for member in &mut group.members {
        if let Some(mut driver) = member.driver.take() {
            driver.stop()?;
            member.heard.extend(driver.finish(SETTLE)?);
        }
    }
    let tally = judge_group(&sent, &ends, &history(&group.members))?;
    all_seen?;
    Ok(format!(
        "{} records, {} redelivered, {} assignments",
        tally.records, tally.redelivered, tally.assignments
    ))
}

/// All members' words in the order they were heard.
fn history(members: &[Member]) -> Vec<(usize, Told)> {
    let mut history: Vec<(u64, usize, Told)> = Vec::new();
    for (number, member) in members.iter().enumerate() {
        for heard in &member.heard {
            let told = match heard.event.clone() {
                Event::Assigned(parts) => Told::Assigned(parts),
                Event::Revoked(parts) => Told::Revoked(parts),
                Event::Saw(seen) => Told::Saw(seen),
                Event::Committed { partition, offset, .. } => Told::Committed { partition, offset },
                _ => continue,
            };
            history.push((heard.at, number, told));
        }
        if let Some(last) = member.gone_at.and_then(|count| count.checked_sub(1)) {
            // Sorting is stable: behind the last thing it said.
            history.push((member.heard[last].at, number, Told::Gone));
        }
    }
    history.sort_by_key(|(at, ..)| *at);
    history.into_iter().map(|(_, member, told)| (member, told)).collect()
}
