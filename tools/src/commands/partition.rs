//! `ouk partition reassign | reassignments | elect | move-leader`.

use std::collections::BTreeMap;
use std::time::Duration;

use ouzel_client::{Election, Outcomes, Place, Reassignment, Topics};
use ouzel_protocol::ErrorCode;
use serde_json::json;

use super::{Done, Session};
use crate::cli::{Chosen, Consent, Partition, Reassign};
use crate::failure::{Exit, Failure};
use crate::output::Report;

/// How often a move is asked after.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(500);
/// How often it is told of moves that take long: after so many questions.
const TELL_EACH: u32 = 10;

/// Runs one command.
pub(super) async fn run(session: &Session, command: Partition) -> Result<Done, Failure> {
    match command {
        Partition::Reassign(wanted) if wanted.cancel.is_empty() => reassign(session, &wanted).await,
        Partition::Reassign(wanted) => cancel(session, &wanted.cancel, &wanted.consent).await,
        Partition::Reassignments => reassignments(session).await,
        Partition::Elect { partitions, unclean, consent } => {
            elect(session, &partitions, unclean, &consent).await
        }
        Partition::MoveLeader { partition, to } => move_leader(session, partition, to).await,
    }
}

fn report(kind: &'static str) -> Report {
    Report::new(kind, &[("TOPIC", "topic"), ("PARTITION", "partition"), ("STATUS", "status")])
}

async fn reassign(session: &Session, wanted: &Reassign) -> Result<Done, Failure> {
    let names: Vec<String> = wanted.targets.iter().map(|((topic, _), _)| topic.clone()).collect();
    let now = replicas_of(session, &names).await?;
    let mut plan = Vec::new();
    for (place, nodes) in &wanted.targets {
        let replicas = now.get(place).ok_or_else(|| not_there(place))?;
        plan.push(format!("{}-{}: replicas {} become {}", place.0, place.1, listed(replicas), listed(nodes)));
    }
    if !session.may_destroy(&plan.join("; "), &wanted.consent)? {
        return Ok(Done::default());
    }
    let changes: Vec<(Place, Option<Vec<i32>>)> =
        wanted.targets.iter().map(|(place, nodes)| (place.clone(), Some(nodes.clone()))).collect();
    let outcomes = session.client.reassign(&changes).await?;
    if wanted.wait {
        let begun = outcomes.iter().filter(|(_, outcome)| outcome.is_ok()).map(|(place, _)| place.clone());
        settled(session, &begun.collect::<Vec<_>>()).await?;
    }
    let status = if wanted.wait { "moved" } else { "moving" };
    Ok(told("partition.reassign", &outcomes, |_| Some(status)))
}

async fn cancel(session: &Session, places: &[Place], consent: &Consent) -> Result<Done, Failure> {
    let plan = places.iter().map(|(topic, partition)| format!("{topic}-{partition}")).collect::<Vec<_>>();
    if !session.may_destroy(&format!("give up the moves of {}", plan.join(", ")), consent)? {
        return Ok(Done::default());
    }
    let changes: Vec<(Place, Option<Vec<i32>>)> = places.iter().map(|place| (place.clone(), None)).collect();
    let outcomes = session.client.reassign(&changes).await?;
    Ok(told("partition.reassign", &outcomes, |_| Some("given up")))
}

/// Waits until none of these partitions is on the move, and tells now and then which still are.
async fn settled(session: &Session, places: &[Place]) -> Result<(), Failure> {
    for asked in 1_u32.. {
        let mut moves = session.client.reassignments().await?;
        moves.retain(|one| places.iter().any(|place| (&one.topic, one.partition) == (&place.0, place.1)));
        if moves.is_empty() {
            return Ok(());
        }
        if asked.is_multiple_of(TELL_EACH) {
            eprintln!("ouk: {}", still_moving(&moves, places.len()));
        }
        session.sleep(ASK_AGAIN_AFTER).await;
    }
    unreachable!("it asks until there is nothing to ask for")
}

/// `2 of 12 partitions are on the move: t-0 to 4, u-3 to 4,5`, with the first few by name.
fn still_moving(moves: &[Reassignment], all: usize) -> String {
    const NAMED_MAX: usize = 5;
    let named = moves.iter().take(NAMED_MAX).map(|one| {
        let joins = if one.adding.is_empty() { &one.replicas } else { &one.adding };
        format!("{}-{} to {}", one.topic, one.partition, listed(joins))
    });
    let rest = if moves.len() > NAMED_MAX { ", ..." } else { "" };
    let named = named.collect::<Vec<_>>().join(", ");
    format!("{} of {all} partitions are on the move: {named}{rest}", moves.len())
}

async fn reassignments(session: &Session) -> Result<Done, Failure> {
    let columns = &[
        ("TOPIC", "topic"),
        ("PARTITION", "partition"),
        ("REPLICAS", "replicas"),
        ("ADDING", "adding"),
        ("REMOVING", "removing"),
    ];
    let mut report = Report::new("partition.reassignments", columns);
    for one in session.client.reassignments().await? {
        report.push(json!({
            "topic": one.topic,
            "partition": one.partition,
            "replicas": one.replicas,
            "adding": one.adding,
            "removing": one.removing,
        }));
    }
    Ok(Done::with(report))
}

