//! Random lives of a shard against a checker that knows what must never happen.
//!
//! A seed decides everything: clients of two groups join, sync, heartbeat, leave, commit and vanish; administrators
//! look, delete and forget; writes settle late or fail; time passes; the partition is lost and loaded again. After
//! every step the checker looks at the answers and at the shard. In the end everybody is gone, and nothing may be
//! left: no parked request, no member, no timer.
//!
//! The checker is itself checked: with each bug of `planted` it must find a violation.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use ouzel_model::{
    GroupId, LeaderEpoch, Offset, PartitionIndex, ProducerEpoch, ProducerId, TimestampMs, TopicId, TopicName,
};

use crate::planted::{self, Bug};
use crate::request::*;
use crate::response::*;
use crate::turn::OnCommit;
use crate::*;

const STEPS: usize = 400;

/// `OUZEL_SEEDS=20000` looks longer.
fn seeds() -> u64 {
    std::env::var("OUZEL_SEEDS").map_or(500, |text| text.parse().expect("a number"))
}

#[test]
fn no_life_of_a_shard_breaks_a_promise() {
    for seed in 0..seeds() {
        if let Err(violation) = live(seed) {
            panic!("seed {seed}: {violation}");
        }
    }
}

#[test]
fn the_checker_notices_planted_bugs() {
    for bug in [
        Bug::GenerationNotBumped,
        Bug::ReplyDropped,
        Bug::CommitNotApplied,
        Bug::FailureAcknowledged,
        Bug::AssignmentNotAwaited,
        Bug::TwoLeaders,
    ] {
        let found = planted::with(Some(bug), || (0..50).find_map(|seed| live(seed).err()));
        assert!(found.is_some(), "{bug:?} goes unnoticed");
    }
}

fn live(seed: u64) -> Result<(), String> {
    let mut world = World::new(seed);
    for step in 0..STEPS {
        world.step().map_err(|violation| format!("step {step}: {violation}"))?;
    }
    world.end()
}

/// What a client believes about itself, and what it asked.
struct Client {
    group: GroupId,
    instance_id: Option<InstanceId>,
    member_id: MemberId,
    joined: Option<Joined>,
    protocols: Vec<JoinProtocol>,
}

/// A request without an answer.
enum Open {
    Join(usize),
    Sync(usize),
    Commit { place: Place, offset: i64 },
    Fetch(GroupId),
    Other,
}

type Place = (GroupId, TopicName, PartitionIndex);

/// What the partition's log holds.
enum Entry {
    Plain(Record),
    Pending(ProducerId, Record),
    End(ProducerId, bool),
}

struct World {
    random: Random,
    shard: Shard,
    timers: TimerSet,
    now_ms: u64,
    log: Vec<Entry>,
    under_way: VecDeque<Write>,
    clients: Vec<Client>,
    open: BTreeMap<Ticket, Open>,
    tickets: u64,
    /// The offsets a reader must see, each with its place in the log: kept by Kafka's own rule, that of two commits
    /// the one further on in the log counts.
    expected: BTreeMap<Place, (i64, usize)>,
    expected_pending: BTreeMap<(ProducerId, Place), (i64, usize)>,
    /// Every offset value that ever reached the log. Values are never used twice.
    durable: BTreeSet<i64>,
    next_offset: i64,
    /// Who led which generation. A group that starts over, or a reload, starts a new account.
    leaders: BTreeMap<(GroupId, u64, i32), usize>,
    accounts: BTreeMap<GroupId, u64>,
}

impl World {
    fn new(seed: u64) -> World {
        let groups = [GroupId::new("g"), GroupId::new("h")];
        let clients = (0..7)
            .map(|index| Client {
                group: groups[usize::from(index > 4)].clone(),
                instance_id: (index % 3 == 1).then(|| InstanceId::new(&format!("i{index}"))),
                member_id: MemberId::unknown(),
                joined: None,
                protocols: protocols(&["range"]),
            })
            .collect();
        World {
            random: Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
            shard: Shard::new(Config { members_max: 4, ..Config::default() }),
            timers: TimerSet::default(),
            now_ms: 0,
            log: Vec::new(),
            under_way: VecDeque::new(),
            clients,
            open: BTreeMap::new(),
            tickets: 0,
            expected: BTreeMap::new(),
            expected_pending: BTreeMap::new(),
            durable: BTreeSet::new(),
            next_offset: 0,
            leaders: BTreeMap::new(),
            accounts: BTreeMap::new(),
        }
    }

