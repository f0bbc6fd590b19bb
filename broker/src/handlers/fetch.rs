//! Fetch: long polls over many partitions, with incremental sessions (KIP-227).
//!
//! A fetch runs on the core that keeps its session, or where it was accepted if it has none. Owners read; what they
//! found travels back as shared bytes, or as ranges of files that are not read at all: the connection sends them. Below
//! `min_bytes` the fetch parks on its partitions' high watermarks and reads again when one of them moves.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use indexmap::IndexMap;
use ouzel_model::{LeaderEpoch, Offset, PartitionIndex, TopicId, TopicIdPartition};
use ouzel_protocol::messages::common::TOPIC_IDS_FROM;
use ouzel_protocol::messages::fetch::{
    EpochEndOffset, FetchPartition, FetchPartitionResponse, FetchRequest, FetchResponse, FetchTopicResponse,
};
use ouzel_protocol::{Elsewhere, ErrorCode, Piece, StrBytes};
use ouzel_runtime::CoreId;
use ouzel_storage::Slice;
use ouzel_sync::published::OffsetSnapshot;

use crate::core::Core;
use crate::fetch_sessions::{EPOCH_FINAL, EPOCH_INITIAL, FetchKey, Said, SessionError, Wanted, core_of};
use crate::partition::waiters::Waiter;
use crate::partition::{Isolation, Read, ReadRefused, ReadRequest};
use crate::view::NodeView;

use super::error_map::read_code;

/// Fetches whose wait is over at once need no waiter.
const NO_WAIT: Duration = Duration::ZERO;

/// Answers a fetch.
pub(crate) async fn fetch(core: &Rc<Core>, version: i16, request: FetchRequest) -> FetchResponse {
    let home =
        if request.session_id == 0 { core.id() } else { core_of(request.session_id, core.cores.count()) };
    let here = core.id();
    let answered = core.call(home, move |core| {
        let core = core.clone();
        async move { fetch_at_home(&core, version, request).await }
    });
    answered.await.unwrap_or_else(|_| {
        tracing::debug!(core = %here, "a fetch was dropped with a stopping core");
        FetchResponse { error_code: ErrorCode::FetchSessionIdNotFound.code(), ..FetchResponse::default() }
    })
}

async fn fetch_at_home(core: &Rc<Core>, version: i16, request: FetchRequest) -> FetchResponse {
    let plan = match Plan::of(core, version, &request) {
        Ok(plan) => plan,
        Err(error) => {
            let code = match error {
                SessionError::NotFound => ErrorCode::FetchSessionIdNotFound,
                SessionError::Epoch => ErrorCode::InvalidFetchSessionEpoch,
                SessionError::TopicIds => ErrorCode::FetchSessionTopicIdError,
            };
            return FetchResponse { error_code: code.code(), ..FetchResponse::default() };
        }
    };
    let limits = Limits::of(core, version, &request);
    let deadline = core.runtime.clock.now() + limits.wait_max;
    let mut stopping = core.stopping.clone();
    let mut before = Vec::new();
    loop {
        let reads = read_all(core, &plan, &limits, before).await;
        let enough = reads.iter().any(FetchedPartition::cannot_wait)
            || reads.iter().map(FetchedPartition::bytes).sum::<usize>() >= limits.bytes_min
            || plan.wanted.is_empty();
        if enough || core.runtime.clock.now() >= deadline || *stopping.borrow() {
            return respond(core, version, plan, reads);
        }
        let waiter = Waiter::new();
        park(core, &waiter, &reads);
        tokio::select! {
            biased;
            () = waiter.woken() => {}
            () = core.runtime.clock.sleep_until(deadline) => {}
            _ = stopping.wait_for(|stopping| *stopping) => {}
        }
        before = reads;
    }
}

/// What the request wants read, and what that means for its session.
struct Plan {
    wanted: Vec<(FetchKey, Wanted)>,
    session: SessionPlan,
}

