//! Which core is the broker's and which the drivers', the harness among them.

use std::process::Command;

use crate::provision;

/// Two different cores of those that this process may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pinning {
    pub(super) broker_core: usize,
    pub(super) driver_core: usize,
}

impl Pinning {
    /// Picks the cores, and tries whether a process can be held on each.
    pub(super) fn probe() -> Result<Pinning, String> {
        let status = std::fs::read_to_string("/proc/self/status").map_err(|e| format!("read /proc: {e}"))?;
        let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
        let pinning = Pinning::of(&cores(allowed.unwrap_or_default().trim()))?;
        for core in [pinning.broker_core, pinning.driver_core] {
            let words = held_on(core);
            let mut probe = Command::new(&words[0]);
            probe.args(&words[1..]).arg("true");
            provision::run_quietly(&format!("hold a process on core {core}"), &mut probe)?;
        }
        Ok(pinning)
    }

    /// The last core is the broker's, the first the drivers': interrupts tend to the first.
    fn of(allowed: &[usize]) -> Result<Pinning, String> {
        match *allowed {
            [driver_core, .., broker_core] => Ok(Pinning { broker_core, driver_core }),
            _ => Err(format!(
                "a comparison needs two cores, one for the broker and one for the drivers; these may be used: {allowed:?}"
            )),
        }
    }

    /// Holds this process on the drivers' core, and with it all that it starts from now on.
    pub(super) fn hold_ourselves(self) -> Result<(), String> {
        let mut taskset = Command::new("taskset");
        taskset.args(["--all-tasks", "--cpu-list", "--pid", &self.driver_core.to_string()]);
        taskset.arg(std::process::id().to_string());
        provision::run_quietly("hold the harness on the drivers' core", &mut taskset)
    }

    /// What a broker is started through.
    pub(super) fn broker(self) -> Vec<String> {
        held_on(self.broker_core)
    }

    /// What a driver is started through.
    pub(super) fn driver(self) -> Vec<String> {
        held_on(self.driver_core)
    }
}

/// The words before a command that hold it on a core, and end it with whoever started it, however that ends.
fn held_on(core: usize) -> Vec<String> {
    let core = core.to_string();
    ["setpriv", "--pdeathsig", "KILL", "taskset", "--cpu-list", &core].map(str::to_owned).to_vec()
}

/// Reads `0-2,5`.
fn cores(list: &str) -> Vec<usize> {
    let mut cores = Vec::new();
    for part in list.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(first), Ok(last)) = (first.parse::<usize>(), last.parse::<usize>()) {
            cores.extend(first..=last);
        }
    }
    cores
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_cores_are_read() {
        assert_eq!(cores("0-1"), [0, 1]);
        assert_eq!(cores("3"), [3]);
        assert_eq!(cores("0-2,5,7-8"), [0, 1, 2, 5, 7, 8]);
        assert_eq!(cores(""), [0; 0]);
    }

    #[test]
    fn broker_and_driver_never_share_a_core() {
        assert_eq!(Pinning::of(&[0, 1]), Ok(Pinning { broker_core: 1, driver_core: 0 }));
        assert_eq!(Pinning::of(&[2, 4, 6]), Ok(Pinning { broker_core: 6, driver_core: 2 }));
        assert!(Pinning::of(&[0]).is_err());
    }
}
