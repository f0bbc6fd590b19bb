//! Hostile bytes on some connections while real clients work on others: nobody else is to notice.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::json;

use super::families::Family;
use super::history::{Promise, judge};
use super::scenario::Scenario;
use super::stage::{PATIENCE, Production, Stage};

/// A broker that neither answers nor closes within this keeps a hostile peer for nothing, which is its right.
const GLANCE: Duration = Duration::from_millis(300);
const IDLE_CONNECTIONS: usize = 800;

pub(super) fn scenarios() -> Vec<Scenario> {
    let hostile = |name: &str, attack: fn(&Stage<'_>) -> Result<String, String>| {
        Scenario::new(
            format!("bad input: {name} costs nobody else anything"),
            &[Family::Rdkafka],
            move |stage| while_others_work(stage, attack),
        )
    };
    vec![hostile("broken frames", broken_frames).quick(), hostile("idle connections", idle_connections)]
}

/// Runs an attack while a producer writes, and checks that its records are all there.
fn while_others_work(
    stage: &Stage<'_>,
    attack: fn(&Stage<'_>) -> Result<String, String>,
) -> Result<String, String> {
    let topic = stage.unique("hostile");
    stage.create_topic(Family::Rdkafka, &topic, 3, &json!({}))?;
    let production = Production {
        per_second: 200,
        count: 600,
        idempotent: true,
        ..Production::new(Family::Rdkafka, &topic)
    };
    let mut driver = stage.borrow(Family::Rdkafka)?;
    driver.begin(&production.order(stage))?;
    let note = attack(stage)?;
    let heard = driver.finish(PATIENCE)?;
    stage.give_back(Family::Rdkafka, driver);
    let read = stage.read(Family::Rdkafka, &topic, 3, json!({}))?;
    judge(&production.sent(heard.iter().map(|heard| &heard.event)), Promise::ExactlyOnce, &read.records)?;
    if !stage.cluster().is_running() {
        return Err("a broker is gone".to_owned());
    }
    Ok(note)
}

fn connect(stage: &Stage<'_>) -> Result<TcpStream, String> {
    let stream = TcpStream::connect(&stage.address).map_err(|e| format!("connect: {e}"))?;
    stream.set_read_timeout(Some(GLANCE)).map_err(|e| format!("set a time-out: {e}"))?;
    Ok(stream)
}

/// What came of a peer that said these bytes.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    Closed,
    Answered,
    LeftWaiting,
}

fn fate_of(stream: &mut TcpStream) -> Fate {
    let mut answer = [0; 64];
    match stream.read(&mut answer) {
        Ok(0) => Fate::Closed,
        Ok(_) => Fate::Answered,
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
            Fate::LeftWaiting
        }
        Err(_) => Fate::Closed,
    }
}

/// A request header without tagged fields: key, version, correlation id 7, client id "x".
fn request(key: i16, version: i16, body: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    frame.extend(key.to_be_bytes());
    frame.extend(version.to_be_bytes());
    frame.extend(7i32.to_be_bytes());
    frame.extend(1i16.to_be_bytes());
    frame.push(b'x');
    frame.extend(body);
    let mut framed = (frame.len() as i32).to_be_bytes().to_vec();
    framed.extend(frame);
    framed
}

const PRODUCE: i16 = 0;
const METADATA: i16 = 3;
const API_VERSIONS: i16 = 18;

/// Bytes with a seed, so that a failure can be had again.
fn noise(seed: u32, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2_654_435_761).max(1);
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state as u8
        })
        .collect()
}