enum SessionPlan {
    /// No session: every partition is answered.
    None,
    /// A new session: every partition is answered, under this id.
    Created(i32),
    /// A session that goes on: only what changed is answered.
    Resumed(i32),
}

impl Plan {
    fn of(core: &Core, version: i16, request: &FetchRequest) -> Result<Plan, SessionError> {
        let by_id = version >= TOPIC_IDS_FROM;
        let asked = asked_partitions(request);
        match request.session_epoch {
            EPOCH_FINAL => {
                core.fetch_sessions.close(request.session_id);
                Ok(Plan { wanted: asked.into_iter().collect(), session: SessionPlan::None })
            }
            EPOCH_INITIAL => {
                core.fetch_sessions.close(request.session_id);
                let now = core.runtime.clock.now();
                let created = core.fetch_sessions.create(asked.clone(), by_id, core.cores.count(), now);
                let session = created.map_or(SessionPlan::None, |(id, _)| SessionPlan::Created(id));
                Ok(Plan { wanted: asked.into_iter().collect(), session })
            }
            epoch => {
                let now = core.runtime.clock.now();
                let session = core.fetch_sessions.resume(request.session_id, epoch, by_id, now)?;
                let mut session = session.borrow_mut();
                for (key, mut wanted) in asked {
                    // What was said stays said: a partition asked for again is answered only if it changed.
                    wanted.said = session.wanted.get(&key).and_then(|before| before.said);
                    session.wanted.insert(key, wanted);
                }
                for topic in &request.forgotten {
                    let key = topic_key(&topic.name, topic.topic_id);
                    for partition in &topic.partitions {
                        let key = key(*partition);
                        session.wanted.shift_remove(&key);
                    }
                }
                let wanted =
                    session.wanted.iter().map(|(key, wanted)| (key.clone(), wanted.clone())).collect();
                Ok(Plan { wanted, session: SessionPlan::Resumed(request.session_id) })
            }
        }
    }
}

/// The keys of a topic's partitions.
fn topic_key(name: &StrBytes, topic_id: TopicId) -> impl Fn(i32) -> FetchKey + use<> {
    // A copy: a session outlives the frame that the name is a slice of.
    let topic = StrBytes::from_string(name.as_str().to_owned());
    move |partition| FetchKey { topic: topic.clone(), topic_id, partition: PartitionIndex(partition) }
}

fn asked_partitions(request: &FetchRequest) -> IndexMap<FetchKey, Wanted> {
    let wanted = |p: &FetchPartition| Wanted {
        fetch_offset: p.fetch_offset,
        current_leader_epoch: p.current_leader_epoch,
        partition_bytes_max: p.partition_max_bytes,
        last_fetched_epoch: p.last_fetched_epoch,
        log_start_offset: p.log_start_offset,
        said: None,
    };
    request
        .topics
        .iter()
        .flat_map(|topic| {
            let key = topic_key(&topic.name, topic.topic_id);
            topic.partitions.iter().map(move |p| (key(p.partition), wanted(p)))
        })
        .collect()
}

/// How much, how long, how far.
struct Limits {
    bytes_min: usize,
    bytes_max: usize,
    wait_max: Duration,
    isolation: Isolation,
    by_id: bool,
}

impl Limits {
    fn of(core: &Core, version: i16, request: &FetchRequest) -> Limits {
        let bytes_max =
            core.node.config.fetch_bytes_max().min(usize::try_from(request.max_bytes).unwrap_or(0));
        Limits {
            // A minimum above what one response may hold could never be reached.
            bytes_min: usize::try_from(request.min_bytes).unwrap_or(0).min(bytes_max),
            bytes_max,
            wait_max: u64::try_from(request.max_wait_ms).map_or(NO_WAIT, Duration::from_millis),
            isolation: if request.isolation_level == 1 {
                Isolation::ReadCommitted
            } else {
                Isolation::ReadUncommitted
            },
            by_id: version >= TOPIC_IDS_FROM,
        }
    }
}

