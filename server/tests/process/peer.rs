//! A peer that is made by hand: it says what it likes at a node's rpc address.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

const MAGIC: &[u8; 8] = b"OUZELRPC";
const HEADER_BYTES: usize = 32;
const HELLO: u8 = 1;
/// The kind of the frame that takes a hello.
pub(crate) const WELCOME: u8 = 2;
/// The kind of the frame that refuses one.
pub(crate) const REFUSAL: u8 = 3;
/// The kind of the frame that wants an answer.
pub(crate) const CALL: u8 = 4;
const PATIENCE: Duration = Duration::from_secs(60);

/// Whom it says it is.
pub(crate) struct Card<'a> {
    pub(crate) versions: (u16, u16),
    pub(crate) cluster_id: &'a str,
    pub(crate) node: i32,
    pub(crate) directory_id: [u8; 16],
    /// Whom it means to reach.
    pub(crate) target: i32,
}

/// Connects to a node.
pub(crate) fn connect(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Connects, says who it is, and gives the connection with the kind and the head of the answer.
pub(crate) fn introduce(address: &str, card: &Card<'_>) -> (TcpStream, u8, Vec<u8>) {
    let mut stream = connect(address);
    let mut hello = Vec::new();
    hello.extend(card.versions.0.to_be_bytes());
    hello.extend(card.versions.1.to_be_bytes());
    // The purpose: traffic of the control lane.
    hello.push(0);
    put_text(&mut hello, card.cluster_id);
    hello.extend(card.node.to_be_bytes());
    hello.extend(card.directory_id);
    // Its process, drawn at its start.
    hello.extend(77_u64.to_be_bytes());
    put_text(&mut hello, "127.0.0.1:9");
    // The core it connects from.
    hello.extend(0_u16.to_be_bytes());
    hello.extend(card.target.to_be_bytes());
    stream.write_all(MAGIC).unwrap();
    stream.write_all(&frame(HELLO, 0, &hello)).unwrap();
    let mut header = [0; HEADER_BYTES];
    stream.read_exact(&mut header).unwrap();
    let payload_bytes = u32::from_be_bytes(*header.first_chunk().unwrap());
    let mut payload = vec![0; payload_bytes as usize];
    stream.read_exact(&mut payload).unwrap();
    (stream, header[4], payload)
}

/// The words of a refusal.
pub(crate) fn words(refusal: &[u8]) -> String {
    // A code and a length stand before them.
    String::from_utf8(refusal[4..].to_vec()).unwrap()
}

/// A frame whose checksums are right, with this head and no bodies.
pub(crate) fn frame(kind: u8, service: u8, head: &[u8]) -> Vec<u8> {
    let length = (head.len() as u32).to_be_bytes();
    let mut frame = Vec::new();
    frame.extend(length);
    frame.extend([kind, 0, service, 0]);
    frame.extend(1_u64.to_be_bytes());
    frame.extend(length);
    frame.extend(0_u32.to_be_bytes());
    frame.extend(crc32c::crc32c(head).to_be_bytes());
    frame.extend(crc32c::crc32c(&frame).to_be_bytes());
    assert_eq!(frame.len(), HEADER_BYTES);
    frame.extend(head);
    frame
}

fn put_text(to: &mut Vec<u8>, text: &str) {
    to.extend((text.len() as u16).to_be_bytes());
    to.extend(text.as_bytes());
}
