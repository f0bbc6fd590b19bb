//! Our own codecs against two judges: bytes that Kafka 4.3's classes wrote, and kafka-protocol's codecs for every version.

use bytes::{Bytes, BytesMut};
use kafka_protocol::protocol::{Decodable, Encodable};
use ouzel_model::TopicId;
use ouzel_protocol::Piece;
use ouzel_protocol::api::{APIS, ApiKey};
use ouzel_protocol::header::RequestHeader;
use ouzel_protocol::messages::common::{LeaderIdAndEpoch, NodeEndpoint};
use ouzel_protocol::messages::fetch::*;
use ouzel_protocol::messages::produce::*;
use ouzel_protocol::messages::{
    Request, decode_request, decode_response, encode_request, encode_response, kafka,
};
use ouzel_protocol::sample::{self, Fill};
use ouzel_protocol::{Chain, Response, StrBytes, header};

const TOPIC_ID: TopicId = TopicId([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]);

fn text(text: &'static str) -> StrBytes {
    StrBytes::from_static_str(text)
}

/// The rows of the golden file with one of these names: (name, version, body).
fn golden(names: &[&str]) -> Vec<(&'static str, i16, Bytes)> {
    let rows = include_str!("golden/messages.txt").lines().filter(|line| !line.starts_with('#'));
    let rows = rows.map(|row| {
        let [name, version, hex] = row.split(' ').collect::<Vec<_>>()[..] else { panic!("{row}") };
        let digits = (0..hex.len() / 2).map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap());
        (name, version.parse().unwrap(), Bytes::from(digits.collect::<Vec<u8>>()))
    });
    let rows: Vec<_> = rows.filter(|(name, ..)| names.contains(name)).collect();
    assert!(!rows.is_empty());
    rows
}

#[test]
fn every_golden_request_reads_and_writes_back() {
    let names = [
        ("ProduceRequest", ApiKey::Produce),
        ("FetchRequest", ApiKey::Fetch),
        ("FetchRequestReplica", ApiKey::Fetch),
        ("OffsetCommitRequest", ApiKey::OffsetCommit),
        ("OffsetFetchRequest", ApiKey::OffsetFetch),
        ("ListOffsetsRequest", ApiKey::ListOffsets),
    ];
    for (name, key) in names {
        for (_, version, body) in golden(&[name]) {
            let api = key.api();
            let request = decode_request(api, version, body.clone()).unwrap();
            let header = RequestHeader { api, version, correlation_id: 5, client_id: Some(text("id")) };
            let frame = encode_request(&header, &request).unwrap().into_bytes();
            let (read, rest) = header::decode_request(&frame.slice(4..)).unwrap();
            assert_eq!((read, rest), (header, body), "{name} v{version}");
        }
    }
}

#[test]
fn golden_produce_requests_have_their_values_and_borrow_their_records() {
    for (_, version, body) in golden(&["ProduceRequest"]) {
        let request = ProduceRequest::decode(version, &body).unwrap();
        let records = request.topics[0].partitions[0].records.clone().unwrap();
        assert!(body.as_ptr_range().contains(&records.as_ptr()), "records are a slice of the frame");
        let by_id = version >= 13;
        let expected = ProduceRequest {
            transactional_id: Some(text("t")),
            acks: -1,
            timeout_ms: 1500,
            topics: vec![ProduceTopic {
                name: if by_id { text("") } else { text("orders") },
                topic_id: if by_id { TOPIC_ID } else { TopicId::ZERO },
                partitions: vec![
                    ProducePartition { index: 3, records: Some(Bytes::from_static(b"RECS")) },
                    ProducePartition { index: 4, records: None },
                ],
            }],
        };
        assert_eq!(request, expected, "v{version}");
    }
}

