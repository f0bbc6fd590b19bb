//! The open-loop driver: one thread that produces batches encoded beforehand and fetches them, for `cargo xtask bench
//! compare`. With a rate it keeps to its schedule however slow the broker is, and counts each latency from when the batch
//! was due: safe against coordinated omission. Without one it keeps as many requests under way as it may, and tells no
//! latency, because a closed loop that is held up measures less often.
//!
//! Says `{"t":"measuring"}` when it is warm, `{"t":"closed"}` when the window has ended, and then the result, each one line;
//! every second beside these `{"t":"progress","records":N}`, how many went through so far.
#![forbid(unsafe_code)]

mod asking;
mod consumer;
mod producer;
mod run;
mod tally;
mod task;

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match task::Task::parse(&arguments).and_then(|task| run::run(&task).map_err(|error| error.to_string())) {
        Ok(result) => {
            println!("{result}");
            ExitCode::SUCCESS
        }
        Err(message) => {
            eprintln!("open-loop: {message}");
            ExitCode::FAILURE
        }
    }
}
