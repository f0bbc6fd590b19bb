//! How to reach the cluster, out of layers: flag, then `-X`, then environment, then profile, then default. Profiles are
//! a TOML file:
//!
//! ```toml
//! default = "local"
//!
//! [profiles.local]
//! brokers = ["127.0.0.1:9092"]
//! timeout_ms = 5000
//! client_id = "ouk"
//! format = "table"
//! read_only = true
//! ```

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use crate::failure::Failure;
use crate::output::Format;

/// What every command needs to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    /// `host:port` of brokers to ask first.
    pub(crate) brokers: Vec<String>,
    /// How long a request may take, its connection included.
    pub(crate) timeout: Duration,
    pub(crate) client_id: String,
    pub(crate) format: Format,
    /// Commands that change anything are refused.
    pub(crate) read_only: bool,
}

const BROKERS_DEFAULT: &str = "127.0.0.1:9092";
const TIMEOUT_MS_DEFAULT: u64 = 10_000;

/// The keys of `-X`, with what `-X list` says of them.
pub(crate) const KEYS: &[(&str, &str)] = &[
    ("brokers", "addresses to ask first: host:port,host:port"),
    ("client.id", "the name the broker's logs and quotas know us by"),
    ("timeout.ms", "how long a request may take, its connection included"),
];

/// What was given on the command line.
#[derive(Debug, Clone, Default)]
pub(crate) struct Given {
    pub(crate) brokers: Option<String>,
    /// `key=value` pairs of `-X`.
    pub(crate) options: Vec<String>,
    pub(crate) profile: Option<String>,
    pub(crate) format: Option<Format>,
}

