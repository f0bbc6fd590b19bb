//! Frames off a socket and onto it.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use ouzel_runtime::Clock;
use ouzel_runtime::net::{OwnedReadHalf, OwnedWriteHalf};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::budget::RecoveryRate;
use super::frame::{FrameError, HEADER_BYTES, Header};

/// Small frames are read many at a time into a buffer of this size, large ones straight into memory of their own.
const BUFFER_BYTES: usize = 8 * 1024;
/// Slices handed to one write.
const SLICES_MAX: usize = 64;
/// Recovery asks its rate for this much at a time: what it was granted leaves in one go, so this bounds for how long
/// recovery has the network card to itself.
const RATED_BYTES: usize = 128 * 1024;
/// Who waits for its turn looks this often whether the rate has changed.
const RATE_ASKED_AGAIN: Duration = Duration::from_secs(1);

/// Why no more frames come.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadEnd {
    /// The other end closed, between two frames.
    #[error("closed by the peer")]
    Closed,
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("not a frame: {0}")]
    Frame(#[from] FrameError),
}

/// Takes frames off a connection. No method may be dropped half way and another called: a frame would be torn.
pub(crate) struct FrameReader {
    half: OwnedReadHalf,
    buffer: BytesMut,
}

impl FrameReader {
    pub(crate) fn new(half: OwnedReadHalf) -> FrameReader {
        FrameReader { half, buffer: BytesMut::new() }
    }

    /// Reads the next `N` bytes.
    pub(crate) async fn exact<const N: usize>(&mut self) -> Result<[u8; N], ReadEnd> {
        while self.buffer.len() < N {
            self.buffer.reserve(BUFFER_BYTES);
            let was_empty = self.buffer.is_empty();
            if self.half.read_buf(&mut self.buffer).await? == 0 {
                let end = if was_empty {
                    ReadEnd::Closed
                } else {
                    io::Error::from(io::ErrorKind::UnexpectedEof).into()
                };
                return Err(end);
            }
        }
        let mut bytes = [0; N];
        self.buffer.copy_to_slice(&mut bytes);
        Ok(bytes)
    }

    /// Reads the next header. Its payload must be read next, whatever comes of it; set memory aside first.
    pub(crate) async fn header(&mut self, bytes_max: usize) -> Result<Header, ReadEnd> {
        let bytes = self.exact::<HEADER_BYTES>().await?;
        Ok(Header::parse(&bytes, bytes_max)?)
    }

    /// Reads the payload of the header just read, into memory of its own.
    pub(crate) async fn payload(&mut self, header: &Header) -> Result<Bytes, ReadEnd> {
        let payload_bytes = header.payload_bytes as usize;
        if self.buffer.len() >= payload_bytes {
            // Copied out, or a small batch would hold on to the whole buffer for as long as it is cached.
            let payload = Bytes::copy_from_slice(&self.buffer[..payload_bytes]);
            self.buffer.advance(payload_bytes);
            return Ok(payload);
        }
        let mut payload = BytesMut::with_capacity(payload_bytes);
        payload.put(&mut self.buffer);
        while payload.len() < payload_bytes {
            let missing = payload_bytes - payload.len();
            if self.half.read_buf(&mut (&mut payload).limit(missing)).await? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
        }
        Ok(payload.freeze())
    }
}

/// Puts frames onto a connection.
pub(crate) struct FrameWriter {
    half: OwnedWriteHalf,
    /// Set on the recovery lane.
    rate: Option<(RecoveryRate, Clock)>,
}

impl FrameWriter {
    pub(crate) fn new(half: OwnedWriteHalf, rate: Option<(RecoveryRate, Clock)>) -> FrameWriter {
        FrameWriter { half, rate }
    }

    /// Writes all chunks, in order, as many at a time as the kernel takes. Once dropped half way, the connection is of
    /// no use any more.
    pub(crate) async fn write(&mut self, chunks: &mut VecDeque<Bytes>) -> io::Result<()> {
        let mut granted = usize::MAX;
        loop {
            while chunks.front().is_some_and(Bytes::is_empty) {
                chunks.pop_front();
            }
            if chunks.is_empty() {
                return Ok(());
            }
            if let Some((rate, clock)) = &self.rate
                && (granted == 0 || granted == usize::MAX)
            {
                granted = chunks.iter().map(Bytes::len).sum::<usize>().min(RATED_BYTES);
                let mut turn = rate.take(granted, clock.now());
                loop {
                    let wait = turn.wait(clock.now());
                    if wait.is_zero() {
                        break;
                    }
                    // The rate may be raised meanwhile.
                    clock.sleep(wait.min(RATE_ASKED_AGAIN)).await;
                }
            }
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let (mut count, mut left) = (0, granted);
            for (slice, chunk) in slices.iter_mut().zip(chunks.iter()) {
                let part = &chunk[..chunk.len().min(left)];
                if part.is_empty() {
                    break;
                }
                *slice = IoSlice::new(part);
                left -= part.len();
                count += 1;
            }
            let mut written = self.half.write_vectored(&slices[..count]).await?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            if self.rate.is_some() {
                granted -= written;
            }
            while written > 0 {
                let Some(front) = chunks.front_mut() else { break };
                let part = front.len().min(written);
                front.advance(part);
                written -= part;
                if front.is_empty() {
                    chunks.pop_front();
                }
            }
        }
    }

    /// Sends what follows at a rate.
    pub(crate) fn set_rate(&mut self, rate: Option<(RecoveryRate, Clock)>) {
        self.rate = rate;
    }

    /// Says that nothing more will come.
    pub(crate) async fn shutdown(&mut self) {
        // The peer may be gone already; then there is nobody to tell.
        let _ = self.half.shutdown().await;
    }
}
