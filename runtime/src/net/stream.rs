//! A connection: read, write, send a file, move to another core.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::ops::AddAssign;
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp;

use crate::disk::{RealShared, SharedFile};

/// One `sendfile` call moves at most this much, so that one connection does not hold the core.
const SEND_FILE_SLICE_BYTES: usize = 256 * 1024;
/// How often a slice is read in that does not stay in memory, before it is sent from memory of our own.
const READ_INS_MAX: usize = 2;

/// A TCP connection.
pub struct Stream {
    kind: Kind,
}

enum Kind {
    Real(TcpStream),
    #[cfg(feature = "sim")]
    Sim(crate::sim::SimStream),
}

macro_rules! on {
    ($kind:expr, $type:ident, $it:ident => $call:expr) => {
        match $kind {
            $type::Real($it) => $call,
            #[cfg(feature = "sim")]
            $type::Sim($it) => $call,
        }
    };
}

impl Stream {
    pub(crate) fn real(stream: TcpStream) -> Self {
        Self { kind: Kind::Real(stream) }
    }

    #[cfg(feature = "sim")]
    pub(crate) fn simulated(stream: crate::sim::SimStream) -> Self {
        Self { kind: Kind::Sim(stream) }
    }

    /// Sends small writes at once (true) or gathers them (false, the kernel's default).
    ///
    /// # Errors
    /// Those of `setsockopt(2)`.
    pub fn set_nodelay(&self, nodelay: bool) -> io::Result<()> {
        on!(&self.kind, Kind, stream => stream.set_nodelay(nodelay))
    }

    /// Returns who is at the other end.
    ///
    /// # Errors
    /// When the connection is gone.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        on!(&self.kind, Kind, stream => stream.peer_addr())
    }

    /// Returns our own address.
    ///
    /// # Errors
    /// When the connection is gone.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        on!(&self.kind, Kind, stream => stream.local_addr())
    }

    /// Takes the connection off this core, to travel to another.
    ///
    /// # Errors
    /// When it cannot be taken off the reactor; the connection is closed then.
    pub fn into_handoff(self) -> io::Result<Handoff> {
        let kind = match self.kind {
            Kind::Real(stream) => HandoffKind::Real(stream.into_std()?),
            #[cfg(feature = "sim")]
            Kind::Sim(stream) => HandoffKind::Sim(stream),
        };
        Ok(Handoff { kind })
    }

    /// Splits into halves that different tasks may own. The connection closes for writing when the write half
    /// is dropped, and for good when both are.
    pub fn into_split(self) -> (OwnedReadHalf, OwnedWriteHalf) {
        match self.kind {
            Kind::Real(stream) => {
                let (read, write) = stream.into_split();
                (
                    OwnedReadHalf { kind: ReadKind::Real(read) },
                    OwnedWriteHalf { kind: WriteKind::Real(write) },
                )
            }
            #[cfg(feature = "sim")]
            Kind::Sim(stream) => {
                let (read, write) = stream.into_split();
                (OwnedReadHalf { kind: ReadKind::Sim(read) }, OwnedWriteHalf { kind: WriteKind::Sim(write) })
            }
        }
    }

    /// Sends `len` bytes of a file from `offset`, without their passing through user space.
    ///
    /// The core does not wait for a disk: what is not in memory is read in by another thread first, and some of what
    /// follows with it. What was sent is not copied: until the peer has it, a write to the same place of the file shows.
    ///
    /// # Errors
    /// `UnexpectedEof` when the file ends early, else those of `sendfile(2)` and of reading. On an error, or when the
    /// future is dropped, any number of the bytes may have been sent: close the connection.
    pub async fn send_file(&mut self, file: &SharedFile, offset: u64, len: usize) -> io::Result<FileSent> {
        match &mut self.kind {
            Kind::Real(stream) => send_file(stream, file, offset, len).await,
            #[cfg(feature = "sim")]
            Kind::Sim(stream) => send_copy(stream, file, offset, len).await,
        }
    }
}

/// How the slices of a file went out, of 256 KiB each: what a single call of `sendfile` is to take at most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileSent {
    /// They were in memory.
    pub resident: u64,
    /// Some of them had to be read from the disk first.
    pub read_in: u64,
    /// Some of them did not stay in memory, and went through a buffer of ours.
    pub copied: u64,
}

impl AddAssign for FileSent {
    fn add_assign(&mut self, other: FileSent) {
        self.resident += other.resident;
        self.read_in += other.read_in;
        self.copied += other.copied;
    }
}

/// How bytes went out, the cheapest way first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum How {
    Resident,
    ReadIn,
    Copied,
}

