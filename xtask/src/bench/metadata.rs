//! Topics made as clients make them that only name them: by a Metadata request.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// Has the broker on that port of the loopback address make topics, with its own defaults.
pub(super) fn create_topics(port: u16, names: &[String]) -> Result<(), String> {
    let speak = || -> std::io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        stream.write_all(&request(names))?;
        let mut length = [0; 4];
        stream.read_exact(&mut length)?;
        let mut answer = vec![0; u32::from_be_bytes(length).min(1 << 20) as usize];
        stream.read_exact(&mut answer)?;
        Ok(answer)
    };
    let answer = speak().map_err(|error| format!("create topics: {error}"))?;
    let is_named = |name: &&String| answer.windows(name.len()).any(|window| window == name.as_bytes());
    match names.iter().filter(is_named).count() {
        known if known == names.len() => Ok(()),
        known => Err(format!("of {} topics the broker's metadata names {known}", names.len())),
    }
}

/// A Metadata request of version 4, the last one that is simple, with automatic creation allowed.
fn request(names: &[String]) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend(3i16.to_be_bytes()); // api key
    body.extend(4i16.to_be_bytes()); // version
    body.extend(1i32.to_be_bytes()); // correlation id
    body.extend((-1i16).to_be_bytes()); // no client id
    body.extend((names.len() as i32).to_be_bytes());
    for name in names {
        body.extend((name.len() as i16).to_be_bytes());
        body.extend(name.as_bytes());
    }
    body.push(1); // allow_auto_topic_creation
    let mut frame = (body.len() as i32).to_be_bytes().to_vec();
    frame.extend(body);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_request_is_framed_as_kafka_reads_it() {
        let frame = request(&["a".to_owned(), "bc".to_owned()]);
        assert_eq!(frame.len(), 4 + u32::from_be_bytes([frame[0], frame[1], frame[2], frame[3]]) as usize);
        assert_eq!(frame[4..8], [0, 3, 0, 4]);
        assert_eq!(frame[14..], [0, 0, 0, 2, 0, 1, b'a', 0, 2, b'b', b'c', 1]);
    }
}
