//! The loop: readiness from epoll, frames in, answers out, fetches that wait for data.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use ouzel_bench::outbox::Outbox;
use ouzel_bench::wire::first_frame;
use rustix::event::epoll;

use crate::answers::{Fetch, answer, serve_fetch};
use crate::log::Logs;

const LISTENER: u64 = 0;
/// Free room that a read is given at least, in bytes.
const READ_BYTES: usize = 256 << 10;
/// While fetches wait, deadlines are looked at this often.
const TICK: Duration = Duration::from_millis(10);

#[derive(Debug)]
struct Connection {
    socket: TcpStream,
    received: Vec<u8>,
    /// Of `received`, what a socket has filled.
    filled: usize,
    outbox: Outbox,
    /// A fetch without data, and until when it may wait. Kafka's clients send nothing behind it that could be answered.
    waiting: Option<(Fetch, Instant)>,
    wants_to_write: bool,
}

/// Serves until a signal ends the process.
pub(crate) fn serve(port: u16, mut logs: Logs) -> io::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", port))?;
    listener.set_nonblocking(true)?;
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    epoll::add(&poll, &listener, epoll::EventData::new_u64(LISTENER), epoll::EventFlags::IN)?;
    println!("ready");
    io::stdout().flush()?;
    let mut connections: BTreeMap<u64, Connection> = BTreeMap::new();
    let mut next = LISTENER + 1;
    let mut events = Vec::with_capacity(256);
    loop {
        let any_waits = connections.values().any(|connection| connection.waiting.is_some());
        let tick = rustix::event::Timespec { tv_sec: 0, tv_nsec: TICK.as_nanos() as i64 };
        events.clear();
        epoll::wait(&poll, rustix::buffer::spare_capacity(&mut events), any_waits.then_some(&tick))?;
        let mut gone = Vec::new();
        for event in &events {
            let id = event.data.u64();
            if id == LISTENER {
                while let Some(connection) = accept(&listener)? {
                    let data = epoll::EventData::new_u64(next);
                    epoll::add(&poll, &connection.socket, data, epoll::EventFlags::IN)?;
                    connections.insert(next, connection);
                    next += 1;
                }
            } else if let Some(connection) = connections.get_mut(&id)
                && let Err(error) = connection.advance(port, &mut logs)
            {
                if error.kind() != io::ErrorKind::UnexpectedEof {
                    eprintln!("null-broker: a connection ends: {error}");
                }
                gone.push(id);
            }
        }
        // What was appended just now may be what others wait for.
        let now = Instant::now();
        for (id, connection) in &mut connections {
            if connection.serve_waiting(now, port, &mut logs).is_err() {
                gone.push(*id);
                continue;
            }
            let wants_to_write = !connection.outbox.is_empty();
            if wants_to_write != connection.wants_to_write {
                connection.wants_to_write = wants_to_write;
                // Who does not take answers is not heard either.
                let flags = if wants_to_write { epoll::EventFlags::OUT } else { epoll::EventFlags::IN };
                epoll::modify(&poll, &connection.socket, epoll::EventData::new_u64(*id), flags)?;
            }
        }
        for id in gone {
            connections.remove(&id);
        }
    }
}

fn accept(listener: &TcpListener) -> io::Result<Option<Connection>> {
    match listener.accept() {
        Ok((socket, _)) => {
            socket.set_nonblocking(true)?;
            socket.set_nodelay(true)?;
            Ok(Some(Connection {
                socket,
                received: Vec::new(),
                filled: 0,
                outbox: Outbox::default(),
                waiting: None,
                wants_to_write: false,
            }))
        }
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(e) => Err(e),
    }
}

impl Connection {
    /// Reads what came, answers what is whole, sends what there is.
    fn advance(&mut self, port: u16, logs: &mut Logs) -> io::Result<()> {
        if self.outbox.is_empty() {
            self.receive()?;
            self.answer(port, logs)?;
        }
        self.outbox.send(&mut self.socket)?;
        Ok(())
    }

    /// One read: epoll tells again if there is more, and others have their turn.
    fn receive(&mut self) -> io::Result<()> {
        if self.received.len() < self.filled + READ_BYTES {
            self.received.resize(self.filled + READ_BYTES * 2, 0);
        }
        match self.socket.read(&mut self.received[self.filled..]) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(length) => {
                self.filled += length;
                Ok(())
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(e) => Err(e),
        }
    }

    fn answer(&mut self, port: u16, logs: &mut Logs) -> io::Result<()> {
        let mut done = 0;
        while self.waiting.is_none() {
            let Some((_, taken)) = first_frame(&self.received[done..self.filled])? else { break };
            let frame = &mut self.received[done + 4..done + taken];
            let waits = answer(port, logs, frame, &mut self.outbox)?;
            self.waiting = waits.map(|fetch| {
                let until = Instant::now() + fetch.wait_max;
                (fetch, until)
            });
            done += taken;
        }
        self.received.copy_within(done..self.filled, 0);
        self.filled -= done;
        Ok(())
    }

    fn serve_waiting(&mut self, now: Instant, port: u16, logs: &mut Logs) -> io::Result<()> {
        let Some((fetch, until)) = &self.waiting else { return Ok(()) };
        if serve_fetch(logs, fetch, now >= *until, &mut self.outbox) {
            self.waiting = None;
            self.answer(port, logs)?;
            self.outbox.send(&mut self.socket)?;
        }
        Ok(())
    }
}
