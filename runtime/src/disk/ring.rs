//! One core's io_uring ring.
//!
//! Rules, each of them measured or suffered by somebody:
//!
//! * The kernel rings a registered *eventfd*, and tokio watches that. Watching the ring's own descriptor hangs
//!   with DEFER_TASKRUN as soon as an operation completes asynchronously.
//! * With DEFER_TASKRUN nothing completes but inside `io_uring_enter(GETEVENTS)` on the thread that made the ring:
//!   every entry here asks for events.
//! * Operations own their buffers and their file until the kernel answers ([`super::slots`]).
//! * Queued operations go out when the thread parks, when 32 are queued, and every few polls: under saturation a
//!   thread never parks.
//! * A ring that goes cancels what is in flight and waits for it; if the kernel will not answer, buffers are leaked.
//!   Memory that the kernel may still write to is never freed.

use std::cell::RefCell;
use std::fmt;
use std::future::Future;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use io_uring::{IoUring, Probe, opcode, squeue, types};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::real::OpenFile;
use super::slots::{Completed, Key, Slots};
use super::syscalls::{self, WriteCursor};

const SUBMISSIONS: u32 = 256;
const COMPLETIONS: u32 = 1024;
/// As many queued operations go out at once.
const QUEUED_MAX: usize = 32;
/// Kernel threads for what a ring cannot do without blocking, bounded and unbounded work each. Writes to one inode
/// serialise anyway, and two cores should not be buried under helpers.
const WORKERS_MAX: u32 = 4;
/// One read asks for at most this; longer ones are several.
const READ_BYTES_MAX: usize = 1 << 30;
/// How long a dying ring waits for the kernel.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(10);
/// The `user_data` of operations nobody waits for: no slot has this index.
const NO_SLOT: u64 = u64::MAX;

/// How the ring's completions are run; the best that the kernel offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flavour {
    /// SINGLE_ISSUER, DEFER_TASKRUN: only when we ask (kernel 6.1).
    Deferred,
    /// COOP_TASKRUN, TASKRUN_FLAG: at our next system call (5.19).
    Cooperative,
    /// Whenever the kernel likes.
    Plain,
}

impl Flavour {
    const BEST_FIRST: [Self; 3] = [Self::Deferred, Self::Cooperative, Self::Plain];

    fn build(self) -> io::Result<IoUring> {
        let mut builder = IoUring::builder();
        builder.setup_cqsize(COMPLETIONS);
        match self {
            Self::Deferred => builder.setup_single_issuer().setup_defer_taskrun(),
            Self::Cooperative => builder.setup_coop_taskrun().setup_taskrun_flag(),
            Self::Plain => &mut builder,
        };
        builder.build(SUBMISSIONS)
    }
}

