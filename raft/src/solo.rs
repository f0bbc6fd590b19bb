//! A log with a single replica: no Raft, the local log is the whole truth.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use bytes::BytesMut;
use ouzel_model::batch::Header;
use ouzel_model::{LeaderEpoch, TimestampMs};
use ouzel_storage::{AppendError, Durability, Log, ProducerVerdict};

use crate::replicated_log::{AppendRefused, Placed, Receipt, ReplicaOffsets, ReplicatedLog, Wait};

/// The single replica of a log; leads from the moment it is opened, in an epoch of its own.
///
/// Its high watermark is the flushed end in [`Durability::Durable`], else the end of completed writes: readers never see
/// what an acknowledgement would not have promised. It never goes back, also when the durability changes while it runs.
#[derive(Clone)]
pub struct Solo {
    inner: Rc<Inner>,
}

struct Inner {
    log: Log,
    epoch: LeaderEpoch,
    durability: Cell<Durability>,
    high_watermark: RefCell<ouzel_model::Offset>,
}

impl Solo {
    /// Takes an open log into service in `epoch`, which must be higher than any in the log and must survive a power cut
    /// before this is called: a tail that was lost may then never lend its offsets out twice under one epoch.
    ///
    /// # Panics
    /// If the log's history has this epoch, or a higher one, already.
    pub fn new(log: Log, epoch: LeaderEpoch, durability: Durability) -> Solo {
        let latest = log.latest_epoch();
        assert!(latest.is_none_or(|latest| latest < epoch), "epoch {epoch} after {latest:?} in {log:?}");
        log.begin_epoch(epoch);
        // What recovery let stand is flushed.
        let high_watermark = RefCell::new(log.offsets().log_end);
        Solo { inner: Rc::new(Inner { log, epoch, durability: Cell::new(durability), high_watermark }) }
    }

    /// Changes what acknowledgement means, for appends from now on.
    pub fn set_durability(&self, durability: Durability) {
        self.inner.durability.set(durability);
    }

    fn receipt(&self, placed: Placed) -> Receipt {
        let durable = self.inner.durability.get() == Durability::Durable;
        Receipt { placed, wait: Wait::Solo { log: self.inner.log.clone(), durable } }
    }

    fn place(&self, batch: BytesMut, now: TimestampMs) -> Result<Receipt, AppendRefused> {
        let log = &self.inner.log;
        let header = Header::parse(&batch).map_err(|error| AppendRefused::Invalid(error.to_string()))?;
        match log.check_producer(&header) {
            ProducerVerdict::Append => {}
            ProducerVerdict::Duplicate(known) => {
                return Ok(self.receipt(Placed {
                    base_offset: known.first_offset(),
                    last_offset: known.last_offset,
                    log_append_time: TimestampMs::NONE,
                    duplicate: true,
                }));
            }
            ProducerVerdict::OutOfOrder { producer_id, expected, found } => {
                return Err(AppendRefused::OutOfOrderSequence { producer_id, expected, found });
            }
            ProducerVerdict::StaleEpoch { producer_id, known, found } => {
                return Err(AppendRefused::StaleProducerEpoch { producer_id, current: known, found });
            }
        }
        let appended = log.append(batch, self.inner.epoch, now).map_err(|error| match error {
            AppendError::Fenced(fenced) => AppendRefused::Fenced(fenced),
            AppendError::DiskLow => {
                log.turn_away(&header);
                AppendRefused::DiskLow
            }
            AppendError::NotABatch(reason) | AppendError::OutOfOrder(reason) => {
                AppendRefused::Invalid(reason)
            }
        })?;
        Ok(self.receipt(Placed {
            base_offset: appended.base_offset,
            last_offset: appended.last_offset,
            log_append_time: appended.log_append_time,
            duplicate: false,
        }))
    }
}

impl ReplicatedLog for Solo {
    fn append(
        &self,
        batch: BytesMut,
        now: TimestampMs,
    ) -> impl Future<Output = Result<Receipt, AppendRefused>> + 'static {
        std::future::ready(self.place(batch, now))
    }

    fn offsets(&self) -> ReplicaOffsets {
        let offsets = self.inner.log.offsets();
        let safe = match self.inner.durability.get() {
            Durability::Durable => offsets.flushed_end,
            Durability::WriteCaching | Durability::Os => offsets.written_end,
        };
        let mut high_watermark = self.inner.high_watermark.borrow_mut();
        *high_watermark = safe.max(*high_watermark);
        ReplicaOffsets {
            log_start: offsets.log_start,
            high_watermark: *high_watermark,
            log_end: offsets.log_end,
        }
    }

    fn epoch(&self) -> LeaderEpoch {
        self.inner.epoch
    }

    fn local(&self) -> &Log {
        &self.inner.log
    }
}
