//! What a connection still has to say: bytes in memory, and stretches of files that go out by sendfile.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, IoSlice, Write};
use std::net::TcpStream;
use std::sync::Arc;

/// One stretch in the order of the connection.
#[derive(Debug)]
enum Piece {
    Bytes { bytes: Arc<[u8]>, sent: usize },
    File { file: Arc<File>, at: u64, left: usize },
}

/// Most pieces of one write.
const PIECES_MAX: usize = 64;

/// Bytes on their way out of a socket that does not block.
#[derive(Debug, Default)]
pub struct Outbox {
    pieces: VecDeque<Piece>,
}

impl Outbox {
    /// Whether all was sent.
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Adds bytes at the end.
    pub fn push(&mut self, bytes: impl Into<Arc<[u8]>>) {
        self.pieces.push_back(Piece::Bytes { bytes: bytes.into(), sent: 0 });
    }

    /// Adds `length` bytes of a file at the end, which must be there already.
    pub fn push_file(&mut self, file: &Arc<File>, at: u64, length: usize) {
        if length > 0 {
            self.pieces.push_back(Piece::File { file: Arc::clone(file), at, left: length });
        }
    }

    /// Sends as much as the socket takes. Whether all of it is sent now.
    pub fn send(&mut self, socket: &mut TcpStream) -> io::Result<bool> {
        while let Some(first) = self.pieces.front_mut() {
            let sent = match first {
                Piece::File { file, at, left } => {
                    rustix::fs::sendfile(&*socket, &**file, Some(at), *left).map_err(io::Error::from)
                }
                Piece::Bytes { .. } => self.write(socket),
            };
            match sent {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(sent) => self.advance(sent),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(true)
    }

    /// One write of the bytes at the front, up to the first file.
    fn write(&self, socket: &mut TcpStream) -> io::Result<usize> {
        let mut slices = [IoSlice::new(&[]); PIECES_MAX];
        let mut count = 0;
        for piece in self.pieces.iter().take(PIECES_MAX) {
            let Piece::Bytes { bytes, sent } = piece else { break };
            slices[count] = IoSlice::new(&bytes[*sent..]);
            count += 1;
        }
        socket.write_vectored(&slices[..count])
    }

    fn advance(&mut self, mut by: usize) {
        while by > 0 {
            let Some(first) = self.pieces.front_mut() else { return };
            let left = match first {
                Piece::Bytes { bytes, sent } => {
                    let step = by.min(bytes.len() - *sent);
                    *sent += step;
                    by -= step;
                    bytes.len() - *sent
                }
                // sendfile has moved `at` already.
                Piece::File { left, .. } => {
                    let step = by.min(*left);
                    *left -= step;
                    by -= step;
                    *left
                }
            };
            if left > 0 {
                return;
            }
            self.pieces.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::net::TcpListener;

    #[test]
    fn bytes_and_files_go_out_in_order() {
        let path = std::env::temp_dir().join(format!("ouzel-bench-outbox-{}", std::process::id()));
        std::fs::write(&path, b"0123456789").unwrap();
        let file = Arc::new(File::open(&path).unwrap());
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let mut sender = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut receiver, _) = listener.accept().unwrap();
        let mut outbox = Outbox::default();
        outbox.push(&b"ab"[..]);
        outbox.push(&b"cd"[..]);
        outbox.push_file(&file, 3, 4);
        outbox.push_file(&file, 0, 0);
        outbox.push(&b"ef"[..]);
        assert!(outbox.send(&mut sender).unwrap() && outbox.is_empty());
        drop(sender);
        let mut text = String::new();
        receiver.read_to_string(&mut text).unwrap();
        assert_eq!(text, "abcd3456ef");
        std::fs::remove_file(&path).unwrap();
    }
}
