//! Scenario scripts: `tests/testdata/*.txt` hold commands and, indented below each, the whole trace they must give.
//!
//! `OUZEL_UPDATE_SCENARIOS=1 cargo test -p ouzel-coordinator --test scenarios` rewrites the traces; read the diff.
//!
//! The runner is a runtime in miniature: a wall clock that only `advance` moves, a [`TimerSet`], a log of committed
//! records. Writes commit at once unless `commits manual` was said; then `settle` decides them one by one. Member ids
//! are shown as `<prefix>#<n>`: the n-th id asked for under that client or instance id. The client id is the label.
//!
//! ```text
//! [label:] join GROUP MEMBER|? [v=9] [client=LABEL] [instance=i] [session=10000] [rebalance=60000] [type=consumer]
//!                              [protocols=range:TOPIC+TOPIC,NAME:=RAW]
//! [label:] sync GROUP MEMBER GENERATION [instance=i] [type=] [protocol=] [assign=MEMBER:TEXT,...]
//! [label:] heartbeat GROUP MEMBER GENERATION [instance=i]
//! [label:] leave GROUP MEMBER|?[@INSTANCE] ...
//! [label:] commit GROUP TOPIC-P=OFFSET[/METADATA] ... [member=] [gen=-1] [instance=] [v=9] [retention=MS] [id=N] [epoch=N]
//! [label:] txn-commit GROUP TOPIC-P=OFFSET ... producer=N [member=] [gen=-1] [instance=]
//! [label:] fetch GROUP [TOPIC-P ...] [stable=yes] [id=N]
//! [label:] describe GROUP ... | list [states=a,b] [types=a] | delete GROUP ... | forget GROUP TOPIC-P ...
//! end-transaction PRODUCER commit|abort
//! advance MS | expire | topics-deleted TOPIC[/ID] ... | reload | commits manual|auto | settle ok|unavailable|notleader|refused
//! config KEY=VALUE ... | groups
//! ```

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use ouzel_coordinator::request::*;
use ouzel_coordinator::response::*;
use ouzel_coordinator::*;
use ouzel_model::{
    GroupId, LeaderEpoch, Offset, PartitionIndex, ProducerEpoch, ProducerId, TimestampMs, TopicId, TopicName,
};

