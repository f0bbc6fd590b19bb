//! What can go wrong, in words: what failed, at which host, and what to do about it.

use std::time::Duration;

use ouzel_protocol::messages::{DecodeError, EncodeError};
use ouzel_protocol::{ApiKey, ErrorCode};

/// Why a call failed. Cheap enough to hand to every call that was waiting on a broken connection.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ClientError {
    /// No connection could be made.
    #[error("cannot connect to {address}: {reason}; is the broker running, and is this its Kafka listener?")]
    Connect {
        /// Where to.
        address: String,
        /// Why not.
        reason: String,
    },
    /// None of the bootstrap servers or known brokers could be reached.
    #[error("no broker can be reached ({tried}); check the addresses given as bootstrap servers")]
    Unreachable {
        /// Each address with what happened there.
        tried: String,
    },
    /// Connected, but what answered does not speak Kafka, or not as we do.
    #[error("{address} does not answer like a Kafka broker: {reason}; is this its Kafka listener?")]
    NotKafka {
        /// Who.
        address: String,
        /// What it said instead.
        reason: String,
    },
    /// No response in time. The request may have been carried out all the same.
    #[error(
        "{address} has not answered {api} within {} ms; the broker may be overloaded or stuck, and the request may \
         still be carried out",
        after.as_millis()
    )]
    Timeout {
        /// Who.
        address: String,
        /// What was asked.
        api: ApiKey,
        /// How long was waited.
        after: Duration,
    },
    /// The connection ended before the response came. The request may have been carried out all the same.
    #[error("the connection to {address} ended before {api} was answered: {reason}")]
    Closed {
        /// Who.
        address: String,
        /// What was asked.
        api: ApiKey,
        /// How it ended.
        reason: String,
    },
    /// The broker does not have the API, or no version of it that we have.
    #[error("{address} does not support {api} {wanted}; it offers {offered}")]
    Unsupported {
        /// Who.
        address: String,
        /// What was to be asked.
        api: ApiKey,
        /// The versions we could have used.
        wanted: String,
        /// The versions it has.
        offered: String,
    },
    /// The response cannot be read.
    #[error("{address} sent a response that cannot be read: {reason}")]
    Decode {
        /// Who.
        address: String,
        /// What is wrong with it.
        reason: DecodeError,
    },
    /// The request cannot be said in the version that was negotiated.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// The broker understood and refused.
    #[error("{what}: {}{}", name_of(*code), message.as_ref().map(|m| format!(": {m}")).unwrap_or_default())]
    Refused {
        /// What was asked, such as `create topic orders`.
        what: String,
        /// Kafka's error code.
        code: i16,
        /// The broker's own words.
        message: Option<String>,
    },
    /// A response lacks what was asked for.
    #[error("{what}: the broker's response does not mention it")]
    Missing {
        /// What was asked.
        what: String,
    },
    /// A fetched batch is damaged.
    #[error("{topic}-{partition} at offset {offset}: {reason}; the broker sent a damaged batch")]
    Corrupt {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// Where reading stood.
        offset: i64,
        /// What is wrong.
        reason: String,
    },
}

impl ClientError {
    /// A refusal, unless the code says there was no error.
    ///
    /// # Errors
    /// [`ClientError::Refused`].
    pub fn check(code: i16, message: Option<&str>, what: impl FnOnce() -> String) -> Result<(), ClientError> {
        if code == 0 {
            return Ok(());
        }
        Err(ClientError::Refused { what: what(), code, message: message.map(str::to_owned) })
    }

    /// Kafka's code, if the broker refused with one we know.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            ClientError::Refused { code, .. } => ErrorCode::from_code(*code),
            _ => None,
        }
    }

    /// Whether asking again, perhaps somebody else, may help.
    pub fn is_retriable(&self) -> bool {
        match self {
            ClientError::Connect { .. }
            | ClientError::Unreachable { .. }
            | ClientError::Timeout { .. }
            | ClientError::Closed { .. } => true,
            ClientError::Refused { .. } => self.code().is_some_and(ErrorCode::is_retriable),
            _ => false,
        }
    }
}

fn name_of(code: i16) -> String {
    ErrorCode::from_code(code).map_or_else(|| format!("error code {code}"), |known| known.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_say_what_where_and_what_to_do() {
        let refused = |code, message: Option<&str>| {
            ClientError::check(code, message, || "create topic orders".to_owned()).unwrap_err()
        };
        assert_eq!(
            refused(36, Some("it has 3 partitions")).to_string(),
            "create topic orders: TOPIC_ALREADY_EXISTS (a topic of this name exists): it has 3 partitions"
        );
        assert_eq!(refused(999, None).to_string(), "create topic orders: error code 999");
        assert_eq!(ClientError::check(0, None, String::new), Ok(()));
        let timeout = ClientError::Timeout {
            address: "localhost:9092".to_owned(),
            api: ApiKey::Metadata,
            after: Duration::from_secs(5),
        };
        assert_eq!(
            timeout.to_string(),
            "localhost:9092 has not answered Metadata within 5000 ms; the broker may be overloaded or stuck, and the \
             request may still be carried out"
        );
        assert!(
            timeout.is_retriable() && refused(6, None).is_retriable() && !refused(36, None).is_retriable()
        );
    }
}
