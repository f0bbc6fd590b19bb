//! Flag, environment, file, default: one node that hears all of them. The table of all cases is in the unit tests.

use std::fs;

use crate::broker::{Broker, bare};

#[test]
fn the_flag_wins_over_the_environment_and_that_over_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ouzel.toml");
    fs::write(
        &file,
        "data-dir = \"nowhere\"\nnode-id = 3\ncores = 1\nadmin-listener = \"127.0.0.1:0\"\nlog.ouzel.durability = \"os\"\n\
         [ouzel.disk]\nbackend = \"uring\"\n",
    )
    .unwrap();
    let data = dir.path().join("data");
    let mut command = bare(&["--kafka-listener", "127.0.0.1:0", "--set", "ouzel.disk.backend=blocking"]);
    command.args(["--rpc-listener", "127.0.0.1:0"]);
    command.arg("--data-dir").arg(&data);
    command.env("OUZEL_CONFIG", &file).env("OUZEL_NODE_ID", "5").env("OUZEL_DATA_DIR", "elsewhere");
    command.env("OUZEL_SET", "log.ouzel.durability=write-caching");
    let broker = Broker::start_command(command);
    let expected =
        format!("data {}, node 5, cores 1, disk blocking, durability write-caching", data.display());
    assert!(broker.ready_line.ends_with(&expected), "{}", broker.ready_line);
    broker.stop();
}

#[test]
fn the_filter_of_the_log_comes_from_the_environment() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = crate::broker::command(dir.path(), &[]);
    command.env("OUZEL_LOG", "off");
    assert_eq!(Broker::start_command(command).stop().stderr, "");
}
