//! What the machine offers this process, and what the process takes of it. Linux tells both in `/proc`.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::config::Machine;

/// Looks at the machine. What cannot be found out is guessed low: one core, 1 GiB.
pub(crate) fn look() -> Machine {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let of_machine = fs::read_to_string("/proc/meminfo")
        .ok()
        .and_then(|text| kib_of(&text, "MemTotal:"))
        .unwrap_or(1 << 30);
    // A container's limit, where there is one; "max" is none.
    let of_container =
        fs::read_to_string("/sys/fs/cgroup/memory.max").ok().and_then(|text| text.trim().parse().ok());
    Machine {
        cores: u16::try_from(cores).unwrap_or(u16::MAX),
        memory_bytes: of_container.map_or(of_machine, |limit: u64| limit.min(of_machine)),
    }
}

/// What the process takes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct ProcessUse {
    pub(crate) cpu_s: f64,
    pub(crate) resident_bytes: u64,
    pub(crate) virtual_bytes: u64,
    pub(crate) threads: u64,
    pub(crate) open_fds: u64,
    pub(crate) fds_max: u64,
    pub(crate) started_s: f64,
}

/// The moment the process started, as seconds since 1970.
pub(crate) fn now_s() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// Reads what the process takes; what cannot be read is 0.
pub(crate) fn process_use(started_s: f64) -> ProcessUse {
    let read = |file: &str| fs::read_to_string(format!("/proc/self/{file}")).unwrap_or_default();
    let status = read("status");
    ProcessUse {
        cpu_s: cpu_seconds(&read("stat")).unwrap_or_default(),
        resident_bytes: kib_of(&status, "VmRSS:").unwrap_or_default(),
        virtual_bytes: kib_of(&status, "VmSize:").unwrap_or_default(),
        threads: number_of(&status, "Threads:").unwrap_or_default(),
        open_fds: open_fds(),
        fds_max: fds_max(&read("limits")).unwrap_or_default(),
        started_s,
    }
}

/// Newer kernels tell the count as the directory's size; a listing of 100,000 entries takes a while.
fn open_fds() -> u64 {
    let told = fs::metadata("/proc/self/fd").map_or(0, |directory| directory.len());
    if told > 0 { told } else { fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count() as u64) }
}

/// Ticks per second in `/proc`: fixed for user space on every architecture we build for.
const TICKS_PER_S: f64 = 100.0;

/// User and system time from `/proc/self/stat`. The second field is the program's name and may hold blanks and brackets,
/// so fields are counted from its end.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut times = fields.split_whitespace().skip(11).map(|field| field.parse::<u64>().ok());
    let (user, system) = (times.next()??, times.next()??);
    Some((user + system) as f64 / TICKS_PER_S)
}

fn number_of(text: &str, label: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(label))?;
    line.split_whitespace().next()?.parse().ok()
}

/// A line `label  123 kB`, in bytes.
fn kib_of(text: &str, label: &str) -> Option<u64> {
    Some(number_of(text, label)? * 1024)
}

fn fds_max(limits: &str) -> Option<u64> {
    number_of(limits, "Max open files")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_words_are_read() {
        let stat = "42 (a (b) c) S 1 42 42 0 -1 4194560 99 0 0 0 250 50 0 0 20 0 5 0 123 456 789";
        assert_eq!(cpu_seconds(stat), Some(3.0));
        assert_eq!(kib_of("VmSize:\t   10 kB\nVmRSS:\t    3 kB\n", "VmRSS:"), Some(3072));
        assert_eq!(number_of("Threads:\t7\n", "Threads:"), Some(7));
        let limits = "Limit                     Soft Limit           Hard Limit           Units     \n\
                      Max open files            1024                 524288               files     \n";
        assert_eq!(fds_max(limits), Some(1024));
        assert_eq!(cpu_seconds(""), None);
    }

    #[test]
    fn this_process_takes_something() {
        let taken = process_use(1.0);
        assert!(taken.resident_bytes > 0 && taken.virtual_bytes >= taken.resident_bytes, "{taken:?}");
        assert!(taken.threads > 0 && taken.open_fds > 0 && taken.fds_max >= taken.open_fds, "{taken:?}");
        let machine = look();
        assert!(machine.cores > 0 && machine.memory_bytes > taken.resident_bytes, "{machine:?}");
    }
}
