//! Bad input gets its end, with a sentence in the log, and costs nobody else anything.
//!
//! Every test besieges a node in a process of its own while a bystander, a well-behaved client on its own connection,
//! goes on producing and fetching.

use bytes::BytesMut;
use ouzel_model::TimestampMs;
use ouzel_model::batch::{BatchBuilder, Codec, RecordParts};
use ouzel_protocol::api::{APIS, Api};
use ouzel_protocol::header::{self, RequestHeader};
use ouzel_protocol::messages::fetch::FetchRequest;
use ouzel_protocol::messages::kafka::metadata_request::MetadataRequestTopic;
use ouzel_protocol::messages::kafka::{ApiVersionsRequest, ApiVersionsResponse, MetadataRequest};
use ouzel_protocol::messages::{Call, decode_response};
use ouzel_protocol::sample::{self, Fill, sequence};
use ouzel_protocol::{ApiKey, ErrorCode};

use crate::support::process::{Process, Starting};
use crate::support::records::{batch, values};
use crate::support::wire::{Wire, fetch_request, from_offset, name, text};

const BYSTANDERS_TOPIC: &str = "bystander";
/// What a siege may add to the node's memory: its whole budget, and the allocator's share.
const GROWTH_BYTES_MAX: u64 = 160 << 20;

/// A node under siege, and somebody who has nothing to do with it.
struct Siege {
    node: Process,
    bystander: Wire,
    stored: i64,
    rss_before: u64,
    _dir: tempfile::TempDir,
}

impl Siege {
    fn begin() -> Siege {
        Siege::begin_with(&Starting::new())
    }

    fn begin_with(starting: &Starting) -> Siege {
        let dir = tempfile::tempdir().unwrap();
        let node = starting.start(dir.path());
        let mut bystander = node.connect();
        bystander.create(BYSTANDERS_TOPIC, 1, &[]);
        let rss_before = node.rss_bytes();
        let mut siege = Siege { node, bystander, stored: 0, rss_before, _dir: dir };
        siege.assert_unharmed("nothing at all");
        siege
    }

    /// The bystander is served, the process lives, and its memory is bounded.
    fn assert_unharmed(&mut self, by: &str) {
        let value = format!("value {}", self.stored);
        // The socket's timeouts are the deadline.
        let stored = self.bystander.store(BYSTANDERS_TOPIC, 0, batch(&[&value]));
        assert_eq!(stored, self.stored, "after {by}");
        let fetched = self.bystander.fetch(BYSTANDERS_TOPIC, 0, stored);
        assert_eq!(values(&fetched), [value], "after {by}");
        self.stored += 1;
        self.node.assert_alive();
        let grown = self.node.rss_bytes().saturating_sub(self.rss_before);
        assert!(grown <= GROWTH_BYTES_MAX, "{by} made the node grow by {grown} bytes");
    }

    /// Sends bytes on a connection of their own, which the node must close with these words in its log.
    fn assert_closes(&mut self, by: &str, bytes: &[u8], words: &str) {
        let mut wire = self.node.connect();
        wire.send_bytes(bytes);
        wire.assert_closed();
        self.node.await_log(words);
        self.assert_unharmed(by);
    }
}

fn framed(body: &[u8]) -> Vec<u8> {
    [&(body.len() as i32).to_be_bytes()[..], body].concat()
}

fn request(api: &'static Api, version: i16, body: &[u8]) -> Vec<u8> {
    let mut frame = BytesMut::new();
    let header = RequestHeader { api, version, correlation_id: 7, client_id: Some(text("hostile")) };
    header::encode_request(&header, &mut frame);
    frame.extend_from_slice(body);
    framed(&frame)
}

#[test]
fn random_bytes_end_their_connection() {
    let mut siege = Siege::begin();
    let mut random = sequence(1);
    for turn in 0..150 {
        let mut wire = siege.node.connect();
        let noise: Vec<u8> = (0..random() % 3000).map(|_| random() as u8).collect();
        if turn % 2 == 0 {
            wire.send_frame(&noise)
        } else {
            wire.send_bytes(&noise)
        }
        // What looks like the beginning of a frame is waited for, until it is clear that the rest will not come.
        wire.finish_sending();
        wire.assert_closed();
    }
    siege.node.await_log("connection closed");
    siege.assert_unharmed("random bytes");
}

