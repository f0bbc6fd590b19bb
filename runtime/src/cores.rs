//! The threads: one per core, all for one and one for all.
//!
//! Each core runs a tokio `current_thread` runtime with a `LocalSet`. What one core's main future starts ends with
//! it. The first core that panics (in any of its tasks) or returns an error stops the others at their next await
//! and names itself in the error that [`Cores::join`] returns.

use std::any::Any;
use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use tokio::sync::watch;
use tokio::task::LocalSet;

use crate::disk::{self, BackendChoice, DiskBackend, DiskPlan};
use crate::tasks::OnCore;
use crate::{Clock, CoreId, Entropy, Net, Runtime, Worker, held};

/// A core's stack. Address space, not memory: unoptimised builds hold large futures on it while they are moved.
const STACK_BYTES: usize = 8 << 20;

/// What a core's main future returns.
pub type CoreResult = Result<(), Box<dyn std::error::Error + Send + Sync>>;

/// How many cores, and how they reach the disk.
#[derive(Clone, Debug)]
pub struct CoresConfig {
    /// Number of cores, at least 1.
    pub count: u16,
    /// Pins each core's thread to one of the CPUs this process may use. For a machine of one's own only.
    pub pin: bool,
    /// Which disk backend to use.
    pub backend: BackendChoice,
    /// The data directories; they must exist. Each is probed once for the fastest way to write.
    pub data_dirs: Vec<PathBuf>,
}

impl Default for CoresConfig {
    /// One core, not pinned, the best backend there is.
    fn default() -> Self {
        Self { count: 1, pin: false, backend: BackendChoice::Auto, data_dirs: Vec::new() }
    }
}

/// Starts `main` on every core, with one input each, and returns at once.
///
/// Inputs carry what must be made before the cores run, such as the receivers of their mailboxes.
///
/// # Errors
/// When there are no cores or not one input for each, when the wanted disk backend cannot be had, or when a
/// thread cannot start.
pub fn start<I, M, F>(config: &CoresConfig, inputs: Vec<I>, main: M) -> io::Result<Cores>
where
    I: Send + 'static,
    M: Fn(Runtime, I) -> F + Clone + Send + 'static,
    F: Future<Output = CoreResult> + 'static,
{
    if config.count == 0 || inputs.len() != usize::from(config.count) {
        let what = format!("{} cores with {} inputs", config.count, inputs.len());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    }
    let plan = disk::plan(config.backend, &config.data_dirs)?;
    let cpus = if config.pin { allowed_cpus()? } else { Vec::new() };
    let end = Arc::new(End::new());
    let worker = Worker::threaded();
    let mut cores =
        Cores { threads: Vec::new(), end: end.clone(), plan: plan.clone(), worker: worker.clone() };
    for (core, input) in (0..config.count).map(CoreId).zip(inputs) {
        let seat = Seat {
            core,
            core_count: config.count,
            cpu: (!cpus.is_empty()).then(|| cpus[usize::from(core.0) % cpus.len()]),
            plan: plan.clone(),
            worker: worker.clone(),
            end: end.clone(),
        };
        let main = main.clone();
        let builder = thread::Builder::new().name(format!("core-{core}")).stack_size(STACK_BYTES);
        let thread = builder.spawn(move || {
            let end = seat.end.clone();
            if let Err(reason) = run_core(seat, |runtime| main(runtime, input)) {
                end.fail(core, reason);
            }
        });
        match thread {
            Ok(thread) => cores.threads.push(thread),
            Err(error) => {
                cores.stop();
                // The error that matters is that this thread could not start.
                let _ = cores.join();
                return Err(error);
            }
        }
    }
    Ok(cores)
}

/// Runs `main` on every core until all have ended.
///
/// # Errors
/// When the cores cannot start (see [`start`]), or the first core's error or panic.
pub fn run<M, F>(config: &CoresConfig, main: M) -> Result<(), CoresError>
where
    M: Fn(Runtime) -> F + Clone + Send + 'static,
    F: Future<Output = CoreResult> + 'static,
{
    let inputs = vec![(); usize::from(config.count)];
    start(config, inputs, move |runtime, ()| main(runtime)).map_err(CoresError::Start)?.join()
}

