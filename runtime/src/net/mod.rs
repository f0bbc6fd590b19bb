//! Sockets: tokio's, or turmoil's in a simulation.

mod stream;

use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};

use tokio::net::{TcpListener, TcpSocket, TcpStream};

pub use stream::{FileSent, Handoff, OwnedReadHalf, OwnedWriteHalf, Stream};

/// Connections the kernel holds for a listener that has not accepted them yet.
const BACKLOG: u32 = 1024;

/// One core's door to the network.
#[derive(Clone)]
pub struct Net {
    kind: Kind,
}

#[derive(Clone, Copy)]
enum Kind {
    Real,
    #[cfg(feature = "sim")]
    Sim,
}

impl Net {
    /// The machine's own network.
    pub(crate) fn real() -> Self {
        Self { kind: Kind::Real }
    }

    #[cfg(feature = "sim")]
    pub(crate) fn simulated() -> Self {
        Self { kind: Kind::Sim }
    }

    /// Listens on `HOST:PORT`; port 0 picks a free one. No two listeners share a port.
    ///
    /// # Errors
    /// `AddrInUse` when somebody listens there; when the host does not resolve or is not ours.
    pub async fn listen(&self, address: &str) -> io::Result<Listener> {
        let kind = match self.kind {
            Kind::Real => ListenerKind::Real(listen(address).await?),
            #[cfg(feature = "sim")]
            Kind::Sim => {
                in_cluster()?;
                ListenerKind::Sim(turmoil::net::TcpListener::bind(simulated(address)).await?)
            }
        };
        Ok(Listener { kind })
    }

    /// Connects to `HOST:PORT`.
    ///
    /// # Errors
    /// When the host does not resolve, or no address of it accepts. There is no time limit: set one with
    /// [`Clock::timeout`](crate::Clock::timeout).
    pub async fn connect(&self, address: &str) -> io::Result<Stream> {
        match self.kind {
            Kind::Real => {
                let mut failed = None;
                for address in resolve(address).await? {
                    match TcpStream::connect(address).await {
                        Ok(stream) => return Ok(Stream::real(stream)),
                        Err(error) => failed = Some(error),
                    }
                }
                Err(failed.unwrap_or_else(|| no_address(address)))
            }
            #[cfg(feature = "sim")]
            Kind::Sim => {
                in_cluster()?;
                let stream = turmoil::net::TcpStream::connect(address).await?;
                Ok(Stream::simulated(crate::sim::SimStream::new(stream)))
            }
        }
    }
}

impl fmt::Debug for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Net")
    }
}

#[cfg(feature = "sim")]
fn in_cluster() -> io::Result<()> {
    if turmoil::in_simulation() {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::Unsupported, "a simulated node outside a cluster has no network"))
}

/// Where a simulated node listens when it is asked to listen on `address`: a name stands for all it has, which is one. That
/// the name is its own is taken on trust.
#[cfg(feature = "sim")]
fn simulated(address: &str) -> String {
    match address.rsplit_once(':') {
        Some((host, port)) if host.parse::<std::net::IpAddr>().is_err() && host != "localhost" => {
            format!("0.0.0.0:{port}")
        }
        _ => address.to_owned(),
    }
}

async fn listen(address: &str) -> io::Result<TcpListener> {
    let mut failed = None;
    for address in resolve(address).await? {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        // Lets a restart bind while old connections linger. SO_REUSEPORT stays off: with it a second broker
        // would take half of our connections instead of failing.
        socket.set_reuseaddr(true)?;
        match socket.bind(address).and_then(|()| socket.listen(BACKLOG)) {
            Ok(listener) => return Ok(listener),
            Err(error) => failed = Some(error),
        }
    }
    Err(failed.unwrap_or_else(|| no_address(address)))
}

async fn resolve(address: &str) -> io::Result<Vec<SocketAddr>> {
    if let Ok(address) = address.parse() {
        return Ok(vec![address]);
    }
    let name = address.to_owned();
    // A name server may take seconds: on a thread of tokio's, which ends when idle.
    let found = tokio::task::spawn_blocking(move || name.to_socket_addrs().map(Vec::from_iter)).await;
    found.unwrap_or_else(|_| Err(io::Error::other("name resolution panicked")))
}

fn no_address(address: &str) -> io::Error {
    io::Error::new(io::ErrorKind::AddrNotAvailable, format!("'{address}' has no address"))
}

/// A listening socket.
pub struct Listener {
    kind: ListenerKind,
}

enum ListenerKind {
    Real(TcpListener),
    #[cfg(feature = "sim")]
    Sim(turmoil::net::TcpListener),
}

impl Listener {
    /// Returns the address it listens on, with the port that was picked.
    ///
    /// # Errors
    /// Those of `getsockname(2)`.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match &self.kind {
            ListenerKind::Real(listener) => listener.local_addr(),
            #[cfg(feature = "sim")]
            ListenerKind::Sim(listener) => listener.local_addr(),
        }
    }

    /// Waits for a connection. Dropping the future loses none.
    ///
    /// # Errors
    /// Those of `accept(2)`, also those of a connection that died in the queue: go on accepting, after a pause
    /// if there are no more file descriptors.
    pub async fn accept(&self) -> io::Result<(Stream, SocketAddr)> {
        match &self.kind {
            ListenerKind::Real(listener) => {
                let (stream, peer) = listener.accept().await?;
                Ok((Stream::real(stream), peer))
            }
            #[cfg(feature = "sim")]
            ListenerKind::Sim(listener) => {
                let (stream, peer) = listener.accept().await?;
                Ok((Stream::simulated(crate::sim::SimStream::new(stream)), peer))
            }
        }
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Listener").field(&self.local_addr().ok()).finish()
    }
}
