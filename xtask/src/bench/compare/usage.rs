//! What a window of time cost: the broker's CPU seconds, memory and written bytes, and who else was on the cores.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::holds::LongHolds;
use super::pinning::Pinning;
use crate::bench::process::{Disk, Memory, ProcessStat, TICK, process_cpu, threads_not_held, waited_for_cpu};

/// What the names of ouzel's cores' threads begin with.
const CORE_THREADS: &str = "core-";
const SAMPLE_EVERY: Duration = Duration::from_millis(100);

/// What one window cost.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Usage {
    pub(super) wall: Duration,
    /// The broker's own, user and system, of all its threads, those that ended among them.
    pub(super) broker_cpu: Duration,
    /// Bytes that were read from the disk for the broker.
    pub(super) read_bytes: u64,
    /// Bytes that the broker made dirty, whether or not they reached the disk.
    pub(super) written_bytes: u64,
    /// The broker's anonymous and shared memory at its peak: without the page cache, mapped files among it. Zero if nobody looked.
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
    /// How often the broker's cores were held for long; none of a broker that does not tell.
    pub(super) long_holds: Option<LongHolds>,
    /// How long the broker's cores were ready to run and another thread had the CPU: that is part of how long they were held.
    pub(super) cores_waited: Duration,
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
    long_holds: Option<LongHolds>,
    sampler: Option<JoinHandle<()>>,
    closing: Arc<AtomicBool>,
    rss_peak_kib: Arc<AtomicU64>,
}

/// Whose cost a window tells.
#[derive(Debug, Clone)]
pub(super) struct Watched {
    /// All brokers of the row.
    pub(super) brokers: Vec<u32>,
    /// Where they tell their metrics, those that do.
    pub(super) admin_ports: Vec<u16>,
    /// The driver, if it runs both when the window is opened and when it is closed; one that is started and ends in between is
    /// found among our own children.
    pub(super) driver: Option<u32>,
    pub(super) pinning: Pinning,
}

