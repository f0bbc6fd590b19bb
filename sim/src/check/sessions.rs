//! What each reader saw: the next records in order, below the watermark it was told, and no leader going back.

use std::collections::BTreeMap;

use ouzel_model::{LeaderEpoch, Offset};

use super::history::{Fetched, History, PartitionId, Session};
use super::verdict::{Kind, Verdict};

/// Judges every reader's answers, each against those before it.
pub fn judge(history: &History, verdict: &mut Verdict) {
    let mut readers: BTreeMap<(Session, PartitionId), Reader> = BTreeMap::new();
    for fetched in &history.fetched {
        let reader = readers.entry((fetched.session, fetched.partition)).or_default();
        reader.judge(fetched, history.have_disks_lied, verdict);
    }
}

/// What a reader knows.
#[derive(Default)]
struct Reader {
    newest: Option<LeaderEpoch>,
    /// Watermark and log start, as told by the leader of each epoch.
    told: BTreeMap<LeaderEpoch, (Offset, Offset)>,
    high_watermark: Offset,
}

impl Reader {
    fn judge(&mut self, fetched: &Fetched, have_disks_lied: bool, verdict: &mut Verdict) {
        let who = format!("reader {} of partition {}", fetched.session.0, fetched.partition.0);
        let mut next = fetched.from.max(fetched.log_start);
        for (offset, value, _) in &fetched.records {
            // A disk that lied may have lost the end of a file that others follow.
            if *offset != next && !have_disks_lied {
                verdict.broken(
                    Kind::GapInSession,
                    format!(
                        "{who} asked from {}: got {} at {offset} where {next} is next",
                        fetched.from, value.0
                    ),
                );
            }
            if *offset >= fetched.high_watermark {
                verdict.broken(
                    Kind::AboveHighWatermark,
                    format!(
                        "{who}: {} at {offset}, the high watermark is {}",
                        value.0, fetched.high_watermark
                    ),
                );
            }
            next = *offset + 1;
        }
        self.judge_leader(fetched, &who, verdict);
    }

    fn judge_leader(&mut self, fetched: &Fetched, who: &str, verdict: &mut Verdict) {
        let Some(epoch) = fetched.epoch else { return };
        let told = (fetched.high_watermark, fetched.log_start);
        if let Some(before) = self.told.insert(epoch, told)
            && (told.0 < before.0 || told.1 < before.1)
        {
            verdict.broken(
                Kind::WatermarkWentBack,
                format!(
                    "{who}: the leader of epoch {epoch} said high watermark {} and log start {}, then {} and {}",
                    before.0, before.1, told.0, told.1
                ),
            );
        }
        if self.newest > Some(epoch) {
            verdict.counts.stale_answers += 1;
        } else if self.high_watermark > fetched.high_watermark {
            verdict.counts.watermarks_behind += 1;
        }
        self.newest = self.newest.max(Some(epoch));
        self.high_watermark = self.high_watermark.max(fetched.high_watermark);
    }
}