    fn now(&self) -> TimestampMs {
        TimestampMs(i64::try_from(self.now_ms).expect("a life is short"))
    }

    fn step(&mut self) -> Result<(), String> {
        let client = self.random.below(self.clients.len());
        match self.random.below(100) {
            0..22 => self.join(client),
            22..42 => self.sync(client),
            42..52 => self.heartbeat(client),
            52..55 => self.leave(client),
            55..62 => self.commit(client),
            62..64 => self.commit_in_transaction(client),
            64..65 => self.end_transaction(),
            65..68 => self.fetch(client),
            68..72 => self.administer(client),
            72..73 => self.reload(),
            73..88 => self.settle(),
            _ => self.advance(),
        }
    }

    /// Everyone goes away; writes succeed from now on.
    fn end(&mut self) -> Result<(), String> {
        for _ in 0..10_000 {
            if !self.under_way.is_empty() {
                self.settle_as(Ok(()))?;
            } else if let Some(at) = self.timers.next_deadline_ms() {
                self.now_ms = self.now_ms.max(at);
                self.fire_due()?;
            } else {
                break;
            }
        }
        if !self.open.is_empty() {
            return Err(format!("{} requests are never answered", self.open.len()));
        }
        if let Some(group) = self.shard.groups.values().find(|group| group.state != GroupState::Empty) {
            return Err(format!("group {} is {} although nobody is left", group.id, group.state));
        }
        if self.timers.next_deadline_ms().is_some() || !self.under_way.is_empty() {
            return Err("the shard does not come to rest".to_owned());
        }
        // Retention passes: nothing is left to remember.
        self.end_transaction_of(ProducerId(0), true)?;
        self.end_transaction_of(ProducerId(1), false)?;
        self.now_ms += 8 * 24 * 60 * 60 * 1_000;
        let effects = self.shard.expire(self.now());
        self.carry_out(effects)?;
        while !self.under_way.is_empty() {
            self.settle_as(Ok(()))?;
        }
        let persisted = self.shard.persisted();
        let nothing =
            persisted.groups().is_empty() && persisted.offset_count() == 0 && self.shard.groups.is_empty();
        if nothing { Ok(()) } else { Err("something outlives its retention".to_owned()) }
    }

    // What clients do.

    fn join(&mut self, index: usize) -> Result<(), String> {
        let rare = self.random.one_in(8);
        let choice = self.random.below(3);
        let fresh_uuid = u128::from(self.random.next()).to_be_bytes();
        let client = &mut self.clients[index];
        if rare {
            client.protocols = protocols([&["range"][..], &["range", "roundrobin"], &["roundrobin"]][choice]);
        }
        // A restarted client has forgotten its id.
        let member_id = if rare { MemberId::unknown() } else { client.member_id.clone() };
        let request = Request::Join(JoinRequest {
            group: client.group.clone(),
            member_id,
            instance_id: client.instance_id.clone(),
            client_id: format!("c{index}").into(),
            client_host: "/127.0.0.1".into(),
            session_timeout_ms: 6_000 + 4_000 * i32::try_from(choice).expect("small"),
            rebalance_timeout_ms: 20_000,
            protocol_type: "consumer".into(),
            protocols: client.protocols.clone(),
            requires_known_member_id: index.is_multiple_of(2),
            supports_skip_assignment: true,
            reason: None,
            fresh_uuid,
        });
        self.ask(Open::Join(index), request)
    }

