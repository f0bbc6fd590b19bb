//! The controller's log on this node: where decisions are written, and what has been decided so far.

use std::cell::RefCell;
use std::rc::Rc;

use bytes::BytesMut;
use ouzel_metadata::{Image, Record};
use ouzel_model::batch::{BatchBuilder, Codec, RecordParts, RecordStream, batches};
use ouzel_model::{NodeId, Offset, TimestampMs, TopicId};
use ouzel_raft::{RaftGroup, Replica, ReplicatedLog, Role};
use tokio::sync::{Notify, watch};

use super::ControllerError;

/// How much of the log is read at a time.
const READ_BYTES: usize = 1 << 20;

/// The replica of the controller's log that lives here; clones are the same one.
#[derive(Clone)]
pub(crate) struct MetadataLog {
    inner: Rc<Inner>,
}

struct Inner {
    node: NodeId,
    replica: Replica,
    /// Told when more may be committed than was.
    moved: Notify,
    /// What has been decided, up to `applied`. Decisions are made on it.
    image: RefCell<Image>,
    /// Exclusive end of the records that `image` holds.
    applied: watch::Sender<Offset>,
    /// Exclusive end of the records that every core of this node has seen.
    shown: watch::Sender<Offset>,
}

/// What a piece of the log decided.
#[derive(Debug, Default)]
pub(crate) struct Replayed {
    /// Records applied.
    pub(crate) records: usize,
    /// The topics it deleted.
    pub(crate) deleted: Vec<TopicId>,
}

impl MetadataLog {
    /// Takes the replica into service; nothing of it is applied yet.
    pub(crate) fn new(node: NodeId, replica: Replica) -> MetadataLog {
        let start = replica.offsets().log_start;
        let inner = Rc::new(Inner {
            node,
            replica,
            moved: Notify::new(),
            image: RefCell::default(),
            applied: watch::channel(start).0,
            shown: watch::channel(start).0,
        });
        let weak = Rc::downgrade(&inner);
        inner.replica.on_progress(move || {
            if let Some(inner) = weak.upgrade() {
                inner.moved.notify_one();
            }
        });
        MetadataLog { inner }
    }

    /// The replica itself.
    pub(crate) fn replica(&self) -> &Replica {
        &self.inner.replica
    }

    /// Whether decisions are written here.
    pub(crate) fn leads(&self) -> bool {
        match &self.inner.replica {
            Replica::Solo(_) => true,
            Replica::Group(group) => group.role() == Role::Leader,
        }
    }

    /// The replica, if it is one of a group.
    pub(crate) fn group(&self) -> Option<RaftGroup> {
        match &self.inner.replica {
            Replica::Solo(_) => None,
            Replica::Group(group) => Some(group.clone()),
        }
    }

    /// The node where decisions are written, if this one knows.
    pub(crate) fn leader(&self) -> Option<NodeId> {
        match &self.inner.replica {
            Replica::Solo(_) => Some(self.inner.node),
            Replica::Group(group) => match group.status() {
                status if status.role == Role::Leader => Some(self.inner.node),
                // One that stands for election, or was elected and does not serve yet, is no place to ask.
                status => status.leader.map(|leader| leader.node).filter(|node| *node != self.inner.node),
            },
        }
    }

    /// Writes records as one batch, so that a change is whole or not there; resolves when they are committed, with the
    /// offset behind them.
    pub(crate) async fn append(
        &self,
        records: &[Record],
        now: TimestampMs,
    ) -> Result<Offset, ControllerError> {
        let failed = |error: &dyn std::fmt::Display| ControllerError::Log(error.to_string());
        let appending = self.inner.replica.append(batch_of(records, now), now);
        let receipt = appending.await.map_err(|error| failed(&error))?;
        receipt.acknowledged().await.map_err(|error| failed(&error))?;
        Ok(receipt.placed.last_offset.next())
    }

    /// What has been decided, as far as this node has read.
    pub(crate) fn image(&self) -> Image {
        self.inner.image.borrow().clone()
    }

    /// Exclusive end of what [`MetadataLog::image`] holds.
    pub(crate) fn applied(&self) -> Offset {
        *self.inner.applied.borrow()
    }

    /// Resolves when the image holds the records below `end`.
    pub(crate) async fn wait_applied(&self, end: Offset) -> Result<(), ControllerError> {
        wait(&self.inner.applied, end).await
    }

    /// Resolves when every core of this node has seen the records below `end`.
    pub(crate) async fn wait_shown(&self, end: Offset) -> Result<(), ControllerError> {
        wait(&self.inner.shown, end).await
    }

    /// Says that every core has seen the records below `end`.
    pub(crate) fn set_shown(&self, end: Offset) {
        self.inner.shown.send_replace(end);
    }

    /// Resolves when something is committed that is not applied. For one at a time: the publisher.
    pub(crate) async fn more_committed(&self) {
        while self.inner.replica.offsets().high_watermark <= self.applied() {
            self.inner.moved.notified().await;
        }
    }

    /// Applies what is committed by now.
    ///
    /// # Errors
    /// In words, when the log cannot be read or holds what no controller of this release wrote.
    pub(crate) async fn apply_committed(&self) -> Result<Replayed, String> {
        let end = self.inner.replica.offsets().high_watermark;
        let mut image = self.image();
        let mut from = self.applied();
        let mut replayed = Replayed::default();
        while from < end {
            let read = self.inner.replica.local().read(from, end, READ_BYTES, true).await;
            let before = from;
            for chunk in &read.map_err(|error| error.to_string())?.batches {
                from = replay_batches(&mut image, chunk, &mut replayed)?;
            }
            if from <= before {
                return Err(format!("it ends at offset {from}, before its own end {end}"));
            }
        }
        self.inner.image.replace(image);
        self.inner.applied.send_replace(from);
        Ok(replayed)
    }
}

async fn wait(reached: &watch::Sender<Offset>, end: Offset) -> Result<(), ControllerError> {
    let mut reached = reached.subscribe();
    // The sender lives as long as the log.
    reached.wait_for(|reached| *reached >= end).await.map(|_| ()).map_err(|_| ControllerError::Stopped)
}

/// Applies whole batches; gives the offset behind them.
fn replay_batches(image: &mut Image, chunk: &[u8], replayed: &mut Replayed) -> Result<Offset, String> {
    let mut end = Offset::ZERO;
    for batch in batches(chunk) {
        let batch = batch.map_err(|error| error.to_string())?;
        for record in RecordStream::new(&batch, usize::MAX).map_err(|error| error.to_string())? {
            let record = record.map_err(|error| error.to_string())?;
            let words =
                |error: &dyn std::fmt::Display| format!("record at offset {}: {error}", record.offset);
            let value = record.value.unwrap_or_default();
            let decoded = Record::decode(&value).map_err(|error| words(&error))?;
            image.apply(&decoded).map_err(|error| words(&error))?;
            replayed.records += 1;
            if let Record::TopicDeleted { topic_id } = decoded {
                replayed.deleted.push(topic_id);
            }
        }
        end = batch.header.next_offset();
    }
    Ok(end)
}

fn batch_of(records: &[Record], now: TimestampMs) -> BytesMut {
    let mut builder = BatchBuilder::new(Codec::None);
    for record in records {
        builder.push(now, &RecordParts { key: None, value: Some(&record.encode()), headers: &[] });
    }
    BytesMut::from(&builder.build()[..])
}
