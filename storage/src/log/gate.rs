//! Keeps a log's file operations and its deletion apart.
//!
//! Files are named by path, and a deleted partition's path may belong to its successor a moment later: whoever opens,
//! writes or renames by path does so inside the gate, and deletion shuts it, waits until all are out, and only then
//! renames the directory.

use std::cell::Cell;

use tokio::sync::Notify;

#[derive(Default)]
pub(super) struct Gate {
    inside: Cell<usize>,
    shut: Cell<bool>,
    empty: Notify,
}

/// Held while a file operation runs.
pub(super) struct Inside<'a> {
    gate: &'a Gate,
}

impl Gate {
    /// Enters; `None` once the gate is shut.
    pub(super) fn enter(&self) -> Option<Inside<'_>> {
        if self.shut.get() {
            return None;
        }
        self.inside.set(self.inside.get() + 1);
        Some(Inside { gate: self })
    }

    /// Lets nobody in any more, and resolves when all are out. False if it was shut before.
    pub(super) async fn shut(&self) -> bool {
        let first = !self.shut.replace(true);
        while self.inside.get() > 0 {
            self.empty.notified().await;
        }
        first
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        let left = self.gate.inside.get() - 1;
        self.gate.inside.set(left);
        if left == 0 {
            // Keeps the wake for a waiter that looked a moment before.
            self.gate.empty.notify_one();
        }
    }
}
