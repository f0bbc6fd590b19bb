//! What a window of time cost: the broker's CPU seconds, memory and written bytes, and who else was on the cores.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::pinning::Pinning;

/// Linux counts a process's time for others in hundredths of a second on every machine (USER_HZ).
const TICK: Duration = Duration::from_millis(10);
const SAMPLE_EVERY: Duration = Duration::from_millis(100);

/// What one window cost.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Usage {
    pub(super) wall: Duration,
    /// The broker's own, user and system, of all its threads, those that ended among them.
    pub(super) broker_cpu: Duration,
    /// Bytes that the broker made dirty, whether or not they reached the disk.
    pub(super) written_bytes: u64,
    /// The broker's anonymous and shared memory at its peak: without the page cache, mapped files among it.
    pub(super) rss_peak_kib: u64,
    pub(super) threads: u64,
    /// Threads of the broker that may run elsewhere than on its core: what they do, the drivers' core may have paid for.
    pub(super) threads_not_held: u64,
    /// Share of the window in which the core was not idle, 0 to 1, whoever was on it.
    pub(super) driver_core_busy: f64,
    pub(super) broker_core_busy: f64,
    /// Time on the broker's core that was not the broker's: interrupts, the kernel's writers, neighbours.
    pub(super) foreign_cpu: Duration,
    /// Time in which the machine below had both cores run something else.
    pub(super) stolen: Duration,
}

/// The driver's core had this share of its time to do, and not more: the row then shows the driver's limit, not the
/// broker's, and its throughput counts for nothing.
pub(super) const DRIVER_BOUND_ABOVE: f64 = 0.9;

impl Usage {
    /// Whether the driver was the limit.
    pub(super) fn is_driver_bound(&self) -> bool {
        self.driver_core_busy > DRIVER_BOUND_ABOVE
    }

    /// Share of the broker's core that went to others, 0 to 1.
    pub(super) fn foreign_share(&self) -> f64 {
        share(self.foreign_cpu, self.wall)
    }
}

fn share(part: Duration, whole: Duration) -> f64 {
    if whole.is_zero() { 0.0 } else { part.as_secs_f64() / whole.as_secs_f64() }
}

/// A window that is open. Memory is looked at while it is.
#[derive(Debug)]
pub(super) struct Window {
    pid: u32,
    pinning: Pinning,
    opened: Reading,
    sampler: Option<JoinHandle<()>>,
    closing: Arc<AtomicBool>,
    rss_peak_kib: Arc<AtomicU64>,
}

#[derive(Debug, Clone, Copy)]
struct Reading {
    at: Instant,
    process_cpu: Duration,
    written_bytes: u64,
    broker_core: CoreTimes,
    driver_core: CoreTimes,
}

impl Reading {
    fn take(pid: u32, pinning: Pinning) -> Result<Reading, String> {
        let stat = read("/proc/stat")?;
        let core =
            |number| core_times(&stat, number).ok_or_else(|| format!("/proc/stat has no core {number}"));
        Ok(Reading {
            at: Instant::now(),
            process_cpu: process_cpu(pid)?,
            written_bytes: written_bytes(&read(&format!("/proc/{pid}/io"))?).ok_or("no written bytes")?,
            broker_core: core(pinning.broker_core)?,
            driver_core: core(pinning.driver_core)?,
        })
    }
}

impl Window {
    /// Opens a window on the broker's process.
    pub(super) fn open(pid: u32, pinning: Pinning) -> Result<Window, String> {
        let closing = Arc::new(AtomicBool::new(false));
        let rss_peak_kib = Arc::new(AtomicU64::new(memory(pid)?.0));
        let (until, peak) = (Arc::clone(&closing), Arc::clone(&rss_peak_kib));
        let sampler = std::thread::spawn(move || {
            while !until.load(Ordering::Relaxed) {
                if let Ok((kib, _)) = memory(pid) {
                    peak.fetch_max(kib, Ordering::Relaxed);
                }
                std::thread::sleep(SAMPLE_EVERY);
            }
        });
        let opened = Reading::take(pid, pinning)?;
        Ok(Window { pid, pinning, opened, sampler: Some(sampler), closing, rss_peak_kib })
    }

