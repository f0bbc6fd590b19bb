//! What a body can make its decoder allocate: next to nothing if it is refused, a bounded multiple of itself if it is
//! not. Measured with a counting allocator, so a decoder that believes the wire fails here and not in production.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use bytes::Bytes;
use kafka_protocol::protocol::Decodable;
use ouzel_protocol::api::{APIS, ApiKey};
use ouzel_protocol::decode_request;
use ouzel_protocol::messages::fetch::FetchResponse;
use ouzel_protocol::messages::kafka;
use ouzel_protocol::messages::produce::ProduceResponse;
use ouzel_protocol::reader::ELEMENTS_MAX;
use ouzel_protocol::records::Record;
use ouzel_protocol::sample::{self, Fill};

/// Counts what the current thread asks for, the largest single request included, and passes it on.
struct Counting;

thread_local! {
    static ASKED_BYTES: Cell<usize> = const { Cell::new(0) };
}

#[expect(unsafe_code, reason = "a global allocator is an unsafe trait")]
// SAFETY: every call goes to the system's allocator unchanged; counting touches a const-initialised thread local, which
// allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ASKED_BYTES.with(|asked| asked.set(asked.get() + layout.size()));
        // SAFETY: the caller's promise is the system allocator's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is the system allocator's.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Bytes asked for while `work` ran, whether or not they were given back.
fn asked_by<T>(work: impl FnOnce() -> T) -> (usize, T) {
    let before = ASKED_BYTES.with(Cell::get);
    let result = work();
    (ASKED_BYTES.with(Cell::get) - before, result)
}

/// A refusal may say why, in words.
const REFUSAL_BYTES_MAX: usize = 512;
/// The greediest element: two bytes of wire that become a structure or a tree node.
const BYTES_PER_BYTE_MAX: usize = 64;

fn bound(input: &[u8]) -> usize {
    REFUSAL_BYTES_MAX + BYTES_PER_BYTE_MAX * input.len()
}

#[test]
fn the_counter_counts() {
    let (asked, _) = asked_by(|| vec![0u8; 12_345]);
    assert_eq!(asked, 12_345);
}

#[test]
fn five_bytes_of_metadata_do_not_get_154_gigabytes() {
    for version in 0..=8 {
        let body = Bytes::from_static(&[0x7f, 0xff, 0xff, 0xff, 0]);
        let (asked, decoded) = asked_by(|| decode_request(ApiKey::Metadata.api(), version, body));
        assert!(decoded.is_err() && asked <= REFUSAL_BYTES_MAX, "{asked} bytes");
    }
    for version in 9..=13 {
        let body = Bytes::from_static(&[0xff, 0xff, 0xff, 0xff, 0x0f]);
        let (asked, decoded) = asked_by(|| decode_request(ApiKey::Metadata.api(), version, body));
        assert!(decoded.is_err() && asked <= REFUSAL_BYTES_MAX, "{asked} bytes");
    }
}

/// What this suite is for: the crate's decoder, shown such a body without the walk, asks for what the body claims.
#[test]
fn a_decoder_that_believes_the_wire_is_caught() {
    let body = &mut Bytes::from_static(&[0, 0x10, 0, 0, 0]);
    let (asked, decoded) = asked_by(|| kafka::MetadataRequest::decode(body, 1));
    assert!(decoded.is_err() && asked > bound(&[0; 5]), "{asked} bytes");
}

#[test]
fn every_hostile_body_of_every_version_is_refused_for_little() {
    let mut random = sample::sequence(3);
    for api in &APIS {
        for version in api.served_min..=api.max {
            for fill in [Fill::Least, Fill::Most, Fill::Foreign] {
                let sample = sample::request(api, version, fill, &mut random);
                for (length, body) in sample.hostile() {
                    let body = Bytes::from(body);
                    let (asked, decoded) = asked_by(|| decode_request(api, version, body.clone()));
                    assert!(decoded.is_err());
                    assert!(asked <= bound(&body), "{} v{version} {length:?}: {asked} bytes", api.name);
                }
            }
        }
    }
}

#[test]
fn the_greediest_bodies_stay_within_a_multiple_and_a_ceiling() {
    let count = ELEMENTS_MAX - 1;
    // Metadata v1: two bytes of empty name become a topic.
    let names = [&(count as i32).to_be_bytes()[..], &vec![0; 2 * count]].concat();
    // Metadata v12, no topic, as many tagged fields as allowed, each two bytes; the first three varint bytes count them.
    let tags = u32::try_from(count / 2).unwrap();
    let counted = [tags as u8 | 0x80, (tags >> 7) as u8 | 0x80, (tags >> 14) as u8];
    let fields = (0..tags).flat_map(|tag| [tag as u8 | 0x80, (tag >> 7) as u8 | 0x80, (tag >> 14) as u8, 0]);
    let tagged = [&[1, 0, 0][..], &counted, &fields.collect::<Vec<_>>()].concat();
    for (version, body) in [(1, names), (12, tagged)] {
        let body = Bytes::from(body);
        let (asked, decoded) = asked_by(|| decode_request(ApiKey::Metadata.api(), version, body.clone()));
        decoded.unwrap();
        assert!(asked <= bound(&body), "v{version}: {asked} bytes for {}", body.len());
        assert!(asked <= 32 << 20, "v{version}: {asked} bytes");
    }
}

#[test]
fn random_responses_and_records_stay_within_a_multiple() {
    let mut random = sample::sequence(9);
    for _ in 0..20_000 {
        let length = random() as usize % 64;
        // Small numbers look like lengths more often than random bytes do.
        let bytes: Vec<u8> = (0..length)
            .map(|_| {
                let byte = random() as u8;
                if byte & 0xc0 == 0 { byte } else { byte & 3 }
            })
            .collect();
        let bytes = Bytes::from(bytes);
        let (asked, _) = asked_by(|| {
            for version in [3, 13] {
                let _ = ProduceResponse::decode(version, &bytes);
            }
            for version in [4, 18] {
                let _ = FetchResponse::decode(version, &bytes);
            }
            for key in [&b"\0\x01\0\x01g\0\x01t\0\0\0\0"[..], b"\0\x02\0\x01g"] {
                let _ = Record::decode(&Bytes::from_static(key), Some(&bytes));
            }
        });
        assert!(asked <= bound(&bytes) * 6, "{asked} bytes for {bytes:?}");
    }
}