async fn send_file(stream: &TcpStream, file: &SharedFile, offset: u64, len: usize) -> io::Result<FileSent> {
    let Some(real) = file.real() else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a simulated file on a real connection"));
    };
    let mut sent = FileSent::default();
    let mut next = crate::disk::file_offset(offset)?;
    let end = crate::disk::file_offset(offset + len as u64)?;
    // What was counted, and how the bytes behind it went out so far.
    let (mut counted, mut how) = (next, How::Resident);
    while next < end {
        let most = usize::try_from(end - next).unwrap_or(usize::MAX).min(SEND_FILE_SLICE_BYTES);
        let these = send_some(stream, real, &mut next, most).await?;
        how = how.max(these);
        while counted < end && next >= end.min(counted + SEND_FILE_SLICE_BYTES as libc::off_t) {
            match how {
                How::Resident => sent.resident += 1,
                How::ReadIn => sent.read_in += 1,
                How::Copied => sent.copied += 1,
            }
            counted += SEND_FILE_SLICE_BYTES as libc::off_t;
            how = if next > counted { these } else { How::Resident };
        }
    }
    Ok(sent)
}

/// Sends up to `most` bytes from `next` on, as many as the socket takes, and moves it on.
async fn send_some(
    stream: &TcpStream,
    file: &RealShared,
    next: &mut libc::off_t,
    most: usize,
) -> io::Result<How> {
    // Probed once there is room to send: a slow peer may take minutes, in which the kernel takes pages back.
    stream.writable().await?;
    let mut read_ins = 0;
    while !file.covers(*next as u64, most) && read_ins < READ_INS_MAX {
        file.read_in(*next as u64, most).await?;
        read_ins += 1;
    }
    if read_ins == READ_INS_MAX && !file.covers(*next as u64, most) {
        let bytes = file.read_copy(*next as u64, most).await?;
        if bytes.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        write_all(stream, &bytes).await?;
        *next += bytes.len() as libc::off_t;
        return Ok(How::Copied);
    }
    let how = if read_ins == 0 { How::Resident } else { How::ReadIn };
    let written = stream.try_io(Interest::WRITABLE, || {
        // SAFETY: both descriptors are open for as long as their owners are borrowed here; the offset is a live
        // integer that the kernel moves on.
        let sent = unsafe { libc::sendfile(stream.as_raw_fd(), file.file().as_raw_fd(), next, most) };
        usize::try_from(sent).map_err(|_| io::Error::last_os_error())
    });
    match written {
        Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
        Ok(_) => {
            file.read_ahead(*next as u64);
            // A socket that keeps up would never make us wait: let others have the core between slices.
            tokio::task::consume_budget().await;
            Ok(how)
        }
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
            Ok(how)
        }
        Err(error) => Err(error),
    }
}

async fn write_all(stream: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        stream.writable().await?;
        match stream.try_write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// One write whose bytes the kernel may hold back, as more follow.
async fn write_more(stream: &TcpStream, bufs: &[io::IoSlice<'_>]) -> io::Result<usize> {
    loop {
        stream.writable().await?;
        let written = stream.try_io(Interest::WRITABLE, || {
            // SAFETY: a message header is plain integers and pointers, all zero is valid.
            let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
            // An IoSlice has the layout of an iovec, and the kernel only reads them.
            message.msg_iov = bufs.as_ptr().cast_mut().cast();
            message.msg_iovlen = bufs.len() as _;
            let flags = libc::MSG_MORE | libc::MSG_NOSIGNAL;
            // SAFETY: the header names the slices, which outlive the call as what they borrow does; the descriptor is
            // open while its stream is borrowed.
            let sent = unsafe { libc::sendmsg(stream.as_raw_fd(), &raw const message, flags) };
            usize::try_from(sent).map_err(|_| io::Error::last_os_error())
        });
        match written {
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            written => return written,
        }
    }
}

#[cfg(feature = "sim")]
async fn send_copy(
    stream: &mut (impl AsyncWrite + Unpin),
    file: &SharedFile,
    offset: u64,
    len: usize,
) -> io::Result<FileSent> {
    use tokio::io::AsyncWriteExt;
    let mut counted = FileSent::default();
    let mut sent = 0;
    while sent < len {
        let slice = (len - sent).min(SEND_FILE_SLICE_BYTES);
        let bytes = file.read_now(offset + sent as u64, slice)?;
        stream.write_all(&bytes).await?;
        sent += bytes.len();
        counted.resident += 1;
        if bytes.len() < slice {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(counted)
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        on!(&mut self.get_mut().kind, Kind, stream => Pin::new(stream).poll_read(cx, buf))
    }
}

/// Writes of a whole type through to one of its variants.
macro_rules! forward_writes {
    ($outer:ty, $type:ident) => {
        impl AsyncWrite for $outer {
            fn poll_write(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                buf: &[u8],
            ) -> Poll<io::Result<usize>> {
                on!(&mut self.get_mut().kind, $type, stream => Pin::new(stream).poll_write(cx, buf))
            }

            fn poll_write_vectored(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                bufs: &[io::IoSlice<'_>],
            ) -> Poll<io::Result<usize>> {
                on!(&mut self.get_mut().kind, $type, stream => Pin::new(stream).poll_write_vectored(cx, bufs))
            }

            fn is_write_vectored(&self) -> bool {
                on!(&self.kind, $type, stream => stream.is_write_vectored())
            }

            fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                on!(&mut self.get_mut().kind, $type, stream => Pin::new(stream).poll_flush(cx))
            }

            fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                on!(&mut self.get_mut().kind, $type, stream => Pin::new(stream).poll_shutdown(cx))
            }
        }
    };
}

forward_writes!(Stream, Kind);

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Stream").field(&self.peer_addr().ok()).finish()
    }
}

