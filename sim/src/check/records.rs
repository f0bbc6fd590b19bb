//! What became of the records: one value per offset, nothing promised lost, nothing twice, nothing out of order.

use std::collections::{BTreeMap, BTreeSet};

use ouzel_model::{LeaderEpoch, Offset};

use super::history::{Acks, Fetched, Final, History, Outcome, PartitionId, Produced, ProducerLife, Value};
use super::verdict::{Counts, Kind, Verdict};

/// Judges every partition's records.
pub fn judge(history: &History, verdict: &mut Verdict) {
    let mut partitions: BTreeSet<PartitionId> = history.partitions.keys().copied().collect();
    partitions.extend(history.produced.iter().map(|produced| produced.partition));
    partitions.extend(history.fetched.iter().map(|fetched| fetched.partition));
    for partition in partitions {
        let case = Case {
            partition,
            produced: history.produced.iter().filter(|produced| produced.partition == partition).collect(),
            fetched: history.fetched.iter().filter(|fetched| fetched.partition == partition).collect(),
            last: history.partitions.get(&partition),
            is_forgiven: history.forgiven_partitions.contains(&partition),
            have_disks_lied: history.have_disks_lied,
        };
        case.one_value_at_one_offset(verdict);
        case.nothing_from_nowhere(verdict);
        case.nothing_is_deleted_unasked(verdict);
        case.promises_are_kept(verdict);
        case.idempotence(verdict);
    }
}

/// One partition of a history.
struct Case<'a> {
    partition: PartitionId,
    produced: Vec<&'a Produced>,
    fetched: Vec<&'a Fetched>,
    last: Option<&'a Final>,
    /// Whether loss of what was promised is forgiven.
    is_forgiven: bool,
    have_disks_lied: bool,
}

/// Somebody's word that a value is at an offset.
#[derive(Clone, Copy)]
struct Claim {
    offset: Offset,
    value: Value,
    epoch: Option<LeaderEpoch>,
    /// Whether the word is meant for ever.
    firm: bool,
    by: &'static str,
}

