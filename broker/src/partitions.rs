//! The partitions that live on one core, and how they come and go.

mod appends;
pub(crate) mod groups;
mod inherit;
pub(crate) mod lost;
pub(crate) mod moving;
pub(crate) mod opening;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use ouzel_metadata::TopicConfig;
use ouzel_model::batch::Header;
use ouzel_model::{Offset, ReplicaId, TimestampMs, TopicIdPartition, TopicPartition};
use ouzel_raft::{RaftGroup, Replica, ReplicatedLog, Solo};
use ouzel_runtime::Runtime;
use ouzel_storage::strays::remove_closed;
use ouzel_storage::wal::{BootId, Change, GroupState, MetaWal, SoloState, stop_of};
use ouzel_storage::{Log, LogShared, OpenError, OpenLog, Stop, layout};
use ouzel_sync::published::OffsetsWriter;

use crate::cluster;
use crate::coordinators::OFFSETS_TOPIC;
use crate::core::Core;
use crate::partition::leadership::OnStanding;
use crate::partition::{Partition, Shown, Tells, housekeeping};
use crate::side_by_side::side_by_side;
use crate::view::NodeView;

pub(crate) use appends::Appends;
use groups::Vouch;
use opening::{How, Known, how_to_open};

/// How many logs are opened or closed at a time: enough that the disk sees their flushes together, few enough that a core
/// with 10,000 of them does not hold all their buffers at once.
const LOGS_AT_A_TIME: usize = 32;

/// A partition of a core, as the controller wants it.
#[derive(Clone)]
pub(crate) struct Part {
    pub(crate) at: TopicIdPartition,
    pub(crate) topic_partition: TopicPartition,
    /// Where the controller wants it to be.
    pub(crate) partition: ouzel_metadata::Partition,
    pub(crate) replica: ReplicaId,
    pub(crate) config: Arc<TopicConfig>,
}

/// What a partition that is in service becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Of a single replica, which is to have others beside it: a group's first voter.
    Group,
    /// Of a group whose only member it is, and shall stay: a single replica.
    Solo,
    /// Of a group whose others do not come back: the first voter of a group of its own.
    Heir,
}

/// A partition to be opened on a core.
pub(crate) struct Opening {
    pub(crate) part: Part,
    pub(crate) offsets: OffsetsWriter,
}

/// How the process that had a log open before ended, what is known to be flushed, and where a clean mark says it ends.
/// The mark is believed only if the log ends there, which recovery finds out.
pub(crate) fn last_stop(known: Option<&SoloState>, boot_id: BootId) -> (Stop, Offset, Option<Offset>) {
    let mark = known.and_then(|known| known.closed_at);
    let (stop, flushed) = stop_of(known, boot_id, mark);
    (stop, flushed.unwrap_or(Offset::ZERO), mark)
}

/// The partitions of one core.
pub struct Partitions {
    open: RefCell<BTreeMap<TopicIdPartition, Rc<Partition>>>,
    /// What was open, and is closed and opened anew as another kind of log.
    turning: RefCell<BTreeMap<TopicIdPartition, Log>>,
    /// Those that could not be opened, with the reason; they stop nobody else.
    failed: RefCell<BTreeMap<TopicIdPartition, (TopicPartition, String)>>,
    shared: LogShared,
    pub(crate) wal: MetaWal,
    pub(crate) boot_id: BootId,
    appends: Rc<Appends>,
    pub(crate) moves: moving::Moves,
    lost: lost::LostReplicas,
}

/// Makes room for a new partition that finds its place taken by what nobody here knows: it is set aside, not deleted, for it may
/// be somebody's only copy.
async fn set_aside(runtime: &Runtime, path: PathBuf) -> Result<(), OpenError> {
    let stray = layout::stray_dir(&path, runtime.entropy.uuid());
    tracing::warn!(dir = %path.display(), aside = %stray.display(), "a directory of another topic was in the way and is set aside");
    let moved = async {
        runtime.disk.rename(&path, &stray).await?;
        runtime.disk.sync_dir(path.parent().unwrap_or(Path::new("/"))).await
    };
    moved.await.map_err(|source| OpenError::Io { action: "set aside", path: path.clone(), source })
}

impl Partitions {
    /// None yet.
    pub(crate) fn new(shared: LogShared, wal: MetaWal, boot_id: BootId) -> Partitions {
        Partitions {
            open: RefCell::default(),
            turning: RefCell::default(),
            failed: RefCell::default(),
            shared,
            wal,
            boot_id,
            appends: Rc::default(),
            moves: moving::Moves::default(),
            lost: lost::LostReplicas::default(),
        }
    }