#[test]
fn frames_that_lie_about_their_length_end_their_connection() {
    let mut siege = Siege::begin();
    let of = |length: i32| [&length.to_be_bytes()[..], b"and some bytes"].concat();
    let cases = [
        ("a frame of 2 GiB", of(i32::MAX), "a frame claims 2147483647 bytes, more than the 104857600"),
        ("a frame larger than is received", of(104_857_601), "a frame claims 104857601 bytes"),
        ("a frame of fewer than no bytes", of(-1), "a frame claims a length of -1 bytes"),
        ("the smallest length there is", of(i32::MIN), "a frame claims a length of -2147483648 bytes"),
        ("an empty frame", of(0), "a frame of 0 bytes is too short for a header"),
        ("a frame without room for a header", of(7), "a frame of 7 bytes is too short for a header"),
        ("HTTP", b"GET / HTTP/1.1\r\n\r\n".to_vec(), "a frame claims 1195725856 bytes"),
    ];
    for (by, bytes, words) in cases {
        siege.assert_closes(by, &bytes, words);
    }
}

#[test]
fn frames_that_stop_half_way_hold_nobody_up() {
    let mut siege = Siege::begin();
    // Many times what the node may hold for requests, if it believed them.
    let claims: Vec<_> = (0..300)
        .map(|turn| {
            let mut wire = siege.node.connect();
            let claimed: i32 = [90 << 20, 1 << 20, 60_000][turn % 3];
            wire.send_bytes(&claimed.to_be_bytes());
            wire.send_bytes(&[0; 100]);
            wire
        })
        .collect();
    siege.assert_unharmed("300 frames half sent");
    let large = "x".repeat(900_000);
    siege.bystander.store(BYSTANDERS_TOPIC, 0, batch(&[&large]));
    siege.stored += 1;
    drop(claims);
    siege.assert_unharmed("300 frames given up");
}

#[test]
fn a_good_request_in_small_pieces_is_answered() {
    let mut siege = Siege::begin();
    let mut wire = siege.node.connect();
    let body = request(ApiKey::ApiVersions.api(), 0, &[]);
    for byte in body {
        wire.send_bytes(&[byte]);
        siege.assert_unharmed("a trickle");
    }
    assert_eq!(answer::<ApiVersionsRequest>(&mut wire, 0).error_code, 0);
}

/// The next response, of an API without tagged fields in its header.
fn answer<C: Call>(wire: &mut Wire, version: i16) -> C::Response {
    let frame = wire.receive_frame().unwrap();
    let (_, body) = header::decode_response(C::API.api(), version, &frame).unwrap();
    C::response(decode_response(C::API.api(), version, body).unwrap()).unwrap()
}

#[test]
fn lengths_no_body_can_honour_end_their_connection_in_every_api_and_version() {
    let mut siege = Siege::begin();
    let mut tried = 0;
    for api in &APIS {
        for version in api.served_min..=api.max {
            let sample = sample::request(api, version, Fill::Most, &mut sequence(version as u64));
            // Every length of every shape, each time with another of its lies.
            let mut last = None;
            for (length, body) in sample.hostile() {
                let turn = (length.at, tried % 3);
                tried += 1;
                if last.replace(turn.0) == Some(turn.0) && turn.1 != 0 {
                    continue;
                }
                let mut wire = siege.node.connect();
                wire.send_bytes(&request(api, version, &body));
                wire.assert_closed();
            }
        }
        siege.node.await_log(&format!("{} v{}", api.name, api.max));
        siege.assert_unharmed(api.name);
    }
    assert!(tried > 3000, "{tried}");
}

#[test]
fn bodies_that_keep_to_their_shape_and_mean_nothing_harm_nobody() {
    let mut siege = Siege::begin();
    for (seed, fill) in
        [(1, Fill::Least), (2, Fill::Most), (3, Fill::Random), (4, Fill::Random), (5, Fill::Foreign)]
    {
        let mut random = sequence(seed);
        for api in &APIS {
            for version in api.served_min..=api.max {
                let body = sample::request(api, version, fill, &mut random).body;
                // Some of them ask for a long wait; nobody has to wait with them.
                siege.node.connect().send_bytes(&request(api, version, &body));
            }
        }
        siege.assert_unharmed(&format!("{fill:?} bodies"));
    }
}

