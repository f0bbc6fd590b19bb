//! What goes wrong, and what the controller changes meanwhile.

use std::fmt;
use std::time::Duration;

use ouzel_model::NodeId;
use ouzel_raft::{RaftGroup, Role};
use ouzel_runtime::sim::Rng;
use ouzel_storage::Durability;

use super::world::World;
use crate::check::power::Forgets;

/// A fault; nodes are places in the list.
#[derive(Clone, Debug)]
enum Fault {
    Kill(usize),
    PowerCut(usize),
    KillAll,
    PowerCutAll,
    Pause(usize),
    Cut(NodeId, NodeId),
    CutOneWay(NodeId, NodeId),
    /// One node, or the smaller half, cannot reach the others.
    Isolate(Vec<NodeId>),
    SlowLink(NodeId, NodeId),
    SlowDisk(usize),
    SlowFlushes(usize),
    ReadError(usize),
    WriteError(usize),
    FlushError(usize),
    FullDisk(usize),
    ClockJump(usize, i64),
    Lie(usize),
    Transfer(u32),
    Move(u32),
}

enum Undo {
    Start(usize),
    Restart(usize),
    Resume(usize),
    Repair(NodeId, NodeId),
    FastLink(NodeId, NodeId),
    FastDisk(usize),
    Honest(usize),
}

pub(super) struct Nemesis {
    world: World,
    rng: Rng,
    lying: bool,
    /// Whether power is cut only where a majority of every group keeps what it has acknowledged.
    spares: bool,
    undo: Vec<(Duration, Undo)>,
    hurt: Vec<bool>,
    pub(super) faults: u64,
}

impl Nemesis {
    pub(super) fn new(world: &World, lying: bool) -> Nemesis {
        let hurt = vec![false; world.nodes.len()];
        let mut rng = world.fork(0xbad);
        let spares = world.durability != Durability::Durable && rng.chance(3, 4);
        Nemesis { rng, world: world.clone(), lying, spares, undo: Vec::new(), hurt, faults: 0 }
    }

    /// Hurts until the time is over, then heals.
    pub(super) async fn run(mut self, until: Duration) -> u64 {
        let mut next = Duration::from_millis(500);
        while self.world.now() < until {
            self.world.sleep_ms(10).await;
            let now = self.world.now();
            self.undo_due(now);
            self.start_the_ended();
            if now >= next {
                next = now + Duration::from_millis(50 + self.rng.below(900));
                if let Some(fault) = self.choose() {
                    self.strike(now, &fault);
                }
            }
        }
        self.heal();
        self.faults
    }

    fn heal(&mut self) {
        self.world.network.heal();
        for node in &self.world.nodes {
            node.disk.heal();
            node.clock.set_skew_ms(0);
            node.pause.resume();
        }
        self.undo_due(Duration::MAX);
        for at in 0..self.hurt.len() {
            if std::mem::take(&mut self.hurt[at]) {
                self.world.kill(at);
            }
            self.world.start(at);
        }
        self.note(format_args!("all is healed"));
    }

    /// A process that ended by itself, because its disk failed it at its start, is started again.
    fn start_the_ended(&mut self) {
        for at in 0..self.world.nodes.len() {
            let comes_back =
                self.undo.iter().any(|(_, undo)| matches!(undo, Undo::Start(node) if *node == at));
            if !self.world.nodes[at].is_up() && !comes_back {
                self.world.start(at);
            }
        }
    }

    fn choose(&mut self) -> Option<Fault> {
        let count = self.world.nodes.len();
        let node = self.rng.below(count as u64) as usize;
        let one = self.world.nodes[node].id;
        let other = self.world.nodes[(node + 1 + self.rng.below(count as u64 - 1) as usize) % count].id;
        let group = self.rng.below(self.world.groups.len() as u64) as u32;
        Some(match self.rng.below(44) {
            0..=4 => Fault::Kill(node),
            5..=9 if self.may_cut(one) => Fault::PowerCut(node),
            5..=9 => Fault::Kill(node),
            10 => Fault::KillAll,
            11 if !self.spares => Fault::PowerCutAll,
            11 => Fault::KillAll,
            12..=14 => Fault::Pause(node),
            15..=17 => Fault::Cut(one, other),
            18..=20 => Fault::CutOneWay(one, other),
            21..=23 => {
                let size = 1 + self.rng.below(count as u64 / 2) as usize;
                let side = (0..size).map(|more| self.world.nodes[(node + more) % count].id);
                Fault::Isolate(side.collect())
            }
            24 | 25 => Fault::SlowLink(one, other),
            26 => Fault::SlowDisk(node),
            27 | 28 => Fault::SlowFlushes(node),
            29 => Fault::ReadError(node),
            30 => Fault::WriteError(node),
            31 | 32 => Fault::FlushError(node),
            33 => Fault::FullDisk(node),
            34 => Fault::ClockJump(node, self.rng.below(7_200_000).cast_signed() - 3_600_000),
            35..=37 => Fault::Transfer(group),
            38..=40 => Fault::Move(group),
            41..=42 if self.lying => Fault::Lie(node),
            _ => return None,
        })
    }