/// The reading half of a connection.
pub struct OwnedReadHalf {
    kind: ReadKind,
}

enum ReadKind {
    Real(tcp::OwnedReadHalf),
    #[cfg(feature = "sim")]
    Sim(crate::sim::SimReadHalf),
}

impl AsyncRead for OwnedReadHalf {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        on!(&mut self.get_mut().kind, ReadKind, stream => Pin::new(stream).poll_read(cx, buf))
    }
}

impl fmt::Debug for OwnedReadHalf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OwnedReadHalf")
    }
}

/// The writing half of a connection.
pub struct OwnedWriteHalf {
    kind: WriteKind,
}

enum WriteKind {
    Real(tcp::OwnedWriteHalf),
    #[cfg(feature = "sim")]
    Sim(crate::sim::SimWriteHalf),
}

impl OwnedWriteHalf {
    /// As [`Stream::send_file`].
    ///
    /// # Errors
    /// As `Stream::send_file`.
    pub async fn send_file(&mut self, file: &SharedFile, offset: u64, len: usize) -> io::Result<FileSent> {
        match &mut self.kind {
            WriteKind::Real(half) => send_file(half.as_ref(), file, offset, len).await,
            #[cfg(feature = "sim")]
            WriteKind::Sim(half) => send_copy(half, file, offset, len).await,
        }
    }

    /// Writes some of the bytes, of which more will follow at once: the kernel may wait for those, to send all of them
    /// together. Without a write behind it they may take 200 ms.
    ///
    /// # Errors
    /// Those of `sendmsg(2)`.
    pub async fn write_more(&mut self, bufs: &[io::IoSlice<'_>]) -> io::Result<usize> {
        match &mut self.kind {
            WriteKind::Real(half) => write_more(half.as_ref(), bufs).await,
            #[cfg(feature = "sim")]
            WriteKind::Sim(half) => tokio::io::AsyncWriteExt::write_vectored(half, bufs).await,
        }
    }
}

forward_writes!(OwnedWriteHalf, WriteKind);

impl fmt::Debug for OwnedWriteHalf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OwnedWriteHalf")
    }
}

/// A connection on its way to another core; `Send`.
pub struct Handoff {
    kind: HandoffKind,
}

enum HandoffKind {
    Real(std::net::TcpStream),
    #[cfg(feature = "sim")]
    Sim(crate::sim::SimStream),
}

impl Handoff {
    /// Puts the connection onto the calling core.
    ///
    /// # Errors
    /// When the reactor cannot take it; the connection is closed then.
    ///
    /// # Panics
    /// Outside a core.
    pub fn into_stream(self) -> io::Result<Stream> {
        match self.kind {
            HandoffKind::Real(stream) => Ok(Stream::real(TcpStream::from_std(stream)?)),
            #[cfg(feature = "sim")]
            HandoffKind::Sim(stream) => Ok(Stream::simulated(stream)),
        }
    }
}

impl fmt::Debug for Handoff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Handoff")
    }
}

#[cfg(test)]
mod tests {
    fn is_send<T: Send>() {}

    #[test]
    fn what_travels_between_cores_is_send() {
        is_send::<super::Handoff>();
        is_send::<crate::disk::SharedFile>();
        is_send::<crate::mailbox::MailReceiver<u8>>();
    }
}