async fn elect(
    session: &Session,
    chosen: &[Chosen],
    unclean: bool,
    consent: &Consent,
) -> Result<Done, Failure> {
    session.must_be_writable()?;
    let places = places_of(session, chosen).await?;
    let election = if unclean { Election::Unclean } else { Election::Preferred };
    if unclean || consent.dry_run {
        let which = match &places {
            None => "every partition".to_owned(),
            Some(places) => {
                places.iter().map(|(topic, index)| format!("{topic}-{index}")).collect::<Vec<_>>().join(", ")
            }
        };
        let plan = match election {
            Election::Preferred => format!("the first replica of {which} leads again, if it is in sync"),
            Election::Unclean => format!(
                "where no majority is left, whoever has most goes on with {which}, and what only the others had is lost"
            ),
        };
        if !session.may_destroy(&plan, consent)? {
            return Ok(Done::default());
        }
    }
    let outcomes = session.client.elect_leaders(election, places.as_deref()).await?;
    Ok(told("partition.elect", &outcomes, |code| match code {
        None => Some("elected"),
        Some(ErrorCode::ElectionNotNeeded) => Some("not needed"),
        Some(_) => None,
    }))
}

/// The partitions that were chosen; `None` for all of the cluster.
async fn places_of(session: &Session, chosen: &[Chosen]) -> Result<Option<Vec<Place>>, Failure> {
    if chosen.is_empty() {
        return Ok(None);
    }
    let names: Vec<String> = chosen.iter().map(|one| one.topic.clone()).collect();
    let now = replicas_of(session, &names).await?;
    let mut places = Vec::new();
    for one in chosen {
        match one.partitions.is_empty() {
            true => places.extend(now.keys().filter(|(topic, _)| *topic == one.topic).cloned()),
            false => places.extend(one.partitions.iter().map(|index| (one.topic.clone(), *index))),
        }
    }
    match places.iter().find(|place| !now.contains_key(*place)) {
        Some(stranger) => Err(not_there(stranger)),
        None => Ok(Some(places)),
    }
}

async fn move_leader(session: &Session, place: Place, to: i32) -> Result<Done, Failure> {
    session.must_be_writable()?;
    let now = replicas_of(session, std::slice::from_ref(&place.0)).await?;
    let replicas = now.get(&place).ok_or_else(|| not_there(&place))?;
    if !replicas.contains(&to) {
        let message = format!(
            "{}-{} has no replica on node {to} but on {}; `ouk partition reassign` gives it one",
            place.0,
            place.1,
            listed(replicas)
        );
        return Err(Failure::usage(message));
    }
    // The same replicas in another order: nothing moves, but the first of them is the one to be preferred.
    let mut order = vec![to];
    order.extend(replicas.iter().filter(|node| **node != to));
    if order != *replicas {
        let outcomes = session.client.reassign(&[(place.clone(), Some(order))]).await?;
        for outcome in outcomes.into_values() {
            outcome?;
        }
        settled(session, std::slice::from_ref(&place)).await?;
    }
    let outcomes =
        session.client.elect_leaders(Election::Preferred, Some(std::slice::from_ref(&place))).await?;
    Ok(told("partition.move-leader", &outcomes, |code| match code {
        None => Some("leads"),
        Some(ErrorCode::ElectionNotNeeded) => Some("leads already"),
        Some(_) => None,
    }))
}

/// The replicas of every partition of these topics.
async fn replicas_of(session: &Session, names: &[String]) -> Result<BTreeMap<Place, Vec<i32>>, Failure> {
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let metadata = session.client.metadata(Topics::Named(&names)).await?;
    let partitions = metadata.topics.into_iter().flat_map(|(name, topic)| {
        topic
            .partitions
            .into_iter()
            .map(move |(index, partition)| ((name.clone(), index), partition.replicas))
    });
    Ok(partitions.collect())
}

fn not_there(place: &Place) -> Failure {
    Failure::new(Exit::NotFound, format!("there is no partition {} of {}", place.1, place.0))
}

fn listed(nodes: &[i32]) -> String {
    nodes.iter().map(i32::to_string).collect::<Vec<_>>().join(",")
}

/// What became of each partition. `good` names an outcome that is none to complain of, by its code.
fn told(
    kind: &'static str,
    outcomes: &Outcomes,
    good: impl Fn(Option<ErrorCode>) -> Option<&'static str>,
) -> Done {
    let mut report = report(kind);
    let mut failures = Vec::new();
    for ((topic, partition), outcome) in outcomes {
        let status = match outcome {
            Ok(()) => good(None),
            Err(error) => error.code().and_then(|code| good(Some(code))),
        };
        match (status, outcome) {
            (Some(status), _) => {
                report.push(json!({ "topic": topic, "partition": partition, "status": status }));
            }
            (None, Err(error)) => failures.push(Failure::from(error.clone())),
            (None, Ok(())) => {}
        }
    }
    Done::of_items(report, outcomes.len(), &failures)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_moves_are_told_of_by_name() {
        let to = |partition, adding: &[i32]| Reassignment {
            topic: "t".to_owned(),
            partition,
            replicas: vec![1, 2, 3],
            adding: adding.to_vec(),
            removing: vec![1],
        };
        assert_eq!(
            still_moving(&[to(0, &[4, 5]), to(7, &[])], 12),
            "2 of 12 partitions are on the move: t-0 to 4,5, t-7 to 1,2,3"
        );
        let many: Vec<_> = (0..6).map(|partition| to(partition, &[4])).collect();
        assert!(still_moving(&many, 6).ends_with("t-4 to 4, ..."));
    }
}