    fn sync(&mut self, index: usize) -> Result<(), String> {
        let client = &self.clients[index];
        let Some(joined) = &client.joined else { return Ok(()) };
        let stamp = self.random.next();
        let assignments = joined
            .members
            .iter()
            .map(|member| Assignment {
                member_id: member.member_id.clone(),
                assignment: format!("{stamp}:{}", member.member_id).into_bytes().into(),
            })
            .collect();
        let request = Request::Sync(SyncRequest {
            group: client.group.clone(),
            generation: joined.generation,
            member_id: client.member_id.clone(),
            instance_id: client.instance_id.clone(),
            protocol_type: joined.protocol_type.clone(),
            protocol: joined.protocol.clone(),
            assignments,
        });
        self.ask(Open::Sync(index), request)
    }

    fn heartbeat(&mut self, index: usize) -> Result<(), String> {
        let client = &self.clients[index];
        let Some(joined) = &client.joined else { return Ok(()) };
        let request = Request::Heartbeat(HeartbeatRequest {
            group: client.group.clone(),
            generation: joined.generation,
            member_id: client.member_id.clone(),
            instance_id: client.instance_id.clone(),
        });
        self.ask(Open::Other, request)
    }

    fn leave(&mut self, index: usize) -> Result<(), String> {
        let client = &self.clients[index];
        let request = Request::Leave(LeaveRequest {
            group: client.group.clone(),
            members: vec![LeavingMember {
                member_id: client.member_id.clone(),
                instance_id: client.instance_id.clone(),
                reason: None,
            }],
        });
        self.ask(Open::Other, request)
    }

    fn commit(&mut self, index: usize) -> Result<(), String> {
        self.next_offset += 1;
        let offset = self.next_offset;
        let partition = PartitionIndex(i32::try_from(self.random.below(3)).expect("small"));
        let client = &self.clients[index];
        let generation = client.joined.as_ref().map_or(-1, |joined| joined.generation);
        let place = (client.group.clone(), topic(), partition);
        let request = Request::OffsetCommit(OffsetCommitRequest {
            group: client.group.clone(),
            generation,
            member_id: client.member_id.clone(),
            instance_id: client.instance_id.clone().filter(|_| generation >= 0),
            retention_ms: None,
            knows_group_not_found: true,
            topics: commit_topics(partition, offset),
        });
        self.ask(Open::Commit { place, offset }, request)
    }

    fn commit_in_transaction(&mut self, index: usize) -> Result<(), String> {
        self.next_offset += 1;
        let offset = self.next_offset;
        let partition = PartitionIndex(i32::try_from(self.random.below(3)).expect("small"));
        let producer = ProducerId(i64::try_from(self.random.below(2)).expect("small"));
        let client = &self.clients[index];
        let place = (client.group.clone(), topic(), partition);
        let request = Request::TxnOffsetCommit(TxnOffsetCommitRequest {
            group: client.group.clone(),
            producer: Producer { id: producer, epoch: ProducerEpoch(0) },
            generation: client.joined.as_ref().map_or(-1, |joined| joined.generation),
            member_id: client.member_id.clone(),
            instance_id: None,
            topics: commit_topics(partition, offset),
        });
        self.ask(Open::Commit { place, offset }, request)
    }

    /// The coordinator of transactions ends one once its commits have settled.
    fn end_transaction(&mut self) -> Result<(), String> {
        let producer = ProducerId(i64::try_from(self.random.below(2)).expect("small"));
        let committed = !self.random.one_in(3);
        let open = self.under_way.iter().any(|write| write.producer.is_some_and(|of| of.id == producer));
        if open { Ok(()) } else { self.end_transaction_of(producer, committed) }
    }

    fn end_transaction_of(&mut self, producer: ProducerId, committed: bool) -> Result<(), String> {
        self.log.push(Entry::End(producer, committed));
        let ended: Vec<Place> =
            self.expected_pending.keys().filter(|key| key.0 == producer).map(|key| key.1.clone()).collect();
        for place in ended {
            let Some(pending) = self.expected_pending.remove(&(producer, place.clone())) else { continue };
            if committed && self.expected.get(&place).is_none_or(|present| present.1 < pending.1) {
                self.expected.insert(place, pending);
            }
        }
        self.shard.on_transaction_ended(producer, committed);
        self.check_shard()
    }