    /// A partition that is open here.
    pub fn get(&self, at: &TopicIdPartition) -> Option<Rc<Partition>> {
        self.open.borrow().get(at).cloned()
    }

    /// All that are open here.
    pub fn all(&self) -> Vec<Rc<Partition>> {
        self.open.borrow().values().cloned().collect()
    }

    /// Those that could not be opened, in words.
    pub fn failed(&self) -> Vec<(TopicPartition, String)> {
        self.failed.borrow().values().cloned().collect()
    }

    /// Says whether the disk is nearly full; set by the core's watch, read by its logs.
    pub(crate) fn disk_low(&self) -> Rc<Cell<bool>> {
        self.shared.disk_low.clone()
    }

    /// Resolves at the next append to any of them, by a client or as a follower.
    pub(crate) async fn appended(&self) {
        self.appends.next().await;
    }

    /// Notes in the write-ahead file how far the logs are flushed by now, so that a start after a crash need not walk what
    /// lies before.
    pub(crate) async fn checkpoint(&self) {
        let moved = |partition: &Rc<Partition>| {
            let at = *partition.at();
            let state = self.wal.get(&at)?;
            let flushed = partition.log_handle().offsets().flushed_end;
            (flushed > state.flushed).then(|| Change::Put(at, state.flushed_to(flushed)))
        };
        let changes: Vec<_> = self.open.borrow().values().filter_map(moved).collect();
        if changes.is_empty() {
            return;
        }
        if let Err(error) = self.wal.commit(changes).await {
            tracing::warn!(%error, "the flushed offsets cannot be noted; a crash would be followed by a longer recovery");
        }
    }

    /// Notes how far one log is flushed: the controller's, which is none of the partitions here.
    pub(crate) async fn note_flushed(&self, at: TopicIdPartition, flushed: Offset) {
        let Some(state) = self.wal.get(&at).filter(|state| flushed > state.flushed) else { return };
        if let Err(error) = self.wal.commit(vec![Change::Put(at, state.flushed_to(flushed))]).await {
            tracing::warn!(%error, "the controller's flushed offset cannot be noted");
        }
    }

    /// Opens partitions: recovers their logs, then raises all their epochs in one commit, then takes them into service.
    /// One that cannot be opened is noted and stops no other.
    pub(crate) async fn open_all(&self, core: &Rc<Core>, openings: Vec<Opening>) {
        let node = core.node.config.node_id;
        let how = |opening: &Opening| {
            let part = &opening.part;
            how_to_open(&part.partition, node, self.known(&part.at))
        };
        let (solos, members): (Vec<_>, Vec<_>) = openings
            .into_iter()
            .filter_map(|opening| Some((how(&opening)?, opening)))
            .partition(|(how, _)| *how == How::Solo);
        let solos = solos.into_iter().map(|(_, Opening { part, offsets })| (part, offsets.into()));
        self.open_solos(core, solos.collect()).await;
        self.open_members(core, members, Vouch::IfSound).await;
    }

    /// Partitions that are in service here change what they are.
    pub(crate) async fn turn_all(&self, core: &Rc<Core>, turn: Turn, parts: Vec<Part>) {
        let turn_one = |part: &Part| {
            let (core, part) = (core.clone(), part.clone());
            async move {
                match turn {
                    Turn::Group => core.partitions.become_group(&core, part).await,
                    Turn::Solo => core.partitions.become_solo(&core, part).await,
                    Turn::Heir => core.partitions.inherit(&core, part).await,
                }
            }
        };
        side_by_side(parts, LOGS_AT_A_TIME, turn_one).await;
    }

    fn take_into_service(&self, core: &Rc<Core>, part: Part, shown: impl Into<Shown>, replica: Replica) {
        let Part { at, topic_partition, replica: life, config, .. } = part;
        if let Some(before) = self.turning.borrow_mut().remove(&at) {
            replica.local().inherit(&before);
        }
        let tells = Tells { appends: self.appends.clone(), on_standing: on_standing(core) };
        let partition = Partition::new(at, topic_partition, life, replica, shown, config, tells);
        self.open.borrow_mut().insert(at, partition);
    }