fn broken_frames(stage: &Stage<'_>) -> Result<String, String> {
    let must_close: Vec<(&str, Vec<u8>)> = vec![
        ("a frame that claims 2 GiB", i32::MAX.to_be_bytes().to_vec()),
        ("a frame of negative length", (-5i32).to_be_bytes().to_vec()),
        ("a frame over socket.request.max.bytes", (104_857_601i32).to_be_bytes().to_vec()),
        ("an unknown key", request(9_999, 0, &[])),
        ("an unknown version", request(METADATA, 999, &[])),
        ("an array that claims a billion entries", request(METADATA, 1, &1_000_000_000i32.to_be_bytes())),
        ("a frame too short for a header", vec![0, 0, 0, 2, 0, 3]),
        ("a string longer than its frame", request(METADATA, 1, &[0, 0, 0, 1, 0x7f, 0xff, b'a'])),
        (
            "records longer than their frame",
            request(
                PRODUCE,
                3,
                &[
                    0xff, 0xff, 0, 1, 0, 0, 3, 0xe8, 0, 0, 0, 1, 0, 1, b't', 0, 0, 0, 1, 0, 0, 0, 0, 0x7f, 0,
                    0, 0,
                ],
            ),
        ),
    ];
    for (what, bytes) in &must_close {
        let mut stream = connect(stage)?;
        stream.set_read_timeout(Some(Duration::from_secs(10))).map_err(|e| format!("set a time-out: {e}"))?;
        stream.write_all(bytes).map_err(|e| format!("send {what}: {e}"))?;
        let fate = fate_of(&mut stream);
        if fate != Fate::Closed {
            return Err(format!("{what}: {fate:?}, the connection was to be closed"));
        }
    }
    // A version of ApiVersions that nobody knows is answered all the same, in version 0 (KIP-511).
    let mut stream = connect(stage)?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).map_err(|e| format!("set a time-out: {e}"))?;
    stream.write_all(&request(API_VERSIONS, 999, &[0])).map_err(|e| format!("send: {e}"))?;
    if fate_of(&mut stream) != Fate::Answered {
        return Err("an unknown version of ApiVersions was not answered".to_owned());
    }
    for seed in 0..40 {
        let mut stream = connect(stage)?;
        // The broker may close before all is written.
        let _ = stream.write_all(&noise(seed, 512));
    }
    for cut in 1..20 {
        let mut stream = connect(stage)?;
        let whole = request(METADATA, 1, &[0, 0, 0, 1, 0, 1, b't']);
        let _ = stream.write_all(&whole[..cut.min(whole.len() - 1)]);
    }
    // A slow trickle: a good request, a byte at a time, is answered in the end.
    let mut stream = connect(stage)?;
    stream.set_nodelay(true).map_err(|e| format!("set nodelay: {e}"))?;
    for byte in request(API_VERSIONS, 0, &[]) {
        stream.write_all(&[byte]).map_err(|e| format!("trickle: {e}"))?;
        std::thread::sleep(Duration::from_millis(20));
    }
    stream.set_read_timeout(Some(Duration::from_secs(10))).map_err(|e| format!("set a time-out: {e}"))?;
    if fate_of(&mut stream) != Fate::Answered {
        return Err("a request that trickled in was not answered".to_owned());
    }
    Ok(format!("{} kinds of broken frames", must_close.len() + 4))
}

/// As many idle connections as our own limit of open files allows, up to some: the broker serves one more.
fn idle_connections(stage: &Stage<'_>) -> Result<String, String> {
    let mut idle = Vec::new();
    while idle.len() < IDLE_CONNECTIONS {
        match TcpStream::connect(&stage.address) {
            Ok(stream) => idle.push(stream),
            Err(error) if error.raw_os_error() == Some(24) => break, // EMFILE: ours, not the broker's
            Err(error) => return Err(format!("connection {}: {error}", idle.len())),
        }
    }
    let began = Instant::now();
    let mut stream = match idle.pop() {
        Some(stream) => stream,
        None => return Err("no connection could be made".to_owned()),
    };
    stream.set_read_timeout(Some(Duration::from_secs(20))).map_err(|e| format!("set a time-out: {e}"))?;
    stream.write_all(&request(API_VERSIONS, 0, &[])).map_err(|e| format!("send: {e}"))?;
    match fate_of(&mut stream) {
        Fate::Answered => Ok(format!("{} idle, the last answered after {:?}", idle.len(), began.elapsed())),
        fate => Err(format!("among {} idle connections: {fate:?}", idle.len())),
    }
}