    fn fetch(&mut self, index: usize) -> Result<(), String> {
        let group = self.clients[index].group.clone();
        let require_stable = self.random.one_in(2);
        let request =
            Request::OffsetFetch(OffsetFetchRequest { group: group.clone(), topics: None, require_stable });
        self.ask(Open::Fetch(group), request)
    }

    fn administer(&mut self, index: usize) -> Result<(), String> {
        let group = self.clients[index].group.clone();
        let request = match self.random.below(8) {
            0 | 1 => Request::Delete(DeleteRequest { groups: vec![group] }),
            2 => Request::OffsetDelete(OffsetDeleteRequest {
                group,
                topics: vec![DeleteTopic { topic: topic(), partitions: vec![PartitionIndex(0)] }],
            }),
            3 => Request::Describe(DescribeRequest { groups: vec![group] }),
            4 => Request::List(ListRequest::default()),
            5 => {
                let effects = self.shard.on_topics_deleted(self.now(), &[(topic(), TopicId([1; 16]))]);
                return self.carry_out(effects);
            }
            _ => {
                let effects = self.shard.expire(self.now());
                return self.carry_out(effects);
            }
        };
        self.ask(Open::Other, request)
    }

    // What the runtime does.

    fn ask(&mut self, open: Open, request: Request) -> Result<(), String> {
        let ticket = Ticket(self.tickets);
        self.tickets += 1;
        self.open.insert(ticket, open);
        let before = self.stages();
        let effects = self.shard.handle(self.now(), ticket, request);
        self.check_generations(&before)?;
        self.carry_out(effects)
    }

    fn advance(&mut self) -> Result<(), String> {
        self.now_ms += u64::try_from(self.random.below(3_000)).expect("small");
        self.fire_due()
    }

    fn fire_due(&mut self) -> Result<(), String> {
        while let Some(key) = self.timers.pop_due(self.now_ms) {
            let before = self.stages();
            let effects = self.shard.on_timer(self.now(), &key);
            self.check_generations(&before)?;
            self.carry_out(effects)?;
        }
        Ok(())
    }

    fn settle(&mut self) -> Result<(), String> {
        let failures = [WriteFailure::Unavailable, WriteFailure::NotLeader, WriteFailure::Refused];
        let outcome = if self.random.one_in(12) { Err(failures[self.random.below(3)]) } else { Ok(()) };
        self.settle_as(outcome)
    }

    fn settle_as(&mut self, outcome: Result<(), WriteFailure>) -> Result<(), String> {
        let Some(write) = self.under_way.pop_front() else { return Ok(()) };
        match outcome {
            Ok(()) => write.records.iter().for_each(|record| self.commit_record(write.producer, record)),
            // Whatever the write was to say about a group, its generations may start over.
            Err(_) => write.records.iter().for_each(|record| self.new_account(record.group())),
        }
        let before = self.stages();
        let effects = self.shard.on_committed(self.now(), write.token, outcome);
        self.check_generations(&before)?;
        self.carry_out(effects)
    }

    fn commit_record(&mut self, producer: Option<Producer>, record: &Record) {
        let at = self.log.len();
        self.log.push(match producer {
            Some(producer) => Entry::Pending(producer.id, record.clone()),
            None => Entry::Plain(record.clone()),
        });
        match record {
            Record::OffsetCommit { group, topic, partition, value } => {
                let place = (group.clone(), topic.clone(), *partition);
                match value {
                    Some(value) => {
                        self.durable.insert(value.offset.value());
                        let committed = (value.offset.value(), at);
                        match producer {
                            Some(producer) => self.expected_pending.insert((producer.id, place), committed),
                            None => self.expected.insert(place, committed),
                        };
                    }
                    None => {
                        self.expected.remove(&place);
                        self.expected_pending.retain(|key, _| key.1 != place);
                    }
                }
            }
            Record::GroupMetadata { .. } => {}
        }
    }