#[test]
fn unknown_apis_and_versions_end_their_connection() {
    let mut siege = Siege::begin();
    for key in [-1, 4, 7, 17, 24, 61, 999, i16::MAX, i16::MIN] {
        let body = [&key.to_be_bytes()[..], &[0, 1, 0, 0, 0, 9, 0xff, 0xff]].concat();
        siege.assert_closes(
            "an unknown key",
            &framed(&body),
            &format!("api key {key} (version 1) is not served"),
        );
    }
    for api in APIS.iter().filter(|api| api.key != ApiKey::ApiVersions) {
        for version in [api.served_min - 1, api.max + 1, i16::MAX, i16::MIN] {
            let words = format!("{} v{version} is not served", api.name);
            siege.assert_closes("an unknown version", &request(api, version, &[0; 20]), &words);
        }
    }
}

#[test]
fn an_unknown_version_of_api_versions_is_answered_in_version_0() {
    let mut siege = Siege::begin();
    for version in [5, 99, i16::MAX, -1] {
        let mut wire = siege.node.connect();
        wire.send_bytes(&request(ApiKey::ApiVersions.api(), version, &[1, 1, 0]));
        let refused: ApiVersionsResponse = answer::<ApiVersionsRequest>(&mut wire, 0);
        assert_eq!(refused.error_code, ErrorCode::UnsupportedVersion.code(), "v{version}");
        let range = &refused.api_keys[0];
        assert_eq!((range.api_key, range.min_version, range.max_version), (18, 0, 4));
        // And the connection goes on.
        assert_eq!(wire.call(0, ApiVersionsRequest::default()).error_code, 0);
    }
    siege.assert_unharmed("unknown versions of ApiVersions");
}

#[test]
fn garbage_record_sets_are_refused_and_the_connection_goes_on() {
    let mut siege = Siege::begin();
    let mut wire = siege.node.connect();
    wire.create("garbage", 1, &[]);
    let mut random = sequence(11);
    let good = batch(&["some", "good", "records"]);
    for turn in 0..300 {
        let records = if turn % 2 == 0 {
            (0..random() % 300).map(|_| random() as u8).collect()
        } else {
            // One flipped bit where the CRC covers it, or in the CRC, the magic, or the length.
            let mut flipped = good.clone();
            let covered = [8, 9, 10, 11, 16].into_iter().chain(17..flipped.len()).collect::<Vec<_>>();
            flipped[covered[random() as usize % covered.len()]] ^= 1 << (random() % 8);
            flipped
        };
        let answer = wire.produce("garbage", 0, records.clone());
        assert_ne!(answer.error_code, 0, "{records:?}");
    }
    assert_eq!(wire.fetch("garbage", 0, 0).high_watermark, 0);
    siege.assert_unharmed("garbage");
}

#[test]
fn decompression_bombs_are_refused() {
    let mut siege = Siege::begin();
    let mut wire = siege.node.connect();
    wire.create("bombs", 1, &[("max.message.bytes", "50000000")]);
    let zeros = vec![0; 120 << 20];
    for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        let mut builder = BatchBuilder::new(codec);
        let parts = RecordParts { key: None, value: Some(&zeros), headers: &[] };
        builder.push(TimestampMs(1_700_000_000_000), &parts);
        let answer = wire.produce("bombs", 0, builder.build());
        assert_eq!(answer.error_code, ErrorCode::InvalidRecord.code(), "{codec}: {:?}", answer.error_message);
        siege.assert_unharmed(&format!("a bomb of {codec}"));
    }
}

