//! A client that says exactly what a test wants said: one blocking connection, any request in any version, or any
//! bytes at all.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use bytes::Bytes;
use ouzel_model::TopicId;
use ouzel_protocol::header::{self, RequestHeader};
use ouzel_protocol::messages::common::TOPIC_IDS_FROM;
use ouzel_protocol::messages::fetch::{
    FetchPartition, FetchPartitionResponse, FetchRequest, FetchResponse, FetchTopic,
};
use ouzel_protocol::messages::kafka::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use ouzel_protocol::messages::kafka::delete_topics_request::DeleteTopicState;
use ouzel_protocol::messages::kafka::metadata_request::MetadataRequestTopic;
use ouzel_protocol::messages::kafka::{
    self as messages, CreateTopicsRequest, DeleteTopicsRequest, DescribeGroupsRequest,
    FindCoordinatorRequest, MetadataRequest,
};
use ouzel_protocol::messages::produce::{
    ProducePartition, ProducePartitionResponse, ProduceRequest, ProduceTopic,
};
use ouzel_protocol::messages::{Call, decode_response, encode_request};
use ouzel_protocol::{ApiKey, ErrorCode, Request, StrBytes};

use super::{PATIENCE, await_that};

/// A connection.
pub(crate) struct Wire {
    stream: TcpStream,
    correlation_id: i32,
    pub(crate) client_id: Option<StrBytes>,
}

/// Text on the wire.
pub(crate) fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

/// A topic's name on the wire.
pub(crate) fn name(name: &str) -> messages::TopicName {
    messages::TopicName(text(name))
}

/// A name no other test has, on whatever broker the tests run.
pub(crate) fn fresh_name(stem: &str) -> String {
    use std::hash::{BuildHasher, RandomState};
    format!("{stem}-{:08x}", RandomState::new().hash_one(stem) as u32)
}

impl Wire {
    pub(crate) fn connect(address: SocketAddr) -> Wire {
        let stream = TcpStream::connect_timeout(&address, PATIENCE).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Wire { stream, correlation_id: 0, client_id: Some(text("test")) }
    }

    /// Sends a request and does not wait.
    pub(crate) fn send(&mut self, version: i16, request: impl Into<Request>) {
        let request = request.into();
        self.correlation_id += 1;
        let header = RequestHeader {
            api: request.api_key().api(),
            version,
            correlation_id: self.correlation_id,
            client_id: self.client_id.clone(),
        };
        let frame = encode_request(&header, &request).unwrap_or_else(|error| panic!("{error}"));
        self.send_bytes(&frame.into_bytes());
    }

    /// The response that comes next, to the request sent as number `correlation_id`.
    pub(crate) fn receive<C: Call>(&mut self, version: i16, correlation_id: i32) -> C::Response {
        let frame = self.receive_frame().unwrap_or_else(|error| {
            panic!("{} v{version}: no response: {error}", C::API.name());
        });
        let (answered, body) = header::decode_response(C::API.api(), version, &frame).unwrap();
        assert_eq!(answered, correlation_id, "{} v{version}: a response out of order", C::API.name());
        let response = decode_response(C::API.api(), version, body)
            .unwrap_or_else(|error| panic!("the response does not read: {error}"));
        C::response(response).unwrap()
    }

    /// Sends a request and waits for its response.
    pub(crate) fn call<C: Call>(&mut self, version: i16, request: C) -> C::Response {
        self.send(version, request);
        self.receive::<C>(version, self.correlation_id)
    }

    /// The number of the last request.
    pub(crate) fn last_correlation_id(&self) -> i32 {
        self.correlation_id
    }

    /// Sends any bytes; a broker that has had enough of them may have closed already.
    pub(crate) fn send_bytes(&mut self, bytes: &[u8]) {
        match self.stream.write_all(bytes) {
            Err(error) if !matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {
                panic!("sending {} bytes: {error}", bytes.len())
            }
            _ => {}
        }
    }

    /// Says that nothing more will come.
    pub(crate) fn finish_sending(&mut self) {
        // Fails only when the broker has closed already.
        let _ = self.stream.shutdown(std::net::Shutdown::Write);
    }

    /// Sends bytes as one frame.
    pub(crate) fn send_frame(&mut self, frame: &[u8]) {
        self.send_bytes(&(frame.len() as i32).to_be_bytes());
        self.send_bytes(frame);
    }

    /// One response frame.
    pub(crate) fn receive_frame(&mut self) -> std::io::Result<Bytes> {
        let mut prefix = [0; 4];
        self.stream.read_exact(&mut prefix)?;
        let mut frame = vec![0; i32::from_be_bytes(prefix) as usize];
        self.stream.read_exact(&mut frame)?;
        Ok(frame.into())
    }

    /// Waits until the broker closes the connection; fails if it says something instead.
    pub(crate) fn assert_closed(&mut self) {
        let mut byte = [0; 1];
        match self.stream.read(&mut byte) {
            Ok(0) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
            other => panic!("the broker should have closed the connection: {other:?}"),
        }
    }

    /// Whether nothing has come yet and the connection stands.
    pub(crate) fn is_waiting(&mut self) -> bool {
        self.stream.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        let peeked = self.stream.peek(&mut [0; 1]);
        self.stream.set_read_timeout(Some(PATIENCE)).unwrap();
        matches!(peeked, Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut))
    }
}