    fn reload(&mut self) -> Result<(), String> {
        self.under_way.clear();
        self.timers = TimerSet::default();
        let config = (*self.shard.config).clone();
        let old = std::mem::replace(&mut self.shard, Shard::new(config));
        let replies = old.unload();
        for (ticket, _) in &replies {
            self.open.remove(ticket).ok_or_else(|| format!("{ticket:?} is answered twice"))?;
        }
        if !self.open.is_empty() {
            return Err(format!("{} requests are lost with the partition", self.open.len()));
        }
        for entry in &self.log {
            match entry {
                Entry::Plain(record) => self.shard.replay(record),
                Entry::Pending(producer, record) => self.shard.replay_pending(*producer, record),
                Entry::End(producer, committed) => self.shard.on_transaction_ended(*producer, *committed),
            }
        }
        let groups: Vec<GroupId> = self.clients.iter().map(|client| client.group.clone()).collect();
        groups.iter().for_each(|group| self.new_account(group));
        let effects = self.shard.on_loaded(self.now());
        self.carry_out(effects)
    }

    fn carry_out(&mut self, effects: Effects) -> Result<(), String> {
        for record in effects.write.iter().flat_map(|write| write.records.iter()) {
            if let Record::GroupMetadata { group, value: None } = record {
                self.new_account(&group.clone());
            }
        }
        self.under_way.extend(effects.write);
        self.timers.apply(self.now_ms, effects.timers);
        for (ticket, response) in effects.replies {
            let open = self.open.remove(&ticket).ok_or_else(|| format!("{ticket:?} is answered twice"))?;
            self.check_answer(open, response)?;
        }
        self.check_shard()
    }

    // What must hold.

    fn new_account(&mut self, group: &GroupId) {
        *self.accounts.entry(group.clone()).or_default() += 1;
    }

    fn stages(&self) -> BTreeMap<GroupId, (GroupState, i32)> {
        self.shard.groups.iter().map(|(id, group)| (id.clone(), (group.state, group.generation))).collect()
    }

    /// Every generation has a number of its own, one above the last.
    fn check_generations(&self, before: &BTreeMap<GroupId, (GroupState, i32)>) -> Result<(), String> {
        for (id, (state, generation)) in self.stages() {
            let Some((old_state, old_generation)) = before.get(&id) else { continue };
            let started = *old_state != state
                && matches!(state, GroupState::CompletingRebalance | GroupState::Empty)
                || (*old_state == GroupState::CompletingRebalance
                    && state == *old_state
                    && generation != *old_generation);
            if started && generation <= *old_generation {
                return Err(format!("group {id} starts generation {generation} after {old_generation}"));
            }
            if generation < *old_generation {
                return Err(format!("group {id} falls from generation {old_generation} to {generation}"));
            }
        }
        Ok(())
    }

    fn check_answer(&mut self, open: Open, response: Response) -> Result<(), String> {
        match (open, response) {
            (Open::Join(index), Response::Join(response)) => self.check_joined(index, response),
            (Open::Sync(index), Response::Sync(outcome)) => self.check_synced(index, outcome),
            (
                Open::Commit { place, offset },
                Response::OffsetCommit(outcome) | Response::TxnOffsetCommit(outcome),
            ) => {
                let acknowledged = outcome.is_ok_and(|topics| topics[0].partitions[0].1.is_ok());
                if acknowledged != self.durable.contains(&offset) {
                    return Err(format!("commit of {offset} to {place:?}: answer and log disagree"));
                }
                Ok(())
            }
            (Open::Fetch(group), Response::OffsetFetch(outcome)) => {
                let topics = outcome.map_err(|error| format!("fetch refused: {error}"))?;
                // What may still move is not told, and not judged.
                let unstable: BTreeSet<Place> = topics
                    .iter()
                    .flat_map(|topic| topic.partitions.iter().map(move |each| (&topic.topic, each)))
                    .filter(|(_, each)| each.unstable)
                    .map(|(topic, each)| (group.clone(), topic.clone(), each.partition))
                    .collect();
                if let Some(stable) =
                    unstable.iter().find(|place| !self.expected_pending.keys().any(|key| key.1 == **place))
                {
                    return Err(format!("{stable:?} is called unstable"));
                }
                let seen: BTreeMap<Place, i64> = topics
                    .into_iter()
                    .flat_map(|topic| {
                        topic.partitions.into_iter().map(move |each| (topic.topic.clone(), each))
                    })
                    .map(|(topic, each)| ((group.clone(), topic, each.partition), each.offset.value()))
                    .filter(|(place, _)| !unstable.contains(place))
                    .collect();
                let expected =
                    self.expected.iter().filter(|(place, _)| place.0 == group && !unstable.contains(*place));
                let expected: BTreeMap<Place, i64> =
                    expected.map(|(key, value)| (key.clone(), value.0)).collect();
                if seen == expected { Ok(()) } else { Err(format!("fetch sees {seen:?}, not {expected:?}")) }
            }
            (Open::Other, Response::Join(_) | Response::Sync(_)) => {
                Err("an answer of another kind".to_owned())
            }
            (Open::Other, _) => Ok(()),
            _ => Err("an answer of another kind".to_owned()),
        }
    }

