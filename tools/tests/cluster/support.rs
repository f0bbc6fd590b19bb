//! A cluster that `ouk dev` runs, and how its answers are read.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// A cluster in a folder of its own; its nodes end with it.
pub(crate) struct Cluster {
    dir: tempfile::TempDir,
}

impl Cluster {
    pub(crate) fn new() -> Cluster {
        let ouzel = Path::new(env!("CARGO_BIN_EXE_ouk")).with_file_name("ouzel");
        assert!(ouzel.is_file(), "{} is not there: cargo build -p ouzel", ouzel.display());
        Cluster { dir: tempfile::tempdir().expect("a folder") }
    }

    pub(crate) fn dir(&self) -> PathBuf {
        self.dir.path().join("cluster")
    }

    /// Runs `ouk dev` with these words.
    pub(crate) fn dev(&self, line: &str) -> Output {
        let mut command = ouk();
        command.arg("dev").args(line.split(' ')).arg("--data-dir").arg(self.dir());
        command.output().expect("ouk starts")
    }

    /// The same, and it goes well; the items of its report.
    pub(crate) fn items(&self, line: &str) -> Vec<Value> {
        let output = self.dev(&format!("{line} --format json"));
        assert!(output.status.success(), "{line}: {output:?}");
        items(&output)
    }

    /// Runs another command against the cluster; the items of its report.
    pub(crate) fn ask(&self, line: &str) -> Vec<Value> {
        self.ask_at(&self.items("status").iter().map(|node| text(node, "kafka")).collect::<Vec<_>>(), line)
    }

    /// The same of these nodes.
    pub(crate) fn ask_at(&self, addresses: &[String], line: &str) -> Vec<Value> {
        let bootstrap = addresses.join(",");
        let output = ouk().args(line.split(' ')).args(["--brokers", &bootstrap, "--format", "json"]).output();
        let output = output.expect("ouk starts");
        assert!(output.status.success(), "{line}: {output:?}");
        items(&output)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // A test that failed on its way leaves nodes behind; one that did well has nothing here any more.
        if self.dir().exists() {
            self.dev("down --wipe --yes");
        }
    }
}

pub(crate) fn ouk() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ouk"));
    command.env_clear().env("OUK_CONFIG", "/nonexistent/profiles.toml").stdin(Stdio::null());
    command
}

pub(crate) fn items(output: &Output) -> Vec<Value> {
    let report: Value = serde_json::from_slice(&output.stdout).expect("a report in JSON");
    report["items"].as_array().expect("items").clone()
}

pub(crate) fn text(item: &Value, field: &str) -> String {
    item[field].as_str().unwrap_or_default().to_owned()
}

pub(crate) fn pids(items: &[Value]) -> Vec<i64> {
    items.iter().map(|node| node["pid"].as_i64().expect("a process id")).collect()
}

/// Fails with this code, and one sentence on stderr that holds the words.
pub(crate) fn fails(output: &Output, code: i32, words: &str) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    assert!(stderr.contains(words), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
}

pub(crate) fn kill(pid: i64) {
    assert!(Command::new("kill").args(["-9", &pid.to_string()]).status().expect("kill").success());
}
