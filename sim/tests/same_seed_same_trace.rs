//! One seed, two processes, one trace.

use std::process::Command;

fn trace_of(seed: u64) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_ouzel-sim"))
        .args(["--level", "exchange", "--seed", &seed.to_string()])
        .output()
        .unwrap();
    assert!(output.status.success(), "seed {seed}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_same_seed_gives_the_same_trace_in_two_processes() {
    for seed in 1..=5 {
        let trace = trace_of(seed);
        assert_eq!(trace, trace_of(seed), "seed {seed}");
    }
}

/// Whole brokers, and groups of replicas, with their clients and faults, the nodes' own log lines among the trace.
#[test]
fn large_runs_do_the_same_in_two_processes() {
    for level in ["brokers", "groups", "cluster"] {
        let run = || {
            let output = Command::new(env!("CARGO_BIN_EXE_ouzel-sim"))
                .args(["--level", level, "--seed", "6", "--load-s", "6", "--verbose"])
                .output()
                .unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
            String::from_utf8(output.stdout).unwrap()
        };
        let first = run();
        assert!(first.lines().count() > 100, "{first}");
        assert!(first == run(), "two processes differ on {level}");
    }
}

#[test]
fn another_seed_gives_another_trace() {
    assert_ne!(trace_of(1), trace_of(2));
}

/// The run is worth comparing: both nodes answer, and the one that lost its power comes back with what it kept.
#[test]
fn the_trace_tells_of_answers_and_of_a_restart() {
    let trace = trace_of(1);
    for node in ["ada", "bo"] {
        let answered =
            trace.lines().filter(|line| line.contains(&format!(" {node}: ")) && line.contains("->"));
        assert!(answered.count() > 5, "{node} hardly answered:\n{trace}");
    }
    let starts: Vec<_> = trace.lines().filter(|line| line.contains("ada: starts with")).collect();
    assert_eq!(starts.len(), 2, "{trace}");
    assert!(
        !starts[1].contains("starts with 0 bytes"),
        "what was flushed is there after the power cut:\n{trace}"
    );
}
