//! A broker of a few lines: one node, logs in memory, and faults on request. It answers through the same protocol
//! crate, so what is tested here is the client's judgement; the wire is proven by real clients and brokers elsewhere.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use ouzel_client::{Client, ClientConfig};
use ouzel_model::batch::{BatchView, stamp};
use ouzel_model::{LeaderEpoch, Offset, TopicId};
use ouzel_protocol::api::APIS;
use ouzel_protocol::header::{self, RequestHeader};
use ouzel_protocol::messages::fetch::{
    FetchPartitionResponse, FetchRequest, FetchResponse, FetchTopicResponse,
};
use ouzel_protocol::messages::kafka::*;
use ouzel_protocol::messages::produce::{
    ProducePartitionResponse, ProduceRequest, ProduceResponse, ProduceTopicResponse,
};
use ouzel_protocol::messages::{Request, Response, decode_request, encode_response};
use ouzel_protocol::{ApiKey, ErrorCode, StrBytes, Uuid, frame};
use ouzel_runtime::Runtime;
use ouzel_runtime::disk::BackendChoice;
use ouzel_runtime::net::Stream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// What the fake does wrong.
#[derive(Clone, Default)]
pub(crate) struct Faults {
    /// Answers ApiVersions above 0 with UNSUPPORTED_VERSION, as old brokers do.
    pub(crate) old_api_versions: bool,
    /// Caps the advertised versions of an API.
    pub(crate) versions_max: HashMap<ApiKey, i16>,
    /// Carries out so many Produce requests and closes the connection instead of answering.
    pub(crate) lost_produce_responses: u32,
    /// Closes so many connections instead of answering ApiVersions.
    pub(crate) cut_handshakes: u32,
    /// Refuses so many Produce requests with this code, without carrying them out.
    pub(crate) produce_refusals: Vec<ErrorCode>,
    /// Refuses so many FindCoordinator requests with COORDINATOR_NOT_AVAILABLE.
    pub(crate) absent_coordinators: u32,
    /// Answers so many FindCoordinator requests with an address where nobody listens.
    pub(crate) dead_coordinators: u32,
    /// Never answers requests of this API.
    pub(crate) silent: Option<ApiKey>,
    /// Answers requests of this API with bytes that are no response.
    pub(crate) garbled: Option<ApiKey>,
}

/// One partition's log: whole batches.
#[derive(Default)]
pub(crate) struct Log {
    pub(crate) batches: Vec<Bytes>,
    /// What idempotent producers sent: (id, base sequence) to base offset.
    pub(crate) sequences: HashMap<(i64, i32), i64>,
}

impl Log {
    pub(crate) fn end(&self) -> i64 {
        self.batches.last().map_or(0, |batch| view(batch).header.next_offset().value())
    }
}

fn view(batch: &Bytes) -> BatchView<'_> {
    BatchView::parse(batch).expect("our own batch")
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) faults: Faults,
    pub(crate) port: u16,
    pub(crate) topics: BTreeMap<String, Vec<Log>>,
    pub(crate) committed: BTreeMap<(String, i32), (i64, String)>,
    pub(crate) deleted_groups: Vec<String>,
    /// Every request that came, in order.
    pub(crate) requests: Vec<(ApiKey, i16)>,
    pub(crate) producers: i64,
}

pub(crate) type Fake = Rc<RefCell<State>>;

/// Runs a test on one core against a fake broker with the given faults.
pub(crate) fn with_fake<F: Future<Output = ()> + 'static>(
    faults: Faults,
    test: impl FnOnce(Runtime, Client, Fake) -> F + 'static,
) {
    on_core(move |runtime| async move {
        let fake: Fake = Rc::new(RefCell::new(State { faults, ..State::default() }));
        let port = serve_as(&runtime, fake.clone()).await;
        let client = Client::new(&runtime, config(port));
        test(runtime, client, fake).await;
    });
}

/// Serves as this broker until the test ends; returns its port.
pub(crate) async fn serve_as(runtime: &Runtime, fake: Fake) -> u16 {
    let listener = runtime.net.listen("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    fake.borrow_mut().port = port;
    ouzel_runtime::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            ouzel_runtime::spawn(serve(stream, fake.clone()));
        }
    });
    port
}

/// Runs a test on one core.
pub(crate) fn on_core<F: Future<Output = ()> + 'static>(test: impl FnOnce(Runtime) -> F) {
    ouzel_runtime::cores::run_one(BackendChoice::Blocking, &[], test).unwrap();
}

pub(crate) fn config(port: u16) -> ClientConfig {
    ClientConfig {
        request_timeout: Duration::from_secs(5),
        call_timeout: Duration::from_secs(5),
        retry_backoff: Duration::from_millis(5),
        ..ClientConfig::new(&format!("127.0.0.1:{port}"))
    }
}

