//! What Linux tells of the machine and its build.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

fn status_field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| first_number(line.strip_prefix(name)?.strip_prefix(':')?))
}

fn first_number(text: &str) -> Option<u64> {
    text.split_whitespace().next()?.parse().ok()
}

/// The machine and the build, as far as they explain a figure. What cannot be found out is left out.
pub(super) fn facts(root: &Path, data: &Path) -> Value {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo").lines().find_map(|line| {
        line.strip_prefix("model name")?.split_once(':').map(|(_, name)| name.trim().to_owned())
    });
    let memory_mib = status_field(&read("/proc/meminfo"), "MemTotal").map(|kib| kib / 1024);
    let (device, filesystem) = mount_of(&read("/proc/mounts"), &data.display().to_string());
    json!({
        "cpu": cpu,
        "cores": std::thread::available_parallelism().map_or(0, usize::from),
        "memory_mib": memory_mib,
        "kernel": read("/proc/sys/kernel/osrelease").trim(),
        "filesystem": filesystem,
        "device": device,
        "load_1m": read("/proc/loadavg").split(' ').next(),
        "rustc": said_by(Command::new("rustc").arg("--version")),
        "commit": said_by(Command::new("git").args(["describe", "--always", "--dirty"]).current_dir(root)),
    })
}

/// The Java that brokers and clients run on, as it names itself on stderr.
pub(super) fn java_version() -> Option<String> {
    let output = Command::new("java").arg("-version").output().ok()?;
    String::from_utf8_lossy(&output.stderr).lines().nth(1).map(|line| line.trim().to_owned())
}

fn said_by(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Device and file system of the mount with the longest path that holds `path`.
fn mount_of(mounts: &str, path: &str) -> (Option<String>, Option<String>) {
    let holding = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ');
        let (device, point, kind) = (fields.next()?, fields.next()?, fields.next()?);
        let inside = point == "/" || path == point || path.strip_prefix(point)?.starts_with('/');
        inside.then_some((point.len(), device, kind))
    });
    match holding.max_by_key(|(length, _, _)| *length) {
        Some((_, device, kind)) => (Some(device.to_owned()), Some(kind.to_owned())),
        None => (None, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_mount_is_named() {
        let mounts = "/dev/a / ext4 rw\ntmpfs /tmp tmpfs rw\n/dev/b /tmp/x xfs rw\n";
        let kind = |path: &str| mount_of(mounts, path).1.unwrap();
        assert_eq!([kind("/home"), kind("/tmp/xy"), kind("/tmp/x/y")], ["ext4", "tmpfs", "xfs"]);
    }
}
