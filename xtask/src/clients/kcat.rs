//! kcat as it is: lines in, framed records out.

use std::io::Write;
use std::process::{Command, Stdio};

use super::history::Seen;
use super::records::{digest_of, plain_key, plain_value};
use super::stage::Stage;

/// Writes plain records to partition 0 of a topic.
pub(super) fn produce(
    stage: &Stage<'_>,
    topic: &str,
    producer: &str,
    count: u64,
    codec: &str,
    acks: &str,
) -> Result<(), String> {
    let mut command = kcat(stage);
    command.args(["-P", "-t", topic, "-p", "0", "-K", "\t", "-z", codec, "-X", &format!("acks={acks}")]);
    command.args(["-X", "message.timeout.ms=60000"]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| format!("start kcat: {e}"))?;
    let lines: String =
        (0..count).map(|seq| format!("{}\t{}\n", plain_key(seq), plain_value(producer, seq))).collect();
    let mut stdin = child.stdin.take().ok_or("kcat without stdin")?;
    let wrote = stdin.write_all(lines.as_bytes());
    drop(stdin);
    let output = child.wait_with_output().map_err(|e| format!("wait for kcat: {e}"))?;
    match wrote {
        Ok(()) if output.status.success() => Ok(()),
        _ => Err(format!("kcat -P: {}: {}", output.status, String::from_utf8_lossy(&output.stderr))),
    }
}

/// Reads a topic from its start to its end.
pub(super) fn consume(stage: &Stage<'_>, topic: &str) -> Result<Vec<Seen>, String> {
    let mut command = kcat(stage);
    // Lengths first, since values are binary; headers come as `name=value` text, which is why they are read as bytes too.
    command.args(["-C", "-t", topic, "-o", "beginning", "-e", "-q", "-X", "check.crcs=true"]);
    command.args(["-f", "%p %o %T %K %S %h\n%k%s\n"]);
    let output = command.stdin(Stdio::null()).output().map_err(|e| format!("start kcat: {e}"))?;
    if !output.status.success() {
        return Err(format!("kcat -C: {}: {}", output.status, String::from_utf8_lossy(&output.stderr)));
    }
    let mut rest = &output.stdout[..];
    let mut records = Vec::new();
    while !rest.is_empty() {
        records.push(
            next(&mut rest)
                .ok_or_else(|| format!("kcat's output cannot be read behind {} records", records.len()))?,
        );
    }
    Ok(records)
}

/// Takes one framed record off the front.
fn next(rest: &mut &[u8]) -> Option<Seen> {
    let mut number = |end: u8| -> Option<i64> {
        let length = rest.iter().position(|byte| *byte == end)?;
        let word = std::str::from_utf8(&rest[..length]).ok()?;
        *rest = &rest[length + 1..];
        word.parse().ok()
    };
    let (partition, offset, timestamp_ms) = (number(b' ')?, number(b' ')?, number(b' ')?);
    let (key_bytes, value_bytes) = (number(b' ')?, number(b' ')?);
    let headers = headers(rest)?;
    let mut take = |length: i64| -> Option<Option<&[u8]>> {
        let Ok(length) = usize::try_from(length) else { return Some(None) };
        let (part, left) = rest.split_at_checked(length)?;
        *rest = left;
        Some(Some(part))
    };
    // kcat says 0 for the length of a null key and -1 for a null value; no key of ours is empty.
    let key = take(if key_bytes == 0 { -1 } else { key_bytes })?;
    let value = take(value_bytes)?;
    let borrowed: Vec<(&str, Option<&[u8]>)> =
        headers.iter().map(|(name, content)| (name.as_str(), content.as_deref())).collect();
    let digest = digest_of(key, value, &borrowed);
    let from_header =
        headers.iter().find(|(name, _)| name == "who").and_then(|(_, content)| content.as_deref());
    let who = match (from_header, value) {
        (Some(who), _) => String::from_utf8_lossy(who).into_owned(),
        (None, Some(value)) => {
            String::from_utf8_lossy(value).split('|').take(2).collect::<Vec<_>>().join("|")
        }
        (None, None) => String::new(),
    };
    *rest = rest.strip_prefix(b"\n")?;
    Some(Seen { partition: partition as i32, offset, timestamp_ms, who, digest })
}

type Header = (String, Option<Vec<u8>>);

/// Takes kcat's `name=value,name=value` and the line's end off the front. A header's bytes may hold the line's end or a
/// comma; ours hold neither before a known name, so the text is cut at what must follow.
fn headers(rest: &mut &[u8]) -> Option<Vec<Header>> {
    let mut headers = Vec::new();
    if let Some(left) = rest.strip_prefix(b"\n") {
        *rest = left;
        return Some(headers);
    }
    loop {
        let name_bytes = rest.iter().position(|byte| *byte == b'=')?;
        let name = String::from_utf8(rest[..name_bytes].to_vec()).ok()?;
        *rest = &rest[name_bytes + 1..];
        // The second header of a full record is three raw bytes; every other is text without commas.
        let length = match rest {
            [255, 254, _, ..] if name == "h" => 3,
            _ => rest.iter().position(|byte| matches!(byte, b',' | b'\n'))?,
        };
        let (content, left) = rest.split_at(length);
        headers.push((name, (content != b"NULL").then(|| content.to_vec())));
        let (end, left) = left.split_first()?;
        *rest = left;
        match end {
            b',' => {}
            b'\n' => return Some(headers),
            _ => return None,
        }
    }
}

fn kcat(stage: &Stage<'_>) -> Command {
    let mut command = Command::new("kcat");
    command.args(["-b", &stage.bootstrap]);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn framed_records_are_read_back() {
        let mut text: &[u8] = b"1 7 1000 2 4 who=p|3,h=\xff\xfe\x0a,n=NULL,h=\nk1p|3|\n0 8 1001 0 -1 \n\n";
        let first = next(&mut text).unwrap();
        assert_eq!(
            (first.partition, first.offset, first.timestamp_ms, first.who.as_str()),
            (1, 7, 1000, "p|3")
        );
        let headers: [(&str, Option<&[u8]>); 4] =
            [("who", Some(b"p|3")), ("h", Some(&[255, 254, 10])), ("n", None), ("h", Some(b""))];
        assert_eq!(first.digest, digest_of(Some(b"k1"), Some(b"p|3|"), &headers));
        let second = next(&mut text).unwrap();
        assert_eq!(second.digest, digest_of(None, None, &[]));
        assert!(text.is_empty());
    }
}