async fn serve(mut stream: Stream, fake: Fake) {
    loop {
        let mut prefix = [0; 4];
        if stream.read_exact(&mut prefix).await.is_err() {
            return;
        }
        let mut body = BytesMut::zeroed(frame::request_length(prefix, 1 << 20).unwrap());
        stream.read_exact(&mut body).await.unwrap();
        let (header, body) = header::decode_request(&body.freeze()).unwrap();
        fake.borrow_mut().requests.push((header.api.key, header.version));
        let faults = fake.borrow().faults.clone();
        if faults.silent == Some(header.api.key) {
            continue;
        }
        let Some(frame) = answer(&fake, &header, body) else { return };
        let frame = if faults.garbled == Some(header.api.key) {
            let correlation_id = &frame[4..8];
            Bytes::from([&16i32.to_be_bytes(), correlation_id, &[0xff; 12]].concat())
        } else {
            frame
        };
        stream.write_all(&frame).await.unwrap();
    }
}

/// The response frame; empty where none is due, `None` to close the connection.
fn answer(fake: &Fake, header: &RequestHeader, body: Bytes) -> Option<Bytes> {
    let mut state = fake.borrow_mut();
    let state = &mut *state;
    let encode = |version, response: Response| {
        Some(encode_response(version, header.correlation_id, &response).unwrap().into_bytes())
    };
    if header.api.key == ApiKey::ApiVersions {
        if state.faults.cut_handshakes > 0 {
            state.faults.cut_handshakes -= 1;
            return None;
        }
        let refused = state.faults.old_api_versions && header.version > 0;
        return encode(if refused { 0 } else { header.version }, api_versions(state, refused).into());
    }
    let request = decode_request(header.api, header.version, body).unwrap();
    let acks = if let Request::Produce(request) = &request { request.acks } else { 1 };
    let response: Response = match request {
        Request::Metadata(request) => metadata(state, &request).into(),
        Request::Produce(request) => {
            let response = produce(state, &request, header.version).into();
            if state.faults.lost_produce_responses > 0 {
                state.faults.lost_produce_responses -= 1;
                return None;
            }
            response
        }
        Request::Fetch(request) => fetch(state, &request, header.version).into(),
        Request::ListOffsets(request) => list_offsets(state, &request).into(),
        Request::InitProducerId(_) => {
            state.producers += 1;
            InitProducerIdResponse::default().with_producer_id(state.producers.into()).into()
        }
        Request::CreateTopics(request) => create_topics(state, &request).into(),
        Request::DeleteTopics(request) => delete_topics(state, &request).into(),
        Request::FindCoordinator(request) => find_coordinator(state, &request, header.version).into(),
        Request::OffsetCommit(request) => offset_commit(state, request).into(),
        Request::OffsetFetch(_) => offset_fetch(state, header.version).into(),
        Request::ListGroups(_) => {
            let group = |id| list_groups_response::ListedGroup::default().with_group_id(GroupId(text(id)));
            ListGroupsResponse::default().with_groups(vec![group("zebras"), group("ants")]).into()
        }
        Request::DeleteGroups(request) => {
            state.deleted_groups.extend(request.groups_names.iter().map(|name| name.to_string()));
            DeleteGroupsResponse::default().into()
        }
        other => panic!("the fake knows no {}", other.api_key()),
    };
    if acks == 0 { Some(Bytes::new()) } else { encode(header.version, response) }
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn api_versions(state: &State, refused: bool) -> ApiVersionsResponse {
    let ranges = APIS.iter().map(|api| {
        let max = state.faults.versions_max.get(&api.key).copied().unwrap_or(api.max);
        let max = if refused && api.key == ApiKey::ApiVersions { 0 } else { max };
        api_versions_response::ApiVersion::default()
            .with_api_key(api.key as i16)
            .with_min_version(api.min)
            .with_max_version(max)
    });
    let code = if refused { ErrorCode::UnsupportedVersion } else { ErrorCode::None };
    ApiVersionsResponse::default().with_error_code(code.code()).with_api_keys(ranges.collect())
}

fn topic_id(name: &str) -> TopicId {
    let mut id = [0; 16];
    id[..name.len().min(16)].copy_from_slice(&name.as_bytes()[..name.len().min(16)]);
    TopicId(id)
}

fn metadata(state: &mut State, request: &MetadataRequest) -> MetadataResponse {
    let names: Vec<String> = match &request.topics {
        None => state.topics.keys().cloned().collect(),
        Some(topics) => topics.iter().map(|topic| topic.name.as_ref().unwrap().to_string()).collect(),
    };
    let topics = names.into_iter().map(|name| {
        let topic = metadata_response::MetadataResponseTopic::default()
            .with_name(Some(text(&name).into()))
            .with_topic_id(Uuid::from_bytes(topic_id(&name).0));
        let Some(logs) = state.topics.get(&name) else {
            if request.allow_auto_topic_creation {
                state.topics.insert(name, vec![Log::default()]);
            }
            return topic.with_error_code(ErrorCode::UnknownTopicOrPartition.code());
        };
        let partitions = (0..logs.len() as i32).map(|index| {
            metadata_response::MetadataResponsePartition::default()
                .with_partition_index(index)
                .with_leader_id(1.into())
                .with_leader_epoch(3)
                .with_replica_nodes(vec![1.into()])
                .with_isr_nodes(vec![1.into()])
        });
        topic.with_partitions(partitions.collect())
    });
    let topics = topics.collect();
    let broker = metadata_response::MetadataResponseBroker::default()
        .with_node_id(1.into())
        .with_host(text("127.0.0.1"))
        .with_port(i32::from(state.port));
    MetadataResponse::default()
        .with_brokers(vec![broker])
        .with_controller_id(1.into())
        .with_cluster_id(Some(text("fake")))
        .with_topics(topics)
}

fn produce(state: &mut State, request: &ProduceRequest, version: i16) -> ProduceResponse {
    let refusal = state.faults.produce_refusals.pop();
    let topics = request.topics.iter().map(|topic| {
        let named = |name: &String| {
            if version >= 13 { topic_id(name) == topic.topic_id } else { **name == *topic.name }
        };
        let name = state.topics.keys().find(|name| named(name)).cloned();
        let partitions = topic.partitions.iter().map(|partition| {
            let log =
                name.as_ref().and_then(|name| state.topics.get_mut(name)?.get_mut(partition.index as usize));
            let Some(log) = log else {
                return ProducePartitionResponse::error(partition.index, ErrorCode::UnknownTopicOrPartition);
            };
            if let Some(refusal) = refusal {
                return ProducePartitionResponse::error(partition.index, refusal);
            }
            let mut batch = partition.records.clone().unwrap().to_vec();
            let header = BatchView::parse(&batch).unwrap().header;
            let key = (header.producer_id.0, header.base_sequence);
            let end = log.end();
            let base = if header.has_producer() { *log.sequences.entry(key).or_insert(end) } else { end };
            if base == end {
                stamp(&mut batch, Offset(base), LeaderEpoch(3));
                log.batches.push(Bytes::from(batch));
            }
            ProducePartitionResponse {
                base_offset: base,
                log_start_offset: 0,
                ..ProducePartitionResponse::error(partition.index, 0i16)
            }
        });
        let partitions = partitions.collect();
        ProduceTopicResponse { name: topic.name.clone(), topic_id: topic.topic_id, partitions }
    });
    ProduceResponse { topics: topics.collect(), ..ProduceResponse::default() }
}

fn fetch(state: &mut State, request: &FetchRequest, version: i16) -> FetchResponse {
    let topics = request.topics.iter().map(|topic| {
        let named = |name: &String| {
            if version >= 13 { topic_id(name) == topic.topic_id } else { **name == *topic.name }
        };
        let logs = state.topics.iter().find(|(name, _)| named(name)).map(|(_, logs)| logs);
        let partitions = topic.partitions.iter().map(|asked| {
            let Some(log) = logs.and_then(|logs| logs.get(asked.partition as usize)) else {
                return FetchPartitionResponse::error(asked.partition, ErrorCode::UnknownTopicOrPartition);
            };
            if !(0..=log.end()).contains(&asked.fetch_offset) {
                return FetchPartitionResponse::error(asked.partition, ErrorCode::OffsetOutOfRange);
            }
            // The whole batch that holds the offset, and the one after it.
            let after = |batch: &&Bytes| view(batch).header.next_offset().value() > asked.fetch_offset;
            let batches = log.batches.iter().filter(after).take(2).cloned().map(Into::into).collect();
            FetchPartitionResponse {
                high_watermark: log.end(),
                last_stable_offset: log.end(),
                log_start_offset: 0,
                records: Some(batches),
                ..FetchPartitionResponse::error(asked.partition, 0i16)
            }
        });
        let partitions = partitions.collect();
        FetchTopicResponse { name: topic.name.clone(), topic_id: topic.topic_id, partitions }
    });
    FetchResponse { topics: topics.collect(), ..FetchResponse::default() }
}

fn list_offsets(state: &State, request: &ListOffsetsRequest) -> ListOffsetsResponse {
    let topics = request.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|asked| {
            let log = &state.topics[topic.name.as_str()][asked.partition_index as usize];
            let offset = match asked.timestamp {
                -1 => log.end(),
                -2 => 0,
                _ => -1,
            };
            list_offsets_response::ListOffsetsPartitionResponse::default()
                .with_partition_index(asked.partition_index)
                .with_offset(offset)
        });
        list_offsets_response::ListOffsetsTopicResponse::default()
            .with_name(topic.name.clone())
            .with_partitions(partitions.collect())
    });
    ListOffsetsResponse::default().with_topics(topics.collect())
}

