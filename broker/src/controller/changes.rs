//! Changes to the cluster itself: topics that grow, partitions that move, leaders, brokers that leave, features. Each is
//! decided by a plan and written; what needs the running cluster is asked of [`running`].

use std::rc::Rc;
use std::time::Duration;

use ouzel_metadata::Record;
use ouzel_metadata::plan::{
    CreatePartitionsError, ElectLeadersError, ElectionKind, FeatureUpdate, NamedPartition, NewPartitions,
    ReassignError, Reassignment, UnregisterBrokerError, UpdateFeaturesError, plan_create_partitions,
    plan_elect_leaders, plan_reassign, plan_release_keeper, plan_unregister_broker, plan_update_features,
};
use ouzel_model::NodeId;

use super::running::{self, Quorum};
use super::succession;
use super::{ControllerError, on_controller};
use crate::core::Core;
use crate::side_by_side::side_by_side;

/// Elections that are held at the same time. Each may wait for its partition for seconds, and does little meanwhile.
const ELECTIONS_AT_A_TIME: usize = 1000;
/// How long a broker that is to be forgotten may take to be let go of by the controller's group.
const RELEASE_TIME_MAX: Duration = Duration::from_secs(10);

/// Gives topics more partitions; resolves when every core can route to them.
///
/// # Errors
/// Only if the controller itself fails; each topic has its own outcome.
pub(crate) async fn create_partitions(
    core: &Rc<Core>,
    topics: Vec<NewPartitions>,
    validate_only: bool,
) -> Result<Vec<Result<(), CreatePartitionsError>>, ControllerError> {
    on_controller(core, move |core, controller| async move {
        let turn = controller.turn().await?;
        let planned = plan_create_partitions(&controller.log.image(), &topics);
        let records: Vec<Record> = planned.iter().flatten().cloned().collect();
        if !validate_only && !records.is_empty() {
            controller.write_and_show(&core, turn, &records).await?;
        }
        Ok(planned.into_iter().map(|outcome| outcome.map(|_| ())).collect())
    })
    .await
}

/// Sets partitions on their way to other brokers, or gives up moves; resolves when that is decided, not when they are
/// there.
///
/// # Errors
/// As [`create_partitions`].
pub(crate) async fn reassign(
    core: &Rc<Core>,
    reassignments: Vec<Reassignment>,
    may_change_replication_factor: bool,
) -> Result<Vec<Result<(), ReassignError>>, ControllerError> {
    on_controller(core, move |core, controller| async move {
        let turn = controller.turn().await?;
        let planned = plan_reassign(&controller.log.image(), &reassignments, may_change_replication_factor);
        let records: Vec<Record> = planned.iter().flatten().flatten().cloned().collect();
        if !records.is_empty() {
            controller.write_and_show(&core, turn, &records).await?;
        }
        Ok(planned.into_iter().map(|outcome| outcome.map(|_| ())).collect())
    })
    .await
}

/// Holds elections; resolves when they are over.
///
/// # Errors
/// As [`create_partitions`]; each partition has its own outcome.
pub(crate) async fn elect_leaders(
    core: &Rc<Core>,
    kind: ElectionKind,
    named: Option<Vec<NamedPartition>>,
) -> Result<Vec<(NamedPartition, Result<(), ElectLeadersError>)>, ControllerError> {
    let of_all = named.is_none();
    on_controller(core, move |core, controller| async move {
        let planned = {
            let _turn = controller.turn().await?;
            let claims = |at| running::claim(&core, at);
            plan_elect_leaders(&controller.log.image(), &claims, kind, named.as_deref())
        };
        // Each waits for a partition of its own.
        let held = side_by_side(planned, ELECTIONS_AT_A_TIME, |(_, outcome)| {
            let (core, outcome) = (core.clone(), outcome.clone());
            async move {
                let election = outcome?;
                match kind {
                    ElectionKind::Preferred => running::hold_election(&core, election).await,
                    ElectionKind::Unclean => succession::settle(&core, election.at).await,
                }
            }
        });
        let outcomes = held.await.into_iter().map(|((name, _), outcome)| (name, outcome));
        // Of those that nobody named only what was done is told.
        let is_told = |outcome: &Result<(), ElectLeadersError>| {
            !of_all || *outcome != Err(ElectLeadersError::NotNeeded)
        };
        Ok(outcomes.filter(|(_, outcome)| is_told(outcome)).collect())
    })
    .await
}

/// Forgets a broker that has left for good.
///
/// # Errors
/// As [`create_partitions`].
pub(crate) async fn unregister_broker(
    core: &Rc<Core>,
    node: NodeId,
) -> Result<Result<(), UnregisterBrokerError>, ControllerError> {
    on_controller(core, move |core, controller| async move {
        let deadline = core.runtime.clock.now() + RELEASE_TIME_MAX;
        loop {
            let turn = controller.turn().await?;
            let image = controller.log.image();
            let error = match plan_unregister_broker(&image, node) {
                Ok(record) => return controller.write_and_show(&core, turn, &[record]).await.map(Ok),
                Err(error) => error,
            };
            if !matches!(error, UnregisterBrokerError::KeepsController { .. }) {
                return Ok(Err(error));
            }
            if let Some(record) = plan_release_keeper(&image, node) {
                controller.write(&core, &[record]).await?;
            }
            drop(turn);
            // The others see to it: `keepers`.
            let seen = controller.log.applied();
            let left = deadline.saturating_duration_since(core.runtime.clock.now());
            if core.runtime.clock.timeout(left, controller.log.wait_beyond(seen)).await.is_err() {
                return Ok(Err(error));
            }
        }
    })
    .await
}

/// Changes what the cluster has agreed to use: all of it, or nothing.
///
/// # Errors
/// As [`create_partitions`].
pub(crate) async fn update_features(
    core: &Rc<Core>,
    updates: Vec<FeatureUpdate>,
    validate_only: bool,
) -> Result<Result<(), UpdateFeaturesError>, ControllerError> {
    on_controller(core, move |core, controller| async move {
        let turn = controller.turn().await?;
        match plan_update_features(&controller.log.image(), &updates) {
            Ok(Some(record)) if !validate_only => {
                controller.write_and_show(&core, turn, &[record]).await.map(Ok)
            }
            Ok(_) => Ok(Ok(())),
            Err(error) => Ok(Err(error)),
        }
    })
    .await
}

/// How the controller's own log stands; on the node that leads it.
///
/// # Errors
/// When that is not this node.
pub(crate) async fn quorum(core: &Rc<Core>) -> Result<Quorum, ControllerError> {
    on_controller(core, |core, controller| async move {
        if !controller.log.leads() {
            return Err(ControllerError::NotController);
        }
        Ok(running::quorum(&core, &controller.log))
    })
    .await
}
