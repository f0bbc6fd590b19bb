//! What Linux tells of one process: its CPU time, memory and written bytes, and where its threads may run.

use std::fs;
use std::time::Duration;

/// Linux counts a process's time for others in hundredths of a second on every machine (USER_HZ).
pub(super) const TICK: Duration = Duration::from_millis(10);

/// CPU time of a process, user and system, of threads that have ended as well.
pub(super) fn process_cpu(pid: u32) -> Result<Duration, String> {
    Ok(ProcessStat::of(&pid.to_string())?.own_cpu)
}

/// What `/proc/PID/stat` tells of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ProcessStat {
    pub(super) own_cpu: Duration,
    /// Of children that ended and were waited for.
    children_cpu: Duration,
    pub(super) is_kernels: bool,
    /// Ticks from the start of the machine to its own: with its number it is one process and no other.
    pub(super) started: u64,
    /// The core that it was on last.
    pub(super) core: usize,
}

impl ProcessStat {
    /// Of a process by its number, or `self`.
    pub(super) fn of(process: &str) -> Result<ProcessStat, String> {
        let path = format!("/proc/{process}/stat");
        ProcessStat::parse(&read(&path)?).ok_or_else(|| format!("{path} cannot be read"))
    }

    pub(super) fn with_children(self) -> Duration {
        self.own_cpu + self.children_cpu
    }

    /// The name may hold spaces and brackets: fields are counted behind the last bracket, from the third on.
    pub(super) fn parse(stat: &str) -> Option<ProcessStat> {
        /// `PF_KTHREAD` of Linux.
        const KERNEL_THREAD: u64 = 0x0020_0000;
        let (_, fields) = stat.rsplit_once(')')?;
        let fields: Vec<&str> = fields.split_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        let time = |first: usize| Some(TICK * u32::try_from(field(first)? + field(first + 1)?).ok()?);
        Some(ProcessStat {
            own_cpu: time(14)?,
            children_cpu: time(16)?,
            is_kernels: field(9)? & KERNEL_THREAD != 0,
            started: field(22)?,
            core: field(39)? as usize,
        })
    }
}

/// What processes have in memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Memory {
    /// Anonymous and shared: neither programs nor pages of files.
    pub(super) without_files_kib: u64,
    pub(super) resident_kib: u64,
    /// The most that was ever resident.
    pub(super) resident_peak_kib: u64,
    pub(super) threads: u64,
}

impl Memory {
    /// Of one process.
    pub(super) fn of(pid: u32) -> Result<Memory, String> {
        let path = format!("/proc/{pid}/status");
        Memory::parse(&read(&path)?).ok_or_else(|| format!("{path} cannot be read"))
    }

    /// Of all processes together; the peaks need not have been at one time.
    pub(super) fn of_all(pids: &[u32]) -> Result<Memory, String> {
        let mut sums = Memory::default();
        for pid in pids {
            let memory = Memory::of(*pid)?;
            sums.without_files_kib += memory.without_files_kib;
            sums.resident_kib += memory.resident_kib;
            sums.resident_peak_kib += memory.resident_peak_kib;
            sums.threads += memory.threads;
        }
        Ok(sums)
    }

    fn parse(status: &str) -> Option<Memory> {
        let field = |name: &str| -> Option<u64> {
            status.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok())
        };
        Some(Memory {
            without_files_kib: field("RssAnon:")? + field("RssShmem:")?,
            resident_kib: field("VmRSS:")?,
            resident_peak_kib: field("VmHWM:")?,
            threads: field("Threads:")?,
        })
    }
}

/// Bytes of files that went through a process's hands to and from the disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Disk {
    /// What it had read from the disk, what was read ahead for it among it.
    pub(super) read_bytes: u64,
    /// What it dirtied, less what was taken back by deleting it before it was written.
    pub(super) written_bytes: u64,
}

impl Disk {
    pub(super) fn of(pid: u32) -> Result<Disk, String> {
        let path = format!("/proc/{pid}/io");
        Disk::parse(&read(&path)?).ok_or_else(|| format!("{path} cannot be read"))
    }

    fn parse(io: &str) -> Option<Disk> {
        let field = |name: &str| -> Option<u64> {
            io.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
        };
        Some(Disk {
            read_bytes: field("read_bytes:")?,
            written_bytes: field("write_bytes:")?.saturating_sub(field("cancelled_write_bytes:")?),
        })
    }
}

