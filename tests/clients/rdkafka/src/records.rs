//! The records every driver sends for a producer's name and a sequence number, and the digest by which all compare them.

use rdkafka::message::{BorrowedMessage, Header, Headers, Message, OwnedHeaders};
use serde_json::json;

use crate::say;

pub(crate) fn key_of(seq: i64) -> Option<Vec<u8>> {
    (seq % 13 != 5 || seq % 17 == 3).then(|| format!("k{}", seq % 97).into_bytes())
}

pub(crate) fn value_of(producer: &str, seq: i64, value_bytes: i64) -> Option<Vec<u8>> {
    if seq % 17 == 3 {
        return None;
    }
    let mut value = format!("{producer}|{seq}|").into_bytes();
    value.extend((0..seq * 37 % value_bytes).map(|i| ((seq * 31 + i * 7) % 256) as u8));
    Some(value)
}

pub(crate) fn headers_of(producer: &str, seq: i64) -> OwnedHeaders {
    let who = format!("{producer}|{seq}");
    let headers = OwnedHeaders::new().insert(Header { key: "who", value: Some(&who) });
    if seq % 5 != 0 {
        return headers;
    }
    headers
        .insert(Header { key: "h", value: Some(&[255, 254, (1 + seq % 255) as u8]) })
        .insert(Header { key: "n", value: None::<&[u8]> })
        .insert(Header { key: "h", value: Some(&[0u8; 0]) })
}

/// Tells a record that was read.
pub(crate) fn say_record(message: &BorrowedMessage<'_>) {
    let mut crc = crc32fast::Hasher::new();
    let mut add = |part: Option<&[u8]>| match part {
        None => crc.update(b"-1|"),
        Some(bytes) => {
            crc.update(format!("{}|", bytes.len()).as_bytes());
            crc.update(bytes);
        }
    };
    add(message.key());
    add(message.payload());
    let mut who = None;
    for header in message.headers().map(|headers| headers.iter()).into_iter().flatten() {
        add(Some(header.key.as_bytes()));
        add(header.value);
        if header.key == "who" {
            who = header.value.map(|value| String::from_utf8_lossy(value).into_owned());
        }
    }
    let who = who.or_else(|| {
        let value = String::from_utf8_lossy(message.payload()?).into_owned();
        let mut words = value.split('|');
        Some(format!("{}|{}", words.next()?, words.next()?))
    });
    say(&json!({
        "t": "rec", "p": message.partition(), "o": message.offset(), "ts": message.timestamp().to_millis().unwrap_or(-1),
        "who": who, "d": crc.finalize(),
    }));
}
