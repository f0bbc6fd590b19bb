//! How the process ends: a sentence for people, a code for scripts.

use std::fmt;
use std::io;
use std::process::ExitCode;

use crate::config::UsageError;

/// The exit codes, stable for scripts. 0 is a node that was told to stop and left in order; a signal that ends the
/// process at once gives 128 and the signal's number, as a shell does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// It served, and then something broke.
    Failed = 1,
    /// It did not start: a flag, a key, an address or the data directory is not usable.
    NotStarted = 2,
}

/// Why the process ends before it was told to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    /// One sentence without a full stop: what is wrong, where, and the mend.
    sentence: String,
}

impl Failure {
    pub(crate) fn not_started(sentence: impl Into<String>) -> Failure {
        Failure { exit: Exit::NotStarted, sentence: sentence.into() }
    }

    pub(crate) fn while_serving(sentence: impl Into<String>) -> Failure {
        Failure { exit: Exit::Failed, sentence: sentence.into() }
    }
}

impl From<UsageError> for Failure {
    fn from(error: UsageError) -> Failure {
        Failure::not_started(error.0)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentence)
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

/// An I/O error as a part of a sentence: no capital, no number.
pub(crate) fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    let words = text.split(" (os error").next().unwrap_or(&text);
    let mut chars = words.chars();
    chars.next().map(|first| first.to_lowercase().chain(chars).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_the_documented_ones() {
        assert_eq!([Exit::Failed, Exit::NotStarted].map(|exit| exit as u8), [1, 2]);
    }

    #[test]
    fn an_error_reads_as_part_of_a_sentence() {
        assert_eq!(reason(&io::Error::from_raw_os_error(13)), "permission denied");
        assert_eq!(reason(&io::Error::other("Something else")), "something else");
    }
}
