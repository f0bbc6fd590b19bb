//! Snapshots of the controller's log: taken by the controller when enough was decided since the last one, so that what
//! lies before can go. Without them the log, and the time a start takes, would grow for ever.
//!
//! The order is: what the image is made of is committed, the snapshot is committed, the head goes. Whoever dies in between
//! leaves more than is needed, never less: a snapshot that is not whole counts for nobody, and the next controller drops
//! the head of one that is.

use std::rc::Rc;
use std::time::Duration;

use ouzel_metadata::Record;
use ouzel_metadata::snapshot::pieces;
use ouzel_model::Offset;
use ouzel_raft::{Replica, ReplicatedLog};

use super::metadata_log::MetadataLog;
use super::{Controller, ControllerError, here};
use crate::core::Core;

/// About how large a batch of a snapshot's records gets.
const BATCH_BYTES: usize = 256 << 10;
/// How long to wait after a snapshot that could not be written, or a head that could not be dropped.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// Runs until the node stops: takes snapshots where the controller is, and lets go of what lies before them.
pub(crate) async fn keep(core: Rc<Core>) {
    let Ok(controller) = here(&core) else { return };
    let mut stopping = core.stopping.clone();
    let mut sealed = None;
    loop {
        let seen = controller.log.applied();
        let kept = keep_short(&core, &controller, &mut sealed).await;
        let next = async {
            match kept {
                Ok(()) => controller.log.wait_beyond(seen).await,
                Err(error) => {
                    tracing::warn!(%error, "the controller's log is not shortened yet; it will be tried again");
                    core.runtime.clock.sleep(RETRY_AFTER).await;
                }
            }
        };
        tokio::select! {
            biased;
            _ = stopping.wait_for(|stopping| *stopping) => return,
            () = next => {}
        }
    }
}

/// Does what is due. `sealed` is the snapshot whose predecessors this replica has sealed.
async fn keep_short(
    core: &Rc<Core>,
    controller: &Controller,
    sealed: &mut Option<Offset>,
) -> Result<(), ControllerError> {
    let log = &controller.log;
    let bytes_max = core.broker_config().metadata_snapshot_bytes;
    if log.leads() && log.is_snapshot_due(bytes_max) {
        take(core, controller, bytes_max).await?;
    }
    let Some(start) = log.newest_snapshot().filter(|start| *start > log.replica().offsets().log_start) else {
        return Ok(());
    };
    // Only sealed segments go, and each replica seals its own.
    if sealed.replace(start) != Some(start) {
        log.replica().local().roll();
    }
    drop_head(log, start).await
}

/// Takes a snapshot, unless somebody was faster.
async fn take(core: &Rc<Core>, controller: &Controller, bytes_max: u64) -> Result<(), ControllerError> {
    let _turn = controller.turn().await?;
    let log = &controller.log;
    if !log.is_snapshot_due(bytes_max) {
        return Ok(());
    }
    let cut = |image| pieces(&image, BATCH_BYTES).map_err(ControllerError::Log);
    let image = log.image();
    let mut batches = cut(image.clone())?;
    log.replica().local().roll();
    controller.write(core, &[Record::SnapshotStarted]).await?;
    // All that comes before the snapshot is applied by now: also what an earlier turn gave up, and nobody expected.
    if log.image() != image {
        batches = cut(log.image())?;
    }
    for batch in &batches {
        controller.write(core, batch).await?;
    }
    tracing::info!(end = %log.applied(), "the controller's log has a snapshot");
    Ok(())
}

/// Lets go of what lies before a snapshot: here if this is the only replica, or everywhere, by the leader's word.
async fn drop_head(log: &MetadataLog, start: Offset) -> Result<(), ControllerError> {
    match log.replica() {
        Replica::Solo(solo) => {
            let dropped = solo.local().trim_to(start).await;
            dropped.map(|_| ()).map_err(|error| ControllerError::Log(error.to_string()))
        }
        Replica::Group(group) => {
            // One that leads no more leaves it to the next; one that does not lead is told.
            let _ = group.retain(start).await;
            Ok(())
        }
    }
}
