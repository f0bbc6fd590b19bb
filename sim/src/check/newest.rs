//! What became of the newest values in a compacted topic: cleaning takes what is older, and nothing else.

use std::collections::BTreeMap;

use ouzel_model::Offset;

use super::history::{History, Outcome, Value};
use super::verdict::{Kind, Verdict};

/// Keys of a compacted topic: a value is of the key with its number modulo this.
pub const KEYS: u64 = 7;

/// One write of a value, by the topic's only writer: it ends before the next begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Upsert {
    /// What; its number says of which key.
    pub value: Value,
    /// Where it was put, if that was told.
    pub outcome: Outcome<Offset>,
}

/// Judges what a compacted topic holds in the end.
///
/// The last record of a key must be the newest acknowledged value, or one that was written after it; one of unknown fate
/// from before may have come late.
pub fn judge(history: &History, verdict: &mut Verdict) {
    let Some(last) = &history.compacted else { return };
    let mut writes: BTreeMap<u64, Vec<&Upsert>> = BTreeMap::new();
    for upsert in &history.upserts {
        verdict.counts.upserts += u64::from(matches!(upsert.outcome, Outcome::Done(_)));
        writes.entry(upsert.value.0 % KEYS).or_default().push(upsert);
    }
    let mut found: BTreeMap<u64, (Offset, Value)> = BTreeMap::new();
    for (offset, value, _) in &last.records {
        verdict.counts.upserts_left += 1;
        found.insert(value.0 % KEYS, (*offset, *value));
    }
    if history.is_compacted_forgiven {
        return;
    }
    for (key, writes) in writes {
        let Some(newest) = writes.iter().rposition(|write| matches!(write.outcome, Outcome::Done(_))) else {
            continue;
        };
        let Some((offset, value)) = found.get(&key) else {
            let facts = format!("key {key}: {:?} was acknowledged, and nothing is left", writes[newest]);
            verdict.broken(Kind::LostAcknowledged, facts);
            continue;
        };
        let write = writes.iter().position(|write| write.value == *value);
        match write {
            Some(nth) if nth == newest => {
                // Of several copies the last one stays.
                if let Outcome::Done(base) = writes[nth].outcome
                    && *offset < base
                {
                    let facts = format!("key {key}: {:?} is at {offset}", writes[nth]);
                    verdict.broken(Kind::OffsetNotFinal, facts);
                }
            }
            Some(nth) if nth > newest || writes[nth].outcome == Outcome::Unknown => {}
            Some(nth) => {
                let facts = format!("key {key}: {:?} is the last, after {:?}", writes[nth], writes[newest]);
                verdict.broken(Kind::LostAcknowledged, facts);
            }
            None => verdict.broken(Kind::NeverWritten, format!("key {key}: {} at {offset}", value.0)),
        }
    }
}
