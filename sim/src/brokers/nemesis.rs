//! What goes wrong in a run, and when: chosen by chance from the seed, undone in time, healed in the end.

use std::fmt;
use std::time::Duration;

use ouzel_runtime::sim::{Cluster, Rng, SimDisk};
use ouzel_storage::Durability;

use super::Options;
use super::machine::id_of;
use super::run::OFFSETS_PARTITIONS;
use super::shared::{OFFSETS_TOPIC, Shared};
use crate::trace::Trace;

/// Clocks are wrong by up to this: the topic takes records that are up to an hour ahead of its broker's clock.
const SKEW_MAX_MS: u64 = 50 * 60 * 1000;

/// How long faults happen to a cluster that forms.
const EARLY_FAULTS: Duration = Duration::from_secs(6);

/// A fault; nodes are numbers from 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The process dies; it starts again later.
    Kill(usize),
    /// The machine loses its power; it starts again later.
    PowerCut(usize),
    /// All processes die at once; they start again later.
    KillAll,
    /// The power of all machines fails at once.
    PowerCutAll,
    /// The process stands still for a while.
    Pause(usize),
    /// No message passes between two hosts, either way.
    Cut(String, String),
    /// No message passes one way.
    CutOneWay(String, String),
    /// Messages between two hosts take long.
    SlowLink(String, String),
    /// All connections between two hosts are reset.
    Reset(String, String),
    /// Every operation of the disk takes long.
    SlowDisk(usize),
    /// Flushes take long.
    SlowFlushes(usize),
    /// A read fails; the node is started again later.
    ReadError(usize),
    /// A write fails, half done; the node is started again later.
    WriteError(usize),
    /// A flush fails; the node is started again later.
    FlushError(usize),
    /// There is less room than the broker keeps free, or (true) none at all.
    FullDisk(usize, bool),
    /// The wall clock jumps to so many milliseconds beside the time, and stays there.
    ClockJump(usize, i64),
    /// The disk says it has flushed and has not.
    Lie(usize),
    /// The machine comes back later with an empty disk.
    Wipe(usize),
}

/// What ends a fault.
enum Undo {
    Start(usize),
    Restart(usize),
    Resume(usize),
    Repair(String, String),
    RepairOneWay(String, String),
    FastLink(String, String),
    FastDisk(usize),
    Room(usize),
    Honest(usize),
}

/// Where a fault may strike.
pub(super) struct Nemesis {
    rng: Rng,
    trace: Trace,
    nodes: Vec<Host>,
    clients: Vec<String>,
    latency_max: Duration,
    lying: bool,
    /// Whether power is cut only where a majority of every group keeps what it has acknowledged.
    spares: bool,
    wipes: bool,
    shared: Shared,
    next: Duration,
    undo: Vec<(Duration, Undo)>,
    /// Machines that lost their power and have not been asked for yet.
    pub(super) power_cuts: Vec<usize>,
    /// Flushes that were lies, on machines that then lost their power.
    pub(super) lies_told: bool,
    pub(super) faults: u64,
}

struct Host {
    name: String,
    disk: SimDisk,
    is_up: bool,
    /// Its disk has failed it, or may have: what it took out of service comes back when it is started again.
    is_hurt: bool,
    /// It was given an empty disk.
    is_replaced: bool,
}

impl Nemesis {
    pub(super) fn new(
        options: &Options,
        nodes: Vec<(String, SimDisk)>,
        clients: Vec<String>,
        latency_max: Duration,
        wipes: bool,
        shared: Shared,
        trace: Trace,
    ) -> Nemesis {
        let mut rng = Rng::new(options.seed).fork(0xbad);
        let forgets = options.durability != Durability::Durable && options.nodes > 1;
        Nemesis {
            spares: forgets && rng.chance(3, 4),
            wipes,
            rng,
            shared,
            trace,
            nodes: nodes
                .into_iter()
                .map(|(name, disk)| Host { name, disk, is_up: true, is_hurt: false, is_replaced: false })
                .collect(),
            clients,
            latency_max,
            lying: options.lying_disks,
            next: Duration::ZERO,
            undo: Vec::new(),
            power_cuts: Vec::new(),
            lies_told: false,
            faults: 0,
        }
    }

