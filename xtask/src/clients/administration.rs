//! Topics, configs, offsets and groups through each family's own admin calls.

use serde_json::{Value, json};

use super::driver::{Event, Trouble};
use super::families::Family;
use super::history::{Promise, judge};
use super::scenario::Scenario;
use super::stage::{Production, Stage, eventually};

const UNKNOWN_TOPIC_OR_PARTITION: i64 = 3;
const TOPIC_ALREADY_EXISTS: i64 = 36;
const INVALID_CONFIG: i64 = 40;
const GROUP_ID_NOT_FOUND: i64 = 69;
const OFFSET_METADATA_TOO_LARGE: i64 = 12;
/// Loading, not available yet, not this one: all pass.
const COORDINATOR_ON_ITS_WAY: [i64; 3] = [14, 15, 16];

pub(super) fn scenarios() -> Vec<Scenario> {
    let mut scenarios = Vec::new();
    for family in Family::DRIVEN {
        let name = format!("admin: {} creates, describes, alters, deletes and creates again", family.name());
        let play = move |stage: &Stage<'_>| topics(stage, family);
        scenarios.push(Scenario::new(name, &[family], play).bearing_restarts());
        let name = format!("offsets: {} commits with metadata, all families read it back", family.name());
        let play = move |stage: &Stage<'_>| offsets(stage, family);
        scenarios.push(Scenario::new(name, &Family::DRIVEN, play).bearing_restarts());
    }
    scenarios
}

/// The refusal that must come.
fn refused(
    stage: &Stage<'_>,
    ask: impl Fn() -> Result<Vec<Event>, Trouble>,
    what: &str,
    is_due: impl Fn(&Trouble) -> bool,
) -> Result<(), String> {
    stage.again(|| refusal(ask(), what, &is_due))?
}

/// Whether it is the refusal that must come: an outer error may be another one tomorrow, an inner one is final. What was done
/// and must not have been stays done: asked again, it may well be refused, for having been done.
fn refusal(
    outcome: Result<Vec<Event>, Trouble>,
    what: &str,
    is_due: impl Fn(&Trouble) -> bool,
) -> Result<Result<(), String>, String> {
    match outcome {
        Err(trouble) if is_due(&trouble) => Ok(Ok(())),
        Err(trouble) => Err(format!("{what}: another refusal was due than {}", String::from(trouble))),
        Ok(_) => Ok(Err(format!("{what}: a refusal was due, and it was done"))),
    }
}

/// The refusal of this code.
fn coded(due: i64) -> impl Fn(&Trouble) -> bool {
    move |trouble| matches!(trouble, Trouble::Refused { code, .. } if *code == due)
}

/// That there is no such group; kafka-python tells the error's name alone.
fn is_no_group(trouble: &Trouble) -> bool {
    match trouble {
        Trouble::Refused { code, message, .. } => {
            *code == GROUP_ID_NOT_FOUND || message.contains("GroupIdNotFound")
        }
        Trouble::Broken(_) => false,
    }
}

/// Asks for what there is nothing left of afterwards. A broker that went away may have done it and not said so: the second time
/// it is not there any more.
fn remove(
    stage: &Stage<'_>,
    ask: impl Fn() -> Result<Vec<Event>, Trouble>,
    is_gone: impl Fn(&Trouble) -> bool,
) -> Result<(), String> {
    stage.again(|| match ask() {
        Err(trouble) if stage.is_disturbed() && is_gone(&trouble) => Ok(()),
        outcome => outcome.map(|_| ()).map_err(String::from),
    })
}

fn config_values(stage: &Stage<'_>, family: Family, topic: &str) -> Result<Value, String> {
    stage.again(|| match &stage.admin(family, "configs", topic, json!({}))?[..] {
        [Event::Other(found)] => Ok(found["values"].clone()),
        other => Err(format!("configs told {other:?}")),
    })
}

fn topics(stage: &Stage<'_>, family: Family) -> Result<String, String> {
    let topic = stage.unique("admin");
    stage.create_topic(family, &topic, 4, &json!({"retention.ms": "7200000"}))?;
    let again = || stage.create(family, &topic, 4, &json!({}));
    refused(stage, again, "create what is there", coded(TOPIC_ALREADY_EXISTS))?;
    let bad = || stage.create(family, &stage.unique("bad"), 1, &json!({"no.such.key": "1"}));
    refused(stage, bad, "create with an unknown key", coded(INVALID_CONFIG))?;
    let values = config_values(stage, family, &topic)?;
    for (key, value) in
        [("retention.ms", "7200000"), ("cleanup.policy", "delete"), ("segment.bytes", "1073741824")]
    {
        if values[key] != value {
            return Err(format!("{key} is {} and was to be {value}", values[key]));
        }
    }
    // The crate knows only the whole-sale AlterConfigs that Kafka calls deprecated.
    if family != Family::Rdkafka {
        let configs = json!({"configs": {"max.message.bytes": "123456"}});
        stage.again(|| Ok(stage.admin(family, "alter", &topic, configs.clone())?))?;
        eventually(stage.visible_within(), || {
            let values = config_values(stage, family, &topic)?;
            match values["max.message.bytes"] == "123456" && values["retention.ms"] == "7200000" {
                true => Ok(()),
                false => Err(format!("after an alteration: {values}")),
            }
        })?;
    }
    let old = Production { producer: "old".to_owned(), count: 30, ..Production::new(family, &topic) };
    stage.produce(&old)?;
    let delete = || stage.admin(family, "delete", &topic, json!({}));
    remove(stage, delete, coded(UNKNOWN_TOPIC_OR_PARTITION))?;
    eventually(stage.visible_within(), || {
        let describe = || stage.admin(family, "describe", &topic, json!({}));
        refused(stage, describe, "describe what was deleted", coded(UNKNOWN_TOPIC_OR_PARTITION))
    })?;
    refused(stage, delete, "delete what was deleted", coded(UNKNOWN_TOPIC_OR_PARTITION))?;
    stage.create_topic(family, &topic, 2, &json!({}))?;
    let new = Production { count: 40, partitions: 2, ..Production::new(family, &topic) };
    let events = stage.produce(&new)?;
    let read = stage.read(family, &topic, 2, json!({}))?;
    judge(&new.sent(events.iter()), Promise::ExactlyOnce, &read.records)
        .map_err(|fault| format!("after the re-creation: {fault}"))?;
    Ok(String::new())
}