fn produce_response(moved: bool) -> ProduceResponse {
    let refused = ProducePartitionResponse {
        index: 3,
        error_code: 87,
        base_offset: 77,
        log_append_time_ms: 1234567890123,
        log_start_offset: 4,
        record_errors: vec![
            RecordError { batch_index: 2, message: Some(text("bad")) },
            RecordError { batch_index: 5, message: None },
        ],
        error_message: Some(text("why")),
        current_leader: moved.then_some(LeaderIdAndEpoch { leader_id: 5, leader_epoch: 7 }),
    };
    let endpoint = NodeEndpoint { node_id: 5, host: text("h"), port: 9092, rack: None };
    ProduceResponse {
        topics: vec![ProduceTopicResponse {
            name: text("orders"),
            topic_id: TOPIC_ID,
            partitions: vec![refused],
        }],
        throttle_time_ms: 9,
        node_endpoints: if moved { vec![endpoint] } else { Vec::new() },
    }
}

#[test]
fn produce_responses_are_kafkas_bytes() {
    for (name, version, body) in golden(&["ProduceResponse", "ProduceResponseMoved"]) {
        let response = produce_response(name == "ProduceResponseMoved");
        assert_eq!(response.encode(version).into_bytes(), body, "{name} v{version}");
        let read = ProduceResponse::decode(version, &body).unwrap();
        assert_eq!(read.encode(version).into_bytes(), body, "{name} v{version}");
        if version >= 8 {
            assert_eq!(read.topics[0].partitions, response.topics[0].partitions);
        }
    }
}

fn fetch_response(version: i16) -> FetchResponse {
    let has = |from: i16| version >= from;
    let read = FetchPartitionResponse {
        high_watermark: 200,
        last_stable_offset: 150,
        log_start_offset: 10,
        diverging_epoch: has(12).then_some(EpochEndOffset { epoch: 3, end_offset: 90 }),
        snapshot_id: has(12).then_some(EpochEndOffset { epoch: 4, end_offset: 91 }),
        aborted_transactions: Some(vec![AbortedTransaction { producer_id: 9, first_offset: 120 }]),
        preferred_read_replica: if has(11) { 2 } else { -1 },
        records: Some(vec![Bytes::from_static(b"RECO").into(), Bytes::from_static(b"RDS!").into()]),
        ..FetchPartitionResponse::error(3, 0i16)
    };
    let moved = FetchPartitionResponse {
        current_leader: has(12).then_some(LeaderIdAndEpoch { leader_id: 5, leader_epoch: 7 }),
        ..FetchPartitionResponse::error(4, 6i16)
    };
    let endpoint = NodeEndpoint { node_id: 5, host: text("h"), port: 9092, rack: Some(text("z")) };
    FetchResponse {
        throttle_time_ms: 9,
        error_code: 0,
        session_id: if has(7) { 6 } else { 0 },
        topics: vec![FetchTopicResponse {
            name: text("orders"),
            topic_id: TOPIC_ID,
            partitions: vec![read, moved],
        }],
        node_endpoints: if has(16) { vec![endpoint] } else { Vec::new() },
    }
}

#[test]
fn fetch_responses_are_kafkas_bytes_and_pass_records_on() {
    for (_, version, body) in golden(&["FetchResponse"]) {
        let response = fetch_response(version);
        let chain = response.encode(version);
        for piece in response.topics[0].partitions[0].record_pieces() {
            let mut segments = chain.segments().iter().filter_map(Piece::bytes);
            assert!(segments.any(|segment| segment.as_ptr() == piece.as_ptr()), "not copied");
        }
        assert_eq!(chain.len(), body.len());
        assert_eq!(chain.into_bytes(), body, "v{version}");
        let read = FetchResponse::decode(version, &body).unwrap();
        assert_eq!(read.encode(version).into_bytes(), body);
        assert_eq!(read.topics[0].partitions[1], response.topics[0].partitions[1]);
    }
}

