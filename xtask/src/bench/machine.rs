//! What Linux tells of a process and of the machine under it.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

/// Time on a core of all threads of the process so far, in nanoseconds' precision.
pub(super) fn cpu_time(pid: u32) -> Result<Duration, String> {
    let folder = format!("/proc/{pid}/task");
    let mut nanos = 0;
    for task in fs::read_dir(&folder).map_err(|e| format!("read {folder}: {e}"))? {
        let path = task.map_err(|e| format!("read {folder}: {e}"))?.path().join("schedstat");
        // A thread that ended meanwhile has nothing more to tell.
        let Ok(text) = fs::read_to_string(&path) else { continue };
        nanos += first_number(&text).ok_or_else(|| format!("{}: no number in {text:?}", path.display()))?;
    }
    Ok(Duration::from_nanos(nanos))
}

/// Resident memory in KiB now and at its peak, and the number of threads.
pub(super) fn memory(pid: u32) -> Result<(u64, u64, u64), String> {
    let path = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&path).map_err(|e| format!("read {path}: {e}"))?;
    let field = |name: &str| status_field(&text, name).ok_or_else(|| format!("{path} has no {name}"));
    Ok((field("VmRSS")?, field("VmHWM")?, field("Threads")?))
}

/// Memory that is the process's own, in KiB: neither its program nor pages of files.
pub(super) fn own_memory(pid: u32) -> Result<u64, String> {
    let path = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&path).map_err(|e| format!("read {path}: {e}"))?;
    status_field(&text, "RssAnon").ok_or_else(|| format!("{path} has no RssAnon"))
}

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
    fn our_own_process_can_be_read() {
        let pid = std::process::id();
        assert!(cpu_time(pid).unwrap() > Duration::ZERO);
        let (rss_kib, peak_kib, threads) = memory(pid).unwrap();
        assert!(rss_kib > 0 && peak_kib >= rss_kib && threads > 0);
    }

    #[test]
    fn the_innermost_mount_is_named() {
        let mounts = "/dev/a / ext4 rw\ntmpfs /tmp tmpfs rw\n/dev/b /tmp/x xfs rw\n";
        let kind = |path: &str| mount_of(mounts, path).1.unwrap();
        assert_eq!([kind("/home"), kind("/tmp/xy"), kind("/tmp/x/y")], ["ext4", "tmpfs", "xfs"]);
    }
}