/// A file of profiles.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Profiles {
    default: Option<String>,
    #[serde(default)]
    profiles: BTreeMap<String, Profile>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Profile {
    brokers: Option<Vec<String>>,
    timeout_ms: Option<u64>,
    client_id: Option<String>,
    format: Option<FormatName>,
    #[serde(default)]
    read_only: bool,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum FormatName {
    Table,
    Json,
    Yaml,
}

impl Profiles {
    /// Reads the text of a file of profiles.
    pub(crate) fn parse(text: &str) -> Result<Profiles, String> {
        toml::from_str(text).map_err(|error| error.to_string())
    }

    /// The profile of this name, else the file's default, else an empty one.
    fn choose(&self, wanted: Option<&str>) -> Result<Profile, String> {
        let Some(name) = wanted.or(self.default.as_deref()) else { return Ok(Profile::default()) };
        self.profiles.get(name).cloned().ok_or_else(|| {
            let known: Vec<&str> = self.profiles.keys().map(String::as_str).collect();
            format!(
                "there is no profile {name:?}; there are: {}",
                if known.is_empty() { "none".to_owned() } else { known.join(", ") }
            )
        })
    }
}

/// Where the profiles lie: `$OUK_CONFIG`, else `ouk/profiles.toml` below the user's configuration folder.
pub(crate) fn profiles_path(environment: impl Fn(&str) -> Option<String>) -> Option<PathBuf> {
    if let Some(path) = environment("OUK_CONFIG") {
        return Some(PathBuf::from(path));
    }
    let folder = environment("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .or_else(|| environment("HOME").map(|home| PathBuf::from(home).join(".config")))?;
    Some(folder.join("ouk/profiles.toml"))
}

/// Puts the layers together. `profiles` is the text of the profiles' file, if there is one.
pub(crate) fn resolve(
    given: &Given,
    environment: impl Fn(&str) -> Option<String>,
    profiles: Option<&str>,
) -> Result<Settings, Failure> {
    let profiles = match profiles {
        Some(text) => {
            Profiles::parse(text).map_err(|error| Failure::usage(format!("the file of profiles: {error}")))?
        }
        None => Profiles::default(),
    };
    let wanted = given.profile.clone().or_else(|| environment("OUK_PROFILE"));
    let profile = profiles.choose(wanted.as_deref()).map_err(Failure::usage)?;
    let options = read_options(&given.options)?;
    let option = |key: &str| options.get(key).cloned();

    let brokers =
        match given.brokers.clone().or_else(|| option("brokers")).or_else(|| environment("OUK_BROKERS")) {
            Some(list) => list.split(',').map(|broker| broker.trim().to_owned()).collect(),
            None => profile.brokers.unwrap_or_else(|| vec![BROKERS_DEFAULT.to_owned()]),
        };
    if let Some(wrong) = brokers.iter().find(|broker| !is_address(broker)) {
        return Err(Failure::usage(format!("{wrong:?} is no broker's address; write host:port")));
    }
    if brokers.is_empty() {
        return Err(Failure::usage("the list of brokers is empty; write host:port"));
    }
    let timeout_ms = match option("timeout.ms").or_else(|| environment("OUK_TIMEOUT_MS")) {
        Some(text) => text.parse().ok().filter(|timeout_ms| *timeout_ms > 0).ok_or_else(|| {
            Failure::usage(format!("timeout.ms wants a number of milliseconds, not {text:?}"))
        })?,
        None => profile.timeout_ms.unwrap_or(TIMEOUT_MS_DEFAULT),
    };
    Ok(Settings {
        brokers,
        timeout: Duration::from_millis(timeout_ms),
        client_id: option("client.id")
            .or_else(|| environment("OUK_CLIENT_ID"))
            .or(profile.client_id)
            .unwrap_or_else(|| "ouk".to_owned()),
        format: given.format.unwrap_or(match profile.format {
            Some(FormatName::Json) => Format::Json,
            Some(FormatName::Yaml) => Format::Yaml,
            Some(FormatName::Table) | None => Format::Table,
        }),
        read_only: profile.read_only,
    })
}

/// The pairs of `-X`; a later one wins.
fn read_options(pairs: &[String]) -> Result<BTreeMap<&str, String>, Failure> {
    let mut options = BTreeMap::new();
    for pair in pairs {
        let (key, value) = pair
            .split_once('=')
            .ok_or_else(|| Failure::usage(format!("-X wants key=value, not {pair:?}")))?;
        if !KEYS.iter().any(|(known, _)| *known == key) {
            return Err(Failure::usage(format!("-X knows no key {key:?}; `-X list` names them")));
        }
        options.insert(key, value.to_owned());
    }
    Ok(options)
}

fn is_address(broker: &str) -> bool {
    broker
        .rsplit_once(':')
        .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "default = \"local\"\n[profiles.local]\nbrokers = [\"a:1\", \"b:2\"]\nclient_id = \"me\"\n\
                        [profiles.prod]\nread_only = true\ntimeout_ms = 7\nformat = \"json\"\n";

    fn resolved(
        given: &Given,
        environment: &[(&str, &str)],
        file: Option<&str>,
    ) -> Result<Settings, Failure> {
        let look_up = |name: &str| {
            environment.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        };
        resolve(given, look_up, file)
    }

    #[test]
    fn a_bare_command_asks_the_local_broker() {
        let settings = resolved(&Given::default(), &[], None).unwrap();
        assert_eq!(settings.brokers, [BROKERS_DEFAULT]);
        assert_eq!((settings.timeout, settings.format), (Duration::from_secs(10), Format::Table));
        assert!(!settings.read_only);
    }

    #[test]
    fn each_layer_outranks_the_one_below() {
        let mut given = Given::default();
        let mut environment = vec![];
        let brokers = |given: &Given, environment: &[(&str, &str)]| {
            resolved(given, environment, Some(FILE)).unwrap().brokers
        };
        assert_eq!(brokers(&given, &environment), ["a:1", "b:2"]);
        environment.push(("OUK_BROKERS", "c:3"));
        assert_eq!(brokers(&given, &environment), ["c:3"]);
        given.options.push("brokers=d:4".to_owned());
        assert_eq!(brokers(&given, &environment), ["d:4"]);
        given.brokers = Some("e:5, f:6".to_owned());
        assert_eq!(brokers(&given, &environment), ["e:5", "f:6"]);
    }

    #[test]
    fn profiles_are_chosen_by_flag_environment_and_default() {
        let named = |name: &str| Given { profile: Some(name.to_owned()), ..Given::default() };
        let prod = resolved(&named("prod"), &[], Some(FILE)).unwrap();
        assert!(prod.read_only && prod.format == Format::Json && prod.timeout == Duration::from_millis(7));
        assert!(resolved(&Given::default(), &[("OUK_PROFILE", "prod")], Some(FILE)).unwrap().read_only);
        assert_eq!(resolved(&Given::default(), &[], Some(FILE)).unwrap().client_id, "me");
        let message = resolved(&named("moon"), &[], Some(FILE)).unwrap_err().message;
        assert!(message.contains("local, prod"), "{message}");
    }

    #[test]
    fn wrong_words_are_refused_before_anything_is_asked() {
        let option = |pair: &str| Given { options: vec![pair.to_owned()], ..Given::default() };
        for given in [
            option("brokers"),
            option("acks=1"),
            option("timeout.ms=x"),
            option("timeout.ms=0"),
            option("brokers=nowhere"),
        ] {
            assert_eq!(
                resolved(&given, &[], None).unwrap_err().exit,
                crate::failure::Exit::Usage,
                "{given:?}"
            );
        }
        let message = resolved(&Given::default(), &[], Some("[profiles.x]\nbroker = 1")).unwrap_err().message;
        assert!(message.contains("broker"), "{message}");
    }

    #[test]
    fn the_file_of_profiles_is_found() {
        let path = |pairs: &[(&str, &str)]| {
            profiles_path(|name| {
                pairs.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
            })
        };
        assert_eq!(path(&[("HOME", "/h")]), Some(PathBuf::from("/h/.config/ouk/profiles.toml")));
        assert_eq!(
            path(&[("HOME", "/h"), ("XDG_CONFIG_HOME", "/x")]),
            Some(PathBuf::from("/x/ouk/profiles.toml"))
        );
        assert_eq!(path(&[("OUK_CONFIG", "/o.toml"), ("HOME", "/h")]), Some(PathBuf::from("/o.toml")));
        assert_eq!(path(&[]), None);
    }
}