    /// Closes it: what it cost.
    pub(super) fn close(mut self) -> Result<Usage, String> {
        let closed = Reading::take(self.pid, self.pinning)?;
        let (rss_now_kib, threads) = memory(self.pid)?;
        self.end_sampler();
        let opened = self.opened;
        let wall = closed.at - opened.at;
        let broker_cpu = closed.process_cpu.saturating_sub(opened.process_cpu);
        let broker_core = closed.broker_core.since(opened.broker_core);
        let driver_core = closed.driver_core.since(opened.driver_core);
        Ok(Usage {
            wall,
            broker_cpu,
            written_bytes: closed.written_bytes.saturating_sub(opened.written_bytes),
            rss_peak_kib: self.rss_peak_kib.load(Ordering::Relaxed).max(rss_now_kib),
            threads,
            threads_not_held: threads_not_held(self.pid, self.pinning.broker_core)?,
            driver_core_busy: driver_core.busy_share(),
            broker_core_busy: broker_core.busy_share(),
            foreign_cpu: (TICK * broker_core.busy as u32).saturating_sub(broker_cpu),
            stolen: TICK * (broker_core.stolen + driver_core.stolen) as u32,
        })
    }

    fn end_sampler(&mut self) {
        self.closing.store(true, Ordering::Relaxed);
        if let Some(sampler) = self.sampler.take() {
            // It only fails if it panicked, and then the peak is what was seen until then.
            let _ = sampler.join();
        }
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        self.end_sampler();
    }
}

/// A core's ticks since the machine started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct CoreTimes {
    busy: u64,
    idle: u64,
    stolen: u64,
}

impl CoreTimes {
    fn since(self, before: CoreTimes) -> CoreTimes {
        CoreTimes {
            busy: self.busy.saturating_sub(before.busy),
            idle: self.idle.saturating_sub(before.idle),
            stolen: self.stolen.saturating_sub(before.stolen),
        }
    }

    /// Stolen time is time that the core was wanted: it counts as busy.
    fn busy_share(self) -> f64 {
        let all = self.busy + self.idle + self.stolen;
        if all == 0 { 0.0 } else { (self.busy + self.stolen) as f64 / all as f64 }
    }
}

/// One core's line of `/proc/stat`: user nice system idle iowait irq softirq steal; the guest times are in user already.
fn core_times(stat: &str, core: usize) -> Option<CoreTimes> {
    let name = format!("cpu{core} ");
    let line = stat.lines().find_map(|line| line.strip_prefix(&name))?;
    let ticks: Vec<u64> = line.split_whitespace().map_while(|word| word.parse().ok()).collect();
    let [user, nice, system, idle, iowait, irq, softirq, stolen, ..] = ticks[..] else { return None };
    Some(CoreTimes { busy: user + nice + system + irq + softirq, idle: idle + iowait, stolen })
}

/// CPU time of a process, of threads that have ended as well.
pub(super) fn process_cpu(pid: u32) -> Result<Duration, String> {
    let path = format!("/proc/{pid}/stat");
    cpu_of_stat(&read(&path)?).ok_or_else(|| format!("{path} cannot be read"))
}

/// The name in `/proc/PID/stat` may hold spaces and brackets: fields are counted behind the last bracket.
fn cpu_of_stat(stat: &str) -> Option<Duration> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let (user, system): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some(TICK * u32::try_from(user + system).ok()?)
}

/// What was dirtied, less what was taken back by deleting it before it was written.
fn written_bytes(io: &str) -> Option<u64> {
    let field = |name: &str| -> Option<u64> {
        io.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
    };
    Some(field("write_bytes:")?.saturating_sub(field("cancelled_write_bytes:")?))
}