    /// Lets happen what is due.
    pub(super) fn step(&mut self, cluster: &mut Cluster<'_>) {
        let now = cluster.elapsed();
        self.undo_due(cluster, now);
        if now < self.next {
            return;
        }
        self.next = now + Duration::from_millis(100 + self.rng.below(1200));
        if let Some(fault) = self.choose() {
            self.strike(cluster, now, &fault);
        }
    }

    /// As [`Nemesis::step`] while the cluster forms: for a while only, and sparing what it says to be on its disks.
    pub(super) fn step_early(&mut self, cluster: &mut Cluster<'_>) {
        let now = cluster.elapsed();
        self.undo_due(cluster, now);
        if now < self.next || now >= EARLY_FAULTS {
            return;
        }
        self.next = now + Duration::from_millis(100 + self.rng.below(1200));
        let node = self.rng.below(self.nodes.len() as u64) as usize;
        let other = (node + 1 + self.rng.below(self.nodes.len() as u64 - 1) as usize) % self.nodes.len();
        let name = |at: usize| self.nodes[at].name.clone();
        let fault = match self.rng.below(12) {
            0 | 1 => Fault::Kill(node),
            2 if self.may_cut(node) => Fault::PowerCut(node),
            2 => Fault::Kill(node),
            3 | 4 => Fault::Pause(node),
            5 => Fault::Cut(name(node), name(other)),
            6 => Fault::CutOneWay(name(node), name(other)),
            7 => Fault::SlowLink(name(node), name(other)),
            8 => Fault::SlowFlushes(node),
            _ => return,
        };
        self.strike(cluster, now, &fault);
    }

    /// Ends all faults, and starts all that is down.
    pub(super) fn heal(&mut self, cluster: &mut Cluster<'_>) {
        for host in &self.nodes {
            host.disk.heal();
            if let Some(clock) = cluster.clock(&host.name) {
                clock.set_skew_ms(0);
            }
        }
        self.undo_due(cluster, Duration::MAX);
        for node in 0..self.nodes.len() {
            if std::mem::take(&mut self.nodes[node].is_hurt) {
                self.start_again(cluster, node);
            }
        }
        for (at, host) in self.nodes.iter().enumerate() {
            for other in self.clients.iter().chain(self.nodes[..at].iter().map(|host| &host.name)) {
                cluster.repair(&host.name, other);
            }
        }
        self.note(cluster, format_args!("all is healed"));
    }

    /// Ends all nodes for good.
    pub(super) fn leave_broken(&mut self, cluster: &mut Cluster<'_>) {
        self.nodes.iter().for_each(|host| cluster.kill(&host.name));
    }

    /// Starts a node whose process has ended by itself.
    pub(super) fn start_again(&mut self, cluster: &mut Cluster<'_>, node: usize) {
        let name = self.nodes[node].name.clone();
        cluster.kill(&name);
        cluster.restart(&name);
        self.nodes[node].is_up = true;
    }

    /// A node has ended by itself after all was healed, so it will not start: its disk has lied, and what is left of the
    /// controller's log, or of the votes, does not fit together. Whoever runs it reads what it says, and gives it an empty
    /// disk.
    pub(super) fn replace_disk(&mut self, cluster: &mut Cluster<'_>, node: usize) {
        cluster.kill(&self.nodes[node].name);
        self.nodes[node].disk.wipe();
        self.nodes[node].is_replaced = true;
        self.note(cluster, format_args!("node {node} is given an empty disk"));
    }

    /// Whether as many nodes as can decide anything were given empty disks.
    pub(super) fn has_replaced_most(&self) -> bool {
        2 * self.nodes.iter().filter(|host| host.is_replaced).count() > self.nodes.len()
    }

    /// Whether a machine may lose its power without a loss that would be admitted.
    fn may_cut(&self, node: usize) -> bool {
        !self.spares || self.shared.bears_power_cut(id_of(node))
    }

    /// Whether a machine may lose its disk: all others are there, and have all that it has. The offsets' topic is there as well: if
    /// it were made while the machine is away, with two replicas, one of them there, nobody could lead what nobody has led yet.
    fn may_wipe(&self, node: usize) -> bool {
        let all_up = self.nodes.iter().all(|host| host.is_up && !host.is_hurt);
        let may_be_missed = self.shared.is_seen(OFFSETS_TOPIC, OFFSETS_PARTITIONS);
        self.wipes && all_up && may_be_missed && self.shared.bears_wipe(id_of(node))
    }