/// Runs one future as the only core, on the calling thread, and returns its value. For tests and tools.
///
/// # Errors
/// When the wanted disk backend cannot be had.
///
/// # Panics
/// When the future or a task it started panics.
pub fn run_one<T, M, F>(backend: BackendChoice, data_dirs: &[PathBuf], main: M) -> io::Result<T>
where
    T: 'static,
    M: FnOnce(Runtime) -> F,
    F: Future<Output = T> + 'static,
{
    let plan = disk::plan(backend, data_dirs)?;
    let end = Arc::new(End::new());
    let worker = Worker::threaded();
    let seat = Seat {
        core: CoreId(0),
        core_count: 1,
        cpu: None,
        plan: plan.clone(),
        worker: worker.clone(),
        end: end.clone(),
    };
    let value = std::rc::Rc::new(std::cell::Cell::new(None));
    let outcome = run_core(seat, |runtime| {
        let (future, value) = (main(runtime), value.clone());
        async move {
            value.set(Some(future.await));
            Ok(())
        }
    });
    worker.finish();
    plan.finish();
    if let Err(reason) = outcome {
        panic!("{reason}");
    }
    if let Some(failure) = end.take() {
        panic!("{}", failure.reason);
    }
    value.take().ok_or_else(|| io::Error::other("the core was stopped before it ended"))
}

/// The running cores.
#[derive(Debug)]
pub struct Cores {
    threads: Vec<thread::JoinHandle<()>>,
    end: Arc<End>,
    plan: DiskPlan,
    worker: Worker,
}

impl Cores {
    /// Tells all cores to stop at their next await; their futures are dropped. An orderly end is `main`'s own
    /// affair: tell it by mailbox, and let it return.
    pub fn stop(&self) {
        self.end.stop.send_replace(true);
    }

    /// Returns a handle that can stop the cores from elsewhere, while somebody waits in [`join`](Self::join).
    pub fn stopper(&self) -> Stopper {
        Stopper { end: self.end.clone() }
    }

    /// Returns which backend serves the files, as decided at the start.
    pub fn disk_backend(&self) -> DiskBackend {
        self.plan.backend()
    }

    /// Waits until all cores have ended.
    ///
    /// # Errors
    /// What the first core that failed died of.
    pub fn join(self) -> Result<(), CoresError> {
        for thread in self.threads {
            // A panic was caught and reported inside the thread; what join adds is the waiting.
            let _ = thread.join();
        }
        self.worker.finish();
        self.plan.finish();
        match self.end.take() {
            Some(failure) => Err(CoresError::Core(failure)),
            None => Ok(()),
        }
    }
}

/// Stops cores from another thread; `Send`, `Sync` and cheap to clone.
#[derive(Clone, Debug)]
pub struct Stopper {
    end: Arc<End>,
}

impl Stopper {
    /// As [`Cores::stop`].
    pub fn stop(&self) {
        self.end.stop.send_replace(true);
    }
}

/// Why the cores ended before their time.
#[derive(Debug)]
pub enum CoresError {
    /// They never started.
    Start(io::Error),
    /// This core failed first; the others were stopped.
    Core(CoreFailure),
}

impl std::fmt::Display for CoresError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Start(error) => write!(f, "start the cores: {error}"),
            Self::Core(failure) => write!(f, "core {} failed: {}", failure.core, failure.reason),
        }
    }
}

impl std::error::Error for CoresError {}

/// One core's end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CoreFailure {
    /// Which core.
    pub core: CoreId,
    /// Its error, or the message of its panic.
    pub reason: String,
}

/// How the cores of one process end together.
#[derive(Debug)]
pub(crate) struct End {
    /// Taken once per process life, at a failure: no lock on any hot path.
    first: Mutex<Option<CoreFailure>>,
    stop: watch::Sender<bool>,
}

impl End {
    pub(crate) fn new() -> Self {
        Self { first: Mutex::new(None), stop: watch::Sender::new(false) }
    }

    fn fail(&self, core: CoreId, reason: String) {
        let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        if first.is_none() {
            tracing::error!(%core, reason, "a core failed: stopping all cores");
            *first = Some(CoreFailure { core, reason });
        }
        self.stop.send_replace(true);
    }