fn create_topics(state: &mut State, request: &CreateTopicsRequest) -> CreateTopicsResponse {
    let topics = request.topics.iter().map(|topic| {
        let name = topic.name.to_string();
        let created = create_topics_response::CreatableTopicResult::default().with_name(topic.name.clone());
        if state.topics.contains_key(&name) {
            let message = Some(text("it is there already"));
            return created.with_error_code(ErrorCode::TopicAlreadyExists.code()).with_error_message(message);
        }
        let logs = (0..topic.num_partitions).map(|_| Log::default());
        state.topics.insert(name, logs.collect());
        created.with_error_message(None).with_num_partitions(topic.num_partitions)
    });
    CreateTopicsResponse::default().with_topics(topics.collect())
}

fn delete_topics(state: &mut State, request: &DeleteTopicsRequest) -> DeleteTopicsResponse {
    let by_name = request.topics.iter().filter_map(|topic| topic.name.clone());
    let results = by_name.chain(request.topic_names.iter().cloned()).map(|name| {
        let existed = state.topics.remove(name.as_str()).is_some();
        let code = if existed { ErrorCode::None } else { ErrorCode::UnknownTopicOrPartition };
        delete_topics_response::DeletableTopicResult::default()
            .with_name(Some(name))
            .with_error_code(code.code())
    });
    DeleteTopicsResponse::default().with_responses(results.collect())
}

