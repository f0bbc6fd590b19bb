//! Replicas of groups: opened with what the write-ahead file knows of them, founded if they are the first.

use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use ouzel_metadata::TopicConfig;
use ouzel_metadata::plan::Loss;
use ouzel_model::{EntryId, EntryIndex, LeaderEpoch, ReplicaId, TopicIdPartition};
use ouzel_raft::{GroupSettings, OpenGroup, RaftGroup, Ticks, genesis_of, vouches};
use ouzel_storage::wal::{Change, GroupState, MetaWal};
use ouzel_storage::{Log, OpenError, OpenLog, genesis, snapshot_files};

use super::opening::{How, Known};
use super::{Opening, Part, Partitions, forget_group, set_aside};
use crate::core::Core;
use crate::partition::{Shown, housekeeping};
use crate::rpc::groups::GroupTransport;

/// How a topic's groups behave.
pub(super) fn settings(core: &Core, config: &TopicConfig) -> GroupSettings {
    GroupSettings {
        durability: housekeeping::durability(config.durability),
        min_insync_replicas: usize::try_from(config.min_insync_replicas).unwrap_or(1),
        lag_time_max: Duration::from_millis(core.broker_config().replica_lag_time_max_ms),
        ticks: Ticks::Served,
        ..GroupSettings::default()
    }
}

/// Whether a replica is opened that may lack what it acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Vouch {
    /// Only if it does not.
    IfSound,
    /// Also if it does: the controller knows, and nobody has more.
    Anyway,
}

/// What opening a replica came to.
pub(super) enum Opened {
    Group(RaftGroup),
    /// It is not open.
    Lost(Loss),
}

impl Partitions {
    /// Opens replicas of groups. One that cannot be opened is noted and stops no other.
    pub(super) async fn open_members(&self, core: &Rc<Core>, members: Vec<(How, Opening)>, vouch: Vouch) {
        for (how, opening) in members {
            match self.open_member(core, &how, &opening.part, vouch).await {
                Ok(Opened::Lost(loss)) => self.lost(core, opening, loss),
                Ok(Opened::Group(group)) => {
                    let Opening { part, offsets } = opening;
                    self.take_into_service(core, part, offsets, group.into());
                }
                Err(error) => self.failed_to_open(&opening.part, &error),
            }
        }
    }

    /// A partition that has a single replica, and has it here, is to have more: it becomes a group, whose first voter is that
    /// replica. What is appended meanwhile is refused as by one that does not lead; what was appended before is answered as
    /// if nothing were. Readers and coordinators look again, and find the same records under a newer leader epoch.
    ///
    /// A crash leaves it one or the other. If it fails the partition is out of service until the next start.
    pub(super) async fn become_group(&self, core: &Rc<Core>, part: Part) {
        let Some(partition) = self.get(&part.at).filter(|partition| partition.group().is_none()) else {
            return;
        };
        let Some(shown) = self.take_out_of_service(core, &partition) else { return };
        let began = core.runtime.clock.now();
        let name = part.topic_partition.clone();
        let becoming = self.begin_member(core, &part, &partition.log_handle()).await;
        if self.serve_first_voter(core, part, shown, becoming) {
            let took = core.runtime.clock.now().duration_since(began);
            tracing::info!(partition = %name, ?took, "a single replica has become a group's first voter");
        }
    }

    /// Makes the log of a single replica that of a group's first voter, and opens it as such.
    pub(super) async fn begin_member(
        &self,
        core: &Rc<Core>,
        part: &Part,
        log: &Log,
    ) -> Result<RaftGroup, String> {
        begin_group(core, &self.wal, part.at, part.replica, log).await?;
        match self.open_member(core, &How::Member, part, Vouch::Anyway).await? {
            Opened::Group(group) => Ok(group),
            Opened::Lost(_) => Err("its files went while it became a group's first voter".to_owned()),
        }
    }

    /// Takes a group's first voter into service, and has it lead; says whether it came to that.
    pub(super) fn serve_first_voter(
        &self,
        core: &Rc<Core>,
        part: Part,
        shown: Shown,
        begun: Result<RaftGroup, String>,
    ) -> bool {
        match begun {
            Ok(group) => {
                self.take_into_service(core, part, shown, group.clone().into());
                ouzel_runtime::spawn(async move { group.elect().await });
                true
            }
            Err(error) => {
                self.failed_to_open(&part, &error);
                false
            }
        }
    }

    /// A group whose only member is this replica goes back to a single replica's log: nothing that ticks, no entry beside the
    /// batches. What was appended before is answered first; what comes meanwhile is refused as by one that does not lead.
    /// Readers, producers and coordinators notice a newer leader epoch.
    ///
    /// A group that is not, or not yet, alone stays what it is. A crash leaves it one or the other. If it fails on its way the
    /// partition is out of service until the next start.
    pub(super) async fn become_solo(&self, core: &Rc<Core>, part: Part) {
        let Some(partition) = self.get(&part.at) else { return };
        let Some(group) = partition.group().filter(|group| group.replica() == part.replica) else { return };
        let began = core.runtime.clock.now();
        if !group.end_alone().await {
            return;
        }
        let Some(shown) = self.take_out_of_service(core, &partition) else { return };
        forget_group(core, &group);
        if let Err(error) = genesis::dissolve(&partition.log_handle(), &self.wal, part.at).await {
            self.failed_to_open(&part, &format!("its group of one is not dissolved: {error}"));
            return;
        }
        let name = part.topic_partition.clone();
        self.open_solos(core, vec![(part, shown)]).await;
        let took = core.runtime.clock.now().duration_since(began);
        tracing::info!(partition = %name, ?took, "a group of one has become a single replica");
    }