    /// Takes a partition out of service, for its log to be opened anew as another kind. `None` if it is already.
    fn take_out_of_service(&self, core: &Core, partition: &Partition) -> Option<Shown> {
        let shown = partition.retire()?;
        let at = *partition.at();
        self.open.borrow_mut().remove(&at);
        self.turning.borrow_mut().insert(at, partition.log_handle());
        if partition.topic_partition().topic.as_str() == OFFSETS_TOPIC {
            core.coordinators.stop_one(at.partition);
        }
        Some(shown)
    }

    /// Takes note of a batch for a partition that is not in service. If it will be in a moment, what its producer has sent
    /// behind it waits until it is back.
    pub(crate) fn turn_away(&self, at: &TopicIdPartition, batch: &[u8]) {
        if let Some(log) = self.turning.borrow().get(at)
            && let Ok(header) = Header::parse(batch)
        {
            log.turn_away(&header);
        }
    }

    /// What the write-ahead file knows of a partition.
    fn known(&self, at: &TopicIdPartition) -> Known {
        match self.wal.get_group(at) {
            Some(group) => Known::Member(group.replica),
            None if self.wal.get(at).is_some() => Known::Solo,
            None => Known::Nothing,
        }
    }

    /// Notes that a partition cannot be opened; it stops no other.
    fn failed_to_open(&self, opening: &Part, error: &dyn std::fmt::Display) {
        tracing::error!(partition = %opening.topic_partition, %error, "a partition cannot be opened; the others go on");
        self.turning.borrow_mut().remove(&opening.at);
        let failed = (opening.topic_partition.clone(), error.to_string());
        self.failed.borrow_mut().insert(opening.at, failed);
    }

    async fn open_solos(&self, core: &Rc<Core>, parts: Vec<(Part, Shown)>) {
        let mut logs = Vec::with_capacity(parts.len());
        let opened = side_by_side(parts, LOGS_AT_A_TIME, |(part, _)| self.open_log(core, part)).await;
        for ((part, shown), opened) in opened {
            match opened {
                Ok(log) => logs.push((part, shown, log)),
                Err(error) => self.failed_to_open(&part, &error),
            }
        }
        let mut changes = Vec::with_capacity(logs.len());
        let mut leading = Vec::with_capacity(logs.len());
        for (part, shown, log) in logs {
            let flushed = log.offsets().flushed_end;
            let state =
                SoloState::opened(self.wal.get(&part.at).as_ref(), log.latest_epoch(), flushed, self.boot_id);
            changes.push(Change::Put(part.at, state));
            leading.push((part, shown, log, state.leader_epoch));
        }
        if let Err(error) = self.wal.commit(changes).await {
            // Without the epochs on the disk a lost tail could lend its offsets out twice: nothing is led.
            for (part, ..) in leading {
                self.failed_to_open(&part, &error);
            }
            return;
        }
        for (part, shown, log, epoch) in leading {
            let solo = Solo::new(log, epoch, housekeeping::durability(part.config.durability));
            self.take_into_service(core, part, shown, solo.into());
        }
    }

    fn open_log(&self, core: &Core, opening: &Part) -> impl Future<Output = Result<Log, OpenError>> + use<> {
        let known = self.wal.get(&opening.at);
        let is_new = known.is_none();
        let shared = self.shared.clone();
        let (stop, flushed, clean_end) = last_stop(known.as_ref(), self.boot_id);
        let options = OpenLog { stop, flushed, clean_end, ..self.log_options(core, opening) };
        async move {
            match Log::open(options.clone()).await {
                Err(OpenError::OtherTopic { path, .. }) if is_new => {
                    set_aside(&shared.runtime, path).await?;
                    Log::open(options).await
                }
                opened => opened,
            }
        }
    }

    /// What a log is opened with, whoever had it open before.
    fn log_options(&self, core: &Core, opening: &Part) -> OpenLog {
        OpenLog {
            shared: self.shared.clone(),
            dir: core.node.config.data_dir.join(opening.topic_partition.to_string()),
            topic_partition: opening.topic_partition.clone(),
            topic_id: opening.at.topic_id,
            config: core.log_config(&opening.config),
            stop: Stop::Unknown,
            flushed: Offset::ZERO,
            clean_end: None,
            now: TimestampMs(core.runtime.clock.wall_ms()),
            with_entries: false,
        }
    }

