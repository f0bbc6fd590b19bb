//! A made-up node, its whole exposition, and what Prometheus's own checker says of it.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use ouzel_broker::metrics::{CleanerSample, CommittedSample, Histogram};
use ouzel_protocol::ApiKey;
use ouzel_runtime::held::HoldTimes;
use ouzel_runtime::net::FileSent;

use super::*;

fn made_up() -> Scrape<'static> {
    let mut sample = CoreSample {
        bytes_received: 1000,
        bytes_sent: 2000,
        file_slices: FileSent { resident: 40, read_in: 3, copied: 1 },
        connections_opened: 7,
        connections_closed: 4,
        connections_refused: 1,
        fetch_sessions: 2,
        request_memory_free_bytes: 1 << 20,
        cleaner: CleanerSample {
            passes: 3,
            failures: 1,
            seconds: 2.5,
            bytes_read: 5000,
            bytes_written: 1500,
            records_removed: 70,
            uncleanable: 1,
            dirty_ratio_max: 0.25,
            buffer_utilization: 0.125,
        },
        ..CoreSample::default()
    };
    sample.requests.extend([((ApiKey::Produce, 0), 5), ((ApiKey::Produce, 6), 1), ((ApiKey::Fetch, 999), 2)]);
    let mut times = Histogram { sum_s: 12.5, ..Histogram::default() };
    times.counts[0] = 4;
    times.counts[LATENCY_BOUNDS_S.len()] = 1;
    sample.latencies.insert(ApiKey::Produce, times);
    let partition = |topic: &str, partition, log_end_offset| PartitionSample {
        topic: topic.to_owned(),
        partition,
        log_start_offset: 1,
        log_end_offset,
        high_watermark: log_end_offset - 1,
        size_bytes: 4096,
        bytes_in: 100,
        records_in: 10,
        bytes_out: 300,
        records_out: 30,
        fenced: partition == 1,
        leads: partition == 0,
        replicas: if partition == 0 { 3 } else { 0 },
        in_sync: if topic == "a" { 2 } else { 3 },
    };
    (sample.elections, sample.in_sync_shrinks, sample.in_sync_expands) = (6, 5, 4);
    let peer = PeerSample {
        answered: 11,
        refused: 1,
        unreachable: 2,
        timed_out: 3,
        bytes_sent: 1_000,
        bytes_received: 900,
        connections: 2,
    };
    sample.peers.extend([((2, "control"), peer), ((3, "data"), peer)]);
    sample.peer_calls_served = 40;
    sample.wal_commits = 50;
    sample.held = HoldTimes { counts: [9, 1, 0, 0, 0, 0, 0, 0, 1], sum: Duration::from_millis(1_500) };
    // As cores send them: in no order.
    sample.partitions = vec![partition("b", 0, 30), partition("a", 1, 20), partition("a", 0, 10)];
    let committed = |group: &str, topic: &str, partition, offset| CommittedSample {
        group: group.to_owned(),
        topic: topic.to_owned(),
        partition,
        offset,
    };
    sample.committed = vec![
        committed("g \"1\"\\\n", "b", 0, 9),
        committed("readers", "gone", 0, 5),
        committed("readers", "a", 1, 4),
        committed("readers", "a", 0, 100),
    ];
    sample.groups.extend([("Stable".to_owned(), 1), ("Empty".to_owned(), 3)]);
    Scrape {
        version: "0.1.0",
        node_id: 1,
        cluster_id: "cluster",
        disk_backend: "uring",
        cores: 2,
        ready: true,
        uptime_s: 1.5,
        process: ProcessUse {
            cpu_s: 0.25,
            resident_bytes: 1,
            virtual_bytes: 2,
            threads: 3,
            open_fds: 4,
            fds_max: 5,
            started_s: 6.0,
        },
        sample,
    }
}

/// Run with `OUZEL_REWRITE=1` to write the file anew, and read it.
#[test]
fn the_exposition_of_a_made_up_node() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/metrics/golden.txt");
    let shown = render(made_up());
    if std::env::var_os("OUZEL_REWRITE").is_some() {
        std::fs::write(path, &shown).unwrap();
    }
    let expected = std::fs::read_to_string(path).unwrap();
    for (nth, (shown, expected)) in shown.lines().zip(expected.lines()).enumerate() {
        assert_eq!(shown, expected, "line {}", nth + 1);
    }
    assert_eq!(shown.lines().count(), expected.lines().count());
}

#[test]
fn every_family_is_shown_once_and_in_order() {
    let shown = render(made_up());
    let shown: Vec<&str> = shown.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
    let table: Vec<String> =
        FAMILIES.iter().map(|family| format!("{} {}", family.name, family.kind.word())).collect();
    assert_eq!(shown, table);
}

#[test]
fn promtool_has_no_complaint() {
    if let Some(complaints) = promtool(&render(made_up())) {
        assert_eq!(complaints, "");
        let planted = promtool("# TYPE errors counter\nerrors 1\n").unwrap();
        assert!(planted.contains("_total"), "the checker checks: {planted}");
    }
}

/// What Prometheus's own checker says; `None`, and a word on it, where it is not installed.
fn promtool(text: &str) -> Option<String> {
    let started = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut checker = started
        .inspect_err(|error| {
            eprintln!("skipped: promtool cannot be run ({error}); it is part of Debian's package prometheus");
        })
        .ok()?;
    checker.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let said = checker.wait_with_output().unwrap();
    Some(String::from_utf8([said.stdout, said.stderr].concat()).unwrap())
}