#[derive(Debug, Clone)]
struct Reading {
    at: Instant,
    brokers_cpu: Duration,
    /// The driver's and the harness's own, with that of drivers that have ended.
    drivers_cpu: Duration,
    kernel_threads: KernelThreads,
    disk: Disk,
    cores_waited: Duration,
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
            drivers_cpu: ProcessStat::of("self")?.with_children(),
            kernel_threads: KernelThreads::look()?,
            disk: Disk::default(),
            cores_waited: Duration::ZERO,
            broker_core: core(broker_core)?,
            driver_core: core(driver_core)?,
        };
        for pid in &watched.brokers {
            reading.brokers_cpu += process_cpu(*pid)?;
            let disk = Disk::of(*pid)?;
            reading.disk.read_bytes += disk.read_bytes;
            reading.disk.written_bytes += disk.written_bytes;
            reading.cores_waited += waited_for_cpu(*pid, CORE_THREADS)?;
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
        let rss_peak_kib = Arc::new(AtomicU64::new(Memory::of_all(&watched.brokers)?.without_files_kib));
        let (until, peak) = (Arc::clone(&closing), Arc::clone(&rss_peak_kib));
        let brokers = watched.brokers.clone();
        let sampler = std::thread::spawn(move || {
            while !until.load(Ordering::Relaxed) {
                if let Ok(memory) = Memory::of_all(&brokers) {
                    peak.fetch_max(memory.without_files_kib, Ordering::Relaxed);
                }
                std::thread::sleep(SAMPLE_EVERY);
            }
        });
        // Outside of what is measured, as it is when the window is closed.
        let long_holds = LongHolds::look(&watched.admin_ports)?;
        let opened = Reading::take(&watched)?;
        Ok(Window { watched, opened, long_holds, sampler: Some(sampler), closing, rss_peak_kib })
    }

    /// Closes a window that was opened before these brokers were started: all they have done since is in it, but nobody looked at
    /// their memory meanwhile, and it has no peak.
    pub(super) fn close_on(mut self, brokers: Vec<u32>) -> Result<Usage, String> {
        self.watched.brokers = brokers;
        Ok(Usage { rss_peak_kib: 0, ..self.close()? })
    }

    /// Closes it: what it cost.
    pub(super) fn close(mut self) -> Result<Usage, String> {
        let closed = Reading::take(&self.watched)?;
        let memory = Memory::of_all(&self.watched.brokers)?;
        self.end_sampler();
        let Pinning { broker_core: number, driver_core: other } = self.watched.pinning;
        let long_holds = LongHolds::look(&self.watched.admin_ports)?;
        let long_holds = long_holds.zip(self.long_holds).map(|(now, before)| now.since(before));
        let not_held = self.watched.brokers.iter().map(|pid| threads_not_held(*pid, number));
        let not_held = not_held.sum::<Result<u64, String>>()?;
        let opened = &self.opened;
        let broker_cpu = closed.brokers_cpu.saturating_sub(opened.brokers_cpu);
        let broker_core = closed.broker_core.since(opened.broker_core);
        let driver_core = closed.driver_core.since(opened.driver_core);
        let ours = broker_cpu
            + closed.drivers_cpu.saturating_sub(opened.drivers_cpu)
            + closed.kernel_threads.since(&opened.kernel_threads, [number, other])
            + TICK * (broker_core.interrupts + driver_core.interrupts) as u32;
        Ok(Usage {
            wall: closed.at - opened.at,
            broker_cpu,
            read_bytes: closed.disk.read_bytes.saturating_sub(opened.disk.read_bytes),
            written_bytes: closed.disk.written_bytes.saturating_sub(opened.disk.written_bytes),
            rss_peak_kib: self.rss_peak_kib.load(Ordering::Relaxed).max(memory.without_files_kib),
            resident_kib: memory.resident_kib,
            threads: memory.threads,
            threads_not_held: not_held,
            driver_core_busy: driver_core.busy_share(),
            broker_core_busy: broker_core.busy_share(),
            foreign_cpu: (TICK * broker_core.busy as u32).saturating_sub(broker_cpu),
            neighbours_cpu: (TICK * (broker_core.busy + driver_core.busy) as u32).saturating_sub(ours),
            stolen: TICK * (broker_core.stolen + driver_core.stolen) as u32,
            long_holds,
            cores_waited: closed.cores_waited.saturating_sub(opened.cores_waited),
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

/// The kernel's own threads: they write back, and are nobody's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct KernelThreads {
    /// By number and start, since numbers are used again.
    by_id: BTreeMap<(u32, u64), KernelThread>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct KernelThread {
    cpu: Duration,
    /// The core that it was on last.
    core: usize,
}

impl KernelThreads {
    fn look() -> Result<KernelThreads, String> {
        let mut threads = KernelThreads::default();
        for entry in fs::read_dir("/proc").map_err(|e| format!("read /proc: {e}"))?.flatten() {
            // Whatever is no process, or ended meanwhile, cannot be read and has nothing to tell.
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
            let Some(stat) = ProcessStat::parse(&stat).filter(|stat| stat.is_kernels) else { continue };
            let thread = KernelThread { cpu: stat.own_cpu, core: stat.core };
            threads.by_id.insert((pid, stat.started), thread);
        }
        Ok(threads)
    }

    /// Their time on these cores since `before`. A thread tells how long it ran and on which core it was last, not how long on
    /// which: only who was on one of these both times is taken to have been there all along, and who is new. What cannot be told
    /// apart stays with the neighbours, where it spoils a row instead of hiding somebody.
    fn since(&self, before: &KernelThreads, cores: [usize; 2]) -> Duration {
        let here = |thread: &KernelThread| cores.contains(&thread.core);
        let spent = self.by_id.iter().filter(|(_, thread)| here(thread)).map(|(id, thread)| {
            match before.by_id.get(id) {
                None => thread.cpu,
                Some(earlier) if here(earlier) => thread.cpu.saturating_sub(earlier.cpu),
                Some(_) => Duration::ZERO,
            }
        });
        spent.sum()
    }
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

    /// A worker of the kernel that had run for hours elsewhere, and was on the broker's core at the second look, had all of its
    /// hours counted into the window: whatever neighbours did was hidden behind them.
    #[test]
    fn a_worker_that_came_from_another_core_hides_no_neighbour() {
        let threads = |threads: &[(u32, u64, usize)]| KernelThreads {
            by_id: threads
                .iter()
                .map(|(pid, seconds, core)| {
                    ((*pid, 1), KernelThread { cpu: Duration::from_secs(*seconds), core: *core })
                })
                .collect(),
        };
        let before = threads(&[(7, 10, 0), (8, 3_600, 5), (9, 5, 1)]);
        let after = threads(&[(7, 12, 1), (8, 3_601, 0), (9, 6, 5), (10, 1, 1)]);
        assert_eq!(after.since(&before, [0, 1]), Duration::from_secs(3), "of 7, and of 10, which is new");
        let mut other = after.clone();
        other.by_id = other.by_id.into_iter().map(|((pid, _), thread)| ((pid, 2), thread)).collect();
        assert_eq!(other.since(&before, [0, 1]), Duration::from_secs(12 + 3_601 + 1), "numbers used again");
        assert_eq!(KernelThreads::default().since(&before, [0, 1]), Duration::ZERO);
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
        let window = Window::open(Watched {
            brokers: vec![ourselves],
            admin_ports: Vec::new(),
            driver: None,
            pinning,
        })
        .unwrap();
        let until = process_cpu(ourselves).unwrap() + 3 * TICK;
        while process_cpu(ourselves).unwrap() < until {}
        let usage = window.close().unwrap();
        assert!(usage.broker_cpu >= 3 * TICK && usage.rss_peak_kib > 0 && usage.threads > 0, "{usage:?}");
        let before_it_began =
            Window::open(Watched { brokers: Vec::new(), admin_ports: Vec::new(), driver: None, pinning })
                .unwrap();
        let start = before_it_began.close_on(vec![ourselves]).unwrap();
        assert!(start.broker_cpu >= usage.broker_cpu);
        // What a starting broker had in memory at one moment was told as its peak.
        assert_eq!(start.rss_peak_kib, 0);
    }
}
