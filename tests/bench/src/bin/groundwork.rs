//! What must be done to the machine before a row: `groundwork touch BYTES` makes that much memory the guest's own, so
//! that no broker pays for the first touch of it; `groundwork evict FOLDER...` writes all files below back and drops them
//! from the page cache, so that what is read next comes from the disk.
#![forbid(unsafe_code)]

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words[..] {
        ["touch", bytes] => match bytes.parse() {
            Ok(bytes) => touch(bytes),
            Err(error) => Err(io::Error::new(io::ErrorKind::InvalidInput, error)),
        },
        ["evict", ref folders @ ..] if !folders.is_empty() => {
            folders.iter().try_for_each(|folder| evict(Path::new(folder)))
        }
        _ => {
            eprintln!("usage: groundwork touch BYTES | evict FOLDER...");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("groundwork: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Writes to every page of fresh memory, at most half of what is free.
fn touch(bytes: usize) -> io::Result<()> {
    const PAGE: usize = 4096;
    let mut memory = vec![0u8; bytes.min(available()? / 2)];
    for page in memory.chunks_mut(PAGE) {
        page[0] = 1;
    }
    std::hint::black_box(&memory);
    Ok(())
}

/// Memory in bytes that can be had without swapping.
fn available() -> io::Result<usize> {
    let text = fs::read_to_string("/proc/meminfo")?;
    let kib = text.lines().find_map(|line| {
        line.strip_prefix("MemAvailable:")?.split_whitespace().next()?.parse::<usize>().ok()
    });
    kib.map(|kib| kib << 10).ok_or_else(|| io::Error::other("/proc/meminfo does not say what is available"))
}

fn evict(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            evict(&path)?;
        } else if path.is_file() {
            let file = File::open(&path)?;
            // Dirty pages cannot be dropped.
            file.sync_all()?;
            rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
        }
    }
    Ok(())
}
