//! What Kafka's tools say while a broker is away, and afterwards. These rows take a broker down, so they are played alone.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::cluster_tools::{
    REASSIGN, SETTLE, await_moved, await_replicas, file, joined, list_endpoints, moves, place, plans,
    refused, remove,
};
use super::families::Family;
use super::scenario::Scenario;
use super::stage::{Production, Stage, eventually};
use super::tools::{CLUSTER, TOPICS, run};

pub(super) fn scenarios() -> Vec<Scenario> {
    let tool = |name: &str, play: fn(&Stage<'_>) -> Result<String, String>| {
        Scenario::new(format!("a broker down: {name}"), &[Family::Java], play).taking_brokers_down()
    };
    vec![
        tool("kafka-topics tells which partitions lack what", partitions).on_at_least(3),
        tool("kafka-reassign-partitions waits for it, lists and cancels", reassign).on_at_least(3),
        tool("kafka-cluster unregisters it once its replicas are moved off", unregister).on_at_least(4),
    ]
}

/// Takes a broker down, waits until it is known to be, plays, and brings it back whatever came of that.
fn without_one(stage: &Stage<'_>, play: impl FnOnce(usize) -> Result<(), String>) -> Result<usize, String> {
    let away = stage.take_down()?;
    let is_fenced = eventually(SETTLE, || {
        let text = list_endpoints(stage)?;
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        // ID HOST PORT RACK STATE ENDPOINT_TYPE
        let told = text.lines().map(words).find(|words| words.first() == Some(&away.to_string()));
        match told.as_ref().and_then(|words| words.get(4)).is_some_and(|state| state == "fenced") {
            true => Ok(()),
            false => Err(format!("broker {away} is not told to be away: {text:?}")),
        }
    });
    let outcome = is_fenced.and_then(|()| play(away));
    stage.bring_back(away)?;
    outcome.map(|()| away)
}

const VIEWS: [&str; 4] = [
    "--under-replicated-partitions",
    "--under-min-isr-partitions",
    "--at-min-isr-partitions",
    "--unavailable-partitions",
];

/// The partitions that kafka-topics shows with one of its views, of topics whose name holds `word`.
fn shown(stage: &Stage<'_>, view: &str, word: &str) -> Result<BTreeSet<String>, String> {
    let text = run(stage, TOPICS, &["--describe", view], "", &[])?;
    let mut shown = BTreeSet::new();
    for line in text.lines() {
        let mut parts = line.split('\t').map(str::trim);
        let mut field = |name: &str| parts.find_map(|part| part.strip_prefix(name)).map(str::to_owned);
        if let (Some(topic), Some(partition)) = (field("Topic: "), field("Partition: "))
            && topic.contains(word)
        {
            shown.insert(format!("{topic}-{partition}"));
        }
    }
    Ok(shown)
}

fn partitions(stage: &Stage<'_>) -> Result<String, String> {
    let word = stage.unique("views");
    let topic = |name: &str| format!("{word}.{name}");
    let (enough, all, single) = (topic("enough"), topic("all"), topic("single"));
    place(stage, &enough, &[&[1, 2, 3], &[2, 3, 1]], "min.insync.replicas=1")?;
    let two = topic("two");
    place(stage, &two, &[&[1, 2, 3]], "min.insync.replicas=2")?;
    place(stage, &all, &[&[1, 2, 3], &[3, 1, 2]], "min.insync.replicas=3")?;
    place(stage, &single, &[&[1], &[2], &[3]], "min.insync.replicas=1")?;
    let set = |names: Vec<String>| names.into_iter().collect::<BTreeSet<_>>();
    let whole_at_min: BTreeSet<String> = set(vec![
        format!("{all}-0"),
        format!("{all}-1"),
        format!("{single}-0"),
        format!("{single}-1"),
        format!("{single}-2"),
    ]);
    let check = |view: &str, word: &str, due: &BTreeSet<String>| {
        eventually(SETTLE, || match shown(stage, view, word)? {
            shown if shown == *due => Ok(()),
            shown => Err(format!("{view} shows {shown:?}, and {due:?} were due")),
        })
    };
    let none = BTreeSet::new();
    let whole = || {
        check(VIEWS[0], "", &none)?;
        // Another row's topic asks for more replicas than it has.
        check(VIEWS[1], &word, &none)?;
        check(VIEWS[2], &word, &whole_at_min)?;
        check(VIEWS[3], "", &none)
    };
    whole()?;
    without_one(stage, |away| {
        let lost = format!("{single}-{}", away - 1);
        let of_three = || {
            set(vec![
                format!("{enough}-0"),
                format!("{enough}-1"),
                format!("{two}-0"),
                format!("{all}-0"),
                format!("{all}-1"),
            ])
        };
        let but_single = |view: &str| -> Result<BTreeSet<String>, String> {
            Ok(shown(stage, view, &word)?.into_iter().filter(|name| *name != lost).collect())
        };
        eventually(SETTLE, || match but_single(VIEWS[0])? {
            shown if shown == of_three() => Ok(()),
            shown => Err(format!("{} shows {shown:?}, and {:?} were due", VIEWS[0], of_three())),
        })?;
        check(VIEWS[1], &word, &set(vec![format!("{all}-0"), format!("{all}-1"), lost.clone()]))?;
        let due = &set((0..3)
            .map(|index| format!("{single}-{index}"))
            .filter(|name| *name != lost)
            .chain([format!("{two}-0")])
            .collect());
        match but_single(VIEWS[2])? {
            shown if shown == *due => {}
            shown => return Err(format!("{} shows {shown:?}, and {due:?} were due", VIEWS[2])),
        }
        check(VIEWS[3], &word, &set(vec![lost.clone()]))
    })?;
    whole()?;
    // A topic with one replica would keep its broker from being unregistered.
    for topic in [&enough, &two, &all, &single] {
        remove(stage, topic)?;
    }
    Ok(String::new())
}