    /// Lets a node begin much later than the others.
    pub(super) fn hold_back(&mut self, cluster: &mut Cluster<'_>, node: usize) {
        let until = Duration::from_secs(4 + self.rng.below(10));
        cluster.kill(&self.nodes[node].name);
        self.nodes[node].is_up = false;
        self.undo.push((until, Undo::Start(node)));
        self.shared.events().add("nodes-joined-late", 1);
    }

    fn choose(&mut self) -> Option<Fault> {
        let node = self.rng.below(self.nodes.len() as u64) as usize;
        let one = self.nodes[node].name.clone();
        let others: Vec<String> = self
            .clients
            .iter()
            .chain(self.nodes.iter().map(|host| &host.name).filter(|name| **name != one))
            .cloned()
            .collect();
        let other = others[self.rng.below(others.len() as u64) as usize].clone();
        let kind = self.rng.below(36);
        Some(match kind {
            0..=4 => Fault::Kill(node),
            5..=9 if self.may_cut(node) => Fault::PowerCut(node),
            5..=9 => Fault::Kill(node),
            10 if self.spares => Fault::KillAll,
            10 => Fault::PowerCutAll,
            11..=13 => Fault::Pause(node),
            14..=16 => Fault::Cut(one, other),
            17 => Fault::CutOneWay(one, other),
            18 => Fault::CutOneWay(other, one),
            19 | 20 => Fault::SlowLink(one, other),
            21 | 22 => Fault::Reset(one, other),
            23 => Fault::SlowDisk(node),
            24 | 25 => Fault::SlowFlushes(node),
            26 => Fault::ReadError(node),
            27 => Fault::WriteError(node),
            28 => Fault::FlushError(node),
            29 => Fault::FullDisk(node, self.rng.chance(1, 2)),
            30 | 31 => {
                let by_ms = self.rng.below(2 * SKEW_MAX_MS).cast_signed() - SKEW_MAX_MS.cast_signed();
                Fault::ClockJump(node, by_ms)
            }
            32 | 33 if self.lying => Fault::Lie(node),
            32 => Fault::KillAll,
            34 | 35 if self.may_wipe(node) => Fault::Wipe(node),
            _ => return None,
        })
    }

    fn strike(&mut self, cluster: &mut Cluster<'_>, now: Duration, fault: &Fault) {
        let lasts = now + Duration::from_millis(200 + self.rng.below(2500));
        match fault {
            Fault::Kill(node) | Fault::PowerCut(node) | Fault::Wipe(node) if !self.nodes[*node].is_up => {
                return;
            }
            Fault::Kill(node) => self.kill(cluster, *node, lasts),
            Fault::KillAll => (0..self.nodes.len()).for_each(|node| self.kill(cluster, node, lasts)),
            Fault::PowerCut(node) => self.power_cut(cluster, *node, lasts),
            Fault::PowerCutAll => {
                for node in 0..self.nodes.len() {
                    self.power_cut(cluster, node, lasts);
                }
            }
            Fault::Pause(node) => {
                cluster.pause(&self.nodes[*node].name);
                self.undo.push((lasts, Undo::Resume(*node)));
            }
            Fault::Cut(one, other) => {
                cluster.partition(one, other);
                self.undo.push((lasts, Undo::Repair(one.clone(), other.clone())));
            }
            Fault::CutOneWay(from, to) => {
                cluster.partition_oneway(from, to);
                self.undo.push((lasts, Undo::RepairOneWay(from.clone(), to.clone())));
            }
            Fault::SlowLink(one, other) => {
                let latency_max = self.latency_max * 20;
                cluster.set_latency_max(one, other, latency_max);
                self.undo.push((lasts, Undo::FastLink(one.clone(), other.clone())));
            }
            Fault::Reset(one, other) => cluster.reset_connections(one, other),
            Fault::SlowDisk(node) => {
                self.nodes[*node].disk.set_delay_max(Duration::from_millis(50));
                self.undo.push((lasts, Undo::FastDisk(*node)));
            }
            Fault::SlowFlushes(node) => {
                self.nodes[*node].disk.set_flush_delay_max(Duration::from_millis(400));
                self.undo.push((lasts, Undo::FastDisk(*node)));
            }
            Fault::ReadError(node) => {
                self.nodes[*node].disk.fail_read_after(self.rng.below(10));
                self.undo.push((lasts, Undo::Restart(*node)));
            }
            Fault::WriteError(node) => {
                self.nodes[*node].disk.fail_write_after(self.rng.below(10));
                self.undo.push((lasts, Undo::Restart(*node)));
            }
            Fault::FlushError(node) => {
                self.nodes[*node].disk.fail_sync_after(self.rng.below(10));
                self.undo.push((lasts, Undo::Restart(*node)));
            }
            Fault::FullDisk(node, wholly) => {
                let disk = &self.nodes[*node].disk;
                let used: u64 = disk.files().iter().map(|(_, content)| content.len() as u64).sum();
                let room = if *wholly { self.rng.below(4096) } else { 16 << 20 };
                disk.set_capacity(Some(used + room));
                self.undo.push((lasts, Undo::Room(*node)));
                self.undo.push((lasts, Undo::Restart(*node)));
            }
            Fault::ClockJump(node, by_ms) => {
                if let Some(clock) = cluster.clock(&self.nodes[*node].name) {
                    clock.set_skew_ms(*by_ms);
                }
            }
            Fault::Wipe(node) => {
                self.nodes[*node].is_up = false;
                cluster.kill(&self.nodes[*node].name);
                self.nodes[*node].disk.wipe();
                self.shared.wiped(id_of(*node));
                self.undo.push((lasts, Undo::Start(*node)));
            }
            Fault::Lie(node) => {
                self.nodes[*node].disk.set_lies(true);
                self.undo.push((lasts, Undo::Honest(*node)));
            }
        }
        if let Fault::ReadError(node)
        | Fault::WriteError(node)
        | Fault::FlushError(node)
        | Fault::FullDisk(node, _) = fault
        {
            self.nodes[*node].is_hurt = true;
        }
        self.faults += 1;
        self.shared.events().add_fault(fault);
        self.note(cluster, format_args!("{fault:?} until {lasts:?}"));
    }

