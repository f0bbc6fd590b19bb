//! Snapshots in the controller's log: what lets its head go, and how it is read from wherever it begins.
//!
//! A snapshot is a run of ordinary records of the log: [`Record::SnapshotStarted`], one [`Record::SnapshotPiece`] for each
//! record of [`Image::to_records`], [`Record::SnapshotEnded`]. It says what the decisions before it have made, so the log
//! may begin with it.
//!
//! It counts only if it is whole and nothing was decided within it. A leader that dies in the middle, or is followed by
//! one that decides something, leaves pieces that nobody heeds: the next leader owes them nothing and begins its own when
//! one is due.

use ouzel_model::Offset;

use crate::delta::ApplyError;
use crate::image::Image;
use crate::record::Record;

/// A reader of the controller's log, from its first record on.
///
/// A log from its beginning starts with an empty image. One whose head is gone starts with none: what comes before the
/// first whole snapshot is part of that snapshot already. Every further snapshot must be what the reader knows.
#[derive(Clone, Debug, Default)]
pub struct Replay {
    image: Option<Image>,
    open: Option<Open>,
    newest: Option<Offset>,
    bytes_since: u64,
    snapshot_bytes: u64,
}

/// A snapshot that has begun and not ended.
#[derive(Clone, Debug)]
struct Open {
    start: Offset,
    image: Image,
    pieces: u32,
    bytes: u64,
}

/// Why the log is not what a controller of this release wrote.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    /// A decision, or a piece, contradicts those before it.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// Pieces are missing, or there are more than were written.
    #[error("the snapshot that begins at offset {start} has {found} pieces, but was written with {written}")]
    Pieces {
        /// Where it begins.
        start: Offset,
        /// Pieces read.
        found: u32,
        /// Pieces it ought to have.
        written: u32,
    },
    /// This node and the controller have made different things of the same decisions.
    #[error(
        "the snapshot that begins at offset {start} is not what the decisions before it have made here; \
         this node's copy of the cluster cannot be trusted"
    )]
    Mismatch {
        /// Where it begins.
        start: Offset,
    },
}

impl Replay {
    /// A reader of a log that begins at `log_start`.
    pub fn from(log_start: Offset) -> Replay {
        Replay { image: (log_start == Offset::ZERO).then(Image::default), ..Replay::default() }
    }

    /// What has been decided; `None` until the first whole snapshot of a log whose head is gone.
    pub fn image(&self) -> Option<&Image> {
        self.image.as_ref()
    }

    /// Where the newest whole snapshot begins: nobody needs what lies before.
    pub fn newest_snapshot(&self) -> Option<Offset> {
        self.newest
    }

    /// Takes the next record, which is at `at` and has `bytes` bytes.
    ///
    /// # Errors
    /// See [`ReplayError`]; the reader is of no use then.
    pub fn apply(&mut self, at: Offset, record: &Record, bytes: usize) -> Result<(), ReplayError> {
        let bytes = bytes as u64;
        self.bytes_since += bytes;
        match record {
            Record::SnapshotStarted => {
                self.open = Some(Open { start: at, image: Image::default(), pieces: 0, bytes });
            }
            Record::SnapshotPiece { record } => {
                if let Some(open) = &mut self.open {
                    open.image.apply(record)?;
                    open.pieces += 1;
                    open.bytes += bytes;
                }
            }
            Record::SnapshotEnded { pieces } => {
                if let Some(open) = self.open.take() {
                    self.end(open, *pieces, bytes)?;
                }
            }
            decision => {
                // What was begun does not tell of this one.
                self.open = None;
                if let Some(image) = &mut self.image {
                    image.apply(decision)?;
                }
            }
        }
        Ok(())
    }

    fn end(&mut self, open: Open, written: u32, bytes: u64) -> Result<(), ReplayError> {
        let Open { start, image, pieces: found, bytes: before } = open;
        if found != written {
            return Err(ReplayError::Pieces { start, found, written });
        }
        match &self.image {
            None => self.image = Some(image),
            Some(own) if *own == image => {}
            Some(_) => return Err(ReplayError::Mismatch { start }),
        }
        self.newest = Some(start);
        self.snapshot_bytes = before + bytes;
        self.bytes_since = 0;
        Ok(())
    }

    /// Whether it is time for a snapshot: since the last one `bytes_max` bytes of records have come, and not less than the
    /// last one itself had. So the log holds a snapshot and what came since, and snapshots cost at most what decisions do.
    pub fn is_snapshot_due(&self, bytes_max: u64) -> bool {
        self.image.is_some() && self.bytes_since >= bytes_max.max(self.snapshot_bytes)
    }
}

/// The records of an image's snapshot, in batches of about `batch_bytes`: what follows [`Record::SnapshotStarted`].
///
/// # Errors
/// In words, if the pieces do not make the image again: such a snapshot must not be written.
pub fn pieces(image: &Image, batch_bytes: usize) -> Result<Vec<Vec<Record>>, String> {
    let records = image.to_records();
    match Image::from_records(&records) {
        Ok(again) if again == *image => {}
        Ok(_) => return Err("its records make another image".to_owned()),
        Err(error) => return Err(error.to_string()),
    }
    let count = u32::try_from(records.len()).map_err(|_| "it has too many records".to_owned())?;
    let mut batches = vec![Vec::new()];
    let mut bytes = 0;
    for record in records {
        let piece = Record::SnapshotPiece { record: Box::new(record) };
        let size = piece.encode().len();
        if bytes > 0 && bytes + size > batch_bytes {
            batches.push(Vec::new());
            bytes = 0;
        }
        bytes += size;
        batches.last_mut().expect("there is one from the start").push(piece);
    }
    batches.last_mut().expect("as above").push(Record::SnapshotEnded { pieces: count });
    Ok(batches)
}