    pub(super) async fn open_member(
        &self,
        core: &Rc<Core>,
        how: &How,
        opening: &Part,
        vouch: Vouch,
    ) -> Result<Opened, String> {
        match how {
            How::Solo => unreachable!("a single replica is no member"),
            How::Genesis => {
                let log = self.open_log(core, opening).await.map_err(|error| error.to_string())?;
                begin_group(core, &self.wal, opening.at, opening.replica, &log).await?;
                tracing::info!(partition = %opening.topic_partition, "a single replica has become a group's first voter");
            }
            How::Anew => self.wipe(core, opening).await?,
            How::Member => {}
        }
        let known = self.wal.get_group(&opening.at);
        let options = OpenLog { with_entries: true, ..self.log_options(core, opening) };
        if known.as_ref().is_some_and(GroupState::may_have_answered) {
            // The directory is on the medium before it votes, or it is filled by a leader who does not count on it yet.
            let is_there = core.runtime.disk.exists(&options.dir).await.map_err(|error| error.to_string())?;
            if !is_there {
                return Ok(Opened::Lost(Loss::Files));
            }
        }
        let mut log = snapshot_files::open_group(options.clone(), known.as_ref(), self.boot_id).await;
        if let (Err(OpenError::OtherTopic { path, .. }), None) = (&log, &known) {
            set_aside(&core.runtime, path.clone()).await.map_err(|error| error.to_string())?;
            log = snapshot_files::open_group(options, None, self.boot_id).await;
        }
        let log = log.map_err(|error| error.to_string())?;
        if vouch == Vouch::IfSound && !vouches(known.as_ref(), self.boot_id, &log) {
            let last = log.last_entry();
            log.close().await?;
            // Without its vote it can never go on.
            return Ok(Opened::Lost(if known.is_some() { Loss::Tail(last) } else { Loss::Files }));
        }
        let settings = settings(core, &opening.config);
        let founders = opening.partition.founders_with(opening.replica).to_vec();
        let group = open_group(core, opening.at, opening.replica, log, settings, founders).await?;
        Ok(Opened::Group(group))
    }

    /// Takes away what an earlier life of a replica left: it must not be taken for what this one has.
    async fn wipe(&self, core: &Core, opening: &Part) -> Result<(), String> {
        // First the data, then what is known of it: a crash in between is followed by the same again.
        self.remove_dir(core, opening).await?;
        if self.known(&opening.at) == Known::Nothing {
            return Ok(());
        }
        self.wal.commit(vec![Change::Remove(opening.at)]).await.map_err(|error| error.to_string())
    }

    /// Removes the directory of a replica that is not open, if it has one.
    pub(super) async fn remove_dir(&self, core: &Core, opening: &Part) -> Result<(), String> {
        let dir = core.node.config.data_dir.join(opening.topic_partition.to_string());
        let disk = &core.runtime.disk;
        let removed = async {
            if disk.exists(&dir).await? {
                tracing::warn!(partition = %opening.topic_partition, "what an earlier life of a replica had is removed");
                disk.remove_dir_all(&dir).await?;
                disk.sync_dir(dir.parent().unwrap_or(Path::new("/"))).await?;
            }
            std::io::Result::Ok(())
        };
        removed.await.map_err(|error| format!("remove {}: {error}", dir.display()))
    }
}

/// Makes the log of a single replica that of a group's first voter, and closes it: it is opened anew as the group's. The
/// replica is a candidate then, and the only voter.
pub(crate) async fn begin_group(
    core: &Core,
    wal: &MetaWal,
    at: TopicIdPartition,
    replica: ReplicaId,
    log: &Log,
) -> Result<(), String> {
    let Some(solo) = wal.get(&at) else {
        return Err("it is not kept as a single replica's log".to_owned());
    };
    // Nobody who was told of a later reign may take this one for older.
    let claimed = core.cluster().and_then(|cluster| cluster.claim(&at)).map(|claim| claim.epoch.next());
    let term = genesis::term_after(log, &solo).max(claimed.unwrap_or(LeaderEpoch::NONE));
    let entry = EntryId { term, index: EntryIndex(0) };
    let begun = genesis::found(log, wal, genesis_of(at, replica, entry)).await;
    begun.map(|_| ()).map_err(|error| format!("it does not become a group: {error}"))
}

/// Opens a replica of a group on its log. Of `founders` see [`OpenGroup`].
pub(crate) async fn open_group(
    core: &Rc<Core>,
    at: TopicIdPartition,
    replica: ReplicaId,
    log: Log,
    settings: GroupSettings,
    founders: Vec<ReplicaId>,
) -> Result<RaftGroup, String> {
    let partitions = &core.partitions;
    let Some(cluster) = core.cluster() else {
        return Err(
            "a replica of a group cannot be opened by a node that is alone; start it with --seeds".to_owned()
        );
    };
    // It knows that nobody leads yet; the others wait a moment before they stand for election.
    let leads_first = partitions.wal.get_group(&at).is_none() && founders.first() == Some(&replica);
    let group = RaftGroup::open(OpenGroup {
        at,
        replica,
        log,
        wal: partitions.wal.clone(),
        runtime: core.runtime.clone(),
        transport: Rc::new(GroupTransport { peers: cluster.peers.clone() }),
        settings,
        boot: partitions.boot_id,
        founders,
    });
    let group = group.await.map_err(|error| error.to_string())?;
    if leads_first {
        let first = group.clone();
        ouzel_runtime::spawn(async move { first.elect().await });
    }
    Ok(group)
}
