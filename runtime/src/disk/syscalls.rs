//! The system calls the standard library lacks, and the loops around partial results.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;

use bytes::Bytes;

/// The most buffers one vectored call takes (`IOV_MAX`).
pub(crate) const IOVECS_MAX: usize = 1024;

/// Where a write over several buffers stands: short writes go on where they stopped.
#[derive(Debug)]
pub(crate) struct WriteCursor {
    bufs: Vec<Bytes>,
    /// Buffers before this index are written.
    next: usize,
    offset: u64,
}

impl WriteCursor {
    pub(crate) fn new(offset: u64, mut bufs: Vec<Bytes>) -> Self {
        bufs.retain(|buf| !buf.is_empty());
        Self { bufs, next: 0, offset }
    }

    pub(crate) fn is_done(&self) -> bool {
        self.next == self.bufs.len()
    }

    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// The vectors of what is left, as many as one call takes. They point into this cursor's buffers and are
    /// good until the next `advance` or its end.
    pub(crate) fn iovecs(&self) -> Vec<libc::iovec> {
        let left = &self.bufs[self.next..];
        left.iter()
            .take(IOVECS_MAX)
            .map(|buf| libc::iovec { iov_base: buf.as_ptr().cast_mut().cast(), iov_len: buf.len() })
            .collect()
    }

    /// Notes that `written` more bytes are in the file.
    ///
    /// # Errors
    /// `WriteZero` when nothing was written: trying again would loop.
    pub(crate) fn advance(&mut self, written: usize) -> io::Result<()> {
        if written == 0 {
            return Err(io::Error::new(io::ErrorKind::WriteZero, "the file took no more bytes"));
        }
        self.offset += written as u64;
        let mut left = written;
        while left > 0 {
            let buf = &mut self.bufs[self.next];
            if left < buf.len() {
                let _written = buf.split_to(left);
                return Ok(());
            }
            left -= buf.len();
            self.next += 1;
        }
        Ok(())
    }
}

/// Writes all buffers at `offset`, blocking.
pub(crate) fn write_all_at(fd: impl AsFd, offset: u64, bufs: Vec<Bytes>) -> io::Result<()> {
    let mut cursor = WriteCursor::new(offset, bufs);
    while !cursor.is_done() {
        match write_some_at(&fd, &cursor, 0) {
            Ok(written) => cursor.advance(written)?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// One `pwritev2`.
pub(crate) fn write_some_at(fd: impl AsFd, cursor: &WriteCursor, flags: libc::c_int) -> io::Result<usize> {
    let iovecs = cursor.iovecs();
    let count = libc::c_int::try_from(iovecs.len()).map_err(io::Error::other)?;
    let offset = file_offset(cursor.offset())?;
    // SAFETY: the vectors point into buffers the cursor owns and outlive the call; the kernel only reads them.
    let written = unsafe { libc::pwritev2(fd.as_fd().as_raw_fd(), iovecs.as_ptr(), count, offset, flags) };
    usize::try_from(written).map_err(|_| io::Error::last_os_error())
}

/// Reads `len` bytes at `offset`, fewer only at the end of the file, blocking.
pub(crate) fn read_up_to(file: &fs::File, offset: u64, len: usize) -> io::Result<Bytes> {
    let mut buf = vec![0; len];
    let mut filled = 0;
    while filled < len {
        match file.read_at(&mut buf[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    buf.truncate(filled);
    Ok(Bytes::from(buf))
}

/// Reserves space without changing the file's length.
pub(crate) fn allocate(fd: impl AsFd, offset: u64, len: u64) -> io::Result<()> {
    let (offset, len) = (file_offset(offset)?, file_offset(len)?);
    loop {
        // SAFETY: no pointers.
        let done = unsafe { libc::fallocate(fd.as_fd().as_raw_fd(), libc::FALLOC_FL_KEEP_SIZE, offset, len) };
        if done == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// Makes a directory's entries durable.
pub(crate) fn sync_dir(path: &Path) -> io::Result<()> {
    fs::File::open(path)?.sync_all()
}

/// Bytes that an unprivileged process may still write to the file system of `path`.
pub(crate) fn free_bytes(path: &Path) -> io::Result<u64> {
    let path = CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)?;
    // SAFETY: plain integers, all zero is valid.
    let mut stat: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: a NUL-terminated path and a live struct.
    if unsafe { libc::statvfs(path.as_ptr(), &raw mut stat) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Offsets above `i64::MAX` do not exist in the kernel's interface.
pub(crate) fn file_offset(offset: u64) -> io::Result<libc::off_t> {
    libc::off_t::try_from(offset)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "file offset beyond 2^63"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_goes_on_where_a_short_write_stopped() {
        let bufs = ["ab", "", "cde", "f"].map(|part| Bytes::from_static(part.as_bytes())).to_vec();
        let mut cursor = WriteCursor::new(10, bufs);
        let mut seen = Vec::new();
        for short in [1, 3, 2] {
            let iovecs = cursor.iovecs();
            seen.push((cursor.offset(), iovecs.iter().map(|iovec| iovec.iov_len).collect::<Vec<_>>()));
            cursor.advance(short).unwrap();
        }
        assert_eq!(seen, [(10, vec![2, 3, 1]), (11, vec![1, 3, 1]), (14, vec![1, 1])]);
        assert!(cursor.is_done());
        assert_eq!(cursor.offset(), 16);
    }

    #[test]
    fn a_write_of_nothing_is_an_error() {
        let mut cursor = WriteCursor::new(0, vec![Bytes::from_static(b"a")]);
        assert_eq!(cursor.advance(0).unwrap_err().kind(), io::ErrorKind::WriteZero);
    }
}
