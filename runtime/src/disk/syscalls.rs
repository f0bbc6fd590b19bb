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

/// Reads `len` bytes at `offset` if all of them are in memory, without waiting for a disk.
pub(crate) fn read_resident(file: &fs::File, offset: u64, len: usize) -> io::Result<Option<Bytes>> {
    let offset = file_offset(offset)?;
    let mut buf: Vec<u8> = Vec::with_capacity(len);
    let iovec = libc::iovec { iov_base: buf.as_mut_ptr().cast(), iov_len: len };
    // SAFETY: one vector that describes the live buffer's capacity, to which the kernel writes before it returns.
    let read = unsafe { libc::preadv2(file.as_raw_fd(), &raw const iovec, 1, offset, libc::RWF_NOWAIT) };
    match usize::try_from(read) {
        Ok(read) if read == len => {
            // SAFETY: the kernel filled all `len` bytes of the capacity.
            unsafe { buf.set_len(len) };
            Ok(Some(Bytes::from(buf)))
        }
        // Short: the rest is not there, or the file ends. Who waits for it finds out which.
        Ok(_) => Ok(None),
        Err(_) => match io::Error::last_os_error() {
            error if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EOPNOTSUPP | libc::EINTR)) => {
                Ok(None)
            }
            error => Err(error),
        },
    }
}

/// The number of `cachestat(2)`, the same on every architecture (kernel 6.5).
const SYS_CACHESTAT: libc::c_long = 451;

/// Says whether the pages of a range are in memory; pages that a disk is still filling count as well.
pub(crate) fn cached(file: &fs::File, offset: u64, len: usize) -> io::Result<bool> {
    if len == 0 {
        return Ok(true);
    }
    let (first, span) = pages(offset, len);
    let range = [first, span];
    // Five counts: in the cache, dirty, under write-back, evicted, recently evicted.
    let mut counts = [0u64; 5];
    // SAFETY: the pointers describe live arrays of the layout that the call has: two and five 64-bit integers.
    let done = unsafe {
        libc::syscall(SYS_CACHESTAT, file.as_raw_fd(), range.as_ptr(), counts.as_mut_ptr(), 0 as libc::c_uint)
    };
    if done != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(counts[0] * page_bytes() >= span)
}

/// Says whether all bytes of a range are in memory, ready to be read.
pub(crate) fn resident(file: &fs::File, offset: u64, len: usize) -> io::Result<bool> {
    if len == 0 {
        return Ok(true);
    }
    let (first, span) = pages(offset, len);
    let at = file_offset(first)?;
    let span = usize::try_from(span).map_err(io::Error::other)?;
    // SAFETY: a new mapping at an address of the kernel's choice. No byte of it is ever touched, so neither a truncation
    // nor a bad disk can raise a signal.
    let mapped = unsafe {
        libc::mmap(std::ptr::null_mut(), span, libc::PROT_READ, libc::MAP_SHARED, file.as_raw_fd(), at)
    };
    if mapped == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    let mut there = vec![0u8; span.div_ceil(page_bytes() as usize)];
    // SAFETY: the mapping just made, and a vector with one byte for each page of it.
    let probed = unsafe { libc::mincore(mapped, span, there.as_mut_ptr()) };
    let probed = if probed == 0 { Ok(()) } else { Err(io::Error::last_os_error()) };
    // SAFETY: the mapping just made, which nobody else knows of.
    unsafe { libc::munmap(mapped, span) };
    probed.map(|()| there.iter().all(|page| page & 1 == 1))
}

/// Tells the kernel what a range will be used for; `len` 0 is to the file's end.
pub(crate) fn advise(fd: impl AsFd, offset: u64, len: u64, advice: libc::c_int) -> io::Result<()> {
    let (offset, len) = (file_offset(offset)?, file_offset(len)?);
    // SAFETY: no pointers.
    match unsafe { libc::posix_fadvise(fd.as_fd().as_raw_fd(), offset, len, advice) } {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

/// The pages that hold a range: where the first begins, and their bytes together.
fn pages(offset: u64, len: usize) -> (u64, u64) {
    let page = page_bytes();
    let first = offset / page * page;
    (first, (offset + len as u64 - first).div_ceil(page) * page)
}

fn page_bytes() -> u64 {
    static PAGE_BYTES: std::sync::OnceLock<u64> = std::sync::OnceLock::new();
    *PAGE_BYTES.get_or_init(|| {
        // SAFETY: no pointers.
        let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        u64::try_from(bytes).ok().filter(|bytes| bytes.is_power_of_two()).unwrap_or(4096)
    })
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