#[test]
fn strings_and_lists_as_large_as_they_get_are_answered() {
    let mut siege = Siege::begin();
    let mut wire = siege.node.connect();
    let long = "x".repeat(i16::MAX as usize);
    let answer = wire.produce(&long, 0, batch(&["a"]));
    assert_eq!(answer.error_code, ErrorCode::UnknownTopicOrPartition.code());
    let topics =
        (0..100_000).map(|at| MetadataRequestTopic::default().with_name(Some(name(&format!("t{at}")))));
    let mut many = MetadataRequest::default().with_topics(Some(topics.collect()));
    many.allow_auto_topic_creation = false;
    assert_eq!(wire.call(9, many).topics.len(), 100_000);
    let longest = vec![MetadataRequestTopic::default().with_name(Some(name(&long)))];
    let code = wire.call(9, MetadataRequest::default().with_topics(Some(longest))).topics[0].error_code;
    assert_eq!(code, ErrorCode::InvalidTopic.code());
    wire.client_id = Some(text(&long));
    assert_eq!(wire.call(0, ApiVersionsRequest::default()).error_code, 0);
    wire.client_id = None;
    assert_eq!(wire.call(0, ApiVersionsRequest::default()).error_code, 0);
    siege.assert_unharmed("long strings and lists");
}

#[test]
fn as_many_idle_connections_as_the_machine_allows_cost_their_sockets() {
    let mut siege = Siege::begin();
    ouzel_runtime::limits::raise_open_files().unwrap();
    let own_max = ouzel_runtime::limits::raise_open_files().unwrap() as usize;
    // This process holds the other ends, and other tests' sockets beside them; the node keeps a quarter of its files for
    // its logs; one address has 28,000 ports to connect from.
    let node_max = siege.node.open_files_max() / 4 * 3 - 200;
    let wanted = own_max.saturating_sub(3_000).min(node_max).min(20_000);
    eprintln!("{wanted} idle connections");
    assert!(wanted >= 1_000, "this machine allows {own_max} open files; the test needs 3,000");
    let mut idle: Vec<_> = (0..wanted).map(|_| siege.node.connect()).collect();
    for some in [0, wanted / 2, wanted - 1] {
        assert_eq!(idle[some].call(0, ApiVersionsRequest::default()).error_code, 0);
    }
    siege.assert_unharmed("idle connections");
    let per_connection = siege.node.rss_bytes().saturating_sub(siege.rss_before) / wanted as u64;
    assert!(per_connection < 12 * 1024, "an idle connection costs {per_connection} bytes");
    drop(idle);
    siege.assert_unharmed("idle connections that went away");
}

#[test]
fn connections_beyond_the_limit_of_open_files_leave_the_others_and_the_logs_alone() {
    let mut siege = Siege::begin_with(&Starting::new().open_files_max(400));
    assert_eq!(siege.node.open_files_max(), 400);
    let crowd: Vec<_> = (0..800).map(|_| siege.node.connect()).collect();
    siege.node.await_log("new connections are refused");
    siege.assert_unharmed("a crowd");
    // Logs need files too: a new topic, a segment that fills.
    siege.bystander.create("amid-the-crowd", 4, &[("segment.bytes", "1048576")]);
    let large = "x".repeat(700_000);
    for _ in 0..4 {
        siege.bystander.store("amid-the-crowd", 0, batch(&[&large]));
    }
    drop(crowd);
    let mut later = siege.node.connect();
    assert_eq!(later.call(0, ApiVersionsRequest::default()).error_code, 0);
    siege.assert_unharmed("a crowd that went away");
}

#[test]
fn a_reader_that_went_away_during_a_long_poll_leaves_nothing_behind() {
    let mut siege = Siege::begin();
    let before = siege.node.open_files();
    for _ in 0..100 {
        let mut wire = siege.node.connect();
        let end = siege.stored;
        let forever = FetchRequest {
            max_wait_ms: i32::MAX,
            min_bytes: i32::MAX,
            ..fetch_request(BYSTANDERS_TOPIC, vec![from_offset(0, end)])
        };
        wire.send(12, forever);
    }
    let gone = (0..2_000).any(|_| {
        siege.assert_unharmed("pollers that went away");
        siege.node.open_files() <= before + 2
    });
    assert!(gone, "{} files are open, {before} were before", siege.node.open_files());
}

/// Shows that these tests would notice: a node that has died of something is found out.
#[test]
fn a_node_that_died_would_be_noticed() {
    let mut siege = Siege::begin();
    siege.node.kill();
    let judged =
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| siege.assert_unharmed("its death")));
    assert!(judged.is_err());
}