    /// Takes partitions out of service and their data away.
    pub(crate) async fn delete_all(&self, core: &Core, gone: Vec<TopicIdPartition>) {
        let mut changes = Vec::with_capacity(gone.len());
        for at in gone {
            changes.push(Change::Remove(at));
            self.lost.forget(&at);
            let failed = self.failed.borrow_mut().remove(&at);
            if let Some((name, _)) = failed
                && let dir = core.node.config.data_dir.join(name.to_string())
                && let Err(error) = remove_closed(&core.runtime, &dir, at.topic_id).await
            {
                tracing::error!(partition = %name, %error, "a deleted partition's directory stays until the next start");
            }
            let Some(partition) = self.open.borrow_mut().remove(&at) else { continue };
            // Nothing that its group says on its way out counts.
            partition.retire();
            if partition.topic_partition().topic.as_str() == OFFSETS_TOPIC {
                core.coordinators.stop_one(at.partition);
            }
            if let Some(group) = partition.group() {
                forget_group(core, &group);
                group.shutdown().await;
            }
            if let Err(error) = partition.log_handle().delete().await {
                tracing::error!(partition = %partition.topic_partition(), %error, "a deleted partition's directory stays");
            }
        }
        if let Err(error) = self.wal.commit(changes).await {
            tracing::warn!(%error, "deleted partitions stay in the write-ahead file");
        }
    }

    /// Hands topics' new settings to their logs.
    pub(crate) fn settings_changed(&self, core: &Core, view: &NodeView) {
        for partition in self.open.borrow().values() {
            let config = view.topic_configs.of(partition.at().topic_id);
            if !partition.has_config(&config) {
                let settings = groups::settings(core, &config);
                partition.set_config(config.clone(), core.log_config(&config), settings);
            }
        }
    }

    /// Closes all logs in order and leaves their clean marks. Gives the number that could not be.
    pub(crate) async fn close_all(&self) -> usize {
        let mut changes = Vec::new();
        let mut failed = 0;
        let partitions: Vec<_> = self.open.take().into_iter().collect();
        let close = |(_, partition): &(TopicIdPartition, Rc<Partition>)| {
            partition.wake_all();
            let (log, group) = (partition.log_handle(), partition.group());
            async move {
                if let Some(group) = group {
                    group.shutdown().await;
                }
                log.close().await
            }
        };
        for ((at, partition), closed) in side_by_side(partitions, LOGS_AT_A_TIME, close).await {
            match closed {
                Ok(end) => changes.extend(self.closed(at, end, partition.committed_end())),
                Err(reason) => {
                    failed += 1;
                    tracing::error!(partition = %partition.topic_partition(), reason, "a partition was not closed in order");
                }
            }
        }
        if let Err(error) = self.wal.commit(changes).await {
            failed += 1;
            tracing::error!(%error, "the clean marks could not be written; the next start recovers as after a crash");
        }
        failed
    }

    /// Leaves the clean mark of a log that was closed elsewhere: the controller's.
    pub(crate) async fn mark_closed(&self, at: TopicIdPartition, end: Offset, committed: Offset) -> bool {
        let Some(change) = self.closed(at, end, committed) else { return false };
        self.wal.commit(vec![change]).await.is_ok()
    }

    /// The clean mark of a log that ends at `end`. What is noted as flushed must never be cut, so of a group's log it is
    /// only what is committed.
    fn closed(&self, at: TopicIdPartition, end: Offset, committed: Offset) -> Option<Change> {
        if let Some(state) = self.wal.get_group(&at) {
            let flushed = committed.min(end);
            return Some(Change::PutGroup(at, GroupState { closed_at: Some(end), flushed, ..state }));
        }
        self.wal.get(&at).map(|state| Change::Put(at, state.closed(end)))
    }
}

/// What follows from a partition's standing on its core: its leader coordinates the groups whose state it holds.
fn on_standing(core: &Rc<Core>) -> OnStanding {
    let core = Rc::downgrade(core);
    Box::new(move |partition| {
        let Some(core) = core.upgrade() else { return };
        if partition.topic_partition().topic.as_str() == OFFSETS_TOPIC {
            core.coordinators.follow(&core, partition);
        }
        partition.count_standing(&core.metrics);
        cluster::standing_changed(&core, partition);
        moving::look(&core, *partition.at());
    })
}

/// A replica of a group is one no more: nobody has it elected, and what it counted stays counted.
fn forget_group(core: &Core, group: &RaftGroup) {
    if let Some(cluster) = core.cluster() {
        cluster.elector.remove_group(&group.at());
    }
    core.metrics.replicas_reverted(group.status().reversions);
}