impl Case<'_> {
    fn claims(&self) -> Vec<Claim> {
        let mut claims = Vec::new();
        for produced in &self.produced {
            let Outcome::Done(place) = produced.outcome else { continue };
            let firm = produced.acks == Acks::All;
            let by = if firm { "acks=all" } else { "acks=1" };
            for (nth, value) in produced.values.iter().enumerate() {
                let offset = place.base + nth as i64;
                claims.push(Claim { offset, value: *value, epoch: place.epoch, firm, by });
            }
        }
        let read = self.fetched.iter().flat_map(|fetched| &fetched.records);
        claims.extend(read.map(|(offset, value, epoch)| Claim {
            offset: *offset,
            value: *value,
            epoch: Some(*epoch),
            firm: true,
            by: "a reader",
        }));
        let last = self.last.iter().flat_map(|last| &last.records);
        claims.extend(last.map(|(offset, value, epoch)| Claim {
            offset: *offset,
            value: *value,
            epoch: Some(*epoch),
            firm: true,
            by: "the end",
        }));
        claims
    }

    /// An offset of an epoch is given once, whatever is lost, unless a disk lied; an offset once, as long as nothing promised
    /// is lost.
    fn one_value_at_one_offset(&self, verdict: &mut Verdict) {
        let mut of_epoch: BTreeMap<(Offset, LeaderEpoch), Claim> = BTreeMap::new();
        let mut of_all: BTreeMap<Offset, Claim> = BTreeMap::new();
        let mut told = BTreeSet::new();
        for claim in self.claims() {
            let mut compare = |known: &Claim, scope: String| {
                if known.value != claim.value && told.insert(claim.offset) {
                    verdict.broken(
                        Kind::TwoValuesAtOneOffset,
                        format!(
                            "partition {} offset {}{scope}: {} by {}, {} by {}",
                            self.partition.0, claim.offset, known.value.0, known.by, claim.value.0, claim.by
                        ),
                    );
                }
            };
            if let Some(epoch) = claim.epoch.filter(|_| !self.have_disks_lied) {
                let known = of_epoch.entry((claim.offset, epoch)).or_insert(claim);
                compare(known, format!(" of epoch {epoch}"));
            }
            if claim.firm && !self.is_forgiven {
                let known = of_all.entry(claim.offset).or_insert(claim);
                compare(known, String::new());
            }
        }
    }

    /// Every value that was seen was written by somebody who was not told that it was refused.
    fn nothing_from_nowhere(&self, verdict: &mut Verdict) {
        let mut possible = BTreeMap::new();
        for produced in &self.produced {
            for value in &produced.values {
                possible.insert(*value, produced.outcome != Outcome::Refused);
            }
        }
        let read = self.fetched.iter().flat_map(|fetched| &fetched.records);
        let last = self.last.iter().flat_map(|last| &last.records);
        let seen: BTreeMap<Value, Offset> =
            read.chain(last).map(|(offset, value, _)| (*value, *offset)).collect();
        for (value, offset) in seen {
            let why = match possible.get(&value) {
                Some(true) => continue,
                Some(false) => "was refused",
                None => "was never written",
            };
            verdict.broken(
                Kind::NeverWritten,
                format!("partition {} offset {offset}: {} {why}", self.partition.0, value.0),
            );
        }
    }

    /// A log begins where records were to be deleted, and not behind that.
    fn nothing_is_deleted_unasked(&self, verdict: &mut Verdict) {
        let Some(last) = self.last.filter(|_| !self.is_forgiven) else { return };
        let told = self.fetched.iter().map(|fetched| fetched.log_start).max();
        let log_start = told.max(Some(last.log_start)).unwrap_or(last.log_start);
        if log_start > last.log_start_max {
            verdict.broken(
                Kind::DeletedUnasked,
                format!(
                    "partition {}: the log began at {log_start}, nothing from {} on was to be deleted",
                    self.partition.0, last.log_start_max
                ),
            );
        }
    }

    /// What was acknowledged or shown is there in the end, and where it was.
    fn promises_are_kept(&self, verdict: &mut Verdict) {
        let Some(last) = self.last else { return };
        verdict.counts.kept += last.records.len() as u64;
        let gone = |counts: &Counts| counts.lost_admitted + counts.vanished_admitted;
        let gone_before = gone(&verdict.counts);
        let there: BTreeMap<Offset, Value> =
            last.records.iter().map(|(offset, value, _)| (*offset, *value)).collect();
        let places: BTreeMap<Value, Offset> =
            last.records.iter().map(|(offset, value, _)| (*value, *offset)).collect();
        let mut told = BTreeSet::new();
        for produced in &self.produced {
            let Outcome::Done(place) = produced.outcome else { continue };
            for (nth, value) in produced.values.iter().enumerate() {
                let offset = place.base + nth as i64;
                let kept = last.is_deleted(offset) || there.get(&offset) == Some(value);
                match produced.acks {
                    Acks::None => {}
                    Acks::Leader => {
                        verdict.counts.acknowledged_leader += 1;
                        verdict.counts.lost_acks_leader += u64::from(!kept);
                    }
                    Acks::All => {
                        verdict.counts.acknowledged_all += 1;
                        if kept {
                            continue;
                        }
                        if self.is_forgiven {
                            verdict.counts.lost_admitted += 1;
                        } else if told.insert(*value) {
                            self.tell_missing(Kind::LostAcknowledged, *value, offset, &places, verdict);
                        }
                    }
                }
            }
        }
        for fetched in &self.fetched {
            for (offset, value, _) in &fetched.records {
                verdict.counts.read += 1;
                if last.is_deleted(*offset) || there.get(offset) == Some(value) {
                    continue;
                }
                if self.is_forgiven {
                    verdict.counts.vanished_admitted += 1;
                } else if told.insert(*value) {
                    self.tell_missing(Kind::ReadVanished, *value, *offset, &places, verdict);
                }
            }
        }
        verdict.counts.partitions_with_loss += u64::from(gone(&verdict.counts) > gone_before);
    }

    fn tell_missing(
        &self,
        kind: Kind,
        value: Value,
        offset: Offset,
        places: &BTreeMap<Value, Offset>,
        verdict: &mut Verdict,
    ) {
        let (partition, value_number) = (self.partition.0, value.0);
        match places.get(&value) {
            Some(elsewhere) => verdict.broken(
                Kind::OffsetNotFinal,
                format!("partition {partition}: {value_number} was at {offset} and is at {elsewhere}"),
            ),
            None => verdict.broken(
                kind,
                format!("partition {partition}: {value_number} was at {offset} and is nowhere"),
            ),
        }
    }

    /// An idempotent producer's values: once each, in their order, none left out before one that is there.
    fn idempotence(&self, verdict: &mut Verdict) {
        let Some(last) = self.last else { return };
        let mut at: BTreeMap<Value, Vec<Offset>> = BTreeMap::new();
        for (offset, value, _) in &last.records {
            at.entry(*value).or_default().push(*offset);
        }
        if !self.is_forgiven {
            for (offset, value, _) in self.fetched.iter().flat_map(|fetched| &fetched.records) {
                let seen = at.entry(*value).or_default();
                if !seen.contains(offset) {
                    seen.push(*offset);
                }
            }
        }
        let mut lives: BTreeMap<ProducerLife, BTreeMap<u64, Value>> = BTreeMap::new();
        for produced in &self.produced {
            for (sequence, value) in (produced.sequence..).zip(&produced.values) {
                let places = at.get(value).map_or(0, Vec::len);
                if places > 1 && produced.idempotent {
                    verdict.broken(
                        Kind::Duplicate,
                        format!("partition {}: {} is at {:?}", self.partition.0, value.0, at[value]),
                    );
                }
                if places > 1 && !produced.idempotent {
                    verdict.counts.repeated += 1;
                }
                if produced.idempotent {
                    lives.entry(produced.producer).or_default().insert(sequence, *value);
                }
            }
        }
        for (producer, values) in lives {
            let mut before: Option<(Value, Offset)> = None;
            let mut missing: Option<Value> = None;
            for value in values.values() {
                let first = at.get(value).and_then(|places| places.iter().min()).copied();
                let Some(place) = first else {
                    missing = missing.or(Some(*value));
                    continue;
                };
                if let Some((earlier, earlier_place)) = before
                    && place < earlier_place
                {
                    verdict.broken(
                        Kind::OutOfOrder,
                        format!(
                            "partition {} producer {}: {} at {earlier_place} was sent before {} at {place}",
                            self.partition.0, producer.0, earlier.0, value.0
                        ),
                    );
                }
                // What retention took was there. Where all of a log was lost, nobody knows its producers any more.
                if let Some(lost) = missing.take()
                    && !last.is_deleted(Offset(0))
                    && !self.is_forgiven
                {
                    verdict.broken(
                        Kind::SequenceGap,
                        format!(
                            "partition {} producer {}: {} is not there, but {} of after it is, at {place}",
                            self.partition.0, producer.0, lost.0, value.0
                        ),
                    );
                }
                before = Some((*value, place));
            }
        }
    }
}
