//! Unclean elections: a partition that nobody leads, and nobody can be elected to lead, is led by one of those that are
//! left, with what it has. Somebody has to ask for it (KIP-460): what the others had is lost.

use std::rc::Rc;
use std::time::Duration;

use ouzel_metadata::plan::{ElectLeadersError, Succession, judge_succession, plan_inherit};
use ouzel_model::TopicIdPartition;

use super::{ControllerError, here, lost};
use crate::core::Core;

/// How long it may take until the heir leads. Less than whoever passed the question on waits for its answer.
const SUCCESSION_TIME_MAX: Duration = Duration::from_secs(8);
/// How often it is looked whether it does, or who is there.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// Has a partition led again; resolves when it is. On the controller's core.
///
/// # Errors
/// [`ElectLeadersError::NotNeeded`] when somebody leads, with a majority.
/// [`ElectLeadersError::NoneEligible`] when nobody that is left has anything, or nobody leads in time;
/// [`ElectLeadersError::Silent`] when somebody who lives does not say what he has.
pub(super) async fn settle(core: &Rc<Core>, at: TopicIdPartition) -> Result<(), ElectLeadersError> {
    let mut is_needed = false;
    let mut silent = Vec::new();
    let settling = async {
        loop {
            match look(core, at).await {
                Ok(Succession::Led) if is_needed => return Ok(()),
                Ok(Succession::Led) => return Err(ElectLeadersError::NotNeeded),
                Ok(Succession::Nobody) => return Err(ElectLeadersError::NoneEligible),
                Ok(Succession::Heir(heir)) => tracing::error!(
                    topic = %at.topic_id, partition = %at.partition, %heir,
                    "an unclean election was asked for: this replica goes on with what it has; what only others had is lost"
                ),
                Ok(Succession::Silent(nodes)) => silent = nodes.iter().map(|node| node.0).collect(),
                Ok(Succession::Wait) => silent.clear(),
                Err(error) => tracing::info!(%error, "an unclean election waits"),
            }
            is_needed = true;
            core.runtime.clock.sleep(LOOK_INTERVAL).await;
        }
    };
    let settled = core.runtime.clock.timeout(SUCCESSION_TIME_MAX, settling).await;
    match settled {
        Ok(outcome) => outcome,
        Err(_) if silent.is_empty() => Err(ElectLeadersError::NoneEligible),
        Err(_) => Err(ElectLeadersError::Silent { nodes: silent }),
    }
}

/// Asks everybody who may have something, and names the heir if that is due.
async fn look(core: &Rc<Core>, at: TopicIdPartition) -> Result<Succession, ControllerError> {
    let controller = here(core)?;
    let image = controller.log.image();
    let Some(partition) = image.partition(at).cloned() else { return Ok(Succession::Nobody) };
    let stands = lost::stands_of(core, at, partition.holders()).await;
    let succession = judge_succession(&partition, &stands, |replica| image.is_live(replica.node));
    if let Succession::Heir(heir) = &succession {
        let _turn = controller.turn().await?;
        let image = controller.log.image();
        // What was judged is what is decided on.
        if image.partition(at) != Some(&partition) {
            return Ok(Succession::Wait);
        }
        if let Some(record) = plan_inherit(&image, at, *heir) {
            controller.write(core, &[record]).await?;
        }
    }
    Ok(succession)
}
