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
    /// All of it when the window was closed, mapped files as well.
    pub(super) resident_kib: u64,
    pub(super) threads: u64,
    /// Threads of the broker that may run elsewhere than on its core: what they do, the drivers' core may have paid for.
    pub(super) threads_not_held: u64,
    /// Share of the window in which the core was not idle, 0 to 1, whoever was on it.
    pub(super) driver_core_busy: f64,
    pub(super) broker_core_busy: f64,
    /// Time on the broker's core that was not the broker's: interrupts, the kernel's writers, neighbours.
    pub(super) foreign_cpu: Duration,
    /// Time on both cores that was nobody's who takes part, nor the kernel's: neighbours.
    pub(super) neighbours_cpu: Duration,
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

    /// Share of one core that neighbours and the machine below took away from both, 0 to 2.
    pub(super) fn disturbed_share(&self) -> f64 {
        share(self.neighbours_cpu + self.stolen, self.wall)
    }
}

fn share(part: Duration, whole: Duration) -> f64 {
    if whole.is_zero() { 0.0 } else { part.as_secs_f64() / whole.as_secs_f64() }
}

/// A window that is open. Memory is looked at while it is.
#[derive(Debug)]
pub(super) struct Window {
    watched: Watched,
    opened: Reading,
    sampler: Option<JoinHandle<()>>,
    closing: Arc<AtomicBool>,
    rss_peak_kib: Arc<AtomicU64>,
}

/// Whose cost a window tells.
#[derive(Debug, Clone)]
pub(super) struct Watched {
    /// All brokers of the row.
    pub(super) brokers: Vec<u32>,
    /// The driver, if it runs both when the window is opened and when it is closed; one that is started and ends in between is
    /// found among our own children.
    pub(super) driver: Option<u32>,
    pub(super) pinning: Pinning,
}

#[derive(Debug, Clone, Copy)]
struct Reading {
    at: Instant,
    brokers_cpu: Duration,
    /// The driver's and the harness's own, with that of drivers that have ended.
    drivers_cpu: Duration,
    /// Of the kernel's threads that were last on one of both cores.
    kernel_cpu: Duration,
    written_bytes: u64,
    broker_core: CoreTimes,
    driver_core: CoreTimes,
}

impl Reading {
    fn take(watched: &Watched) -> Result<Reading, String> {
        let Pinning { broker_core, driver_core } = watched.pinning;
        let stat = read("/proc/stat")?;
        let core =
            |number| core_times(&stat, number).ok_or_else(|| format!("/proc/stat has no core {number}"));
        let mut reading = Reading {
            at: Instant::now(),
            brokers_cpu: Duration::ZERO,
            drivers_cpu: process_stat("self")?.with_children(),
            kernel_cpu: kernel_cpu([broker_core, driver_core])?,
            written_bytes: 0,
            broker_core: core(broker_core)?,
            driver_core: core(driver_core)?,
        };
        for pid in &watched.brokers {
            reading.brokers_cpu += process_cpu(*pid)?;
            let io = read(&format!("/proc/{pid}/io"))?;
            reading.written_bytes += written_bytes(&io).ok_or("no written bytes")?;
        }
        if let Some(driver) = watched.driver {
            reading.drivers_cpu += process_cpu(driver)?;
        }
        Ok(reading)
    }
}

impl Window {
    /// Opens a window on the brokers' processes.
    pub(super) fn open(watched: Watched) -> Result<Window, String> {
        let closing = Arc::new(AtomicBool::new(false));
        let rss_peak_kib = Arc::new(AtomicU64::new(memory(&watched.brokers)?.without_files_kib));
        let (until, peak) = (Arc::clone(&closing), Arc::clone(&rss_peak_kib));
        let brokers = watched.brokers.clone();
        let sampler = std::thread::spawn(move || {
            while !until.load(Ordering::Relaxed) {
                if let Ok(memory) = memory(&brokers) {
                    peak.fetch_max(memory.without_files_kib, Ordering::Relaxed);
                }
                std::thread::sleep(SAMPLE_EVERY);
            }
        });
        let opened = Reading::take(&watched)?;
        Ok(Window { watched, opened, sampler: Some(sampler), closing, rss_peak_kib })
    }

