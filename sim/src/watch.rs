//! Looks at replicas and remembers what was seen: the judges of Raft's invariants, and of machines that forgot.

use std::time::Duration;

use crate::check::power::PowerJudge;
use crate::check::raft::{RaftJudge, Sight};
use crate::check::verdict::{Verdict, Violation};
use crate::events::Events;
use crate::replica::Milestones;

/// All that was seen of the replicas of a run, and what is wrong with it.
#[derive(Default)]
pub(crate) struct Watch {
    /// Among replicas at work, of which the newest entries are looked at.
    moving: RaftJudge,
    /// Among replicas of which all entries are looked at.
    contents: RaftJudge,
    pub(crate) power: PowerJudge,
    milestones: Milestones,
    lies_told: bool,
    verdict: Verdict,
}

impl Watch {
    /// From now on nothing is judged: a disk that lied may have its replica break every rule there is.
    pub(crate) fn admit_lies(&mut self) {
        self.lies_told = true;
    }

    /// Judges what a replica looks like, `with_contents` or without, and says what is wrong now.
    pub(crate) fn see(
        &mut self,
        sight: &Sight,
        with_contents: bool,
        now: Duration,
        events: &Events,
    ) -> &[Violation] {
        let before = self.verdict.violations.len();
        self.milestones.see(sight, events);
        let judge = if with_contents { &mut self.contents } else { &mut self.moving };
        judge.see(sight, &mut self.verdict);
        self.power.see(sight, now, &mut self.verdict);
        // What is flushed in every mode holds where all else may be lost.
        let is_lost = self.power.is_loss_admitted(sight.group);
        let counts = |news: &Violation| !self.lies_told && (!is_lost || news.kind.is_of_flushed());
        let news = self.verdict.violations.split_off(before);
        self.verdict.violations.extend(news.into_iter().filter(counts));
        &self.verdict.violations[before..]
    }

    pub(crate) fn violations(&self) -> &[Violation] {
        &self.verdict.violations
    }
}