/// Encodes, has kafka-protocol read all of it and write it again, and compares the bytes.
fn agrees<M: Decodable + Encodable>(ours: Chain, version: i16) -> Bytes {
    let ours = ours.into_bytes();
    let mut read = ours.clone();
    let theirs = M::decode(&mut read, version).unwrap();
    assert!(read.is_empty());
    let mut written = BytesMut::new();
    theirs.encode(&mut written, version).unwrap();
    assert_eq!(written, ours, "v{version}");
    ours
}

struct Draw<R>(R);

impl<R: FnMut() -> u64> Draw<R> {
    fn number(&mut self) -> u64 {
        (self.0)()
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.number().is_multiple_of(n)
    }

    fn several<T>(&mut self, mut draw: impl FnMut(&mut Self) -> T) -> Vec<T> {
        (0..self.number() % 4).map(|_| draw(self)).collect()
    }

    fn text(&mut self) -> StrBytes {
        StrBytes::from_string("ouzel".repeat(self.number() as usize % 40))
    }

    fn bytes(&mut self) -> Bytes {
        let length = self.number() as usize % 300 + 1;
        Bytes::from((0..length).map(|_| self.number() as u8).collect::<Vec<_>>())
    }

    fn leader(&mut self) -> Option<LeaderIdAndEpoch> {
        let leader = LeaderIdAndEpoch { leader_id: self.number() as i32, leader_epoch: self.number() as i32 };
        self.one_in(2).then_some(leader)
    }

    fn end(&mut self) -> Option<EpochEndOffset> {
        let end = EpochEndOffset { epoch: self.number() as i32, end_offset: self.number() as i64 };
        self.one_in(2).then_some(end)
    }

    fn endpoint(&mut self) -> NodeEndpoint {
        NodeEndpoint {
            node_id: self.number() as i32,
            host: self.text(),
            port: self.number() as i32,
            rack: if self.one_in(2) { Some(self.text()) } else { None },
        }
    }
}

#[test]
fn produce_responses_of_every_version_agree_with_kafka_protocol() {
    let mut draw = Draw(sample::sequence(1));
    for version in (3..=13).flat_map(|version| [version; 20]) {
        let response = ProduceResponse {
            topics: draw.several(|draw| ProduceTopicResponse {
                name: draw.text(),
                topic_id: TOPIC_ID,
                partitions: draw.several(|draw| ProducePartitionResponse {
                    index: draw.number() as i32,
                    error_code: draw.number() as i16,
                    base_offset: draw.number() as i64,
                    log_append_time_ms: draw.number() as i64,
                    log_start_offset: draw.number() as i64,
                    record_errors: draw.several(|draw| RecordError {
                        batch_index: draw.number() as i32,
                        message: if draw.one_in(2) { Some(draw.text()) } else { None },
                    }),
                    error_message: if draw.one_in(2) { Some(draw.text()) } else { None },
                    current_leader: draw.leader(),
                }),
            }),
            throttle_time_ms: draw.number() as i32,
            node_endpoints: draw.several(Draw::endpoint),
        };
        let body = agrees::<kafka::ProduceResponse>(response.encode(version), version);
        let read = ProduceResponse::decode(version, &body).unwrap();
        assert_eq!(read.encode(version).into_bytes(), body);
    }
}