/// Finds out whether a ring works here, and which one, by trying.
///
/// # Errors
/// Why there is none: missing, forbidden (seccomp in containers), or too old.
pub(crate) fn probe() -> io::Result<Flavour> {
    let mut failed = io::Error::from(io::ErrorKind::Unsupported);
    for flavour in Flavour::BEST_FIRST {
        match try_flavour(flavour) {
            Ok(()) => return Ok(flavour),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

fn try_flavour(flavour: Flavour) -> io::Result<()> {
    let mut uring = flavour.build()?;
    let mut known = Probe::new();
    uring.submitter().register_probe(&mut known)?;
    let needed = [
        opcode::Read::CODE,
        opcode::Writev::CODE,
        opcode::Fsync::CODE,
        opcode::Fallocate::CODE,
        opcode::AsyncCancel2::CODE,
    ];
    if !needed.iter().all(|code| known.is_supported(*code)) {
        return Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "the kernel's io_uring lacks file operations",
        ));
    }
    let event = eventfd()?;
    uring.submitter().register_eventfd(event.as_raw_fd())?;
    // SAFETY: a no-op has no buffers.
    unsafe { uring.submission().push(&opcode::Nop::new().build().user_data(NO_SLOT)) }
        .map_err(io::Error::other)?;
    uring.submit_and_wait(1)?;
    if uring.completion().next().is_none() {
        return Err(io::Error::other("the ring does not answer"));
    }
    drain_eventfd(&event).map(|_| ())
}

/// The ring of the thread that made it.
pub(crate) struct Ring {
    inner: RefCell<Inner>,
}

struct Inner {
    uring: IoUring,
    slots: Slots<Keep>,
    /// Operations in the submission queue that the kernel has not seen.
    queued: usize,
    /// Answers taken to make room, not yet handed out. Their bell has not been heard yet: a `turn` follows.
    taken: Vec<Completed<Keep>>,
    event: Arc<OwnedFd>,
}

/// What an operation works on. Everything the kernel is told an address of lies behind a heap pointer that does
/// not move when this value does.
enum Keep {
    /// The kernel writes between the vector's length and its capacity.
    Read { _open: Arc<OpenFile>, buf: Vec<u8> },
    /// The kernel reads the vectors and the cursor's buffers.
    Write { _open: Arc<OpenFile>, cursor: WriteCursor, iovecs: Vec<libc::iovec> },
    /// No memory, only the file.
    Bare { _open: Arc<OpenFile> },
}

impl Ring {
    /// Makes the calling thread's ring and starts the task that collects its answers.
    ///
    /// # Panics
    /// Outside a core.
    pub(crate) fn start(flavour: Flavour) -> io::Result<Rc<Self>> {
        let uring = flavour.build()?;
        let event = Arc::new(eventfd()?);
        uring.submitter().register_eventfd(event.as_raw_fd())?;
        // Older kernels have no such limit to set; then their default holds.
        let _ = uring.submitter().register_iowq_max_workers(&mut [WORKERS_MAX; 2]);
        // SAFETY: the descriptor is open as long as the Arc inside, and the AsyncFd owns one.
        let watched = unsafe { AsyncFd::register_with_interest(EventFd(event.clone()), Interest::READABLE) }
            .map_err(io::Error::from)?;
        let inner = Inner { uring, slots: Slots::new(), queued: 0, taken: Vec::new(), event };
        let ring = Rc::new(Self { inner: RefCell::new(inner) });
        tokio::task::spawn_local(collect(ring.clone(), watched));
        Ok(ring)
    }

    /// Reads up to `len` bytes; fewer only at the end of the file.
    pub(crate) async fn read(
        self: &Rc<Self>,
        open: &Arc<OpenFile>,
        offset: u64,
        len: usize,
    ) -> io::Result<Bytes> {
        let mut buf = Vec::with_capacity(len);
        while buf.len() < len {
            let next = syscalls::file_offset(offset.saturating_add(buf.len() as u64))? as u64;
            let wanted = u32::try_from((len - buf.len()).min(READ_BYTES_MAX)).unwrap_or(u32::MAX);
            let keep = Keep::Read { _open: open.clone(), buf };
            let op = self.push(keep, |keep| {
                let Keep::Read { buf, .. } = keep else { unreachable!("what was just made") };
                let spare = buf.spare_capacity_mut();
                opcode::Read::new(types::Fd(open.raw_fd()), spare.as_mut_ptr().cast(), wanted)
                    .offset(next)
                    .build()
            });
            let (result, keep) = op.await;
            let Keep::Read { buf: mut filled, .. } = keep else { unreachable!("what was put in") };
            match io_result(result) {
                Ok(0) => {
                    buf = filled;
                    break;
                }
                Ok(read) => {
                    assert!(read <= wanted as usize, "the kernel read more than it was asked to");
                    // SAFETY: the kernel filled `read` bytes from the old length on, within the capacity:
                    // `wanted` is no more than what the vector was made for.
                    unsafe { filled.set_len(filled.len() + read) };
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
            buf = filled;
        }
        Ok(Bytes::from(buf))
    }

    /// Writes all buffers: a short write goes on with the rest.
    pub(crate) async fn write(
        self: &Rc<Self>,
        open: &Arc<OpenFile>,
        offset: u64,
        bufs: Vec<Bytes>,
    ) -> io::Result<()> {
        let mut cursor = WriteCursor::new(offset, bufs);
        while !cursor.is_done() {
            let next = syscalls::file_offset(cursor.offset())? as u64;
            let iovecs = cursor.iovecs();
            let op = self.push(Keep::Write { _open: open.clone(), cursor, iovecs }, |keep| {
                let Keep::Write { iovecs, .. } = keep else { unreachable!("what was just made") };
                let count = u32::try_from(iovecs.len()).expect("no more than IOV_MAX");
                opcode::Writev::new(types::Fd(open.raw_fd()), iovecs.as_ptr(), count).offset(next).build()
            });
            let (result, keep) = op.await;
            let Keep::Write { cursor: mut rest, .. } = keep else { unreachable!("what was put in") };
            match io_result(result) {
                Ok(written) => rest.advance(written)?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
            cursor = rest;
        }
        Ok(())
    }

    /// Flushes a file: its bytes only, or its metadata too.
    pub(crate) async fn sync(self: &Rc<Self>, open: &Arc<OpenFile>, data_only: bool) -> io::Result<()> {
        let flags = if data_only { types::FsyncFlags::DATASYNC } else { types::FsyncFlags::empty() };
        // No retry, not even after EINTR: after a failed flush a second one proves nothing.
        let op = self.push(Keep::Bare { _open: open.clone() }, |_| {
            opcode::Fsync::new(types::Fd(open.raw_fd())).flags(flags).build()
        });
        io_result(op.await.0).map(|_| ())
    }

    /// Reserves space without changing the length.
    pub(crate) async fn allocate(
        self: &Rc<Self>,
        open: &Arc<OpenFile>,
        offset: u64,
        len: u64,
    ) -> io::Result<()> {
        let offset = syscalls::file_offset(offset)? as u64;
        let len = syscalls::file_offset(len)? as u64;
        loop {
            let op = self.push(Keep::Bare { _open: open.clone() }, |_| {
                opcode::Fallocate::new(types::Fd(open.raw_fd()), len)
                    .offset(offset)
                    .mode(libc::FALLOC_FL_KEEP_SIZE)
                    .build()
            });
            match io_result(op.await.0) {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Queues an operation. `entry` describes it from what it works on, once that lies where it stays.
    fn push(self: &Rc<Self>, keep: Keep, entry: impl FnOnce(&mut Keep) -> squeue::Entry) -> Operation {
        let mut inner = self.inner.borrow_mut();
        let key = inner.slots.insert(keep);
        let keep = inner.slots.keep_mut(key).expect("the operation was just put there");
        let entry = entry(keep).user_data(key.to_user_data());
        inner.queue(&entry);
        if inner.queued >= QUEUED_MAX {
            // Answers are handed out at the next turn: this is no place to run others' code.
            inner.enter();
        }
        Operation { ring: self.clone(), key: Some(key) }
    }

    /// Sends out what is queued, and hands out what that completed.
    pub(crate) fn flush(&self) {
        let queued = self.inner.borrow().queued;
        if queued > 0 {
            self.turn();
        }
    }

    /// Sends out what is queued, runs what the kernel has deferred, and hands out all answers.
    fn turn(&self) {
        let mut inner = self.inner.borrow_mut();
        // First silence the bell, then enter, then look. What completes after the entry, even if only as deferred
        // work that no queue shows yet, rings again; were the bell silenced after the entry, that ring would be lost.
        if let Err(error) = drain_eventfd(&inner.event) {
            tracing::error!(%error, "cannot read the ring's bell");
        }
        loop {
            inner.enter();
            inner.take_answers();
            // Answers beyond the queue's size wait in the kernel, which moves them up only when entered, and does
            // not ring for them again. Ends: what is in flight is finite, and nothing is added here.
            if !inner.uring.submission().cq_overflow() {
                break;
            }
        }
        let answers = std::mem::take(&mut inner.taken);
        drop(inner);
        // Wakers and what orphans kept run others' code when dropped: not under our borrow.
        for answer in answers {
            match answer {
                Completed::Wake(waker) => waker.into_iter().for_each(|waker| waker.wake()),
                Completed::Release(keep) => drop(keep),
            }
        }
    }
}

impl Inner {
    fn queue(&mut self, entry: &squeue::Entry) {
        // SAFETY: what the entry points to is owned by its slot, which outlives the operation.
        while unsafe { self.uring.submission().push(entry) }.is_err() {
            self.enter();
            self.take_answers();
        }
        self.queued += 1;
    }

    /// Tells the kernel about what is queued and lets it post what is complete. When it cannot take everything
    /// now, the rest stays queued for the next time, which the answers of those in flight bring about.
    fn enter(&mut self) {
        /// Tries per call; each makes progress or waits for an answer, so few are ever needed.
        const TRIES: u32 = 1000;
        for _ in 0..TRIES {
            // SAFETY: no argument follows; the flag asks for events to be posted.
            let entered = unsafe {
                let submitter = self.uring.submitter();
                submitter.enter::<libc::sigset_t>(self.queued as u32, 0, GETEVENTS, None)
            };
            match entered {
                Ok(taken) => {
                    self.queued -= taken.min(self.queued);
                    if self.queued == 0 {
                        return;
                    }
                }
                Err(error) => match error.raw_os_error() {
                    Some(libc::EINTR) => {}
                    // Too much in flight, or no memory for more just now.
                    Some(libc::EAGAIN | libc::EBUSY) => {
                        if self.slots.in_flight() > self.queued {
                            return;
                        }
                        std::thread::yield_now();
                    }
                    _ => panic!("io_uring_enter: {error}"),
                },
            }
        }
        panic!("the kernel takes no operation of the ring, and has none in flight");
    }

    /// Empties the completion queue into `taken`.
    fn take_answers(&mut self) {
        for answer in self.uring.completion() {
            if answer.user_data() != NO_SLOT {
                let key = Key::from_user_data(answer.user_data());
                self.taken.push(self.slots.complete(key, answer.result()));
            }
        }
    }

    /// Waits for the answers of all operations, at most [`DRAIN_TIME_MAX`].
    fn drain(&mut self) -> io::Result<()> {
        if self.slots.in_flight() == 0 {
            return Ok(());
        }
        let cancel = opcode::AsyncCancel2::new(types::CancelBuilder::any().all()).build().user_data(NO_SLOT);
        self.queue(&cancel);
        let deadline = Instant::now() + DRAIN_TIME_MAX;
        while self.slots.in_flight() > 0 && Instant::now() < deadline {
            let slice = types::Timespec::new().nsec(100_000_000);
            let arguments = types::SubmitArgs::new().timespec(&slice);
            match self.uring.submitter().submit_with_args(1, &arguments) {
                Ok(taken) => self.queued -= taken.min(self.queued),
                Err(error) => match error.raw_os_error() {
                    Some(libc::ETIME | libc::EINTR | libc::EAGAIN | libc::EBUSY) => {}
                    _ => return Err(error),
                },
            }
            self.take_answers();
        }
        Ok(())
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let drained = self.drain();
        if self.slots.in_flight() > 0 {
            let left = self.slots.in_flight();
            tracing::error!(left, ?drained, "the kernel does not give buffers back: leaking them");
            std::mem::forget(std::mem::replace(&mut self.slots, Slots::new()));
        }
    }
}

const GETEVENTS: u32 = 1;

/// One operation on its way; resolves to the kernel's answer and what it worked on.
struct Operation {
    ring: Rc<Ring>,
    /// `None` once resolved.
    key: Option<Key>,
}

impl Future for Operation {
    type Output = (i32, Keep);

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<(i32, Keep)> {
        let key = self.key.expect("an operation is not polled after its end");
        let polled = self.ring.inner.borrow_mut().slots.poll(key, context.waker());
        match polled {
            Ok(answer) => {
                self.key = None;
                Poll::Ready(answer)
            }
            Err(_replaced) => Poll::Pending,
        }
    }
}

impl Drop for Operation {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            let done = self.ring.inner.borrow_mut().slots.abandon(key);
            // Outside the borrow: closing a file and dropping a waker are others' code.
            drop(done);
        }
    }
}

/// Hands out the ring's answers for as long as the core runs.
async fn collect(ring: Rc<Ring>, watched: AsyncFd<EventFd>) {
    loop {
        let rung = watched.readable().await.and_then(|mut ready| {
            let rung = drain_eventfd(&watched.get_ref().0);
            ready.clear_ready();
            rung
        });
        match rung {
            Ok(true) => ring.turn(),
            // A turn at park has heard this one.
            Ok(false) => {}
            Err(error) => {
                // The reactor is going, and the core with it.
                tracing::debug!(%error, "the ring's bell is gone");
                return;
            }
        }
    }
}

/// The descriptor tokio watches.
struct EventFd(Arc<OwnedFd>);

impl AsRawFd for EventFd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

fn eventfd() -> io::Result<OwnedFd> {
    // SAFETY: no pointers.
    let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: just opened, and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Sets the counter to zero; returns whether it was not.
fn drain_eventfd(event: &OwnedFd) -> io::Result<bool> {
    let mut count = [0u8; 8];
    // SAFETY: the pointer and length describe the live array.
    let read = unsafe { libc::read(event.as_raw_fd(), count.as_mut_ptr().cast(), count.len()) };
    if read >= 0 {
        return Ok(true);
    }
    match io::Error::last_os_error() {
        error if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(false),
        error => Err(error),
    }
}

fn io_result(result: i32) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result))
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ring")
    }
}

#[cfg(test)]
#[path = "ring_test.rs"]
mod tests;
