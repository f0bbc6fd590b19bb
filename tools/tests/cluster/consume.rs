//! `ouk topic consume` on a topic that has no end.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::support::{Cluster, ouk, text};

#[test]
fn ctrl_c_closes_what_was_begun_and_is_a_success() {
    let cluster = Cluster::new();
    let nodes = cluster.items("up -n 1 --kafka-port 0");
    let brokers = text(&nodes[0], "kafka");
    let mut produce = ouk()
        .args(["topic", "produce", "t", "-f", "%k %v\\n", "--brokers", &brokers])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("ouk starts");
    let mut stdin = produce.stdin.take().expect("its stdin");
    stdin.write_all(b"a first\nb second\nc third\n").expect("it reads");
    drop(stdin);
    assert!(produce.wait().expect("it ends").success());

    let line = [
        "topic",
        "consume",
        "t",
        "--isolation",
        "read_committed",
        "--grep",
        "^(a|third)$",
        "--format",
        "json",
    ];
    let mut consume =
        ouk().args(line).args(["--brokers", &brokers]).stdout(Stdio::piped()).spawn().expect("ouk starts");
    let mut stdout = BufReader::new(consume.stdout.take().expect("its stdout"));
    // The last record begins a line that nothing ends but the end of the whole.
    let mut said = String::new();
    while said.matches("\"offset\"").count() < 2 {
        let mut bytes = [0; 1];
        stdout.read_exact(&mut bytes).expect("it goes on");
        said.push(char::from(bytes[0]));
    }
    let pid = consume.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().expect("kill").success());
    let mut line = String::new();
    while stdout.read_line(&mut line).expect("it goes on") > 0 {
        said.push_str(&std::mem::take(&mut line));
    }
    assert!(consume.wait().expect("it ends").success());
    let report: Value = serde_json::from_str(&said).expect("the envelope is whole");
    let values = report["items"].as_array().expect("items").iter().map(|item| text(item, "value"));
    assert_eq!(values.collect::<Vec<_>>(), ["first", "third"]);
    assert!(cluster.dev("down --wipe --yes").status.success());
}