    fn check_joined(&mut self, index: usize, response: JoinResponse) -> Result<(), String> {
        let client = &mut self.clients[index];
        match response.outcome {
            Ok(joined) => {
                client.member_id = response.member_id.clone();
                client.joined = Some(joined.clone());
                let leads = joined.leader == response.member_id;
                if leads == joined.members.is_empty() {
                    return Err(format!(
                        "{} leads: {leads}, members: {}",
                        response.member_id,
                        joined.members.len()
                    ));
                }
                let account = self.accounts.get(&client.group).copied().unwrap_or(0);
                let key = (client.group.clone(), account, joined.generation);
                if leads && *self.leaders.entry(key).or_insert(index) != index {
                    return Err(format!(
                        "generation {} of {} has two leaders",
                        joined.generation, client.group
                    ));
                }
                Ok(())
            }
            Err(error) => {
                match error {
                    GroupError::MemberIdRequired => client.member_id = response.member_id,
                    GroupError::UnknownMember | GroupError::FencedInstance => {
                        client.member_id = MemberId::unknown();
                    }
                    _ => {}
                }
                client.joined = None;
                Ok(())
            }
        }
    }

    /// A member may only work on what a reload would give it.
    fn check_synced(&mut self, index: usize, outcome: Result<Synced, GroupError>) -> Result<(), String> {
        let client = &mut self.clients[index];
        let synced = match outcome {
            Ok(synced) => synced,
            Err(_) => {
                client.joined = None;
                return Ok(());
            }
        };
        let latest = self.log.iter().rev().find_map(|entry| match entry {
            Entry::Plain(Record::GroupMetadata { group, value }) if *group == client.group => value.as_ref(),
            _ => None,
        });
        let generations: Vec<i32> = latest.iter().map(|metadata| metadata.generation).collect();
        let on_record = latest.is_some_and(|metadata| {
            metadata.members.iter().any(|member| member.assignment == synced.assignment)
        });
        if on_record {
            Ok(())
        } else {
            Err(format!("an assignment is given before it is persisted {generations:?}"))
        }
    }

    fn check_shard(&self) -> Result<(), String> {
        let mut replayed = Persisted::default();
        for entry in &self.log {
            match entry {
                Entry::Plain(record) => replayed.apply(record),
                Entry::Pending(producer, record) => replayed.apply_pending(*producer, record),
                Entry::End(producer, committed) => replayed.end_transaction(*producer, *committed),
            }
        }
        if replayed != *self.shard.persisted() {
            return Err("a replay of the log gives another state".to_owned());
        }
        let mut parked: BTreeSet<Ticket> = BTreeSet::new();
        for write in &self.shard.in_flight {
            match &write.then {
                OnCommit::Answer { ticket, .. } => parked.insert(*ticket),
                OnCommit::StaticReplaced(return_of) => parked.insert(return_of.ticket),
                _ => false,
            };
        }
        parked.extend(self.shard.stable_fetches.iter().map(|(_, ticket, _)| *ticket));
        for group in self.shard.groups.values() {
            self.check_group(group)?;
            parked.extend(group.members.values().filter_map(|member| member.awaiting_join));
            parked.extend(group.members.values().filter_map(|member| member.awaiting_sync));
        }
        match self.open.keys().find(|ticket| !parked.contains(ticket)) {
            Some(lost) => Err(format!("{lost:?} will never be answered")),
            None => Ok(()),
        }
    }