/// What most tests need done on the way to what they are about; everything in one fixed version.
impl Wire {
    /// Creates a topic and gives its id.
    pub(crate) fn create(&mut self, topic: &str, partitions: i32, configs: &[(&str, &str)]) -> TopicId {
        let configs = configs.iter().map(|(key, value)| {
            CreatableTopicConfig::default().with_name(text(key)).with_value(Some(text(value)))
        });
        let name = topic.to_owned();
        let topic = CreatableTopic::default()
            .with_name(messages::TopicName(text(topic)))
            .with_num_partitions(partitions)
            .with_replication_factor(1)
            .with_configs(configs.collect());
        let request = CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(10_000);
        let mut response = self.call(7, request);
        let created = response.topics.pop().unwrap();
        assert_eq!(created.error_code, 0, "{:?}", created.error_message);
        let id = TopicId(created.topic_id.into_bytes());
        self.await_leaders(id);
        (0..partitions).for_each(|partition| self.await_serving(&name, partition));
        id
    }

    /// Deletes a topic.
    pub(crate) fn delete(&mut self, topic: &str) {
        let topic = DeleteTopicState::default().with_name(Some(name(topic)));
        let request = DeleteTopicsRequest::default().with_timeout_ms(10_000).with_topics(vec![topic]);
        assert_eq!(self.call(6, request).responses[0].error_code, 0);
    }

    /// Waits until every partition has a leader: a cluster may take a moment after CreateTopics.
    fn await_leaders(&mut self, id: TopicId) {
        await_that(&format!("topic {id} has leaders"), || {
            let asked = MetadataRequestTopic::default()
                .with_topic_id(ouzel_protocol::Uuid::from_bytes(id.0))
                .with_name(None);
            let request = MetadataRequest::default().with_topics(Some(vec![asked]));
            let topic = self.call(12, request).topics.pop().unwrap();
            let led = |p: &messages::metadata_response::MetadataResponsePartition| p.leader_id.0 >= 0;
            topic.error_code == 0 && topic.partitions.iter().all(led)
        });
    }

    /// Waits until a partition can be read: Kafka names its leader a moment before that one knows.
    pub(crate) fn await_serving(&mut self, topic: &str, partition: i32) {
        let what = format!("{topic}-{partition} is served");
        await_that(&what, || self.fetch(topic, partition, 0).error_code == 0);
    }

    /// Produces one record set to a partition by name.
    pub(crate) fn produce(
        &mut self,
        topic: &str,
        partition: i32,
        records: Vec<u8>,
    ) -> ProducePartitionResponse {
        self.call(9, produce_request(topic, partition, -1, records)).topics.remove(0).partitions.remove(0)
    }

    /// As [`Wire::produce`], where nothing may go wrong; gives the base offset.
    pub(crate) fn store(&mut self, topic: &str, partition: i32, records: Vec<u8>) -> i64 {
        let stored = self.produce(topic, partition, records);
        assert_eq!(stored.error_code, 0, "{:?}", stored.error_message);
        stored.base_offset
    }

    /// Fetches one partition by name, without waiting.
    pub(crate) fn fetch(&mut self, topic: &str, partition: i32, from: i64) -> FetchPartitionResponse {
        let request = fetch_request(topic, vec![from_offset(partition, from)]);
        let mut response: FetchResponse = self.call(12, request);
        assert_eq!(response.error_code, 0);
        response.topics.remove(0).partitions.remove(0)
    }

    /// Waits until there is a coordinator for a group: the first question creates its topic.
    pub(crate) fn await_coordinator(&mut self, group: &str) {
        await_that(&format!("{group} has a coordinator"), || {
            let request = FindCoordinatorRequest::default().with_coordinator_keys(vec![text(group)]);
            let found = self.call(4, request).coordinators.remove(0);
            let described =
                DescribeGroupsRequest::default().with_groups(vec![messages::GroupId(text(group))]);
            let loading = ErrorCode::CoordinatorLoadInProgress.code();
            found.error_code == 0 && self.call(0, described).groups[0].error_code != loading
        });
    }
}

/// A produce of one record set.
pub(crate) fn produce_request(topic: &str, partition: i32, acks: i16, records: Vec<u8>) -> ProduceRequest {
    ProduceRequest {
        transactional_id: None,
        acks,
        timeout_ms: 10_000,
        topics: vec![ProduceTopic {
            name: text(topic),
            topic_id: TopicId::ZERO,
            partitions: vec![ProducePartition { index: partition, records: Some(records.into()) }],
        }],
    }
}

/// A sessionless fetch by name that does not wait.
pub(crate) fn fetch_request(topic: &str, partitions: Vec<FetchPartition>) -> FetchRequest {
    FetchRequest {
        min_bytes: 0,
        max_bytes: 50 << 20,
        topics: vec![FetchTopic { name: text(topic), topic_id: TopicId::ZERO, partitions }],
        ..FetchRequest::default()
    }
}

/// One partition to fetch from an offset.
pub(crate) fn from_offset(partition: i32, fetch_offset: i64) -> FetchPartition {
    FetchPartition { partition, fetch_offset, partition_max_bytes: 50 << 20, ..FetchPartition::default() }
}

/// Whether a version of Produce or Fetch names topics by id.
pub(crate) fn is_by_id(api: ApiKey, version: i16) -> bool {
    matches!(api, ApiKey::Produce | ApiKey::Fetch) && version >= TOPIC_IDS_FROM
}