    fn strike(&mut self, now: Duration, fault: &Fault) {
        let world = self.world.clone();
        let lasts = now + Duration::from_millis(100 + self.rng.below(3000));
        match fault {
            Fault::Kill(at) => self.down(*at, lasts, false),
            Fault::PowerCut(at) => self.down(*at, lasts, true),
            Fault::KillAll => (0..self.hurt.len()).for_each(|at| self.down(at, lasts, false)),
            Fault::PowerCutAll => (0..self.hurt.len()).for_each(|at| self.down(at, lasts, true)),
            Fault::Pause(at) => {
                world.nodes[*at].pause.pause();
                self.undo.push((lasts, Undo::Resume(*at)));
            }
            Fault::Cut(one, other) => {
                self.cut(*one, *other, lasts);
                self.cut(*other, *one, lasts);
            }
            Fault::CutOneWay(from, to) => self.cut(*from, *to, lasts),
            Fault::Isolate(side) => {
                let ids: Vec<_> = world.nodes.iter().map(|node| node.id).collect();
                for other in ids.iter().filter(|other| !side.contains(other)) {
                    for one in side {
                        self.cut(*one, *other, lasts);
                        self.cut(*other, *one, lasts);
                    }
                }
            }
            Fault::SlowLink(one, other) => {
                world.network.slow(*one, *other, Duration::from_millis(300));
                self.undo.push((lasts, Undo::FastLink(*one, *other)));
            }
            Fault::SlowDisk(at) => {
                world.nodes[*at].disk.set_delay_max(Duration::from_millis(30));
                self.undo.push((lasts, Undo::FastDisk(*at)));
            }
            Fault::SlowFlushes(at) => {
                world.nodes[*at].disk.set_flush_delay_max(Duration::from_millis(500));
                self.undo.push((lasts, Undo::FastDisk(*at)));
            }
            Fault::ReadError(at) => {
                world.nodes[*at].disk.fail_read_after(self.rng.below(10));
                self.fail(*at, lasts);
            }
            Fault::WriteError(at) => {
                world.nodes[*at].disk.fail_write_after(self.rng.below(10));
                self.fail(*at, lasts);
            }
            Fault::FlushError(at) => {
                world.nodes[*at].disk.fail_sync_after(self.rng.below(10));
                self.fail(*at, lasts);
            }
            Fault::FullDisk(at) => {
                let disk = &world.nodes[*at].disk;
                let used: u64 = disk.files().iter().map(|(_, content)| content.len() as u64).sum();
                disk.set_capacity(Some(used + self.rng.below(8192)));
                self.fail(*at, lasts);
            }
            Fault::ClockJump(at, by_ms) => world.nodes[*at].clock.set_skew_ms(*by_ms),
            Fault::Lie(at) => {
                world.nodes[*at].disk.set_lies(true);
                self.undo.push((lasts, Undo::Honest(*at)));
            }
            Fault::Transfer(group) => {
                ouzel_runtime::spawn(transfer(world.clone(), *group, self.rng.fork(now.as_micros() as u64)));
            }
            Fault::Move(group) => {
                if !move_replica(&world, *group, &mut self.rng) {
                    return;
                }
            }
        }
        self.faults += 1;
        world.events.add_fault(fault);
        self.note(format_args!("{fault:?} until {lasts:?}"));
    }

    /// Whether a machine may lose its power without a loss that would be admitted.
    fn may_cut(&self, node: NodeId) -> bool {
        !self.spares
            || self.world.watch.borrow().power.bears(node, Forgets::Unflushed, self.world.now(), |_| true)
    }