/// One partition's part of a fetch.
struct FetchedPartition {
    key: FetchKey,
    /// Where it lives, if it exists.
    at: Option<(CoreId, TopicIdPartition)>,
    /// What its owner had published before it was read.
    published: Option<OffsetSnapshot>,
    outcome: Result<Read, Failed>,
}

#[derive(Clone, Copy)]
struct Failed {
    code: ErrorCode,
    said: Option<(i64, i64)>,
}

impl Failed {
    fn plain(code: ErrorCode) -> Failed {
        Failed { code, said: None }
    }
}

impl FetchedPartition {
    /// Nothing that is appended changes the answer: there is an error to be told, or where the reader has to go back to.
    fn cannot_wait(&self) -> bool {
        self.outcome.as_ref().map_or(true, |read| read.diverging.is_some())
    }

    fn bytes(&self) -> usize {
        self.outcome.as_ref().map_or(0, |read| read.bytes)
    }
}

/// Reads all partitions of the plan, each on its owner core, owners side by side. `before` is what an earlier pass found: a
/// partition that had nothing for this reader, and of which its owner has published nothing since, is not read again.
async fn read_all(
    core: &Rc<Core>,
    plan: &Plan,
    limits: &Limits,
    before: Vec<FetchedPartition>,
) -> Vec<FetchedPartition> {
    let view = core.view();
    // Only where something was published does that explain why we were woken; else a partition may have gone, or its
    // leadership, and all are asked again.
    let located: Vec<_> = plan.wanted.iter().map(|(key, _)| locate(&view, key, limits.by_id)).collect();
    let has_news = located
        .iter()
        .zip(&before)
        .any(|(is, was)| matches!((is, was.published), (Ok((.., is)), Some(was)) if *is != was));
    let mut before: Vec<_> = before.into_iter().filter(|_| has_news).map(Some).collect();
    before.resize_with(plan.wanted.len(), || None);
    let mut reads: Vec<FetchedPartition> = Vec::with_capacity(plan.wanted.len());
    let mut by_owner: BTreeMap<CoreId, Vec<(usize, TopicIdPartition, ReadRequest)>> = BTreeMap::new();
    let mut first_with_data = true;
    for (((key, wanted), located), before) in plan.wanted.iter().zip(located).zip(before) {
        let (at, published, outcome) = match located {
            Err(code) => (None, None, Err(Failed::plain(code))),
            Ok((owner, at, published)) => {
                let from = Offset(wanted.fetch_offset);
                let has_data = from.value() < published.high_watermark;
                if let Some(before) = before
                    && !has_data
                    && before.outcome.is_ok()
                    && (before.at, before.published) == (Some((owner, at)), Some(published))
                {
                    reads.push(before);
                    continue;
                }
                // The first partition that has anything gives at least one batch, however large: else a consumer with
                // small limits would never get past it. Later ones stay within the limits.
                let at_least_one = first_with_data && has_data;
                first_with_data &= !at_least_one;
                let request = ReadRequest {
                    from,
                    bytes_max: usize::try_from(wanted.partition_bytes_max).unwrap_or(0).min(limits.bytes_max),
                    at_least_one,
                    isolation: limits.isolation,
                    current_leader_epoch: known_epoch(wanted.current_leader_epoch),
                    last_fetched_epoch: known_epoch(wanted.last_fetched_epoch),
                };
                by_owner.entry(owner).or_default().push((reads.len(), at, request));
                (Some((owner, at)), Some(published), Err(Failed::plain(ErrorCode::NotLeaderOrFollower)))
            }
        };
        reads.push(FetchedPartition { key: key.clone(), at, published, outcome });
    }
    let bytes_max = limits.bytes_max;
    let reading: Vec<_> = by_owner
        .into_iter()
        .map(|(owner, requests)| {
            core.call(owner, move |core| {
                let core = core.clone();
                async move { read_here(&core, requests, bytes_max).await }
            })
        })
        .collect();
    for owner in reading {
        // A core that stopped leaves its partitions at "not leader": the client looks for another.
        for (at, outcome) in owner.await.unwrap_or_default() {
            reads[at].outcome = outcome;
        }
    }
    keep_within(&mut reads, bytes_max);
    reads
}

