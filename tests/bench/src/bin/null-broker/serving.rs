//! The loop: readiness from epoll, frames in, answers out, fetches that wait for data.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::net::TcpListener;
use std::time::{Duration, Instant};

use ouzel_bench::connection::Connection;
use rustix::event::epoll;

use crate::answers::{Fetch, answer, serve_fetch};
use crate::log::Logs;

const LISTENER: u64 = 0;
/// While fetches wait, deadlines are looked at this often.
const TICK: Duration = Duration::from_millis(10);

#[derive(Debug)]
struct Client {
    connection: Connection,
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
    let mut clients: BTreeMap<u64, Client> = BTreeMap::new();
    let mut next = LISTENER + 1;
    let mut events = Vec::with_capacity(256);
    loop {
        let any_waits = clients.values().any(|client| client.waiting.is_some());
        let tick = rustix::event::Timespec { tv_sec: 0, tv_nsec: TICK.as_nanos() as i64 };
        events.clear();
        epoll::wait(&poll, rustix::buffer::spare_capacity(&mut events), any_waits.then_some(&tick))?;
        let mut gone = Vec::new();
        for event in &events {
            let id = event.data.u64();
            if id == LISTENER {
                while let Some(client) = accept(&listener)? {
                    let data = epoll::EventData::new_u64(next);
                    epoll::add(&poll, &client.connection.socket, data, epoll::EventFlags::IN)?;
                    clients.insert(next, client);
                    next += 1;
                }
            } else if let Some(client) = clients.get_mut(&id)
                && let Err(error) = client.advance(port, &mut logs)
            {
                if error.kind() != io::ErrorKind::UnexpectedEof {
                    eprintln!("null-broker: a connection ends: {error}");
                }
                gone.push(id);
            }
        }
        // What was appended just now may be what others wait for.
        let now = Instant::now();
        for (id, client) in &mut clients {
            if client.serve_waiting(now, port, &mut logs).is_err() {
                gone.push(*id);
                continue;
            }
            let wants_to_write = !client.connection.outbox.is_empty();
            if wants_to_write != client.wants_to_write {
                client.wants_to_write = wants_to_write;
                // Who does not take answers is not heard either.
                let flags = if wants_to_write { epoll::EventFlags::OUT } else { epoll::EventFlags::IN };
                epoll::modify(&poll, &client.connection.socket, epoll::EventData::new_u64(*id), flags)?;
            }
        }
        for id in gone {
            clients.remove(&id);
        }
    }
}

fn accept(listener: &TcpListener) -> io::Result<Option<Client>> {
    match listener.accept() {
        Ok((socket, _)) => {
            let connection = Connection::new(socket)?;
            Ok(Some(Client { connection, waiting: None, wants_to_write: false }))
        }
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(e) => Err(e),
    }
}

impl Client {
    /// Reads what came, answers what is whole, sends what there is.
    fn advance(&mut self, port: u16, logs: &mut Logs) -> io::Result<()> {
        if self.connection.outbox.is_empty() {
            // epoll tells again if there is more, and others have their turn.
            self.connection.receive()?;
            self.answer(port, logs)?;
        }
        self.connection.send()?;
        Ok(())
    }

    fn answer(&mut self, port: u16, logs: &mut Logs) -> io::Result<()> {
        if self.waiting.is_some() {
            return Ok(());
        }
        let waiting = &mut self.waiting;
        self.connection.frames(|frame, outbox| {
            if let Some(fetch) = answer(port, logs, frame, outbox)? {
                let until = Instant::now() + fetch.wait_max;
                *waiting = Some((fetch, until));
            }
            Ok(waiting.is_none())
        })
    }

    fn serve_waiting(&mut self, now: Instant, port: u16, logs: &mut Logs) -> io::Result<()> {
        let Some((fetch, until)) = &self.waiting else { return Ok(()) };
        if serve_fetch(logs, fetch, now >= *until, &mut self.connection.outbox) {
            self.waiting = None;
            self.answer(port, logs)?;
            self.connection.send()?;
        }
        Ok(())
    }
}