#[test]
fn every_scenario_gives_its_trace() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/testdata");
    let update = std::env::var_os("OUZEL_UPDATE_SCENARIOS").is_some();
    let mut scripts: Vec<_> = std::fs::read_dir(&folder)
        .expect("read testdata")
        .map(|entry| entry.expect("entry").path())
        .collect();
    scripts.sort();
    assert!(scripts.len() >= 12, "the scripts cover the checklist");
    let mut wrong = Vec::new();
    for path in scripts {
        let before = std::fs::read_to_string(&path).expect("read script");
        let after = run(&before);
        if update {
            std::fs::write(&path, after).expect("write script");
        } else if let Some(line) = first_difference(&before, &after) {
            wrong.push(format!("{}:{line}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "traces differ:\n{}", wrong.join("\n"));
}

fn first_difference(expected: &str, got: &str) -> Option<String> {
    let mut pairs = (1..).zip(expected.lines().map(Some).chain(std::iter::repeat(None)));
    let mut got = got.lines();
    loop {
        let (number, expected) = pairs.next()?;
        let got = got.next();
        if expected != got {
            return Some(format!("{number}\n  expected {expected:?}\n  got      {got:?}"));
        }
        got?;
    }
}

fn run(script: &str) -> String {
    let mut runner = Runner::new();
    for line in script.lines() {
        if line.starts_with("  ") {
            continue;
        }
        runner.out.push_str(line);
        runner.out.push('\n');
        if !line.is_empty() && !line.starts_with('#') {
            runner.command(line);
        }
    }
    runner.check_end();
    runner.out
}

/// What the partition's log holds.
enum Entry {
    Plain(Record),
    Pending(ProducerId, Record),
    End(ProducerId, bool),
}

struct Runner {
    shard: Shard,
    config: Config,
    timers: TimerSet,
    now_ms: u64,
    /// Committed records, the partition's log.
    log: Vec<Entry>,
    under_way: VecDeque<ouzel_coordinator::Write>,
    manual: bool,
    /// Joins without a member id, by what their id will begin with.
    ids_asked: BTreeMap<String, u64>,
    tickets: u64,
    /// Requests without an answer.
    open: BTreeMap<Ticket, String>,
    answered: BTreeSet<Ticket>,
    out: String,
}

impl Runner {
    fn new() -> Runner {
        let config = Config::default();
        Runner {
            shard: Shard::new(config.clone()),
            config,
            timers: TimerSet::default(),
            now_ms: 0,
            log: Vec::new(),
            under_way: VecDeque::new(),
            manual: false,
            ids_asked: BTreeMap::new(),
            tickets: 0,
            open: BTreeMap::new(),
            answered: BTreeSet::new(),
            out: String::new(),
        }
    }

    fn now(&self) -> TimestampMs {
        TimestampMs(i64::try_from(self.now_ms).expect("a script's time fits"))
    }

    fn say(&mut self, line: impl AsRef<str>) {
        let _ = writeln!(self.out, "  {}", short_ids(line.as_ref()));
    }

    fn command(&mut self, line: &str) {
        let (label, rest) = match line.split_once(": ") {
            Some((label, rest)) => (Some(label.to_owned()), rest),
            None => (None, line),
        };
        let mut words = rest.split_whitespace();
        let verb = words.next().expect("a command");
        let args = Args::parse(words);
        match verb {
            "advance" => self.advance(args.word(0).parse().expect("milliseconds")),
            "expire" => {
                let effects = self.shard.expire(self.now());
                self.carry_out(effects);
            }
            "topics-deleted" => {
                let topics: Vec<(TopicName, TopicId)> = args
                    .words
                    .iter()
                    .map(|word| word.split_once('/').unwrap_or((word, "0")))
                    .map(|(name, id)| (topic(name), topic_id(id)))
                    .collect();
                let effects = self.shard.on_topics_deleted(self.now(), &topics);
                self.carry_out(effects);
            }
            "end-transaction" => {
                let producer = ProducerId(args.word(0).parse().expect("a producer"));
                let committed = args.word(1) == "commit";
                self.log.push(Entry::End(producer, committed));
                self.shard.on_transaction_ended(producer, committed);
            }
            "reload" => self.reload(),
            "commits" => self.manual = args.word(0) == "manual",
            "settle" => {
                let outcome = match args.word(0) {
                    "ok" => Ok(()),
                    "unavailable" => Err(WriteFailure::Unavailable),
                    "notleader" => Err(WriteFailure::NotLeader),
                    "refused" => Err(WriteFailure::Refused),
                    other => panic!("no such outcome: {other}"),
                };
                self.settle(outcome);
            }
            "config" => self.configure(&args),
            "groups" => {
                for (state, count) in self.shard.groups_by_state() {
                    self.say(format!("{state}: {count}"));
                }
                self.say(format!("offsets: {}", self.shard.persisted().offset_count()));
            }
            _ => {
                let label = label.unwrap_or_else(|| "reply".to_owned());
                let request = self.request(verb, &label, &args);
                let ticket = Ticket(self.tickets);
                self.tickets += 1;
                self.open.insert(ticket, label.clone());
                let effects = self.shard.handle(self.now(), ticket, request);
                self.carry_out(effects);
                if self.open.contains_key(&ticket) {
                    self.say(format!("{label} is parked"));
                }
            }
        }
    }

    fn configure(&mut self, args: &Args) {
        for (key, value) in &args.pairs {
            let number: i64 = value.parse().expect("a number");
            let small = i32::try_from(number).expect("fits");
            match key.as_str() {
                "group.max.size" => self.config.members_max = usize::try_from(number).expect("fits"),
                "group.initial.rebalance.delay.ms" => self.config.initial_rebalance_delay_ms = small,
                "group.min.session.timeout.ms" => self.config.session_timeout_ms_min = small,
                "offset.metadata.max.bytes" => {
                    self.config.offset_metadata_units_max = usize::try_from(number).expect("fits");
                }
                "offsets.retention.ms" => self.config.offsets_retention_ms = number,
                other => panic!("no such setting: {other}"),
            }
        }
        self.shard.set_config(self.config.clone());
    }

    /// Carries out effects as a runtime does.
    fn carry_out(&mut self, effects: Effects) {
        for (ticket, response) in effects.replies {
            let label = self.open.remove(&ticket).unwrap_or_else(|| panic!("{ticket:?} is answered twice"));
            assert!(self.answered.insert(ticket));
            let text = show_response(&response);
            for (index, line) in text.lines().enumerate() {
                let lead = if index == 0 { format!("{label} <- ") } else { "   ".to_owned() };
                self.say(format!("{lead}{line}"));
            }
        }
        for op in &effects.timers {
            match op {
                TimerOp::Arm { key, after_ms } => self.say(format!("arm {} {after_ms}", show_key(key))),
                TimerOp::Cancel { key } if self.timers.contains(key) => {
                    self.say(format!("cancel {}", show_key(key)));
                }
                TimerOp::Cancel { .. } => {}
            }
            self.timers.apply(self.now_ms, vec![op.clone()]);
        }
        if let Some(write) = effects.write {
            for record in write.records.iter() {
                let kind = if write.atomic { "write" } else { "write (may split)" };
                let of =
                    write.producer.map_or(String::new(), |producer| format!(" (producer {})", producer.id));
                self.say(format!("{kind}{of} {}", show_record(record)));
            }
            self.under_way.push_back(write);
            if !self.manual {
                self.settle(Ok(()));
            }
        }
    }

    fn settle(&mut self, outcome: Result<(), WriteFailure>) {
        let Some(write) = self.under_way.pop_front() else {
            return self.say("nothing is under way");
        };
        if outcome.is_ok() {
            let producer = write.producer.map(|producer| producer.id);
            self.log.extend(write.records.iter().cloned().map(|record| match producer {
                None => Entry::Plain(record),
                Some(id) => Entry::Pending(id, record),
            }));
        }
        let effects = self.shard.on_committed(self.now(), write.token, outcome);
        self.carry_out(effects);
    }

    fn advance(&mut self, by_ms: u64) {
        let until = self.now_ms + by_ms;
        while let Some(at) = self.timers.next_deadline_ms().filter(|at| *at <= until) {
            self.now_ms = self.now_ms.max(at);
            let key = self.timers.pop_due(self.now_ms).expect("a timer is due");
            self.say(format!("at {}: {}", self.now_ms, show_key(&key)));
            let effects = self.shard.on_timer(self.now(), &key);
            self.carry_out(effects);
        }
        self.now_ms = until;
    }

    /// The partition moves away and back: what was parked is answered, writes under way are lost.
    fn reload(&mut self) {
        let old = std::mem::replace(&mut self.shard, Shard::new(self.config.clone()));
        self.under_way.clear();
        self.timers = TimerSet::default();
        let replies = old.unload();
        self.carry_out(Effects { replies, write: None, timers: Vec::new() });
        for entry in &self.log {
            match entry {
                Entry::Plain(record) => self.shard.replay(record),
                Entry::Pending(producer, record) => self.shard.replay_pending(*producer, record),
                Entry::End(producer, committed) => self.shard.on_transaction_ended(*producer, *committed),
            }
        }
        let effects = self.shard.on_loaded(self.now());
        self.carry_out(effects);
    }

    /// A script may leave requests parked, but what it persisted must be what a reload would find.
    fn check_end(&mut self) {
        let mut replayed = Persisted::default();
        for entry in &self.log {
            match entry {
                Entry::Plain(record) => replayed.apply(record),
                Entry::Pending(producer, record) => replayed.apply_pending(*producer, record),
                Entry::End(producer, committed) => replayed.end_transaction(*producer, *committed),
            }
        }
        assert_eq!(&replayed, self.shard.persisted(), "a replay gives another state");
    }

    fn request(&mut self, verb: &str, label: &str, args: &Args) -> Request {
        let group = || GroupId::new(args.words.first().map_or("", |name| name.trim_matches('"')));
        let instance_id = args.get("instance").map(InstanceId::new);
        match verb {
            "join" => {
                let client = args.get("client").unwrap_or(label);
                let asked =
                    self.ids_asked.entry(args.get("instance").unwrap_or(client).to_owned()).or_default();
                if args.word(1) == "?" {
                    *asked += 1;
                }
                let version = args.number("v", 9);
                Request::Join(JoinRequest {
                    group: group(),
                    member_id: member(args.word(1)),
                    instance_id,
                    client_id: client.into(),
                    client_host: "/127.0.0.1".into(),
                    session_timeout_ms: small(args.number("session", 10_000)),
                    rebalance_timeout_ms: small(args.number("rebalance", 60_000)),
                    protocol_type: args.get("type").unwrap_or("consumer").into(),
                    protocols: protocols(args.get("protocols").unwrap_or("range:t")),
                    requires_known_member_id: version >= 4,
                    supports_skip_assignment: version >= 9,
                    reason: None,
                    fresh_uuid: u128::from(*asked).to_be_bytes(),
                })
            }
            "sync" => Request::Sync(SyncRequest {
                group: group(),
                generation: args.word(2).parse().expect("a generation"),
                member_id: member(args.word(1)),
                instance_id,
                protocol_type: args.get("type").map(Arc::from),
                protocol: args.get("protocol").map(Arc::from),
                assignments: args
                    .get("assign")
                    .into_iter()
                    .flat_map(|list| list.split(','))
                    .map(|pair| pair.split_once(':').expect("MEMBER:TEXT"))
                    .map(|(id, text)| Assignment {
                        member_id: member(id),
                        assignment: text.as_bytes().into(),
                    })
                    .collect(),
            }),
            "heartbeat" => Request::Heartbeat(HeartbeatRequest {
                group: group(),
                generation: args.word(2).parse().expect("a generation"),
                member_id: member(args.word(1)),
                instance_id,
            }),
            "leave" => Request::Leave(LeaveRequest {
                group: group(),
                members: args.words[1..]
                    .iter()
                    .map(|word| word.split_once('@').map_or((word.as_str(), None), |(id, i)| (id, Some(i))))
                    .map(|(id, instance)| LeavingMember {
                        member_id: member(id),
                        instance_id: instance.map(InstanceId::new),
                        reason: None,
                    })
                    .collect(),
            }),
            "commit" => Request::OffsetCommit(OffsetCommitRequest {
                group: group(),
                generation: small(args.number("gen", -1)),
                member_id: member(args.get("member").unwrap_or("?")),
                instance_id,
                retention_ms: args.get("retention").map(|text| text.parse().expect("milliseconds")),
                knows_group_not_found: args.number("v", 9) >= 9,
                topics: args.words[1..].iter().map(|word| commit_topic(word, args)).collect(),
            }),
            "txn-commit" => Request::TxnOffsetCommit(TxnOffsetCommitRequest {
                group: group(),
                producer: Producer { id: ProducerId(args.number("producer", -1)), epoch: ProducerEpoch(0) },
                generation: small(args.number("gen", -1)),
                member_id: member(args.get("member").unwrap_or("?")),
                instance_id,
                topics: args.words[1..].iter().map(|word| commit_topic(word, args)).collect(),
            }),
            "fetch" => Request::OffsetFetch(OffsetFetchRequest {
                group: group(),
                topics: (args.words.len() > 1).then(|| {
                    by_topic(&args.words[1..])
                        .into_iter()
                        .map(|(topic, partitions)| FetchTopic {
                            topic,
                            topic_id: topic_id(args.get("id").unwrap_or("0")),
                            partitions,
                        })
                        .collect()
                }),
                require_stable: args.get("stable").is_some(),
            }),
            "describe" => Request::Describe(DescribeRequest {
                groups: args.words.iter().map(|name| GroupId::new(name)).collect(),
            }),
            "list" => {
                let filter = |key: &str| {
                    args.get(key).into_iter().flat_map(|list| list.split(',')).map(Arc::from).collect()
                };
                Request::List(ListRequest { states: filter("states"), types: filter("types") })
            }
            "delete" => Request::Delete(DeleteRequest {
                groups: args.words.iter().map(|name| GroupId::new(name)).collect(),
            }),
            "forget" => Request::OffsetDelete(OffsetDeleteRequest {
                group: group(),
                topics: by_topic(&args.words[1..])
                    .into_iter()
                    .map(|(topic, partitions)| DeleteTopic { topic, partitions })
                    .collect(),
            }),
            other => panic!("no such command: {other}"),
        }
    }
}

struct Args {
    words: Vec<String>,
    pairs: BTreeMap<String, String>,
}

impl Args {
    /// `key=value` with a lower-case key is a setting; `topic-0=5` is a word.
    fn parse<'a>(words: impl Iterator<Item = &'a str>) -> Args {
        let mut args = Args { words: Vec::new(), pairs: BTreeMap::new() };
        for word in words {
            match word.split_once('=') {
                Some((key, value)) if key.chars().all(|c| c.is_ascii_lowercase() || c == '.') => {
                    args.pairs.insert(key.to_owned(), value.to_owned());
                }
                _ => args.words.push(word.to_owned()),
            }
        }
        args
    }

    fn word(&self, index: usize) -> &str {
        self.words.get(index).unwrap_or_else(|| panic!("argument {index} is missing"))
    }

    fn get(&self, key: &str) -> Option<&str> {
        self.pairs.get(key).map(String::as_str)
    }

    fn number(&self, key: &str, default: i64) -> i64 {
        self.get(key).map_or(default, |text| text.parse().expect("a number"))
    }
}

fn small(number: i64) -> i32 {
    i32::try_from(number).expect("fits in 32 bits")
}

fn topic(name: &str) -> TopicName {
    TopicName::new(name).expect("a topic name")
}

fn topic_id(number: &str) -> TopicId {
    TopicId(number.parse::<u128>().expect("a number").to_be_bytes())
}

fn place(text: &str) -> (TopicName, PartitionIndex) {
    let (name, index) = text.rsplit_once('-').expect("TOPIC-P");
    (topic(name), PartitionIndex(index.parse().expect("a partition")))
}

fn by_topic(words: &[String]) -> BTreeMap<TopicName, Vec<PartitionIndex>> {
    let mut topics: BTreeMap<TopicName, Vec<PartitionIndex>> = BTreeMap::new();
    for (topic, partition) in words.iter().map(|word| place(word)) {
        topics.entry(topic).or_default().push(partition);
    }
    topics
}

fn commit_topic(word: &str, args: &Args) -> CommitTopic {
    let (at, value) = word.split_once('=').expect("TOPIC-P=OFFSET");
    let (offset, metadata) =
        value.split_once('/').map_or((value, None), |(offset, text)| (offset, Some(text)));
    let (topic, partition) = place(at);
    CommitTopic {
        topic,
        topic_id: topic_id(args.get("id").unwrap_or("0")),
        partitions: vec![CommitPartition {
            partition,
            offset: Offset(offset.parse().expect("an offset")),
            leader_epoch: LeaderEpoch(small(args.number("epoch", -1))),
            metadata: metadata.map(Arc::from),
        }],
    }
}

/// `range:a+b` carries a real consumer subscription to topics a and b, `name:=text` carries the text as it is.
fn protocols(list: &str) -> Vec<JoinProtocol> {
    let each = |text: &str| {
        let (name, metadata) = text.split_once(':').expect("NAME:METADATA");
        let metadata: Blob = match metadata.strip_prefix('=') {
            Some(raw) => raw.as_bytes().into(),
            None => subscription(metadata).into(),
        };
        JoinProtocol { name: name.into(), metadata }
    };
    list.split(',').filter(|text| !text.is_empty()).map(each).collect()
}

fn subscription(topics: &str) -> Vec<u8> {
    let names: Vec<&str> = topics.split('+').filter(|name| !name.is_empty()).collect();
    let mut bytes = vec![0, 1];
    bytes.extend(u32::try_from(names.len()).expect("few").to_be_bytes());
    for name in names {
        bytes.extend(u16::try_from(name.len()).expect("short").to_be_bytes());
        bytes.extend(name.as_bytes());
    }
    bytes.extend([0xff; 4]);
    bytes
}

const NIL_HEAD: &str = "-00000000-0000-0000-0000-";

/// `c#3` is the third id that client c asked for; `?` is no id.
fn member(text: &str) -> MemberId {
    match text.split_once('#') {
        _ if text == "?" => MemberId::unknown(),
        Some((prefix, number)) => {
            MemberId::new(&format!("{prefix}{NIL_HEAD}{:012x}", number.parse::<u64>().expect("a number")))
        }
        None => MemberId::new(text),
    }
}

fn short_ids(text: &str) -> String {
    let mut pieces = text.split(NIL_HEAD);
    let mut short = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let (number, rest) = piece.split_at(12);
        let _ = write!(short, "#{}{rest}", u64::from_str_radix(number, 16).expect("hex"));
    }
    short
}

fn show_key(key: &TimerKey) -> String {
    match key {
        TimerKey::Member(group, member) => format!("member {group} {member}"),
        TimerKey::Join(group) => format!("join {group}"),
        TimerKey::Sync(group) => format!("sync {group}"),
    }
}

fn show_record(record: &Record) -> String {
    match record {
        Record::OffsetCommit { group, topic, partition, value: None } => {
            format!("offset {group} {topic}-{partition} forgotten")
        }
        Record::OffsetCommit { group, topic, partition, value: Some(value) } => format!(
            "offset {group} {topic}-{partition} = {} epoch {} metadata {:?} at {} expires {} topic {}",
            value.offset,
            value.leader_epoch,
            value.metadata,
            value.commit_timestamp,
            value.expire_timestamp.map_or("-".to_owned(), |at| at.to_string()),
            u128::from_be_bytes(value.topic_id.0),
        ),
        Record::GroupMetadata { group, value: None } => format!("group {group} gone"),
        Record::GroupMetadata { group, value: Some(value) } => {
            let mut text = format!(
                "group {group} type {} generation {} protocol {} leader {} at {}",
                optional(value.protocol_type.as_deref()),
                value.generation,
                optional(value.protocol.as_deref()),
                optional(value.leader.as_ref().map(MemberId::as_str)),
                value.state_timestamp
            );
            for member in &value.members {
                let _ = write!(
                    text,
                    " [{} instance {} client {} {} rebalance {} session {} reads {} has {}]",
                    member.member_id,
                    optional(member.instance_id.as_ref().map(InstanceId::as_str)),
                    member.client_id,
                    member.client_host,
                    member.rebalance_timeout_ms,
                    member.session_timeout_ms,
                    show_blob(&member.subscription),
                    show_blob(&member.assignment),
                );
            }
            text
        }
    }
}

fn optional(text: Option<&str>) -> &str {
    text.unwrap_or("-")
}

/// A subscription as its topics, other bytes as text.
fn show_blob(blob: &[u8]) -> String {
    if blob.starts_with(&[0, 1, 0, 0]) {
        let mut names = Vec::new();
        let mut rest = &blob[6..];
        for _ in 0..blob[5] {
            let (name, tail) = rest[2..].split_at(usize::from(rest[1]));
            names.push(String::from_utf8_lossy(name).into_owned());
            rest = tail;
        }
        return format!("<{}>", names.join("+"));
    }
    format!("{:?}", String::from_utf8_lossy(blob))
}

fn outcome(result: &Result<(), GroupError>) -> String {
    result.map_or_else(|error| format!("{error:?}"), |()| "ok".to_owned())
}

fn show_response(response: &Response) -> String {
    match response {
        Response::Join(JoinResponse { member_id, outcome: Err(error) }) => {
            format!("join refused: {error:?}, member {:?}", member_id.as_str())
        }
        Response::Join(JoinResponse { member_id, outcome: Ok(joined) }) => {
            let mut text = format!(
                "joined as {member_id} generation {} type {} protocol {} leader {}{}",
                joined.generation,
                optional(joined.protocol_type.as_deref()),
                optional(joined.protocol.as_deref()),
                joined.leader,
                if joined.skip_assignment { " skip assignment" } else { "" },
            );
            for member in &joined.members {
                let _ = write!(
                    text,
                    " [{} instance {} reads {}]",
                    member.member_id,
                    optional(member.instance_id.as_ref().map(InstanceId::as_str)),
                    show_blob(&member.metadata)
                );
            }
            text
        }
        Response::Sync(Err(error)) => format!("sync refused: {error:?}"),
        Response::Sync(Ok(synced)) => format!(
            "synced type {} protocol {} has {}",
            optional(synced.protocol_type.as_deref()),
            optional(synced.protocol.as_deref()),
            show_blob(&synced.assignment)
        ),
        Response::Heartbeat(result) => format!("heartbeat {}", outcome(result)),
        Response::Leave(Err(error)) => format!("leave refused: {error:?}"),
        Response::Leave(Ok(members)) => {
            let each = members.iter().map(|member| {
                let instance = member.instance_id.as_ref().map_or(String::new(), |id| format!("@{id}"));
                format!("{:?}{instance} {}", member.member_id.as_str(), outcome(&member.outcome))
            });
            format!("left: {}", each.collect::<Vec<_>>().join(", "))
        }
        Response::OffsetCommit(Err(error)) | Response::TxnOffsetCommit(Err(error)) => {
            format!("commit refused: {error:?}")
        }
        Response::OffsetCommit(Ok(topics)) | Response::TxnOffsetCommit(Ok(topics)) => {
            let each = topics.iter().flat_map(|topic| {
                topic.partitions.iter().map(|(index, result)| {
                    let name = if topic.topic_id.is_zero() { "" } else { "(id) " };
                    format!("{name}{}-{index} {}", topic.topic, outcome(result))
                })
            });
            format!("committed: {}", each.collect::<Vec<_>>().join(", "))
        }
        Response::OffsetFetch(Err(error)) => format!("fetch refused: {error:?}"),
        Response::OffsetFetch(Ok(topics)) => {
            let each = topics.iter().flat_map(|topic| {
                topic.partitions.iter().map(|found| {
                    let (offset, epoch) = (found.offset, found.leader_epoch);
                    let unstable = if found.unstable { " unstable" } else { "" };
                    let place = format!("{}-{}", topic.topic, found.partition);
                    format!("{place} {offset} epoch {epoch} {:?}{unstable}", found.metadata)
                })
            });
            format!("fetched: {}", each.collect::<Vec<_>>().join(", "))
        }
        Response::Describe(groups) => {
            let each = groups.iter().map(|group| {
                let mut text = format!(
                    "group {} {} type {:?} protocol {:?}",
                    group.group, group.state, group.protocol_type, group.protocol
                );
                for member in &group.members {
                    let _ = write!(
                        text,
                        " [{} instance {} client {} {} reads {} has {}]",
                        member.member_id,
                        optional(member.instance_id.as_ref().map(InstanceId::as_str)),
                        member.client_id,
                        member.client_host,
                        show_blob(&member.metadata),
                        show_blob(&member.assignment)
                    );
                }
                text
            });
            each.collect::<Vec<_>>().join("\n")
        }
        Response::List(groups) => {
            let each = groups
                .iter()
                .map(|group| format!("{} {} type {:?}", group.group, group.state, group.protocol_type));
            format!("groups: {}", each.collect::<Vec<_>>().join(", "))
        }
        Response::Delete(groups) => {
            let each = groups.iter().map(|group| format!("{} {}", group.group, outcome(&group.outcome)));
            format!("deleted: {}", each.collect::<Vec<_>>().join(", "))
        }
        Response::OffsetDelete(Err(error)) => format!("forget refused: {error:?}"),
        Response::OffsetDelete(Ok(topics)) => {
            let each = topics.iter().flat_map(|topic| {
                let partitions = topic.partitions.iter();
                partitions.map(|(index, result)| format!("{}-{index} {}", topic.topic, outcome(result)))
            });
            format!("forgot: {}", each.collect::<Vec<_>>().join(", "))
        }
    }
}