/// How many threads may run on another core than this one.
pub(super) fn threads_not_held(pid: u32, core: usize) -> Result<u64, String> {
    let folder = format!("/proc/{pid}/task");
    let mut count = 0;
    for task in fs::read_dir(&folder).map_err(|e| format!("read {folder}: {e}"))?.flatten() {
        // A thread that has just ended runs nowhere.
        let Ok(status) = fs::read_to_string(task.path().join("status")) else { continue };
        count += u64::from(!is_held(&status, core));
    }
    Ok(count)
}

/// How long the threads whose names begin so were ready to run, and another had the CPU; since they were started.
pub(super) fn waited_for_cpu(pid: u32, named: &str) -> Result<Duration, String> {
    let folder = format!("/proc/{pid}/task");
    let mut waited = Duration::ZERO;
    for task in fs::read_dir(&folder).map_err(|e| format!("read {folder}: {e}"))?.flatten() {
        let look = |file: &str| fs::read_to_string(task.path().join(file));
        // One that has just ended waits for nothing.
        let (Ok(name), Ok(schedstat)) = (look("comm"), look("schedstat")) else { continue };
        if name.starts_with(named) {
            waited += wait_of(&schedstat).ok_or_else(|| format!("{folder}: schedstat is {schedstat:?}"))?;
        }
    }
    Ok(waited)
}

/// Of the nanoseconds on a CPU, those waited for one, and the number of turns.
fn wait_of(schedstat: &str) -> Option<Duration> {
    schedstat.split_whitespace().nth(1)?.parse().ok().map(Duration::from_nanos)
}

fn is_held(status: &str, core: usize) -> bool {
    let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    allowed.is_some_and(|list| list.trim() == core.to_string())
}

fn read(path: &str) -> Result<String, String> {
    fs::read_to_string(path).map_err(|e| format!("read {path}: {e}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_is_the_second_of_three() {
        assert_eq!(wait_of("876113339 452070966 728\n"), Some(Duration::from_nanos(452_070_966)));
        assert_eq!(wait_of("876113339"), None);
        assert_eq!(waited_for_cpu(std::process::id(), "no thread is called so"), Ok(Duration::ZERO));
    }

    #[test]
    fn our_own_process_can_be_read() {
        let ourselves = std::process::id();
        let until = process_cpu(ourselves).unwrap() + TICK;
        while process_cpu(ourselves).unwrap() < until {}
        let memory = Memory::of(ourselves).unwrap();
        assert!(memory.without_files_kib > 0 && memory.resident_peak_kib >= memory.resident_kib);
        assert!(memory.threads > 0 && Disk::of(ourselves).is_ok());
        let both = Memory::of_all(&[ourselves, ourselves]).unwrap();
        assert!(both.resident_kib > memory.resident_kib);
    }

    #[test]
    fn a_process_name_may_look_like_fields() {
        let rest = (18..=40).map(|field| field.to_string()).collect::<Vec<_>>().join(" ");
        let stat = format!("7 (a) b (c) 1) S 1 2 3 4 5 2097152 7 8 9 10 250 50 60 40 {rest}\n");
        // Fields 14 and 15 are the process's own, 16 and 17 its children's; 22 is its start, 39 the core.
        let read = ProcessStat::parse(&stat).unwrap();
        assert_eq!(read.own_cpu, Duration::from_secs(3));
        assert_eq!(read.with_children(), Duration::from_secs(4));
        assert!(read.is_kernels && read.started == 22 && read.core == 39);
        assert_eq!(ProcessStat::parse("7 (a"), None);
    }

    #[test]
    fn bytes_that_were_deleted_unwritten_do_not_count() {
        let io = "rchar: 1\nread_bytes: 512\nwrite_bytes: 8192\ncancelled_write_bytes: 4096\n";
        assert_eq!(Disk::parse(io), Some(Disk { read_bytes: 512, written_bytes: 4096 }));
    }

    #[test]
    fn mapped_files_are_page_cache() {
        let status = "VmHWM:\t 950 kB\nVmRSS:\t  900 kB\nRssAnon:\t  300 kB\nRssFile:\t  500 kB\nRssShmem:\t 100 kB\nThreads:\t7\n";
        let memory = Memory { without_files_kib: 400, resident_kib: 900, resident_peak_kib: 950, threads: 7 };
        assert_eq!(Memory::parse(status), Some(memory));
    }

    #[test]
    fn a_thread_is_held_on_one_core_alone() {
        let status = |list: &str| format!("Name:\tx\nCpus_allowed_list:\t{list}\n");
        assert!(is_held(&status("1"), 1));
        assert!(!is_held(&status("0-1"), 1) && !is_held(&status("0"), 1) && !is_held("", 1));
    }
}