    fn cut(&mut self, from: NodeId, to: NodeId, lasts: Duration) {
        self.world.network.cut(from, to);
        self.undo.push((lasts, Undo::Repair(from, to)));
    }

    fn fail(&mut self, at: usize, lasts: Duration) {
        self.hurt[at] = true;
        self.undo.push((lasts, Undo::Restart(at)));
    }

    fn down(&mut self, at: usize, back: Duration, power: bool) {
        let node = &self.world.nodes[at];
        let was_up = node.is_up();
        if power {
            if node.disk.counts().lies > 0 && self.world.planted.is_none() {
                self.world.lies_told.set(true);
                self.world.watch.borrow_mut().admit_lies();
            }
            if self.world.durability != Durability::Durable {
                self.world.watch.borrow_mut().power.forget(node.id, Forgets::Unflushed, self.world.now());
            }
            self.world.power_cut(at);
        } else {
            self.world.kill(at);
        }
        if was_up {
            self.undo.push((back, Undo::Start(at)));
        }
    }

    fn undo_due(&mut self, now: Duration) {
        let (due, later) = std::mem::take(&mut self.undo).into_iter().partition(|(at, _)| *at <= now);
        self.undo = later;
        for (_, undo) in due {
            match undo {
                Undo::Start(at) => self.world.start(at),
                Undo::Restart(at) => {
                    self.world.nodes[at].disk.set_capacity(None);
                    if self.world.nodes[at].is_up() {
                        self.world.kill(at);
                        self.world.start(at);
                    }
                }
                Undo::Resume(at) => self.world.nodes[at].pause.resume(),
                Undo::Repair(from, to) => self.world.network.repair(from, to),
                Undo::FastLink(from, to) => self.world.network.fast(from, to),
                Undo::FastDisk(at) => {
                    self.world.nodes[at].disk.set_delay_max(Duration::ZERO);
                    self.world.nodes[at].disk.set_flush_delay_max(Duration::ZERO);
                }
                Undo::Honest(at) => self.world.nodes[at].disk.set_lies(false),
            }
        }
    }

    fn note(&self, event: fmt::Arguments<'_>) {
        self.world.note("nemesis", event);
    }
}

/// The replica that leads a group, as far as one can see from above, and its node's place.
pub(super) fn leader_of(world: &World, group: u32) -> Option<(usize, RaftGroup)> {
    let mut newest: Option<(usize, RaftGroup)> = None;
    for (at, node) in world.nodes.iter().enumerate() {
        let Some(inside) = node.inside.borrow().clone() else { continue };
        let Some(replica) = inside.group(group) else { continue };
        let status = replica.status();
        let is_newer = newest.as_ref().is_none_or(|(_, newest)| newest.status().epoch < status.epoch);
        if status.role == Role::Leader && is_newer {
            newest = Some((at, replica));
        }
    }
    newest
}

async fn transfer(world: World, group: u32, mut rng: Rng) {
    let Some((at, leader)) = leader_of(&world, group) else { return };
    let voters = leader.status().voters;
    let to = voters[rng.below(voters.len().max(1) as u64) as usize];
    drop(leader);
    let outcome = world.ask(at, move |inside| {
        let replica = inside.group(group);
        Box::pin(async move {
            let Some(replica) = replica else { return "nobody is here".to_owned() };
            format!("{:?}", replica.transfer(to).await)
        })
    });
    let outcome = outcome.await;
    world.note("controller", format_args!("group {group}: transfer to {to}: {outcome:?}"));
}

/// Has the controller replace one member of a group by a replica on a node that has none; false if it cannot be now.
fn move_replica(world: &World, number: u32, rng: &mut Rng) -> bool {
    let group = &world.groups[number as usize];
    let partition = group.partition.borrow().clone();
    // Whoever has not been founded has nobody to see to it.
    if partition.is_moving() || leader_of(world, number).is_none() {
        return false;
    }
    let mut nodes: Vec<NodeId> = partition.nodes().collect();
    let free: Vec<_> = world.nodes.iter().map(|node| node.id).filter(|id| !nodes.contains(id)).collect();
    let Some(to) = free.get(rng.below(free.len().max(1) as u64) as usize).copied() else { return false };
    let leaves = rng.below(nodes.len() as u64) as usize;
    world.note("controller", format_args!("group {number}: {} is to make way for {to}", nodes[leaves]));
    nodes[leaves] = to;
    group.partition.replace(partition.moved_to(&nodes));
    true
}
