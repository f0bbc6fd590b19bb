//! What other nodes ask of this one.

use std::rc::{Rc, Weak};

use ouzel_model::TopicIdPartition;
use ouzel_raft::peers::{PeerIdentity, PeerService, ServeResult, service};
use ouzel_raft::{LocalBoxFuture, PeerMessage, envelope};
use ouzel_runtime::CoreId;

use super::control::ControlCall;
use super::{ask, groups};
use crate::cluster;
use crate::controller::CONTROLLER_CORE;
use crate::core::Core;
use crate::node::metadata_at;

/// Takes messages on one core, and passes them to the cores they are for.
pub(crate) struct BrokerService {
    core: Weak<Core>,
}

impl BrokerService {
    /// The service of a core.
    pub(crate) fn new(core: &Rc<Core>) -> BrokerService {
        BrokerService { core: Rc::downgrade(core) }
    }
}

impl PeerService for BrokerService {
    fn serve(&self, from: &PeerIdentity, service: u8, message: PeerMessage) -> LocalBoxFuture<ServeResult> {
        let Some(core) = self.core.upgrade() else { return refused("this node is stopping") };
        match service {
            service::RAFT => serve_group(&core, from, message),
            service::CONTROL => serve_control(&core, message),
            _ => refused(&format!("service {service} is unknown to this release")),
        }
    }
}

fn refused(words: &str) -> LocalBoxFuture<ServeResult> {
    Box::pin(std::future::ready(Err(words.to_owned())))
}

/// The core that owns a group's replica here.
fn owner_of(core: &Core, at: &TopicIdPartition) -> Option<CoreId> {
    if *at == metadata_at() {
        return Some(CONTROLLER_CORE);
    }
    core.view().route(at.topic_id, at.partition).map(|route| route.core)
}

fn serve_group(core: &Rc<Core>, from: &PeerIdentity, message: PeerMessage) -> LocalBoxFuture<ServeResult> {
    let (at, message) = match groups::addressee(message) {
        Ok(addressed) => addressed,
        Err(words) => return refused(&words),
    };
    let sender = match envelope(&message) {
        Ok(envelope) => envelope.from,
        Err(words) => return refused(&words),
    };
    if sender.node != from.node {
        return refused(&format!("a message of replica {sender}, sent by node {}", from.node));
    }
    let Some(owner) = owner_of(core, &at) else { return refused("this node has no replica of that group") };
    // What must happen in the order of the messages happens in the call, which is in the order of the mail.
    let handled = core.call(owner, move |core| {
        let handling = core.group(&at).map(|group| {
            if group.leader() == Some(sender) {
                cluster::heard_leader(core, &at);
            }
            group.handle(sender, message)
        });
        async move {
            match handling {
                Some(handling) => Ok(handling.await),
                None => Err("this node's replica of that group is not open".to_owned()),
            }
        }
    });
    Box::pin(async move { handled.await.unwrap_or_else(|stopped| Err(stopped.to_string())) })
}

fn serve_control(core: &Rc<Core>, message: PeerMessage) -> LocalBoxFuture<ServeResult> {
    let call = match ControlCall::decode(&message) {
        Ok(call) => call,
        Err(error) => return refused(&error.to_string()),
    };
    let answered = core.call(CONTROLLER_CORE, move |core| {
        let core = core.clone();
        async move { ask::answer(&core, call).await }
    });
    Box::pin(
        async move { answered.await.map(|answer| answer.encode()).map_err(|stopped| stopped.to_string()) },
    )
}