fn offsets(stage: &Stage<'_>, family: Family) -> Result<String, String> {
    let topic = stage.unique("offsets");
    let group = stage.unique("offsets");
    stage.create_topic(family, &topic, 3, &json!({}))?;
    let production = Production { count: 90, ..Production::new(family, &topic) };
    stage.produce(&production)?;
    // The Python binding of librdkafka sends the zero byte of a C string along.
    let closing = if family == Family::Confluent { "\0" } else { "" };
    let long = "m".repeat(4096 - closing.len());
    let commit = |offsets: Value| {
        let order = json!({
            "cmd": "commit", "bootstrap": stage.bootstrap, "group": group, "topic": topic, "offsets": offsets,
        });
        stage.call(family, &order)
    };
    // The first commit on a broker has its offsets topic made, and not every client waits for that.
    eventually(stage.visible_within(), || {
        match commit(json!({"0": [7, "seven, zażółć"], "1": [9, long]})) {
            Err(Trouble::Refused { code, message, .. })
                if !COORDINATOR_ON_ITS_WAY.contains(&code) && !stage.is_disturbed() =>
            {
                Ok(Err(format!("the commit was refused with {code}: {message}")))
            }
            Err(trouble) => Err(trouble.into()),
            Ok(_) => Ok(Ok(())),
        }
    })??;
    let too_long = "m".repeat(4097);
    let too_much = || commit(json!({"0": [8, too_long]}));
    refused(stage, too_much, "too much metadata", coded(OFFSET_METADATA_TOO_LARGE))?;
    let due = [
        (0, 7, format!("seven, zażółć{closing}")),
        (1, 9, format!("{long}{closing}")),
        (2, -1, String::new()),
    ];
    for reader in Family::DRIVEN {
        // That binding also reads metadata up to a zero byte that others have not sent, and past its end.
        if reader == Family::Confluent {
            continue;
        }
        let order = json!({
            "cmd": "committed", "bootstrap": stage.bootstrap, "group": group, "topic": topic, "partitions": 3,
        });
        let mut found: Vec<(i32, i64, String)> = stage
            .again(|| Ok(stage.call(reader, &order)?))?
            .into_iter()
            .filter_map(|event| match event {
                Event::Committed { partition, offset, metadata } => Some((partition, offset, metadata)),
                _ => None,
            })
            .collect();
        found.sort();
        if found != due {
            let found: Vec<_> =
                found.iter().map(|(p, o, m)| (p, o, m.chars().take(20).collect::<String>())).collect();
            return Err(format!("{} reads {found:?}", reader.name()));
        }
    }
    stage.again(|| {
        let listed = stage.admin(family, "groups", &topic, json!({}))?;
        let names = match &listed[..] {
            [Event::Other(found)] => found["names"].clone(),
            other => return Err(format!("groups told {other:?}")),
        };
        // librdkafka's old listing asks DescribeGroups about each and leaves out what is no longer there.
        match names.as_array().is_some_and(|names| names.iter().any(|name| name == group.as_str())) {
            true => Ok(()),
            false => Err(format!("{} lists the groups {names}", family.name())),
        }
    })?;
    let delete = || stage.admin(family, "delete_group", &topic, json!({"group": group}));
    remove(stage, delete, is_no_group)?;
    refused(stage, delete, "delete a deleted group", is_no_group)?;
    Ok(String::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Beside restarts a topic that could be made twice, by one client at once, was asked for a third time, refused as it
    /// should have been, and the row passed.
    #[test]
    fn a_success_where_a_refusal_is_due_is_final() {
        let refused = |code| Err(Trouble::Refused { code, fatal: false, message: "no".to_owned() });
        assert_eq!(refusal(refused(36), "x", coded(36)), Ok(Ok(())));
        assert!(refusal(refused(7), "x", coded(36)).is_err(), "asked again");
        assert!(refusal(Err(Trouble::Broken("gone".to_owned())), "x", coded(36)).is_err());
        assert!(refusal(Ok(Vec::new()), "x", coded(36)).unwrap().is_err());
    }

    /// Any error at all was taken for the refusal that kafka-python was to tell.
    #[test]
    fn a_missing_group_is_known_by_code_or_name() {
        let refused =
            |code, message: &str| Trouble::Refused { code, fatal: false, message: message.to_owned() };
        assert!(
            is_no_group(&refused(69, "")) && is_no_group(&refused(-1, "[Error 69] GroupIdNotFoundError"))
        );
        assert!(!is_no_group(&refused(-1, "KafkaTimeoutError")));
        assert!(!is_no_group(&Trouble::Broken("GroupIdNotFound".to_owned())));
    }
}
