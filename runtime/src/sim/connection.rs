//! A simulated TCP connection, which can be reset.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use turmoil::net::TcpStream;
use turmoil::net::tcp;

/// Two machines, in order.
type Pair = (IpAddr, IpAddr);

thread_local! {
    /// The open connections of the cluster that runs on this thread, both ends of each, by who is connected.
    static OPEN: RefCell<BTreeMap<Pair, Vec<Weak<Line>>>> = const { RefCell::new(BTreeMap::new()) };
}

fn pair(one: IpAddr, other: IpAddr) -> Pair {
    (one.min(other), one.max(other))
}

/// Forgets the connections of an earlier cluster on this thread.
pub(super) fn forget_all() {
    OPEN.with_borrow_mut(BTreeMap::clear);
}

/// Resets every connection between two machines: both ends see `ConnectionReset` at their next step.
pub(super) fn reset_between(one: IpAddr, other: IpAddr) {
    let lines = OPEN.with_borrow_mut(|open| open.remove(&pair(one, other))).unwrap_or_default();
    for line in lines.iter().filter_map(Weak::upgrade) {
        line.reset();
    }
}

/// What both halves of one end share.
#[derive(Debug, Default)]
struct Line {
    state: Mutex<LineState>,
}

#[derive(Debug, Default)]
struct LineState {
    is_reset: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Line {
    fn open(stream: &TcpStream) -> Arc<Line> {
        let line = Arc::new(Line::default());
        if let (Ok(one), Ok(other)) = (stream.local_addr(), stream.peer_addr()) {
            OPEN.with_borrow_mut(|open| {
                let lines = open.entry(pair(one.ip(), other.ip())).or_default();
                lines.retain(|line| line.strong_count() > 0);
                lines.push(Arc::downgrade(&line));
            });
        }
        line
    }

    fn lock(&self) -> MutexGuard<'_, LineState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reset(&self) {
        let (reader, writer) = {
            let mut state = self.lock();
            state.is_reset = true;
            (state.reader.take(), state.writer.take())
        };
        for waker in [reader, writer].into_iter().flatten() {
            waker.wake();
        }
    }

    fn reading<T>(
        &self,
        context: &mut Context<'_>,
        read: impl FnOnce(&mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if self.lock().is_reset {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let polled = read(context);
        if polled.is_pending() {
            self.lock().reader = Some(context.waker().clone());
        }
        polled
    }

    fn writing<T>(
        &self,
        context: &mut Context<'_>,
        write: impl FnOnce(&mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if self.lock().is_reset {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let polled = write(context);
        if polled.is_pending() {
            self.lock().writer = Some(context.waker().clone());
        }
        polled
    }
}

/// A whole connection, or one half of it.
pub(crate) struct SimConnection<S> {
    stream: S,
    line: Arc<Line>,
}

/// A connection.
pub(crate) type SimStream = SimConnection<TcpStream>;
/// Its reading half.
pub(crate) type SimReadHalf = SimConnection<tcp::OwnedReadHalf>;
/// Its writing half.
pub(crate) type SimWriteHalf = SimConnection<tcp::OwnedWriteHalf>;

impl SimStream {
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self { line: Line::open(&stream), stream }
    }

    pub(crate) fn set_nodelay(&self, nodelay: bool) -> io::Result<()> {
        self.stream.set_nodelay(nodelay)
    }

    pub(crate) fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.stream.peer_addr()
    }

    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.stream.local_addr()
    }

    pub(crate) fn into_split(self) -> (SimReadHalf, SimWriteHalf) {
        let (read, write) = self.stream.into_split();
        let reading = SimConnection { stream: read, line: self.line.clone() };
        (reading, SimConnection { stream: write, line: self.line })
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for SimConnection<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { stream, line } = self.get_mut();
        line.reading(cx, |cx| Pin::new(stream).poll_read(cx, buf))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for SimConnection<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let Self { stream, line } = self.get_mut();
        line.writing(cx, |cx| Pin::new(stream).poll_write(cx, buf))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { stream, line } = self.get_mut();
        line.writing(cx, |cx| Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { stream, line } = self.get_mut();
        line.writing(cx, |cx| Pin::new(stream).poll_shutdown(cx))
    }
}
