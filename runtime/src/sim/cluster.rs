//! Many simulated nodes and the network between them.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::{Pause, Rng, SimClock, SimDisk, SimRuntime, connection};
use crate::cores::{self, CoreResult, End};
use crate::tasks::OnCore;

/// Segments a connection, and connections a listener, may hold that nobody has taken yet.
const SEGMENTS_MAX: usize = 1 << 16;

/// What a cluster is made from.
#[derive(Clone, Debug)]
pub struct ClusterConfig {
    /// Where all chance comes from.
    pub seed: u64,
    /// Messages take at least this long.
    pub latency_min: Duration,
    /// Messages take at most this long.
    pub latency_max: Duration,
    /// A run that takes longer than this, in virtual time, has failed.
    pub duration_max: Duration,
}

impl ClusterConfig {
    /// A cluster of a seed, with latencies of 1 to 20 ms and a minute to do its work.
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            latency_min: Duration::from_millis(1),
            latency_max: Duration::from_millis(20),
            duration_max: Duration::from_secs(60),
        }
    }
}

/// Simulated nodes over a simulated network, all on the calling thread. One per process and run, if runs are to
/// be compared: nodes get their addresses from their order.
pub struct Cluster<'a> {
    seed: u64,
    sim: turmoil::Sim<'a>,
    machines: BTreeMap<String, Machine>,
    end: Arc<End>,
}

/// What of a node outlives its process.
#[derive(Clone, Debug)]
struct Machine {
    disk: SimDisk,
    clock: SimClock,
    pause: Pause,
}

impl Machine {
    fn new(seed: u64) -> Self {
        Self { disk: SimDisk::new(seed), clock: SimClock::new(), pause: Pause::default() }
    }
}

impl<'a> Cluster<'a> {
    /// Makes a cluster without nodes.
    pub fn new(config: &ClusterConfig) -> Self {
        let mut builder = turmoil::Builder::new();
        builder
            .rng_seed(config.seed)
            .min_message_latency(config.latency_min)
            .max_message_latency(config.latency_max)
            .simulation_duration(config.duration_max)
            // What lies unread before a process that stands still; turmoil panics beyond it.
            .tcp_capacity(SEGMENTS_MAX);
        connection::forget_all();
        let end = Arc::new(End::new());
        Self { seed: config.seed, sim: builder.build(), machines: BTreeMap::new(), end }
    }

    /// Adds a node that runs `main` from its start, and again from each [`restart`](Self::restart). Others reach it
    /// as `NAME:PORT` when it listens on `0.0.0.0:PORT`. Its disk is new and empty, and returned.
    pub fn node<M, F>(&mut self, name: &str, core_count: u16, main: M) -> SimDisk
    where
        M: Fn(SimRuntime) -> F + 'a,
        F: Future<Output = CoreResult> + 'static,
    {
        let seed = self.node_seed(name);
        let machine = Machine::new(seed);
        let starts = Rc::new(Cell::new(0));
        let for_node = machine.clone();
        self.sim.host(name, move || {
            // Each start draws its own random numbers: a restarted node must not repeat its ids.
            let seed = Rng::new(seed).fork(starts.get()).next();
            starts.set(starts.get() + 1);
            let Machine { disk, clock, pause } = for_node.clone();
            pause.process(OnCore::new(to_turmoil(main(SimRuntime::of(seed, core_count, disk, clock)))))
        });
        let disk = machine.disk.clone();
        self.machines.insert(name.to_owned(), machine);
        disk
    }

    /// Adds a client: [`run`](Self::run) ends when all clients have ended. It has a disk of its own, and one core.
    pub fn client<M, F>(&mut self, name: &str, main: M)
    where
        M: FnOnce(SimRuntime) -> F,
        F: Future<Output = CoreResult> + 'static,
    {
        let seed = self.node_seed(name);
        let node = SimRuntime::of(seed, 1, SimDisk::new(seed), SimClock::new());
        self.sim.client(name, OnCore::new(to_turmoil(main(node))));
    }