    fn check_group(&self, group: &crate::group::Group) -> Result<(), String> {
        let id = &group.id;
        let fail = |what: &str| Err(format!("group {id} ({}): {what}", group.state));
        let armed = |key: TimerKey| self.timers.contains(&key);
        let members = &group.members;
        if !members.is_empty() && !group.leader.as_ref().is_some_and(|leader| members.contains_key(leader)) {
            return fail("its leader is no member");
        }
        if group.state == GroupState::Empty && !members.is_empty() {
            return fail("it has members");
        }
        if matches!(group.state, GroupState::Stable | GroupState::CompletingRebalance) && members.is_empty() {
            return fail("it has no members");
        }
        let statics: BTreeMap<InstanceId, MemberId> = members
            .values()
            .filter_map(|member| Some((member.instance_id.clone()?, member.id.clone())))
            .collect();
        if statics != group.static_members {
            return fail("its instance ids do not name its members");
        }
        if group.pending_joins.iter().any(|pending| members.contains_key(pending)) {
            return fail("a member is pending");
        }
        if !group.pending_syncs.iter().all(|pending| members.contains_key(pending)) {
            return fail("it waits for the sync of a stranger");
        }
        let waits_for_joins = group.state == GroupState::PreparingRebalance;
        if waits_for_joins != armed(TimerKey::Join(id.clone())) {
            return fail("its join timer is wrong");
        }
        if !group.pending_syncs.is_empty() && !armed(TimerKey::Sync(id.clone())) {
            return fail("nothing ends its wait for syncs");
        }
        for pending in &group.pending_joins {
            if !armed(TimerKey::Member(id.clone(), pending.clone())) {
                return fail("an id that was given out never expires");
            }
        }
        for member in members.values() {
            if !member.is_excused() && !armed(TimerKey::Member(id.clone(), member.id.clone())) {
                return fail("a silent member would stay for ever");
            }
            let coming =
                |is: &dyn Fn(&OnCommit) -> bool| self.shard.in_flight.iter().any(|write| is(&write.then));
            let return_written = coming(&|then| match then {
                OnCommit::StaticReplaced(return_of) => Some(return_of.ticket) == member.awaiting_join,
                _ => false,
            });
            if member.awaiting_join.is_some() && !waits_for_joins && !return_written {
                return fail("a join is parked for nothing");
            }
            let assignment_written = coming(&|then| match then {
                OnCommit::Assignment { group: of, generation, .. } => {
                    of == id && *generation == group.generation
                }
                _ => false,
            });
            if member.awaiting_sync.is_some()
                && (group.state != GroupState::CompletingRebalance
                    || group.pending_syncs.is_empty() && !assignment_written)
            {
                return fail("a sync is parked for nothing");
            }
        }
        Ok(())
    }
}

fn topic() -> TopicName {
    TopicName::new("t").expect("a topic name")
}

fn commit_topics(partition: PartitionIndex, offset: i64) -> Vec<CommitTopic> {
    let partitions = vec![CommitPartition {
        partition,
        offset: Offset(offset),
        leader_epoch: LeaderEpoch::NONE,
        metadata: None,
    }];
    vec![CommitTopic { topic: topic(), topic_id: TopicId::ZERO, partitions }]
}

/// Nobody subscribes to `t`, so that its offsets may be deleted and expire.
fn protocols(names: &[&str]) -> Vec<JoinProtocol> {
    let metadata: Blob = Arc::from(*b"\x00\x00\x00\x00\x00\x01\x00\x05other");
    names.iter().map(|name| JoinProtocol { name: (*name).into(), metadata: metadata.clone() }).collect()
}

/// xorshift64*: good enough to choose, the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: usize) -> usize {
        let bound = u64::try_from(bound).expect("small");
        usize::try_from((self.next() >> 16) % bound).expect("small")
    }

    fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }
}