fn reassign(stage: &Stage<'_>) -> Result<String, String> {
    let topic = stage.unique("waiting");
    let (partition, name) = (0, format!("{topic}-0"));
    let mut to = [0, 0];
    let production = Production { partitions: 1, ..Production::new(Family::Java, &topic) };
    let mut produced = Vec::new();
    let away = without_one(stage, |away| {
        let others: Vec<usize> = (1..=stage.nodes).filter(|node| *node != away).collect();
        let (stays, goes) = (others[0], others[1]);
        to = [stays, away];
        place(stage, &topic, &[&[stays, goes]], "min.insync.replicas=1")?;
        produced = stage.produce(&production)?;
        let moves = moves(stage, &topic, &[(partition, &[stays, away])])?;
        let execute = ["--execute", "--reassignment-json-file", &moves];
        refused(stage, REASSIGN, &execute, &[&format!("Unknown broker id {away}")])?;
        // The tool asks for brokers that are alive; the cluster takes the order, and waits.
        let order = || {
            let fields = json!({"partition": partition, "nodes": [stays, away]});
            stage.admin(Family::Java, "reassign", &topic, fields)
        };
        order()?;
        // The order is the controller's own.
        let listed = |adding: usize, removing: usize| {
            eventually(SETTLE, || {
                let text = run(stage, REASSIGN, &["--list"], "", &["Current partition reassignments:"])?;
                let line = text.lines().find(|line| line.starts_with(&format!("{name}: replicas: ")));
                let (adding, removing) = (format!("adding: {adding}."), format!("removing: {removing}."));
                match line.is_some_and(|line| line.contains(&adding) && line.contains(&removing)) {
                    true => Ok(()),
                    false => Err(format!("no {name} with {adding} {removing} in {text:?}")),
                }
            })
        };
        listed(away, goes)?;
        let still = format!("Reassignment of partition {name} is still in progress.");
        run(
            stage,
            REASSIGN,
            &["--verify", "--preserve-throttles", "--reassignment-json-file", &moves],
            "",
            &[&still],
        )?;
        run(
            stage,
            REASSIGN,
            &["--cancel", "--preserve-throttles", "--reassignment-json-file", &moves],
            "",
            &[&format!("Successfully cancelled partition reassignment for: {name}")],
        )?;
        eventually(SETTLE, || {
            let text = run(stage, REASSIGN, &["--list"], "", &[])?;
            match text.lines().any(|line| line.starts_with(&name)) {
                true => Err(format!("what was cancelled is still listed: {text:?}")),
                false => Ok(()),
            }
        })?;
        await_replicas(stage, &topic, partition, &[stays, goes])?;
        // Ordered again, it is done once the broker is back.
        order()?;
        listed(away, goes)
    })?;
    let moves = moves(stage, &topic, &[(partition, &to)])?;
    await_moved(stage, &moves, &[&name])?;
    await_replicas(stage, &topic, partition, &to)?;
    let stayed = stage.holds_exactly(&production, &produced)?;
    remove(stage, &topic)?;
    Ok(format!("broker {away} was away, {stayed} records stayed"))
}

