//! Fuzz targets for everything that reads a stranger's bytes. Inside `cargo test` each runs its committed corpus and a
//! bounded number of random inputs; `cargo bolero test` runs the same bodies for as long as one likes.
//!
//! A target decodes and, where that went well, encodes and decodes again: what was understood must survive.

use bytes::{BufMut, Bytes, BytesMut};

use crate::api::{APIS, Api};
use crate::header::RequestHeader;
use crate::messages::fetch::FetchResponse;
use crate::messages::produce::ProduceResponse;
use crate::messages::{decode_request, encode_request};
use crate::records::Record;
use crate::records::consumer_protocol::{Assignment, Subscription};
use crate::sample::{self, Fill};
use crate::{frame, header};

/// Runs a body over the corpus and a bounded number of random inputs.
macro_rules! fuzz {
    ($body:expr) => {
        bolero::check!()
            .with_iterations(20_000)
            .with_test_time(std::time::Duration::from_millis(800))
            .with_max_len(1024)
            .for_each(|input: &[u8]| $body(input))
    };
}

#[test]
fn frames_and_headers() {
    fuzz!(|input: &[u8]| {
        let mut received = BytesMut::from(input);
        while let Ok(Some(frame)) = frame::split_request(&mut received, 512) {
            if let Ok((header, body)) = header::decode_request(&frame) {
                request_body(header.api, header.version, body);
            }
        }
        // Random lengths rarely match; the same bytes in a frame of their own get further.
        let mut framed = BytesMut::new();
        framed.put_i32(input.len() as i32);
        framed.put_slice(input);
        if let Ok(Some(frame)) = frame::split_request(&mut framed, 1024) {
            assert_eq!(frame, input);
            if let Ok((header, body)) = header::decode_request(&frame) {
                request_body(header.api, header.version, body);
            }
        }
    });
}

#[test]
fn request_bodies() {
    fuzz!(|input: &[u8]| {
        let [api, version, body @ ..] = input else { return };
        let (api, version) = choose(*api, *version);
        request_body(api, version, Bytes::copy_from_slice(body));
    });
}

/// Good bodies with a few bytes changed reach deeper than random ones.
#[test]
fn request_bodies_nearly_right() {
    fuzz!(|input: &[u8]| {
        let [api, version, fill, seed, changes @ ..] = input else { return };
        let (api, version) = choose(*api, *version);
        let fill = [Fill::Least, Fill::Most, Fill::Random, Fill::Foreign][usize::from(*fill) % 4];
        let mut body = sample::request(api, version, fill, &mut sample::sequence(u64::from(*seed))).body;
        for change in changes.chunks_exact(3).take(8) {
            let at = usize::from(u16::from_be_bytes([change[0], change[1]]));
            if !body.is_empty() {
                let at = at % body.len();
                body[at] = change[2];
            }
        }
        request_body(api, version, body.into());
    });
}

#[test]
fn responses_of_our_own() {
    fuzz!(|input: &[u8]| {
        let [version, body @ ..] = input else { return };
        let body = Bytes::copy_from_slice(body);
        let produce = 3 + i16::from(*version) % 11;
        if let Ok(response) = ProduceResponse::decode(produce, &body) {
            let again = response.encode(produce).into_bytes();
            assert_eq!(ProduceResponse::decode(produce, &again), Ok(response));
        }
        let fetch = 4 + i16::from(*version) % 15;
        if let Ok(response) = FetchResponse::decode(fetch, &body) {
            let again = response.encode(fetch).into_bytes();
            assert_eq!(FetchResponse::decode(fetch, &again), Ok(response));
        }
    });
}

#[test]
fn records_of_internal_topics() {
    fuzz!(|input: &[u8]| {
        let [split, bytes @ ..] = input else { return };
        let (key, value) = bytes.split_at(usize::from(*split).min(bytes.len()));
        let (key, value) = (Bytes::copy_from_slice(key), Bytes::copy_from_slice(value));
        let _ = Record::decode(&key, None);
        // A value of our own key, so that values are reached without luck.
        let commit = Bytes::from_static(b"\0\x01\0\x01g\0\x01t\0\0\0\0");
        let group = Bytes::from_static(b"\0\x02\0\x01g");
        for key in [key, commit, group] {
            let Ok(record) = Record::decode(&key, Some(&value)) else { continue };
            if let Some((key, value)) = record.encode() {
                // Kafka 4.3 writes one version: what another one says beyond it is dropped once, then stays.
                let written = Record::decode(&key, value.as_ref()).expect("what we wrote");
                assert_eq!(written.encode(), Some((key, value)));
            }
        }
    });
}

#[test]
fn consumer_protocol() {
    fuzz!(|input: &[u8]| {
        let bytes = Bytes::copy_from_slice(input);
        if let Ok(subscription) = Subscription::decode(&bytes) {
            assert_eq!(Subscription::decode(&subscription.encode(3)), Ok(subscription));
        }
        if let Ok(assignment) = Assignment::decode(&bytes) {
            assert_eq!(Assignment::decode(&assignment.encode(3)), Ok(assignment));
        }
    });
}

/// The harness itself: random inputs reach a decoder that dies of one byte.
#[test]
fn a_planted_panic_is_found() {
    let run = || fuzz!(|input: &[u8]| assert!(input.get(2) != Some(&0x2a), "planted"));
    assert!(std::panic::catch_unwind(run).is_err());
}

/// The harness itself: the committed corpus is read, for no random input has these bytes.
#[test]
fn a_planted_panic_is_found_in_the_corpus() {
    let run = || fuzz!(|input: &[u8]| assert!(input != b"only the corpus has this", "planted"));
    assert!(std::panic::catch_unwind(run).is_err());
}

/// A served version of some API, chosen by two bytes.
fn choose(api: u8, version: u8) -> (&'static Api, i16) {
    let api = &APIS[usize::from(api) % APIS.len()];
    let versions = api.max - api.served_min + 1;
    (api, api.served_min + i16::from(version) % versions)
}

/// What is understood must survive being written and read.
fn request_body(api: &'static Api, version: i16, body: Bytes) {
    let Ok(request) = decode_request(api, version, body) else { return };
    let header = RequestHeader { api, version, correlation_id: 7, client_id: None };
    let frame = encode_request(&header, &request).expect("what was read can be written").into_bytes();
    let (read, body) = header::decode_request(&frame.slice(frame::LENGTH_BYTES..)).expect("our own header");
    assert_eq!(read, header);
    assert_eq!(decode_request(api, version, body).as_ref(), Ok(&request));
}