    /// Closes a window that was opened before these brokers were started: all they have done since is in it.
    pub(super) fn close_on(mut self, brokers: Vec<u32>) -> Result<Usage, String> {
        self.watched.brokers = brokers;
        self.close()
    }

    /// Closes it: what it cost.
    pub(super) fn close(mut self) -> Result<Usage, String> {
        let closed = Reading::take(&self.watched)?;
        let memory = memory(&self.watched.brokers)?;
        self.end_sampler();
        let mut threads_not_held = 0;
        for pid in &self.watched.brokers {
            threads_not_held += threads_not_held_of(*pid, self.watched.pinning.broker_core)?;
        }
        let opened = self.opened;
        let broker_cpu = closed.brokers_cpu.saturating_sub(opened.brokers_cpu);
        let broker_core = closed.broker_core.since(opened.broker_core);
        let driver_core = closed.driver_core.since(opened.driver_core);
        let ours = broker_cpu
            + closed.drivers_cpu.saturating_sub(opened.drivers_cpu)
            + closed.kernel_cpu.saturating_sub(opened.kernel_cpu)
            + TICK * (broker_core.interrupts + driver_core.interrupts) as u32;
        Ok(Usage {
            wall: closed.at - opened.at,
            broker_cpu,
            written_bytes: closed.written_bytes.saturating_sub(opened.written_bytes),
            rss_peak_kib: self.rss_peak_kib.load(Ordering::Relaxed).max(memory.without_files_kib),
            resident_kib: memory.resident_kib,
            threads: memory.threads,
            threads_not_held,
            driver_core_busy: driver_core.busy_share(),
            broker_core_busy: broker_core.busy_share(),
            foreign_cpu: (TICK * broker_core.busy as u32).saturating_sub(broker_cpu),
            neighbours_cpu: (TICK * (broker_core.busy + driver_core.busy) as u32).saturating_sub(ours),
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
    /// Of the busy ones.
    interrupts: u64,
    idle: u64,
    stolen: u64,
}

impl CoreTimes {
    fn since(self, before: CoreTimes) -> CoreTimes {
        CoreTimes {
            busy: self.busy.saturating_sub(before.busy),
            interrupts: self.interrupts.saturating_sub(before.interrupts),
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
    let interrupts = irq + softirq;
    Some(CoreTimes { busy: user + nice + system + interrupts, interrupts, idle: idle + iowait, stolen })
}

/// CPU time of a process, of threads that have ended as well.
pub(super) fn process_cpu(pid: u32) -> Result<Duration, String> {
    Ok(process_stat(&pid.to_string())?.own_cpu)
}

/// What `/proc/PID/stat` tells of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct ProcessStat {
    own_cpu: Duration,
    /// Of children that ended and were waited for.
    children_cpu: Duration,
    is_kernels: bool,
    /// The core that it was on last.
    core: usize,
}

impl ProcessStat {
    fn with_children(self) -> Duration {
        self.own_cpu + self.children_cpu
    }

    /// The name may hold spaces and brackets: fields are counted behind the last bracket, from the third on.
    fn parse(stat: &str) -> Option<ProcessStat> {
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
            core: field(39)? as usize,
        })
    }
}

fn process_stat(process: &str) -> Result<ProcessStat, String> {
    let path = format!("/proc/{process}/stat");
    ProcessStat::parse(&read(&path)?).ok_or_else(|| format!("{path} cannot be read"))
}

/// CPU time of all threads of the kernel that were last on one of these cores: they write back, and are nobody's.
fn kernel_cpu(cores: [usize; 2]) -> Result<Duration, String> {
    let mut cpu = Duration::ZERO;
    for entry in fs::read_dir("/proc").map_err(|e| format!("read /proc: {e}"))?.flatten() {
        // Whatever is no process, or ended meanwhile, cannot be read and has nothing to tell.
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        let Some(stat) = ProcessStat::parse(&stat) else { continue };
        if stat.is_kernels && cores.contains(&stat.core) {
            cpu += stat.own_cpu;
        }
    }
    Ok(cpu)
}

/// What was dirtied, less what was taken back by deleting it before it was written.
fn written_bytes(io: &str) -> Option<u64> {
    let field = |name: &str| -> Option<u64> {
        io.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
    };
    Some(field("write_bytes:")?.saturating_sub(field("cancelled_write_bytes:")?))
}

/// What processes have in memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Memory {
    /// Anonymous and shared.
    without_files_kib: u64,
    resident_kib: u64,
    threads: u64,
}

/// Memory of all processes together.
fn memory(pids: &[u32]) -> Result<Memory, String> {
    let mut sums = Memory::default();
    for pid in pids {
        let path = format!("/proc/{pid}/status");
        let memory = memory_of_status(&read(&path)?).ok_or_else(|| format!("{path} cannot be read"))?;
        sums.without_files_kib += memory.without_files_kib;
        sums.resident_kib += memory.resident_kib;
        sums.threads += memory.threads;
    }
    Ok(sums)
}

fn memory_of_status(status: &str) -> Option<Memory> {
    let field = |name: &str| -> Option<u64> {
        status.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok())
    };
    Some(Memory {
        without_files_kib: field("RssAnon:")? + field("RssShmem:")?,
        resident_kib: field("VmRSS:")?,
        threads: field("Threads:")?,
    })
}

