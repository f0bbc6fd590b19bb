//! What a consumer group costs its coordinator: the state machine alone, without bytes, disk or clock.
#![forbid(unsafe_code)]
#![allow(missing_docs, reason = "the macros of criterion make functions without them")]

use std::sync::Arc;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use ouzel_coordinator::{
    Assignment, Blob, CommitPartition, CommitTopic, Config, Effects, HeartbeatRequest, JoinProtocol,
    JoinRequest, Joined, MemberId, OffsetCommitRequest, Request, Response, Shard, SyncRequest, Ticket,
    TimerSet,
};
use ouzel_model::{GroupId, LeaderEpoch, Offset, PartitionIndex, TimestampMs, TopicId, TopicName};

const MEMBERS: u8 = 10;

/// A coordinator with its timers and a log that settles at once.
struct Coordinator {
    shard: Shard,
    timers: TimerSet,
    now_ms: u64,
    tickets: u64,
    replies: Vec<Response>,
}

impl Coordinator {
    fn new() -> Coordinator {
        let (shard, timers) = (Shard::new(Config::default()), TimerSet::default());
        Coordinator { shard, timers, now_ms: 1_700_000_000_000, tickets: 0, replies: Vec::new() }
    }

    fn now(&self) -> TimestampMs {
        TimestampMs(self.now_ms as i64)
    }

    fn handle(&mut self, request: Request) {
        self.tickets += 1;
        let effects = self.shard.handle(self.now(), Ticket(self.tickets), request);
        self.carry_out(effects);
    }

    fn carry_out(&mut self, effects: Effects) {
        self.replies.extend(effects.replies.into_iter().map(|(_, response)| response));
        self.timers.apply(self.now_ms, effects.timers);
        if let Some(write) = effects.write {
            let settled = self.shard.on_committed(self.now(), write.token, Ok(()));
            self.carry_out(settled);
        }
    }

    /// Lets time pass until somebody is answered.
    fn await_replies(&mut self) -> Vec<Response> {
        while self.replies.is_empty() {
            self.now_ms = self.timers.next_deadline_ms().expect("somebody waits");
            while let Some(key) = self.timers.pop_due(self.now_ms) {
                let effects = self.shard.on_timer(self.now(), &key);
                self.carry_out(effects);
            }
        }
        std::mem::take(&mut self.replies)
    }

    /// A group of ten, from the first join to the last assignment.
    fn form(&mut self) -> Vec<(MemberId, Joined)> {
        (0..MEMBERS).for_each(|member| self.handle(join(member)));
        let joined: Vec<(MemberId, Joined)> = self
            .await_replies()
            .into_iter()
            .map(|response| match response {
                Response::Join(join) => (join.member_id, join.outcome.expect("nobody is refused")),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(joined.len(), usize::from(MEMBERS));
        for (member_id, place) in &joined {
            self.handle(sync(member_id, place));
        }
        assert_eq!(self.await_replies().len(), usize::from(MEMBERS));
        joined
    }
}

fn group() -> GroupId {
    GroupId::new("bench")
}

fn blob() -> Blob {
    Blob::from(&[7; 64][..])
}

fn join(member: u8) -> Request {
    Request::Join(JoinRequest {
        group: group(),
        member_id: MemberId::unknown(),
        instance_id: None,
        client_id: "consumer".into(),
        client_host: "/127.0.0.1".into(),
        session_timeout_ms: 45_000,
        rebalance_timeout_ms: 300_000,
        protocol_type: "consumer".into(),
        protocols: vec![JoinProtocol { name: "range".into(), metadata: blob() }],
        requires_known_member_id: false,
        supports_skip_assignment: true,
        reason: None,
        fresh_uuid: [member; 16],
    })
}

fn sync(member_id: &MemberId, place: &Joined) -> Request {
    let assign = |member: &ouzel_coordinator::JoinedMember| Assignment {
        member_id: member.member_id.clone(),
        assignment: blob(),
    };
    Request::Sync(SyncRequest {
        group: group(),
        generation: place.generation,
        member_id: member_id.clone(),
        instance_id: None,
        protocol_type: None,
        protocol: None,
        assignments: place.members.iter().map(assign).collect(),
    })
}

fn groups(criterion: &mut Criterion) {
    let mut bench = criterion.benchmark_group("a group of ten");
    bench.throughput(Throughput::Elements(1));
    bench.bench_function("forms, joins to assignments", |bencher| {
        bencher.iter_batched(Coordinator::new, |mut coordinator| coordinator.form(), BatchSize::SmallInput);
    });

    let mut coordinator = Coordinator::new();
    let members = coordinator.form();
    let (member_id, place) = members[0].clone();
    bench.bench_function("heartbeat", |bencher| {
        let heartbeat = || {
            Request::Heartbeat(HeartbeatRequest {
                group: group(),
                generation: place.generation,
                member_id: member_id.clone(),
                instance_id: None,
            })
        };
        let beat = |request| {
            coordinator.handle(request);
            coordinator.replies.pop().expect("an answer at once")
        };
        bencher.iter_batched(heartbeat, beat, BatchSize::SmallInput);
    });
    bench.bench_function("commit of 10 partitions, to its settling", |bencher| {
        let commit = || {
            let partition = |index| CommitPartition {
                partition: PartitionIndex(index),
                offset: Offset(7),
                leader_epoch: LeaderEpoch(3),
                metadata: Some(Arc::from("")),
            };
            let topic = CommitTopic {
                topic: TopicName::new("bench").expect("a name"),
                topic_id: TopicId::ZERO,
                partitions: (0..10).map(partition).collect(),
            };
            Request::OffsetCommit(OffsetCommitRequest {
                group: group(),
                generation: place.generation,
                member_id: member_id.clone(),
                instance_id: None,
                retention_ms: None,
                knows_group_not_found: true,
                topics: vec![topic],
            })
        };
        let settle = |request| {
            coordinator.handle(request);
            coordinator.replies.pop().expect("an answer at once")
        };
        bencher.iter_batched(commit, settle, BatchSize::SmallInput);
    });
    bench.finish();
}

criterion_group!(benches, groups);
criterion_main!(benches);
