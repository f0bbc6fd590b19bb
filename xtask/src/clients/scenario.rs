//! One row of the table, ready to run: its name, the clients it needs, and what it does to a stage.

use super::families::Family;
use super::stage::Stage;

type Play = Box<dyn Fn(&Stage<'_>) -> Result<String, String> + Send + Sync>;

/// A scenario that shares the broker with others at the same time; it may not kill it.
pub(super) struct Scenario {
    pub(super) name: String,
    pub(super) needs: Vec<Family>,
    /// Runs with `--quick` too, and in the configurations that are only sampled.
    pub(super) quick: bool,
    pub(super) play: Play,
}

impl Scenario {
    pub(super) fn new(
        name: impl Into<String>,
        needs: &[Family],
        play: impl Fn(&Stage<'_>) -> Result<String, String> + Send + Sync + 'static,
    ) -> Scenario {
        Scenario { name: name.into(), needs: needs.to_vec(), quick: false, play: Box::new(play) }
    }

    pub(super) fn quick(self) -> Scenario {
        Scenario { quick: true, ..self }
    }
}