#[test]
fn fetch_responses_of_every_version_agree_with_kafka_protocol() {
    let mut draw = Draw(sample::sequence(2));
    for version in (4..=18).flat_map(|version| [version; 20]) {
        let response = FetchResponse {
            throttle_time_ms: draw.number() as i32,
            error_code: draw.number() as i16,
            session_id: draw.number() as i32,
            topics: draw.several(|draw| FetchTopicResponse {
                name: draw.text(),
                topic_id: TOPIC_ID,
                partitions: draw.several(|draw| FetchPartitionResponse {
                    high_watermark: draw.number() as i64,
                    last_stable_offset: draw.number() as i64,
                    log_start_offset: draw.number() as i64,
                    diverging_epoch: draw.end(),
                    current_leader: draw.leader(),
                    snapshot_id: draw.end(),
                    aborted_transactions: if draw.one_in(2) {
                        None
                    } else {
                        Some(draw.several(|draw| AbortedTransaction {
                            producer_id: draw.number() as i64,
                            first_offset: draw.number() as i64,
                        }))
                    },
                    preferred_read_replica: draw.number() as i32,
                    records: if draw.one_in(4) {
                        None
                    } else {
                        Some(draw.several(|draw| draw.bytes().into()))
                    },
                    ..FetchPartitionResponse::error(draw.number() as i32, draw.number() as i16)
                }),
            }),
            node_endpoints: draw.several(Draw::endpoint),
        };
        let body = agrees::<kafka::FetchResponse>(response.encode(version), version);
        let read = FetchResponse::decode(version, &body).unwrap();
        assert_eq!(read.encode(version).into_bytes(), body);
    }
}

#[test]
fn a_response_frame_has_length_header_and_body() {
    let response = Response::from(ProduceResponse::default());
    let frame = encode_response(9, 0x0a0b0c0d, &response).unwrap();
    assert_eq!(frame.segments().len(), 1, "a small body is joined to the header");
    assert_eq!(frame.into_bytes(), &[0, 0, 0, 11, 10, 11, 12, 13, 0, 1, 0, 0, 0, 0, 0][..]);
}

#[test]
fn an_api_versions_refusal_is_readable_by_the_oldest_client() {
    let mut refusal = kafka::ApiVersionsResponse::default();
    refusal.error_code = 35;
    let frame = encode_response(0, 7, &refusal.into()).unwrap().into_bytes();
    assert_eq!(frame, &[0, 0, 0, 10, 0, 0, 0, 7, 0, 35, 0, 0, 0, 0][..]);
}

#[test]
fn what_no_version_lets_through_is_an_error_not_a_panic() {
    // A request is the client's to fill for the version it has chosen.
    let request = kafka::FindCoordinatorRequest::default().with_coordinator_keys(vec![text("g")]);
    let api = ApiKey::FindCoordinator.api();
    let header = RequestHeader { api, version: 3, correlation_id: 1, client_id: None };
    let error = encode_request(&header, &request.into()).unwrap_err();
    assert_eq!((error.api, error.version), (ApiKey::FindCoordinator, 3));
}

#[test]
fn versions_out_of_the_table_are_refused() {
    for (key, version) in
        [(ApiKey::Produce, 2), (ApiKey::Produce, 14), (ApiKey::Fetch, 3), (ApiKey::ApiVersions, 5)]
    {
        let refused = decode_request(key.api(), version, Bytes::new()).unwrap_err();
        assert_eq!(refused.to_string(), format!("{key} v{version} is not served"));
    }
    let all_topics = decode_request(ApiKey::Metadata.api(), 1, Bytes::from_static(&[0xff; 4])).unwrap();
    assert!(matches!(all_topics, Request::Metadata(request) if request.topics.is_none()));
}

/// A handler fills a response once; every version must be able to leave.
#[test]
fn a_response_filled_for_the_newest_version_leaves_in_every_version() {
    let mut random = sample::sequence(4);
    let mut unsaid = Vec::new();
    for api in &APIS {
        let newest = sample::response(api, api.max, Fill::Most, &mut random).body;
        let response = decode_response(api, api.max, newest.into()).unwrap();
        for version in api.served_min..=api.max {
            match encode_response(version, 1, &response) {
                Ok(frame) => {
                    let (_, body) =
                        header::decode_response(api, version, &frame.into_bytes().slice(4..)).unwrap();
                    decode_response(api, version, body).unwrap_or_else(|error| panic!("{error}"));
                }
                Err(error) => unsaid.push(error.to_string()),
            }
        }
    }
    assert_eq!(unsaid, [""; 0]);
}