/// On an owner core: its partitions in the request's order, each with what the ones before it left of the budget.
async fn read_here(
    core: &Core,
    requests: Vec<(usize, TopicIdPartition, ReadRequest)>,
    bytes_max: usize,
) -> Vec<(usize, Result<Read, Failed>)> {
    let mut left = bytes_max;
    let mut outcomes = Vec::with_capacity(requests.len());
    for (slot, at, mut request) in requests {
        request.bytes_max = request.bytes_max.min(left);
        let read = match core.partitions.get(&at) {
            Some(partition) => partition.read(&request).await,
            None => Err(ReadRefused::NotHere),
        };
        left = left.saturating_sub(read.as_ref().map_or(0, |read| read.bytes));
        outcomes.push((slot, read.map_err(|refused| failed(&refused))));
    }
    outcomes
}

fn failed(refused: &ReadRefused) -> Failed {
    let said = match refused {
        ReadRefused::OutOfRange { high_watermark, log_start, .. } => {
            Some((high_watermark.value(), log_start.value()))
        }
        _ => None,
    };
    Failed { code: read_code(refused), said }
}

/// Owners read side by side, each up to the whole budget; what goes beyond it in the request's order is left for the
/// next fetch.
fn keep_within(reads: &mut [FetchedPartition], bytes_max: usize) {
    let mut total = 0;
    for read in reads.iter_mut().filter_map(|read| read.outcome.as_mut().ok()) {
        if total > 0 && total + read.bytes > bytes_max {
            read.slices.clear();
            read.bytes = 0;
        }
        total += read.bytes;
    }
}

fn known_epoch(epoch: i32) -> Option<LeaderEpoch> {
    (epoch >= 0).then_some(LeaderEpoch(epoch))
}

/// Finds a partition: its owner, its identity, and the offsets that the owner has published.
fn locate(
    view: &Arc<NodeView>,
    key: &FetchKey,
    by_id: bool,
) -> Result<(CoreId, TopicIdPartition, OffsetSnapshot), ErrorCode> {
    let topic = if by_id {
        view.topic_by_id(key.topic_id).ok_or(ErrorCode::UnknownTopicId)?
    } else {
        view.topic_by_name(&key.topic).ok_or(ErrorCode::UnknownTopicOrPartition)?
    };
    let route = view.route(topic.id, key.partition).ok_or(ErrorCode::UnknownTopicOrPartition)?;
    let at = TopicIdPartition { topic_id: topic.id, partition: key.partition };
    Ok((route.core, at, route.offsets.read()))
}

/// Registers the waiter with every partition that was read.
fn park(core: &Rc<Core>, waiter: &Arc<Waiter>, reads: &[FetchedPartition]) {
    let mut by_owner: BTreeMap<CoreId, Vec<(TopicIdPartition, Offset)>> = BTreeMap::new();
    for read in reads {
        if let (Some((owner, at)), Ok(seen)) = (read.at, &read.outcome) {
            by_owner.entry(owner).or_default().push((at, seen.high_watermark));
        }
    }
    for (owner, partitions) in by_owner {
        let waiter = waiter.clone();
        core.post(owner, move |core| {
            for (at, seen) in partitions {
                match core.partitions.get(&at) {
                    Some(partition) => partition.park(&waiter, seen),
                    // Deleted meanwhile: reading again will say so.
                    None => waiter.wake(),
                }
            }
        });
    }
}