/// Memory without files in KiB, and the number of threads.
pub(super) fn memory(pid: u32) -> Result<(u64, u64), String> {
    let path = format!("/proc/{pid}/status");
    memory_of_status(&read(&path)?).ok_or_else(|| format!("{path} cannot be read"))
}

fn memory_of_status(status: &str) -> Option<(u64, u64)> {
    let field = |name: &str| -> Option<u64> {
        status.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok())
    };
    Some((field("RssAnon:")? + field("RssShmem:")?, field("Threads:")?))
}

/// How many threads may run on another core than this one.
fn threads_not_held(pid: u32, core: usize) -> Result<u64, String> {
    let folder = format!("/proc/{pid}/task");
    let mut count = 0;
    for task in fs::read_dir(&folder).map_err(|e| format!("read {folder}: {e}"))?.flatten() {
        // A thread that has just ended runs nowhere.
        let Ok(status) = fs::read_to_string(task.path().join("status")) else { continue };
        count += u64::from(!is_held(&status, core));
    }
    Ok(count)
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

    const STAT: &str =
        "cpu  9 9 9 9 9 9 9 9 0 0\ncpu0 10 1 5 100 7 2 3 4 0 0\ncpu1 20 0 30 40 0 0 0 10 0 0\nintr 5\n";

    #[test]
    fn cores_are_read_apart_and_waiting_for_a_disk_is_idle() {
        assert_eq!(core_times(STAT, 0), Some(CoreTimes { busy: 21, idle: 107, stolen: 4 }));
        assert_eq!(core_times(STAT, 2), None);
        let core = core_times(STAT, 1).unwrap();
        assert_eq!(core.busy_share(), 0.6, "stolen time was wanted");
        assert_eq!(core.since(core).busy_share(), 0.0, "an empty window");
    }

    #[test]
    fn a_process_name_may_look_like_fields() {
        let stat = "7 (a) b (c) 1) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20 0 9 0\n";
        assert_eq!(cpu_of_stat(stat), Some(Duration::from_secs(3)));
        assert_eq!(cpu_of_stat("7 (a"), None);
    }

    #[test]
    fn bytes_that_were_deleted_unwritten_do_not_count() {
        let io = "rchar: 1\nwrite_bytes: 8192\ncancelled_write_bytes: 4096\n";
        assert_eq!(written_bytes(io), Some(4096));
    }

    #[test]
    fn mapped_files_are_page_cache() {
        let status =
            "VmRSS:\t  900 kB\nRssAnon:\t  300 kB\nRssFile:\t  500 kB\nRssShmem:\t 100 kB\nThreads:\t7\n";
        assert_eq!(memory_of_status(status), Some((400, 7)));
    }

    #[test]
    fn a_thread_is_held_on_one_core_alone() {
        let status = |list: &str| format!("Name:\tx\nCpus_allowed_list:\t{list}\n");
        assert!(is_held(&status("1"), 1));
        assert!(!is_held(&status("0-1"), 1) && !is_held(&status("0"), 1) && !is_held("", 1));
    }

    #[test]
    fn the_driver_is_the_limit_above_nine_tenths() {
        let busy = |driver_core_busy| Usage { driver_core_busy, ..Usage::default() };
        assert!(!busy(0.9).is_driver_bound());
        assert!(busy(0.901).is_driver_bound());
    }

    #[test]
    fn our_own_window_costs_something() {
        let pinning = Pinning { broker_core: 0, driver_core: 0 };
        let window = Window::open(std::process::id(), pinning).unwrap();
        let until = process_cpu(std::process::id()).unwrap() + 3 * TICK;
        while process_cpu(std::process::id()).unwrap() < until {}
        let usage = window.close().unwrap();
        assert!(usage.broker_cpu >= 3 * TICK && usage.rss_peak_kib > 0 && usage.threads > 0, "{usage:?}");
    }
}
