//! A driver in a process of its own on the drivers' core, heard line by line. It ends with its owner.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use crate::last_words::last_words;

/// A running driver. Dropped, it is killed.
#[derive(Debug)]
pub(super) struct Program {
    name: String,
    child: Child,
    lines: Receiver<String>,
    errors: PathBuf,
}

impl Program {
    /// Starts it; its stderr goes to `<folder>/<name>.log`.
    pub(super) fn start(name: &str, folder: &Path, words: &[String]) -> Result<Program, String> {
        let errors = folder.join(format!("{name}.log"));
        let log = File::create(&errors).map_err(|e| format!("create {}: {e}", errors.display()))?;
        let mut child = Command::new(&words[0])
            .args(&words[1..])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .map_err(|e| format!("start {name}: {e}"))?;
        let (heard, lines) = channel();
        let stdout = child.stdout.take().map(BufReader::new);
        // Ends with the pipe.
        std::thread::spawn(move || {
            for line in stdout.into_iter().flat_map(BufRead::lines).map_while(Result::ok) {
                if heard.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(Program { name: name.to_owned(), child, lines, errors })
    }

    /// Its process.
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The next line; none once the program closed its stdout. An error after `longest` of silence.
    pub(super) fn line(&mut self, longest: Duration) -> Result<Option<String>, String> {
        match self.lines.recv_timeout(longest) {
            Ok(line) => Ok(Some(line)),
            Err(RecvTimeoutError::Disconnected) => Ok(None),
            Err(RecvTimeoutError::Timeout) => {
                Err(format!("{} said nothing for {longest:?}; {}", self.name, self.last_words()))
            }
        }
    }

    /// All further lines up to its end, which must be a good one and come within `longest`.
    pub(super) fn finish(mut self, longest: Duration) -> Result<Vec<String>, String> {
        let deadline = Instant::now() + longest;
        let mut lines = Vec::new();
        while let Some(line) = self.line(deadline.saturating_duration_since(Instant::now()))? {
            lines.push(line);
        }
        let status = self.child.wait().map_err(|e| format!("wait for {}: {e}", self.name))?;
        match status.success() {
            true => Ok(lines),
            false => Err(format!("{} failed ({status}); {}", self.name, self.last_words())),
        }
    }

    /// The end of what it said on stderr.
    pub(super) fn last_words(&self) -> String {
        last_words(&self.errors)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Both fail only for a process that has ended, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONGEST: Duration = Duration::from_secs(60);

    /// Tests run side by side in one process: with one log for all of them, one emptied what another was about to quote.
    fn shell(test: &str, script: &str) -> Result<Program, String> {
        let words = ["sh", "-c", script].map(str::to_owned);
        let name = format!("ouzel-xtask-program-{test}-{}", std::process::id());
        Program::start(&name, &std::env::temp_dir(), &words)
    }

    #[test]
    fn lines_come_one_by_one_and_the_end_is_judged() {
        let mut good = shell("lines", "echo one; echo two; echo three").unwrap();
        assert_eq!(good.line(LONGEST).unwrap().as_deref(), Some("one"));
        assert_eq!(good.finish(LONGEST).unwrap(), ["two", "three"]);
        let message = shell("lines", "echo broken pieces >&2; exit 3").unwrap().finish(LONGEST).unwrap_err();
        assert!(message.contains("broken pieces"), "{message}");
    }

    #[test]
    fn silence_is_an_error_and_the_program_ends_with_its_owner() {
        let mut silent = shell("silence", "exec sleep 600").unwrap();
        let pid = silent.child.id();
        assert!(silent.line(Duration::from_millis(1)).unwrap_err().contains("said nothing"));
        drop(silent);
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
    }
}
