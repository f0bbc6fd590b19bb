//! One row of the table, ready to run: its name, the clients it needs, and what it does to a stage.

use super::families::Family;
use super::stage::Stage;

type Play = Box<dyn Fn(&Stage<'_>) -> Result<String, String> + Send + Sync>;

/// A scenario that shares the cluster with others at the same time, unless it takes brokers down.
pub(super) struct Scenario {
    pub(super) name: String,
    pub(super) needs: Vec<Family>,
    /// Runs with `--quick` too, and in the configurations that are only sampled.
    pub(super) quick: bool,
    /// Holds while brokers of the cluster are restarted beside it. The others count answers that a client's own retry
    /// over a lost connection may change, or what acks=1 and acks=0 do not promise then.
    pub(super) bears_restarts: bool,
    /// Takes a broker down and brings it back: it is played alone.
    pub(super) takes_brokers_down: bool,
    /// Brokers the cluster must have at least.
    pub(super) nodes_min: usize,
    pub(super) play: Play,
}

impl Scenario {
    pub(super) fn new(
        name: impl Into<String>,
        needs: &[Family],
        play: impl Fn(&Stage<'_>) -> Result<String, String> + Send + Sync + 'static,
    ) -> Scenario {
        Scenario {
            name: name.into(),
            needs: needs.to_vec(),
            quick: false,
            bears_restarts: false,
            takes_brokers_down: false,
            nodes_min: 1,
            play: Box::new(play),
        }
    }

    pub(super) fn quick(self) -> Scenario {
        Scenario { quick: true, ..self }
    }

    pub(super) fn on_at_least(self, nodes_min: usize) -> Scenario {
        Scenario { nodes_min, ..self }
    }

    pub(super) fn taking_brokers_down(self) -> Scenario {
        Scenario { takes_brokers_down: true, ..self }
    }

    pub(super) fn bearing_restarts(self) -> Scenario {
        Scenario { bears_restarts: true, ..self }
    }
}
