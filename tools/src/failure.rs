//! How a command ends when it does not end well: a sentence for people, an exit code for scripts.

use std::fmt;
use std::process::ExitCode;

use ouzel_client::ClientError;
use ouzel_protocol::ErrorCode;

/// The exit codes, stable for scripts. 0 is success.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Exit {
    /// Some of several items failed, or the command itself for a reason without a code of its own.
    Failed = 1,
    /// The command line, the profile or a format string is wrong; nothing was asked of the cluster.
    Usage = 2,
    /// The topic, partition or group does not exist.
    NotFound = 3,
    /// The cluster refused who we are or what we may do.
    Auth = 4,
    /// No answer: the cluster is unreachable or too slow.
    Unreachable = 5,
    /// `cluster health` found something.
    Unhealthy = 6,
}

/// Why a command failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    /// One sentence without a full stop: what is wrong, where, and the mend if there is one.
    pub(crate) message: String,
}

impl Failure {
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Failure {
        Failure { exit, message: message.into() }
    }

    pub(crate) fn usage(message: impl Into<String>) -> Failure {
        Failure::new(Exit::Usage, message)
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Failure {
        let exit = match &error {
            ClientError::Connect { .. }
            | ClientError::Unreachable { .. }
            | ClientError::NotKafka { .. }
            | ClientError::Timeout { .. }
            | ClientError::Closed { .. } => Exit::Unreachable,
            ClientError::Refused { code, .. } => ErrorCode::from_code(*code).map_or(Exit::Failed, exit_of),
            _ => Exit::Failed,
        };
        Failure::new(exit, error.to_string())
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Failure {
        Failure::new(Exit::Failed, error.to_string())
    }
}

fn exit_of(code: ErrorCode) -> Exit {
    match code {
        ErrorCode::UnknownTopicOrPartition
        | ErrorCode::UnknownTopicId
        | ErrorCode::GroupIdNotFound
        | ErrorCode::ResourceNotFound => Exit::NotFound,
        ErrorCode::TopicAuthorizationFailed
        | ErrorCode::GroupAuthorizationFailed
        | ErrorCode::ClusterAuthorizationFailed
        | ErrorCode::SaslAuthenticationFailed
        | ErrorCode::UnsupportedSaslMechanism
        | ErrorCode::IllegalSaslState => Exit::Auth,
        ErrorCode::RequestTimedOut => Exit::Unreachable,
        _ => Exit::Failed,
    }
}

/// The exit code of a command over several items: an only item's own, else 1 if any failed.
pub(crate) fn exit_of_items(items: usize, failures: &[Failure]) -> Option<Exit> {
    match failures {
        [] => None,
        [only] if items == 1 => Some(only.exit),
        // When nobody can be asked, it is no fault of the items.
        failures if failures.iter().all(|failure| failure.exit == Exit::Unreachable) => {
            Some(Exit::Unreachable)
        }
        _ => Some(Exit::Failed),
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_the_documented_ones() {
        let codes =
            [Exit::Failed, Exit::Usage, Exit::NotFound, Exit::Auth, Exit::Unreachable, Exit::Unhealthy];
        assert_eq!(codes.map(|exit| exit as u8), [1, 2, 3, 4, 5, 6]);
    }

    #[test]
    fn the_brokers_refusals_have_their_codes() {
        let exit = |code: ErrorCode| {
            let refused = ClientError::Refused { what: "x".to_owned(), code: code.code(), message: None };
            Failure::from(refused).exit
        };
        assert_eq!(exit(ErrorCode::UnknownTopicOrPartition), Exit::NotFound);
        assert_eq!(exit(ErrorCode::GroupIdNotFound), Exit::NotFound);
        assert_eq!(exit(ErrorCode::TopicAuthorizationFailed), Exit::Auth);
        assert_eq!(exit(ErrorCode::TopicAlreadyExists), Exit::Failed);
        let unreachable = ClientError::Unreachable { tried: String::new() };
        assert_eq!(Failure::from(unreachable).exit, Exit::Unreachable);
    }

    #[test]
    fn several_items_fail_together_with_one() {
        let failure = |exit| Failure::new(exit, "x");
        assert_eq!(exit_of_items(3, &[]), None);
        assert_eq!(exit_of_items(1, &[failure(Exit::NotFound)]), Some(Exit::NotFound));
        assert_eq!(exit_of_items(2, &[failure(Exit::NotFound)]), Some(Exit::Failed));
        assert_eq!(
            exit_of_items(2, &[failure(Exit::Unreachable), failure(Exit::Unreachable)]),
            Some(Exit::Unreachable)
        );
    }
}
