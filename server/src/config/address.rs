//! `HOST:PORT`.

use std::fmt;

/// A place to listen at or to be reached at. The host is a name, or an address without brackets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl Address {
    /// Reads `localhost:9092`, `127.0.0.1:9092` or `[::1]:9092`; what is wrong with it, if something is.
    pub(crate) fn parse(text: &str) -> Result<Address, &'static str> {
        const FORM: &str = "write HOST:PORT, as in 127.0.0.1:9092";
        let (host, port) = text.rsplit_once(':').ok_or(FORM)?;
        let host = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            Some(inside) => {
                inside
                    .parse::<std::net::Ipv6Addr>()
                    .map_err(|_| "brackets hold an IPv6 address, as in [::1]:9092")?;
                inside
            }
            None if text.contains("//") => {
                return Err("write HOST:PORT without a scheme, as in 127.0.0.1:9092");
            }
            None if host.contains(':') => {
                return Err("put brackets around an IPv6 address, as in [::1]:9092");
            }
            None => host,
        };
        let nameable = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '%');
        if host.is_empty() || !host.chars().all(nameable) {
            return Err(FORM);
        }
        if port.is_empty() || !port.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(FORM);
        }
        let port = port.parse().map_err(|_| "a port is a number from 0 to 65535")?;
        Ok(Address { host: host.to_owned(), port })
    }

    /// Whether it means every interface of the machine: a place to listen at, but none to be reached at.
    pub(crate) fn is_every_interface(&self) -> bool {
        self.host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_unspecified())
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_shown_alike() {
        for (text, host, port) in [
            ("127.0.0.1:9092", "127.0.0.1", 9092),
            ("localhost:0", "localhost", 0),
            ("broker-1.example.org:65535", "broker-1.example.org", 65535),
            ("[::1]:9092", "::1", 9092),
            ("[::]:1", "::", 1),
        ] {
            let address = Address::parse(text).unwrap();
            assert_eq!((address.host.as_str(), address.port), (host, port), "{text}");
            assert_eq!(address.to_string(), text);
        }
    }

    #[test]
    fn what_is_no_address_is_told_why() {
        for (text, fault) in [
            ("", "write HOST:PORT, as in 127.0.0.1:9092"),
            ("9092", "write HOST:PORT, as in 127.0.0.1:9092"),
            (":9092", "write HOST:PORT, as in 127.0.0.1:9092"),
            ("localhost:", "write HOST:PORT, as in 127.0.0.1:9092"),
            ("localhost:kafka", "write HOST:PORT, as in 127.0.0.1:9092"),
            ("a b:1", "write HOST:PORT, as in 127.0.0.1:9092"),
            ("localhost:-1", "write HOST:PORT, as in 127.0.0.1:9092"),
            ("localhost:65536", "a port is a number from 0 to 65535"),
            ("::1:9092", "put brackets around an IPv6 address, as in [::1]:9092"),
            ("[localhost]:9092", "brackets hold an IPv6 address, as in [::1]:9092"),
            ("plaintext://localhost:9092", "write HOST:PORT without a scheme, as in 127.0.0.1:9092"),
        ] {
            assert_eq!(Address::parse(text), Err(fault), "{text:?}");
        }
    }

    #[test]
    fn every_interface_is_no_place_to_be_reached_at() {
        let every = |text: &str| Address::parse(text).unwrap().is_every_interface();
        assert!(every("0.0.0.0:1") && every("[::]:1"));
        assert!(!every("127.0.0.1:1") && !every("localhost:1") && !every("[::1]:1"));
    }
}