/// How many threads may run on another core than this one.
fn threads_not_held_of(pid: u32, core: usize) -> Result<u64, String> {
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
        assert_eq!(core_times(STAT, 0), Some(CoreTimes { busy: 21, interrupts: 5, idle: 107, stolen: 4 }));
        assert_eq!(core_times(STAT, 2), None);
        let core = core_times(STAT, 1).unwrap();
        assert_eq!(core.busy_share(), 0.6, "stolen time was wanted");
        assert_eq!(core.since(core).busy_share(), 0.0, "an empty window");
    }

    #[test]
    fn a_process_name_may_look_like_fields() {
        let rest = (18..=40).map(|field| field.to_string()).collect::<Vec<_>>().join(" ");
        let stat = format!("7 (a) b (c) 1) S 1 2 3 4 5 2097152 7 8 9 10 250 50 60 40 {rest}\n");
        // Fields 14 and 15 are the process's own, 16 and 17 its children's; 39 is the core.
        let read = ProcessStat::parse(&stat).unwrap();
        assert_eq!(read.own_cpu, Duration::from_secs(3));
        assert_eq!(read.with_children(), Duration::from_secs(4));
        assert!(read.is_kernels && read.core == 39);
        assert_eq!(ProcessStat::parse("7 (a"), None);
    }

    #[test]
    fn a_neighbour_is_seen_and_the_kernel_is_none() {
        let usage = Usage {
            wall: Duration::from_secs(10),
            neighbours_cpu: Duration::from_secs(3),
            stolen: Duration::from_secs(1),
            ..Usage::default()
        };
        assert!((usage.disturbed_share() - 0.4).abs() < 1e-9);
        assert_eq!(Usage::default().disturbed_share(), 0.0, "an empty window");
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
        let memory = Memory { without_files_kib: 400, resident_kib: 900, threads: 7 };
        assert_eq!(memory_of_status(status), Some(memory));
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
        let ourselves = std::process::id();
        let window = Window::open(Watched { brokers: vec![ourselves], driver: None, pinning }).unwrap();
        let until = process_cpu(ourselves).unwrap() + 3 * TICK;
        while process_cpu(ourselves).unwrap() < until {}
        let usage = window.close().unwrap();
        assert!(usage.broker_cpu >= 3 * TICK && usage.rss_peak_kib > 0 && usage.threads > 0, "{usage:?}");
        let before_it_began = Window::open(Watched { brokers: Vec::new(), driver: None, pinning }).unwrap();
        assert!(before_it_began.close_on(vec![ourselves]).unwrap().broker_cpu >= usage.broker_cpu);
    }
}
