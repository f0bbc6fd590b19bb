//! A socket that does not block, with what came in and what is to go out.

use std::io::{self, Read};
use std::net::TcpStream;

use crate::outbox::Outbox;
use crate::wire::first_frame;

/// Free room that a read is given at least, in bytes.
const READ_BYTES: usize = 256 << 10;

/// One connection, of either end.
#[derive(Debug)]
pub struct Connection {
    /// For epoll.
    pub socket: TcpStream,
    /// What is to go out.
    pub outbox: Outbox,
    received: Vec<u8>,
    /// Of `received`, what the socket has filled.
    filled: usize,
}

impl Connection {
    /// Takes a connected socket over.
    pub fn new(socket: TcpStream) -> io::Result<Connection> {
        socket.set_nonblocking(true)?;
        socket.set_nodelay(true)?;
        Ok(Connection { socket, outbox: Outbox::default(), received: Vec::new(), filled: 0 })
    }

    /// Sends what the socket takes. Whether all of it is sent now.
    pub fn send(&mut self) -> io::Result<bool> {
        self.outbox.send(&mut self.socket)
    }

    /// One read. Whether there may be more to read now. The other end's goodbye is an error.
    pub fn receive(&mut self) -> io::Result<bool> {
        if self.received.len() < self.filled + READ_BYTES {
            self.received.resize(self.filled + READ_BYTES * 2, 0);
        }
        let room = self.received.len() - self.filled;
        match self.socket.read(&mut self.received[self.filled..]) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(length) => {
                self.filled += length;
                Ok(length == room)
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => Ok(true),
            Err(e) => Err(e),
        }
    }

    /// Hands out whole frames in order, without their lengths, until `each` wants no more.
    pub fn frames(
        &mut self,
        mut each: impl FnMut(&mut [u8], &mut Outbox) -> io::Result<bool>,
    ) -> io::Result<()> {
        let mut done = 0;
        while let Some((_, taken)) = first_frame(&self.received[done..self.filled])? {
            let goes_on = each(&mut self.received[done + 4..done + taken], &mut self.outbox)?;
            done += taken;
            if !goes_on {
                break;
            }
        }
        self.received.copy_within(done..self.filled, 0);
        self.filled -= done;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::response;
    use std::io::Write;
    use std::net::TcpListener;

    #[test]
    fn frames_come_whole_however_they_arrive() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let mut far = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let mut near = Connection::new(listener.accept().unwrap().0).unwrap();
        let bytes = [response(1, b"one"), response(2, b"two"), response(3, b"three")].concat();
        let mut seen = Vec::new();
        far.write_all(&bytes[..20]).unwrap();
        drop((far.write_all(&bytes[20..]).unwrap(), far));
        // Until the goodbye all has arrived.
        while near.receive().is_ok() {
            near.frames(|frame, _| {
                seen.push(frame[3]);
                Ok(frame[3] != 2)
            })
            .unwrap();
        }
        near.frames(|frame, _| {
            seen.push(frame[3]);
            Ok(true)
        })
        .unwrap();
        assert_eq!(seen, [1, 2, 3]);
    }
}
