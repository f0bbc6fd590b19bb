//! A client in a process of its own, of whatever language, followed by the progress lines it prints.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::last_words::last_words;

/// What a driver has said of itself so far.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    count: AtomicU64,
    /// A consumer's next offset by partition.
    following: Mutex<BTreeMap<usize, u64>>,
}

impl Progress {
    /// Records acknowledged, or records seen.
    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// The offset behind the last record seen of a partition.
    pub(crate) fn following(&self, partition: usize) -> u64 {
        self.following.lock().map_or(0, |following| following.get(&partition).copied().unwrap_or(0))
    }

    /// Takes one line in; lines that are no progress are none of ours.
    fn hear(&self, line: &str) {
        let mut words = line.split_whitespace();
        if words.next() != Some("progress") {
            return;
        }
        if let Some(count) = words.next().and_then(|word| word.parse().ok()) {
            self.count.store(count, Ordering::Relaxed);
        }
        let pairs = words.next().unwrap_or("").split(',').filter_map(|pair| {
            let (partition, offset) = pair.split_once('=')?;
            Some((partition.parse::<usize>().ok()?, offset.parse::<u64>().ok()?))
        });
        if let Ok(mut following) = self.following.lock() {
            following.extend(pairs);
        }
    }
}

/// A running client. Dropped, it is killed.
#[derive(Debug)]
pub(crate) struct Driver {
    pub(crate) name: String,
    pub(crate) progress: Arc<Progress>,
    child: Child,
    stdin: Option<ChildStdin>,
    listener: Option<JoinHandle<()>>,
    errors: PathBuf,
}

impl Driver {
    /// Starts a client; its stderr goes to `<folder>/<name>.log`.
    pub(crate) fn start(name: &str, folder: &Path, mut command: Command) -> Result<Driver, String> {
        let errors = folder.join(format!("{name}.log"));
        let log = File::create(&errors).map_err(|e| format!("create {}: {e}", errors.display()))?;
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .map_err(|e| format!("start {name}: {e}"))?;
        let progress = Arc::new(Progress::default());
        let heard = Arc::clone(&progress);
        let stdout = child.stdout.take();
        let listener = std::thread::spawn(move || {
            for line in
                stdout.into_iter().flat_map(|stdout| BufReader::new(stdout).lines()).map_while(Result::ok)
            {
                heard.hear(&line);
            }
        });
        let stdin = child.stdin.take();
        Ok(Driver { name: name.to_owned(), progress, child, stdin, listener: Some(listener), errors })
    }

    /// Whether the client has ended, and ended well. An end with an error is an error.
    pub(crate) fn has_ended(&mut self) -> Result<bool, String> {
        match self.child.try_wait() {
            Ok(None) => Ok(false),
            Ok(Some(status)) => self.judge(status).map(|()| true),
            Err(error) => Err(format!("wait for {}: {error}", self.name)),
        }
    }

    /// Asks the client to end by closing its stdin, and waits for it.
    pub(crate) fn finish(&mut self, longest: Duration) -> Result<(), String> {
        self.stdin = None;
        let began = Instant::now();
        while !self.has_ended()? {
            if began.elapsed() > longest {
                return Err(format!("{} did not end within {longest:?}; {}", self.name, self.last_words()));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        // The last lines are heard only when the pipe has closed.
        if let Some(listener) = self.listener.take() {
            let _ = listener.join();
        }
        Ok(())
    }

    fn judge(&self, status: ExitStatus) -> Result<(), String> {
        match status.success() {
            true => Ok(()),
            false => Err(format!("{} failed ({status}); {}", self.name, self.last_words())),
        }
    }

    fn last_words(&self) -> String {
        last_words(&self.errors)
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // Both fail only for a process that has ended, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_lines_are_heard_and_others_are_not() {
        let progress = Progress::default();
        progress.hear("progress 12 0=5,3=7");
        progress.hear("WARN something 99");
        progress.hear("progress 13 3=8");
        assert_eq!(progress.count(), 13);
        assert_eq!((progress.following(0), progress.following(3), progress.following(1)), (5, 8, 0));
    }

    #[test]
    fn a_driver_ends_when_its_stdin_closes_and_a_failure_is_quoted() {
        let folder = std::env::temp_dir().join(format!("ouzel-xtask-driver-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let shell = |script: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", script]);
            command
        };
        let mut good = Driver::start("good", &folder, shell("cat; echo progress 3")).unwrap();
        good.finish(Duration::from_secs(60)).unwrap();
        assert_eq!(good.progress.count(), 3);
        let mut bad = Driver::start("bad", &folder, shell("echo broken pieces >&2; exit 1")).unwrap();
        let message = bad.finish(Duration::from_secs(60)).unwrap_err();
        assert!(message.contains("broken pieces"), "{message}");
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
