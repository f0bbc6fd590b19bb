//! The null broker: receives Kafka's frames, checks the CRC of what is produced, writes it to the page cache and answers;
//! what is fetched goes out by sendfile. One thread, one topic of any name, no flush, no recovery, no limits. It is the
//! floor under any broker on this machine, and no broker.
//!
//! `null-broker PORT PARTITIONS FOLDER`, on the loopback address; says `ready` on stdout, and ends by a signal.
#![forbid(unsafe_code)]

mod answers;
mod log;
mod serving;

use std::path::PathBuf;
use std::process::ExitCode;

use log::Logs;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [port, partitions, folder] = &arguments[..] else {
        eprintln!("usage: null-broker PORT PARTITIONS FOLDER");
        return ExitCode::from(2);
    };
    let (Ok(port), Ok(partitions)) = (port.parse(), partitions.parse()) else {
        eprintln!("null-broker: port and partitions are numbers");
        return ExitCode::from(2);
    };
    let served = Logs::create(&PathBuf::from(folder), partitions).and_then(|logs| serving::serve(port, logs));
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("null-broker: {error}");
            ExitCode::FAILURE
        }
    }
}