    /// Runs until all clients have ended.
    ///
    /// # Errors
    /// That of the first client or node that failed; when the time is up; when a task of a node panicked.
    pub fn run(&mut self) -> CoreResult {
        while !self.step()? {}
        Ok(())
    }

    /// Lets a millisecond of virtual time pass; true when all clients have ended.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn step(&mut self) -> Result<bool, Box<dyn std::error::Error + Send + Sync>> {
        let sim = &mut self.sim;
        let stepped = cores::reporting_panics_to(&self.end, || sim.step());
        if let Some(failure) = self.end.take() {
            return Err(failure.reason.into());
        }
        stepped.map_err(|error| error.to_string().into())
    }

    /// Kills a node's process. What it has written stays. Unknown names are ignored.
    pub fn kill(&mut self, name: &str) {
        if let Some(machine) = self.machines.get(name) {
            self.sim.crash(name);
            machine.disk.kill();
            machine.pause.resume();
        }
    }

    /// Cuts a node's power: its disk keeps what was flushed and, by chance, some of what was not.
    pub fn power_cut(&mut self, name: &str) {
        if let Some(machine) = self.machines.get(name) {
            self.sim.crash(name);
            machine.disk.power_cut();
            machine.pause.resume();
        }
    }

    /// Starts a node again after [`kill`](Self::kill) or [`power_cut`](Self::power_cut).
    pub fn restart(&mut self, name: &str) {
        if self.machines.contains_key(name) {
            self.sim.bounce(name);
        }
    }

    /// Lets a node's process stand still: see [`Pause`].
    pub fn pause(&self, name: &str) {
        if let Some(machine) = self.machines.get(name) {
            machine.pause.pause();
        }
    }

    /// Lets it go on.
    pub fn resume(&self, name: &str) {
        if let Some(machine) = self.machines.get(name) {
            machine.pause.resume();
        }
    }

    /// Returns a node's wall clock, to skew it; it goes on over restarts.
    pub fn clock(&self, name: &str) -> Option<SimClock> {
        self.machines.get(name).map(|machine| machine.clock.clone())
    }

    /// Lets no message pass between two nodes, either way. A connection that lost one hangs for ever, as one over a
    /// dead link does until somebody gives up.
    pub fn partition(&self, one: &str, other: &str) {
        self.sim.partition(one, other);
    }

    /// Heals a partition of both ways.
    pub fn repair(&self, one: &str, other: &str) {
        self.sim.repair(one, other);
    }

    /// Lets no message pass from one node to another; the way back is open.
    pub fn partition_oneway(&self, from: &str, to: &str) {
        self.sim.partition_oneway(from, to);
    }

    /// Heals a partition of one way.
    pub fn repair_oneway(&self, from: &str, to: &str) {
        self.sim.repair_oneway(from, to);
    }

    /// Sets how long messages between two nodes take, at most, from now on.
    pub fn set_latency_max(&self, one: &str, other: &str, latency_max: Duration) {
        self.sim.set_link_max_message_latency(one, other, latency_max);
    }

    /// Resets every connection between two nodes (or clients).
    pub fn reset_connections(&self, one: &str, other: &str) {
        connection::reset_between(self.sim.lookup(one), self.sim.lookup(other));
    }

    /// Returns the virtual time since the start.
    pub fn elapsed(&self) -> Duration {
        self.sim.elapsed()
    }

    fn node_seed(&self, name: &str) -> u64 {
        let mut rng = Rng::new(self.seed);
        for byte in name.bytes() {
            rng = rng.fork(u64::from(byte));
        }
        rng.next()
    }
}

/// Turmoil's errors are not `Send`; ours are.
async fn to_turmoil(main: impl Future<Output = CoreResult>) -> turmoil::Result {
    main.await.map_err(|error| error.to_string().into())
}

impl fmt::Debug for Cluster<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster").field("seed", &self.seed).field("elapsed", &self.elapsed()).finish()
    }
}
