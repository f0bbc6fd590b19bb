//! What groups committed, and what they were told they had.

use std::collections::BTreeMap;

use ouzel_model::Offset;

use super::history::{Asked, Committed, History, Outcome, PartitionId};
use super::verdict::{Kind, Verdict};

/// Judges every answer against the commits around it.
///
/// Commits of a group on a partition follow one another: those of an owner in order, and those of a generation after those
/// before it, which nobody takes any more. An answer must be the newest acknowledged commit of before the question, or
/// one that was under way meanwhile, or one of unknown fate that took effect late.
pub fn judge(history: &History, verdict: &mut Verdict) {
    let mut commits: BTreeMap<(u32, PartitionId), Vec<&Committed>> = BTreeMap::new();
    for committed in &history.committed {
        verdict.counts.commits += u64::from(committed.outcome == Outcome::Done(()));
        commits.entry((committed.group, committed.partition)).or_default().push(committed);
    }
    for made in commits.values_mut() {
        made.sort_by_key(|committed| (committed.generation, committed.span.begun));
    }
    let none = Vec::new();
    for asked in &history.asked {
        let made = commits.get(&(asked.group, asked.partition)).unwrap_or(&none);
        if !history.forgiven_groups.contains(&asked.group) {
            judge_answer(asked, made, verdict);
        }
    }
}

fn judge_answer(asked: &Asked, made: &[&Committed], verdict: &mut Verdict) {
    let done = |committed: &&&Committed| committed.outcome == Outcome::Done(());
    // Acknowledged before the question was asked: nothing older may be answered.
    let newest = made.iter().filter(done).rfind(|committed| committed.span.ended <= asked.span.begun);
    let since = newest.map_or(0, |newest| position(made, newest));
    let expected = newest.map(|newest| newest.offset);
    if asked.offset == expected {
        return;
    }
    let who = format!("group {} on partition {}", asked.group, asked.partition.0);
    let Some(found) = asked.offset else {
        verdict.broken(Kind::LostCommit, format!("{who}: {expected:?} was committed, and none is known"));
        return;
    };
    let under_way = made[since..].iter().any(|committed| {
        committed.offset == found
            && committed.outcome != Outcome::Refused
            && committed.span.begun <= asked.span.ended
    });
    if under_way {
        return;
    }
    let generation = newest.map(|newest| newest.generation);
    let late = made[..since].iter().any(|committed| {
        committed.offset == found
            && committed.outcome == Outcome::Unknown
            && Some(committed.generation) == generation
    });
    if late {
        verdict.counts.late_commits += 1;
        return;
    }
    let was = made[..since].iter().any(|committed| committed.offset == found);
    let kind = if was { Kind::CommitWentBack } else { Kind::LostCommit };
    let expected = expected.unwrap_or(Offset(-1));
    verdict.broken(kind, format!("{who}: {expected} was committed, and {found} is answered"));
}

fn position(made: &[&Committed], one: &Committed) -> usize {
    made.iter().position(|committed| std::ptr::eq(*committed, one)).unwrap_or_default()
}
