//! What scripts rely on, through the front door: exit codes, data on stdout, words on stderr. No broker is needed;
//! what `ouk` does with one is shown by `cargo xtask demo`.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Command, Output};

/// An `ouk` that sees no profile and no environment of the machine it is tested on.
fn ouk() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ouk"));
    command.env_clear().env("OUK_CONFIG", "/nonexistent/profiles.toml").stdin(std::process::Stdio::null());
    command
}

fn run(line: &str) -> Output {
    ouk().args(line.split(' ')).output().expect("ouk starts")
}

/// Fails with this code: nothing on stdout, and words that say what to mend.
fn fails(output: &Output, code: i32, words: &str) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    assert!(stderr.contains(words), "{stderr}");
    assert!(output.stdout.is_empty(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn wrong_usage_is_2() {
    fails(&run("topic"), 2, "Usage");
    fails(&run("topic create"), 2, "TOPIC");
    fails(&run("cluster info --format xml"), 2, "table");
    fails(&run("cluster info -X nonsense=1"), 2, "-X list");
    fails(&run("cluster info --brokers nowhere"), 2, "host:port");
    fails(&run("cluster info --profile moon"), 2, "moon");
    fails(&run("topic consume t --offset soon"), 2, "@-1h");
    fails(&run("topic produce t -f %q"), 2, "%v");
}

#[test]
fn an_unreachable_cluster_is_5_for_every_command() {
    // A port that was free a moment ago and that nobody listens on.
    let port = TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .expect("a free port")
        .port();
    let commands = [
        "topic create t",
        "topic list",
        "topic describe t",
        "topic describe t --configs",
        "topic delete t --yes",
        "topic consume t",
        "group list",
        "group describe g",
        "group delete g --yes",
        "cluster info",
        "cluster health",
        "cluster status",
        "cluster unregister 3 --yes",
        "partition reassign t:0=1 --yes",
        "partition reassignments",
        "partition elect",
        "partition move-leader t:0 --to 1",
        "quorum",
    ];
    for command in commands {
        let output = run(&format!("{command} --brokers 127.0.0.1:{port} -X timeout.ms=300"));
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(5), "{command}: {stderr}");
        assert!(stderr.contains(&format!("127.0.0.1:{port}")), "{command}: {stderr}");
    }
}

#[test]
fn what_destroys_wants_a_yes_when_nobody_can_be_asked() {
    fails(&run("topic delete t"), 2, "--yes");
    fails(&run("group delete g"), 2, "--yes");
    fails(&run("cluster unregister 3"), 2, "--yes");
}

#[test]
fn a_read_only_profile_changes_nothing() {
    let file = std::env::temp_dir().join(format!("ouk-profiles-{}.toml", std::process::id()));
    std::fs::write(&file, "[profiles.prod]\nread_only = true\n").expect("a file in the temporary folder");
    let path: PathBuf = file.clone();
    for line in ["topic create t", "topic delete t --yes", "group delete g --yes", "topic produce t"] {
        let mut command = ouk();
        command.env("OUK_CONFIG", &path).args(["--profile", "prod"]).args(line.split(' '));
        fails(&command.output().expect("ouk starts"), 2, "read_only");
    }
    std::fs::remove_file(&file).expect("our own file");
}

#[test]
fn keys_help_and_completion_go_to_stdout() {
    for (line, words) in [
        ("-X list", "timeout.ms"),
        ("--help", "Exit codes"),
        ("topic consume --help", "@2026-02-14:1h"),
        ("completion bash", "_ouk"),
        ("completion zsh", "#compdef ouk"),
        ("--version", "ouk "),
    ] {
        let output = run(line);
        assert_eq!(output.status.code(), Some(0), "{line}");
        assert!(String::from_utf8_lossy(&output.stdout).contains(words), "{line}");
        assert!(output.stderr.is_empty(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    }
}