    fn kill(&mut self, cluster: &mut Cluster<'_>, node: usize, back: Duration) {
        let host = &mut self.nodes[node];
        if host.is_up {
            host.is_up = false;
            cluster.kill(&host.name);
            self.undo.push((back, Undo::Start(node)));
        }
    }

    fn power_cut(&mut self, cluster: &mut Cluster<'_>, node: usize, back: Duration) {
        let host = &mut self.nodes[node];
        // A machine that is down may still lose what its disk has not flushed.
        self.lies_told |= host.disk.counts().lies > 0;
        cluster.power_cut(&host.name);
        self.power_cuts.push(node);
        if host.is_up {
            host.is_up = false;
            self.undo.push((back, Undo::Start(node)));
        }
    }

    fn undo_due(&mut self, cluster: &mut Cluster<'_>, now: Duration) {
        let (due, later) = std::mem::take(&mut self.undo).into_iter().partition(|(at, _)| *at <= now);
        self.undo = later;
        for (_, undo) in due {
            self.end(cluster, &undo);
        }
    }

    fn end(&mut self, cluster: &mut Cluster<'_>, undo: &Undo) {
        match undo {
            Undo::Start(node) => {
                if !self.nodes[*node].is_up {
                    self.nodes[*node].is_up = true;
                    cluster.restart(&self.nodes[*node].name);
                    self.note(cluster, format_args!("node {node} starts"));
                }
            }
            Undo::Restart(node) => {
                if self.nodes[*node].is_up {
                    cluster.kill(&self.nodes[*node].name);
                    cluster.restart(&self.nodes[*node].name);
                    self.note(cluster, format_args!("node {node} is started again"));
                }
            }
            Undo::Resume(node) => cluster.resume(&self.nodes[*node].name),
            Undo::Repair(one, other) => cluster.repair(one, other),
            Undo::RepairOneWay(from, to) => cluster.repair_oneway(from, to),
            Undo::FastLink(one, other) => cluster.set_latency_max(one, other, self.latency_max),
            Undo::FastDisk(node) => {
                self.nodes[*node].disk.set_delay_max(Duration::ZERO);
                self.nodes[*node].disk.set_flush_delay_max(Duration::ZERO);
            }
            Undo::Room(node) => self.nodes[*node].disk.set_capacity(None),
            Undo::Honest(node) => self.nodes[*node].disk.set_lies(false),
        }
    }

    fn note(&self, cluster: &Cluster<'_>, event: fmt::Arguments<'_>) {
        let elapsed_ms = i64::try_from(cluster.elapsed().as_millis()).unwrap_or_default();
        self.trace.note(elapsed_ms, "nemesis", event);
    }
}
