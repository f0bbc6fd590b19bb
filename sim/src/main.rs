//! `sim-trace SEED`: prints the trace of a seed's run, for comparison with that of another process.
#![forbid(unsafe_code)]

use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    let Some(seed) = std::env::args().nth(1).and_then(|seed| seed.parse().ok()) else {
        return fail("usage: sim-trace SEED");
    };
    match ouzel_sim::exchange::run(seed) {
        Ok(trace) => match std::io::stdout().write_all(trace.as_bytes()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&format!("write the trace: {error}")),
        },
        Err(error) => fail(&format!("seed {seed}: {error}")),
    }
}

fn fail(what: &str) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "{what}");
    ExitCode::FAILURE
}
