//! Bugs that tests plant to see whether the checker would notice them. Nothing of this exists outside of tests.

/// A mistake one could make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bug {
    /// A generation starts under the number of the one before.
    GenerationNotBumped,
    /// The answer that waited for a write is forgotten.
    ReplyDropped,
    /// A commit is answered, but its record is not applied.
    CommitNotApplied,
    /// A failed write is answered like one that succeeded.
    FailureAcknowledged,
    /// Followers get their assignment before it is persisted.
    AssignmentNotAwaited,
    /// Every member of a generation hears that it leads.
    TwoLeaders,
}

#[cfg(test)]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Bug>> = const { std::cell::Cell::new(None) };
}

/// Runs `body` with a bug planted on this thread.
#[cfg(test)]
pub(crate) fn with<T>(bug: Option<Bug>, body: impl FnOnce() -> T) -> T {
    struct Uproot;
    impl Drop for Uproot {
        fn drop(&mut self) {
            PLANTED.set(None);
        }
    }
    PLANTED.set(bug);
    let _uproot = Uproot;
    body()
}

/// Whether the bug is planted; the constant `false` outside of tests.
#[cfg(test)]
pub(crate) fn is(bug: Bug) -> bool {
    PLANTED.get() == Some(bug)
}

#[cfg(not(test))]
#[inline(always)]
pub(crate) const fn is(_bug: Bug) -> bool {
    false
}