fn find_coordinator(
    state: &mut State,
    request: &FindCoordinatorRequest,
    version: i16,
) -> FindCoordinatorResponse {
    let absent = state.faults.absent_coordinators > 0;
    state.faults.absent_coordinators = state.faults.absent_coordinators.saturating_sub(1);
    let code = if absent { ErrorCode::CoordinatorNotAvailable } else { ErrorCode::None }.code();
    let is_dead = state.faults.dead_coordinators > 0;
    state.faults.dead_coordinators = state.faults.dead_coordinators.saturating_sub(1);
    // Nobody can listen at the discard port without being root, and nobody does.
    let port = if is_dead { 9 } else { i32::from(state.port) };
    let host = text("127.0.0.1");
    if version < 4 {
        return FindCoordinatorResponse::default().with_error_code(code).with_host(host).with_port(port);
    }
    let found = request.coordinator_keys.iter().map(|key| {
        find_coordinator_response::Coordinator::default()
            .with_key(key.clone())
            .with_host(host.clone())
            .with_port(port)
            .with_error_code(code)
    });
    FindCoordinatorResponse::default().with_coordinators(found.collect())
}

fn offset_commit(state: &mut State, request: OffsetCommitRequest) -> OffsetCommitResponse {
    for topic in request.topics {
        for at in topic.partitions {
            let metadata = at.committed_metadata.unwrap_or_default().to_string();
            let key = (topic.name.to_string(), at.partition_index);
            state.committed.insert(key, (at.committed_offset, metadata));
        }
    }
    OffsetCommitResponse::default()
}

fn offset_fetch(state: &State, version: i16) -> OffsetFetchResponse {
    let committed = state.committed.iter();
    if version < 8 {
        let topics = committed.map(|((topic, partition), (offset, metadata))| {
            let at = offset_fetch_response::OffsetFetchResponsePartition::default()
                .with_partition_index(*partition)
                .with_committed_offset(*offset)
                .with_metadata(Some(text(metadata)));
            offset_fetch_response::OffsetFetchResponseTopic::default()
                .with_name(text(topic).into())
                .with_partitions(vec![at])
        });
        return OffsetFetchResponse::default().with_topics(topics.collect());
    }
    let topics = committed.map(|((topic, partition), (offset, metadata))| {
        let at = offset_fetch_response::OffsetFetchResponsePartitions::default()
            .with_partition_index(*partition)
            .with_committed_offset(*offset)
            .with_metadata(Some(text(metadata)));
        offset_fetch_response::OffsetFetchResponseTopics::default()
            .with_name(text(topic).into())
            .with_partitions(vec![at])
    });
    let group = offset_fetch_response::OffsetFetchResponseGroup::default().with_topics(topics.collect());
    OffsetFetchResponse::default().with_groups(vec![group])
}