    #[cfg(feature = "sim")]
    pub(crate) fn stopped(&self) -> watch::Receiver<bool> {
        self.stop.subscribe()
    }

    pub(crate) fn take(&self) -> Option<CoreFailure> {
        self.first.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// What one core's thread is given.
struct Seat {
    core: CoreId,
    core_count: u16,
    cpu: Option<usize>,
    plan: DiskPlan,
    worker: Worker,
    end: Arc<End>,
}

thread_local! {
    /// Whom to tell when a task of this thread panics.
    static ON_PANIC: RefCell<Option<(CoreId, Arc<End>)>> = const { RefCell::new(None) };
}

/// Runs `body` on this thread with its tasks' panics reported to `end`, as on a core's thread.
#[cfg(feature = "sim")]
pub(crate) fn reporting_panics_to<T>(end: &Arc<End>, body: impl FnOnce() -> T) -> T {
    let before = ON_PANIC.replace(Some((CoreId(0), end.clone())));
    let value = body();
    ON_PANIC.set(before);
    value
}

pub(crate) fn report_panic(panic: &(dyn Any + Send)) {
    ON_PANIC.with_borrow(|sink| {
        if let Some((core, end)) = sink {
            end.fail(*core, panic_reason(panic));
        }
    });
}

pub(crate) fn panic_reason(panic: &(dyn Any + Send)) -> String {
    let message = panic
        .downcast_ref::<&str>()
        .map(|message| (*message).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned());
    message.map_or_else(|| "panic".to_owned(), |message| format!("panic: {message}"))
}

fn run_core<M, F>(seat: Seat, main: M) -> Result<(), String>
where
    M: FnOnce(Runtime) -> F,
    F: Future<Output = CoreResult>,
{
    if let Some(cpu) = seat.cpu {
        pin_to(cpu).map_err(|error| format!("pin to CPU {cpu}: {error}"))?;
    }
    let tokio = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .on_thread_park(disk::flush_this_thread)
        .on_thread_unpark(held::woke)
        .build()
        .map_err(|error| format!("start the reactor: {error}"))?;
    let local = LocalSet::new();
    let entered = tokio.enter();
    ON_PANIC.set(Some((seat.core, seat.end.clone())));
    held::begin_on_this_thread();
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        local.block_on(&tokio, async {
            let disk = seat.plan.open_on_this_core().map_err(|error| format!("open the disk: {error}"))?;
            let runtime = Runtime {
                disk,
                clock: Clock::system(),
                entropy: Entropy::kernel(),
                net: Net::real(),
                worker: seat.worker,
                core: seat.core,
                core_count: seat.core_count,
            };
            let mut stop = seat.end.stop.subscribe();
            tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => Ok(()),
                ended = OnCore::new(main(runtime)) => ended.map_err(|error| error.to_string()),
            }
        })
    }));
    // Tasks first (their operations become orphans), then the ring, which waits for the orphans.
    drop(local);
    disk::leave_this_thread();
    ON_PANIC.set(None);
    held::end_on_this_thread();
    drop(entered);
    // A name lookup under way must not hold up the end.
    tokio.shutdown_background();
    outcome.unwrap_or_else(|panic| Err(panic_reason(&*panic)))
}

/// The CPUs this process may run on, in order.
fn allowed_cpus() -> io::Result<Vec<usize>> {
    // SAFETY: a cpu_set_t is plain bits, all zero is the empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer and size describe the live set above.
    if unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let limit = usize::try_from(libc::CPU_SETSIZE).unwrap_or_default();
    // SAFETY: every index is below CPU_SETSIZE, the size of the set.
    Ok((0..limit).filter(|cpu| unsafe { libc::CPU_ISSET(*cpu, &set) }).collect())
}

fn pin_to(cpu: usize) -> io::Result<()> {
    // SAFETY: as in `allowed_cpus`.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: `cpu` came from `allowed_cpus` and is below CPU_SETSIZE.
    unsafe { libc::CPU_SET(cpu, &mut set) };
    // SAFETY: the pointer and size describe the live set above; 0 is the calling thread.
    if unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
