//! The controller's log on this node: where decisions are written, and what has been decided so far.

use std::rc::Rc;

use bytes::BytesMut;
use ouzel_metadata::{Image, Record};
use ouzel_model::batch::{BatchBuilder, Codec, RecordParts, RecordStream, batches};
use ouzel_model::{Offset, TimestampMs, TopicId};
use ouzel_raft::{ReplicatedLog, Solo};
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
    replica: Solo,
    /// Told when more may be committed than was.
    moved: Notify,
    /// Exclusive end of the records that every core of this node has seen.
    applied: watch::Sender<Offset>,
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
    pub(crate) fn new(replica: Solo) -> MetadataLog {
        let start = replica.offsets().log_start;
        let inner = Rc::new(Inner { replica, moved: Notify::new(), applied: watch::channel(start).0 });
        let weak = Rc::downgrade(&inner);
        inner.replica.local().on_progress(move || {
            if let Some(inner) = weak.upgrade() {
                inner.moved.notify_one();
            }
        });
        MetadataLog { inner }
    }

    /// The replica itself.
    pub(crate) fn replica(&self) -> &Solo {
        &self.inner.replica
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

    /// As [`MetadataLog::append`], and waits until every core of this node has seen the records.
    pub(crate) async fn write(&self, records: &[Record], now: TimestampMs) -> Result<(), ControllerError> {
        let end = self.append(records, now).await?;
        self.wait_applied(end).await
    }

    /// Resolves when every core of this node has seen the records below `end`.
    pub(crate) async fn wait_applied(&self, end: Offset) -> Result<(), ControllerError> {
        let mut applied = self.inner.applied.subscribe();
        // The sender lives as long as this handle.
        applied.wait_for(|applied| *applied >= end).await.map(|_| ()).map_err(|_| ControllerError::Stopped)
    }

    /// Exclusive end of what every core has seen.
    pub(crate) fn applied(&self) -> Offset {
        *self.inner.applied.borrow()
    }

    /// Says that every core has seen the records below `end`.
    pub(crate) fn set_applied(&self, end: Offset) {
        self.inner.applied.send_replace(end);
    }

    /// Resolves when something above `applied` is committed.
    pub(crate) async fn committed_beyond(&self, applied: Offset) {
        loop {
            let moved = self.inner.moved.notified();
            if self.inner.replica.offsets().high_watermark > applied {
                return;
            }
            moved.await;
        }
    }

    /// Applies what is committed from `from` on, and gives where that ends.
    ///
    /// # Errors
    /// In words, when the log cannot be read or holds what no controller of this release wrote.
    pub(crate) async fn replay(
        &self,
        image: &mut Image,
        mut from: Offset,
        replayed: &mut Replayed,
    ) -> Result<Offset, String> {
        let end = self.inner.replica.offsets().high_watermark;
        while from < end {
            let read = self.inner.replica.local().read(from, end, READ_BYTES, true).await;
            let before = from;
            for chunk in &read.map_err(|error| error.to_string())?.batches {
                from = replay_batches(image, chunk, replayed)?;
            }
            if from <= before {
                return Err(format!("it ends at offset {from}, before its own end {end}"));
            }
        }
        Ok(from)
    }
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