fn respond(core: &Core, version: i16, plan: Plan, reads: Vec<FetchedPartition>) -> FetchResponse {
    let (session_id, incremental) = match plan.session {
        SessionPlan::None => (0, false),
        SessionPlan::Created(id) => (id, false),
        SessionPlan::Resumed(id) => (id, true),
    };
    let answers = if session_id == 0 {
        reads.into_iter().map(|read| answer(version, read)).collect()
    } else {
        answer_in_session(core, version, session_id, incremental, reads)
    };
    let mut topics: Vec<FetchTopicResponse> = Vec::new();
    for (key, partition) in answers {
        let same =
            |topic: &&mut FetchTopicResponse| topic.name == key.topic && topic.topic_id == key.topic_id;
        match topics.last_mut().filter(same) {
            Some(topic) => topic.partitions.push(partition),
            None => topics.push(FetchTopicResponse {
                name: key.topic,
                topic_id: key.topic_id,
                partitions: vec![partition],
            }),
        }
    }
    FetchResponse { session_id, topics, ..FetchResponse::default() }
}

fn answer_in_session(
    core: &Core,
    version: i16,
    session_id: i32,
    incremental: bool,
    reads: Vec<FetchedPartition>,
) -> Vec<(FetchKey, FetchPartitionResponse)> {
    let session = core.fetch_sessions.get(session_id);
    let mut session = session.as_ref().map(|session| session.borrow_mut());
    let mut answers = Vec::new();
    for read in reads {
        let bytes = read.bytes();
        let (key, partition) = answer(version, read);
        let said = Said {
            high_watermark: partition.high_watermark,
            log_start_offset: partition.log_start_offset,
            error: partition.error_code != 0,
        };
        // A request that the same client sent meanwhile may have dropped the partition from the session.
        let wanted = session.as_mut().and_then(|session| session.wanted.get_mut(&key));
        let changed = wanted.as_ref().is_none_or(|wanted| wanted.said != Some(said));
        if let Some(wanted) = wanted {
            wanted.said = Some(said);
        }
        if bytes > 0
            && let Some(session) = session.as_mut()
        {
            session.serve_later(&key);
        }
        if !incremental || changed || bytes > 0 || said.error || partition.diverging_epoch.is_some() {
            answers.push((key, partition));
        }
    }
    answers
}

/// A slice as a response carries it: its bytes, or the range itself, for the connection to send.
fn piece(slice: Slice) -> Piece {
    match slice {
        Slice::Bytes(bytes) => Piece::Bytes(bytes),
        Slice::Range(range) => Piece::Elsewhere(Elsewhere::new(range.bytes, range)),
    }
}

fn answer(version: i16, read: FetchedPartition) -> (FetchKey, FetchPartitionResponse) {
    let index = read.key.partition.0;
    let partition = match read.outcome {
        Ok(read) => FetchPartitionResponse {
            error_code: ErrorCode::None.code(),
            high_watermark: read.high_watermark.value(),
            last_stable_offset: read.last_stable.value(),
            log_start_offset: read.log_start.value(),
            diverging_epoch: read
                .diverging
                .map(|(epoch, end)| EpochEndOffset { epoch: epoch.value(), end_offset: end.value() }),
            // Null for read_uncommitted; without transactions nobody has aborted any.
            aborted_transactions: (read.isolation == Isolation::ReadCommitted).then(Vec::new),
            records: Some(read.slices.into_iter().map(piece).collect()),
            ..FetchPartitionResponse::error(index, ErrorCode::None)
        },
        Err(failed) => {
            let (high_watermark, log_start_offset) = failed.said.unwrap_or((-1, -1));
            let code = if failed.code == ErrorCode::KafkaStorageError && version <= 5 {
                ErrorCode::NotLeaderOrFollower
            } else {
                failed.code
            };
            FetchPartitionResponse {
                high_watermark,
                log_start_offset,
                ..FetchPartitionResponse::error(index, code)
            }
        }
    };
    (read.key, partition)
}