fn unregister(stage: &Stage<'_>) -> Result<String, String> {
    let topic = stage.unique("left");
    place(stage, &topic, &[&[1, 2, 3], &[2, 3, 4], &[3, 4, 1], &[4, 1, 2]], "")?;
    let production = Production { partitions: 4, ..Production::new(Family::Java, &topic) };
    let produced = stage.produce(&production)?;
    let others = |away: usize| (1..=stage.nodes).filter(move |node| *node != away).collect::<Vec<_>>();
    let mut moved = Vec::new();
    let away = without_one(stage, |away| {
        moved = move_off(stage, away, &others(away))?;
        // Three of the four partitions of this row's own topic have a replica there, whichever it is.
        let own = moved.iter().filter(|name| name.starts_with(&topic)).count();
        if own != 3 {
            return Err(format!("of {topic} {own} partitions were moved off broker {away}: {moved:?}"));
        }
        let arguments = ["unregister", "--bootstrap-server", &stage.bootstrap, "--id", &away.to_string()];
        let gone = format!("Broker {away} is no longer registered.");
        match stage.tool(CLUSTER, &arguments, "")? {
            (0, text) if text.contains(&gone) => {}
            (status, text) => return Err(format!("unregister: status {status}, no {gone:?} in {text:?}")),
        }
        eventually(SETTLE, || {
            let text = list_endpoints(stage)?;
            let told: Vec<usize> =
                text.lines().filter_map(|line| line.split_whitespace().next()?.parse().ok()).collect();
            if told == others(away) { Ok(()) } else { Err(format!("{told:?} are told of: {text:?}")) }
        })
    })?;
    // It is back under its number, with nothing to do until it is given something.
    let to = [away, others(away)[0], others(away)[1]];
    let moves = moves(stage, &topic, &[(0, &to)])?;
    run(stage, REASSIGN, &["--execute", "--reassignment-json-file", &moves], "", &[])?;
    await_moved(stage, &moves, &[&format!("{topic}-0")])?;
    await_replicas(stage, &topic, 0, &to)?;
    let stayed = stage.holds_exactly(&production, &produced)?;
    Ok(format!("{} partitions moved off, {stayed} records stayed", moved.len()))
}

/// Moves every replica off a broker with kafka-reassign-partitions; the partitions that had one there.
fn move_off(stage: &Stage<'_>, away: usize, others: &[usize]) -> Result<Vec<String>, String> {
    let names = run(stage, TOPICS, &["--list"], "", &[])?;
    // Warnings of the client stand between them.
    let is_name = |line: &&str| {
        let is_good = |letter: char| letter.is_ascii_alphanumeric() || "._-".contains(letter);
        !line.is_empty() && line.chars().all(is_good)
    };
    let topics: Vec<Value> = names.lines().filter(is_name).map(|name| json!({"topic": name})).collect();
    let topics = file(stage, "topics", &json!({"version": 1, "topics": topics}))?.display().to_string();
    let list = joined(others, ",");
    let generate = ["--generate", "--topics-to-move-json-file", &topics, "--broker-list", &list];
    let text = run(stage, REASSIGN, &generate, "", &[])?;
    let now = plans(&text).into_iter().next().ok_or_else(|| format!("no plan in {text:?}"))?;
    let (mut moves, mut names) = (Vec::new(), Vec::new());
    for partition in now["partitions"].as_array().into_iter().flatten() {
        let held: Vec<u64> =
            partition["replicas"].as_array().into_iter().flatten().filter_map(Value::as_u64).collect();
        if held.contains(&(away as u64)) {
            let stay = held.iter().copied().filter(|node| *node != away as u64).collect::<Vec<_>>();
            let new = others.iter().map(|node| *node as u64).find(|node| !stay.contains(node));
            let replicas: Vec<u64> = stay.into_iter().chain(new).collect();
            names.push(format!(
                "{}-{}",
                partition["topic"].as_str().unwrap_or_default(),
                partition["partition"]
            ));
            moves.push(json!({
                "topic": partition["topic"], "partition": partition["partition"], "replicas": replicas,
            }));
        }
    }
    let plan = file(stage, "moves", &json!({"version": 1, "partitions": moves}))?.display().to_string();
    run(stage, REASSIGN, &["--execute", "--reassignment-json-file", &plan], "", &[])?;
    await_moved(stage, &plan, &names.iter().map(String::as_str).collect::<Vec<_>>())?;
    Ok(names)
}
