//! How a client behaves; the names are those of Kafka's clients where they have one.

use std::time::Duration;

/// Settings of a [`crate::Client`].
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// `HOST:PORT` of brokers to begin with.
    pub bootstrap_servers: Vec<String>,
    /// What the client calls itself.
    pub client_id: String,
    /// How long to wait for a connection and its first answer.
    pub connect_timeout: Duration,
    /// How long to wait for a response, beyond what the request itself asks the broker to wait.
    pub request_timeout: Duration,
    /// How long a call may take with all its retries.
    pub call_timeout: Duration,
    /// How long to wait between retries.
    pub retry_backoff: Duration,
    /// Largest response that is received.
    pub response_bytes_max: usize,
}

impl ClientConfig {
    /// Settings for one bootstrap list, `HOST:PORT,HOST:PORT`; the rest as they are by default.
    pub fn new(bootstrap_servers: &str) -> ClientConfig {
        let servers = bootstrap_servers.split(',').map(str::trim).filter(|server| !server.is_empty());
        ClientConfig {
            bootstrap_servers: servers.map(str::to_owned).collect(),
            client_id: "ouzel".to_owned(),
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(30),
            call_timeout: Duration::from_secs(60),
            retry_backoff: Duration::from_millis(100),
            response_bytes_max: 256 << 20,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bootstrap_list_is_split() {
        let servers = |text| ClientConfig::new(text).bootstrap_servers;
        assert_eq!(servers("a:1, b:2,"), ["a:1", "b:2"]);
        assert!(servers("").is_empty());
    }
}
