//! A node that cannot start: one sentence on stderr, exit code 2, nothing on stdout.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::broker::{Broker, bare, command, run};

/// The sentence of a start that is refused.
fn refusal(mut command: Command) -> String {
    // Log lines are not what is looked at here.
    command.env("OUZEL_LOG", "off");
    let ended = run(command);
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(2), ""), "{}", ended.stderr);
    assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
    ended.stderr.strip_prefix("ouzel: ").unwrap_or_else(|| panic!("{}", ended.stderr)).to_owned()
}

#[test]
fn bad_flags_and_settings_end_with_one_sentence() {
    for (arguments, sentence) in [
        (&["--data-dirs", "x"][..], "there is no flag '--data-dirs'; did you mean '--data-dir'?"),
        (&["--node-id"], "--node-id has no value: write --node-id N"),
        (&["--node-id", "-1"], "--node-id cannot be '-1': write a whole number from 0 to 2147483647"),
        (&["--cores", "0"], "--cores cannot be '0': write a whole number from 1 to 1024"),
        (&["--memory", "much"], "--memory cannot be 'much': write a size, as in 512MiB or 2GiB"),
        (
            &["--kafka-listener", "9092"],
            "--kafka-listener cannot be '9092': write HOST:PORT, as in 127.0.0.1:9092",
        ),
        (
            &["--set", "num.partitons=3"],
            "--set: there is no setting 'num.partitons'; did you mean 'num.partitions'?",
        ),
        (
            &["--set", "num.partitions"],
            "--set 'num.partitions' has no value: write KEY=VALUE, as in num.partitions=3",
        ),
        (
            &["--config", "/nowhere/ouzel.toml"],
            "the configuration file /nowhere/ouzel.toml cannot be read (no such file or directory): give --config a TOML file",
        ),
        (
            &["--kafka-listener", "0.0.0.0:9092"],
            "--kafka-listener listens on every interface (0.0.0.0:9092), and clients must be told one address that \
             reaches this node: add --advertised-kafka-listener HOST:PORT",
        ),
    ] {
        assert_eq!(refusal(bare(arguments)), sentence, "{arguments:?}");
    }
}

#[test]
fn a_bad_variable_is_named() {
    let mut command = bare(&[]);
    command.env("OUZEL_CORES", "many");
    assert_eq!(refusal(command), "OUZEL_CORES cannot be 'many': write a whole number from 1 to 1024");
    let mut command = bare(&[]);
    command.env("OUZEL_LOG", "ouzel_storage=loud");
    let ended = run(command);
    assert_eq!(ended.code, Some(2));
    assert_eq!(
        ended.stderr,
        "ouzel: OUZEL_LOG cannot be 'ouzel_storage=loud': write a level (error, warn, info, debug, trace, off), or levels \
         by module as in info,ouzel_storage=debug"
    );
}

#[test]
fn an_address_in_use_is_named_with_the_flag_that_changes_it() {
    let dir = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let with = |flag: &str| {
        let other = if flag == "--admin-listener" { "--kafka-listener" } else { "--admin-listener" };
        let mut command = bare(&[flag, &address, other, "127.0.0.1:0", "--cores", "1"]);
        command.args(["--rpc-listener", "127.0.0.1:0"]);
        command.arg("--data-dir").arg(dir.path().join("data"));
        refusal(command)
    };
    assert_eq!(
        with("--admin-listener"),
        format!(
            "the admin address {address} is in use: stop who listens there, or choose another with --admin-listener HOST:PORT"
        )
    );
    let sentence = with("--kafka-listener");
    for words in [address.as_str(), "in use", "--kafka-listener"] {
        assert!(sentence.contains(words), "{words}: {sentence}");
    }
    // The refusals left nothing that keeps the node from starting.
    Broker::start(dir.path(), &[]).stop();
}

#[test]
fn a_data_directory_in_use_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let first = Broker::start(dir.path(), &[]);
    let sentence = refusal(command(dir.path(), &[]));
    for words in [dir.path().to_str().unwrap(), "in use", "--data-dir"] {
        assert!(sentence.contains(words), "{words}: {sentence}");
    }
    assert_eq!(first.get("/readyz").0, 200);
    first.stop();
}

#[test]
fn a_data_directory_that_cannot_be_made_is_named() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("data"), "a file").unwrap();
    let sentence = refusal(command(dir.path(), &[]));
    for words in [dir.path().to_str().unwrap(), "--data-dir"] {
        assert!(sentence.contains(words), "{words}: {sentence}");
    }
}

#[test]
fn a_data_directory_that_cannot_be_written_is_named() {
    for backend in ["auto", "blocking"] {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        fs::create_dir(&data).unwrap();
        for path in [dir.path(), &data] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o555)).unwrap();
        }
        let mut command = command(dir.path(), &["--set", &format!("ouzel.disk.backend={backend}")]);
        if fs::metadata(dir.path()).unwrap().uid() == 0 {
            // Root may write to every directory: nobody shall try.
            command.uid(65_534).gid(65_534);
        }
        match command.spawn() {
            Ok(mut child) => drop((child.kill(), child.wait())),
            Err(error) => {
                eprintln!("skipped: {} cannot be run as nobody ({error})", env!("CARGO_BIN_EXE_ouzel"));
                return;
            }
        }
        let sentence = refusal(command);
        for words in [data.to_str().unwrap(), "cannot be written", "--data-dir"] {
            assert!(sentence.contains(words), "{backend}, {words}: {sentence}");
        }
    }
}

#[test]
fn another_nodes_directory_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    Broker::start(dir.path(), &["--node-id", "3"]).stop();
    let sentence = refusal(command(dir.path(), &["--node-id", "4"]));
    for words in [dir.path().to_str().unwrap(), "node 3", "--node-id 3"] {
        assert!(sentence.contains(words), "{words}: {sentence}");
    }
}

#[test]
fn a_damaged_directory_id_is_not_drawn_anew() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data").join("directory.id");
    fs::create_dir(dir.path().join("data")).unwrap();
    fs::write(&path, "half a na").unwrap();
    let sentence = refusal(command(dir.path(), &["--seeds", "127.0.0.1:1"]));
    let said =
        format!("{}: \"half a na\" is no directory id; remove the file if this node is new", path.display());
    assert!(sentence.starts_with(&said), "{sentence}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "half a na");
}

#[test]
fn a_directory_of_a_newer_format_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    Broker::start(dir.path(), &[]).stop();
    let path = dir.path().join("data/meta.properties");
    let text = fs::read_to_string(&path).unwrap();
    let newer = text.replace("version=1", "version=99");
    assert_ne!(newer, text);
    fs::write(&path, &newer).unwrap();
    let sentence = refusal(command(dir.path(), &[]));
    for words in [path.to_str().unwrap(), "99", "newer"] {
        assert!(sentence.contains(words), "{words}: {sentence}");
    }
    assert_eq!(fs::read_to_string(&path).unwrap(), newer);
}
