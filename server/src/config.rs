//! What the node is started with: four layers, the first that speaks wins. Flag, environment, file, default.
//!
//! Each layer is brought to one form, [`Layer`], with its values as they were written; [`choose`] then reads, checks and
//! blames. It is a function from values to values, so the order of the layers is a table in a test.

mod address;
pub(crate) mod environment;
pub(crate) mod file;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use ouzel_metadata::StaticConfig;
use ouzel_metadata::configs::SettingError;
use ouzel_model::NodeId;
use ouzel_model::size::{display_size, parse_size};

pub(crate) use address::Address;

/// One choice that has a flag. The settings by Kafka's keys are not among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Name {
    DataDir,
    NodeId,
    KafkaListener,
    AdvertisedKafkaListener,
    AdminListener,
    RpcListener,
    Seeds,
    Cores,
    Pin,
    Memory,
}

impl Name {
    pub(crate) const ALL: [Name; 10] = [
        Name::DataDir,
        Name::NodeId,
        Name::KafkaListener,
        Name::AdvertisedKafkaListener,
        Name::AdminListener,
        Name::RpcListener,
        Name::Seeds,
        Name::Cores,
        Name::Pin,
        Name::Memory,
    ];

    /// As the file writes it; the flag has two dashes before it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Name::DataDir => "data-dir",
            Name::NodeId => "node-id",
            Name::KafkaListener => "kafka-listener",
            Name::AdvertisedKafkaListener => "advertised-kafka-listener",
            Name::AdminListener => "admin-listener",
            Name::RpcListener => "rpc-listener",
            Name::Seeds => "seeds",
            Name::Cores => "cores",
            Name::Pin => "pin",
            Name::Memory => "memory",
        }
    }

    /// The environment variable: `OUZEL_DATA_DIR` for `data-dir`.
    pub(crate) fn variable(self) -> String {
        format!("OUZEL_{}", self.word().replace('-', "_").to_uppercase())
    }

    /// What holds when no layer speaks, in the words of the help and of the documentation.
    #[cfg(test)]
    pub(crate) fn default_words(self) -> &'static str {
        match self {
            Name::DataDir => "./ouzel-data",
            Name::NodeId => "1",
            Name::KafkaListener => "127.0.0.1:9092",
            Name::AdvertisedKafkaListener => "the address it listens at",
            Name::AdminListener => "127.0.0.1:9644",
            Name::RpcListener => "127.0.0.1:33146",
            Name::Seeds => "none, a cluster of one",
            Name::Cores => "as many as the process may use",
            Name::Pin => "no",
            Name::Memory => "512MiB a core, at most half of the machine's",
        }
    }
}

/// Who said something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Flags,
    Environment,
    File(PathBuf),
}

impl Source {
    fn names(&self, name: Name) -> String {
        match self {
            Source::Flags => format!("--{}", name.word()),
            Source::Environment => name.variable(),
            Source::File(path) => format!("{} in {}", name.word(), path.display()),
        }
    }

    fn names_settings(&self) -> String {
        match self {
            Source::Flags => "--set".to_owned(),
            Source::Environment => environment::SETTINGS.to_owned(),
            Source::File(path) => path.display().to_string(),
        }
    }
}

/// What one source says, as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Layer {
    pub(crate) source: Source,
    pub(crate) values: BTreeMap<Name, String>,
    /// Kafka's keys with their values; of two with the same key the later one holds.
    pub(crate) settings: Vec<(String, String)>,
}

/// What the machine offers, for the defaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Machine {
    pub(crate) cores: u16,
    pub(crate) memory_bytes: u64,
}

/// What the node is started with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Choices {
    pub(crate) data_dir: PathBuf,
    pub(crate) node_id: NodeId,
    pub(crate) kafka_listener: Address,
    pub(crate) advertised: Option<Address>,
    pub(crate) admin_listener: Address,
    /// Where the other nodes of the cluster connect, and what they are told.
    pub(crate) rpc_listener: Address,
    /// The rpc addresses of the nodes that found the cluster; none for a cluster of one.
    pub(crate) seeds: Vec<Address>,
    pub(crate) cores: u16,
    pub(crate) pin: bool,
    pub(crate) memory_bytes: u64,
    pub(crate) settings: StaticConfig,
}

/// One sentence: what is wrong, where, and the mend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UsageError(pub(crate) String);

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Decides among the layers, the one that wins first.
pub(crate) fn choose(layers: &[Layer], machine: &Machine) -> Result<Choices, UsageError> {
    let say = |name: Name| -> Option<(&Source, &str)> {
        layers.iter().find_map(|layer| Some((&layer.source, layer.values.get(&name)?.as_str())))
    };
    let cores = read(say(Name::Cores), Name::Cores, machine.cores, |text| {
        text.parse()
            .ok()
            .filter(|cores| (1..=CORES_MAX).contains(cores))
            .ok_or_else(|| format!("write a whole number from 1 to {CORES_MAX}"))
    })?;
    let kafka_listener = read(say(Name::KafkaListener), Name::KafkaListener, loopback(9092), |text| {
        Ok(Address::parse(text)?)
    })?;
    let advertised = read(say(Name::AdvertisedKafkaListener), Name::AdvertisedKafkaListener, None, |text| {
        let address = Address::parse(text)?;
        match () {
            () if address.port == 0 => {
                Err("clients cannot connect to port 0, write the port they reach".to_owned())
            }
            () if address.is_every_interface() => Err(
                "clients cannot connect to every interface, write a name or address that reaches this node"
                    .to_owned(),
            ),
            () => Ok(Some(address)),
        }
    })?;
    if kafka_listener.is_every_interface() && advertised.is_none() {
        let who =
            say(Name::KafkaListener).map(|(source, _)| source.names(Name::KafkaListener)).unwrap_or_default();
        return Err(UsageError(format!(
            "{who} listens on every interface ({kafka_listener}), and clients must be told one address that reaches \
             this node: add --{} HOST:PORT",
            Name::AdvertisedKafkaListener.word()
        )));
    }
    Ok(Choices {
        data_dir: read(
            say(Name::DataDir),
            Name::DataDir,
            PathBuf::from("./ouzel-data"),
            |text| match text {
                "" => Err("write the directory's path".to_owned()),
                text => Ok(PathBuf::from(text)),
            },
        )?,
        node_id: read(say(Name::NodeId), Name::NodeId, NodeId(1), |text| {
            let id = text.parse().ok().filter(|id| *id >= 0);
            id.map(NodeId).ok_or_else(|| format!("write a whole number from 0 to {}", i32::MAX))
        })?,
        kafka_listener,
        advertised,
        admin_listener: read(say(Name::AdminListener), Name::AdminListener, loopback(9644), |text| {
            Ok(Address::parse(text)?)
        })?,
        rpc_listener: read(say(Name::RpcListener), Name::RpcListener, loopback(33146), |text| {
            let address = Address::parse(text)?;
            match address.is_every_interface() {
                false => Ok(address),
                true => Err(
                    "the other nodes are told this address, write a name or address that reaches this node"
                        .to_owned(),
                ),
            }
        })?,
        seeds: read(say(Name::Seeds), Name::Seeds, Vec::new(), seeds)?,
        cores,
        pin: read(say(Name::Pin), Name::Pin, false, |text| {
            text.parse().map_err(|_| "write true or false".to_owned())
        })?,
        memory_bytes: read(say(Name::Memory), Name::Memory, memory_by_default(cores, machine), |text| {
            let bytes = parse_size(text).map_err(|_| "write a size, as in 512MiB or 2GiB".to_owned())?;
            let least = u64::from(cores) * CORE_MEMORY_BYTES_MIN;
            match bytes >= least {
                true => Ok(bytes),
                false => Err(format!(
                    "{cores} cores need at least {}, or choose fewer --cores",
                    display_size(least)
                )),
            }
        })?,
        settings: settings(layers)?,
    })
}

/// Reads the founding nodes' rpc addresses.
fn seeds(text: &str) -> Result<Vec<Address>, String> {
    let mut seeds: Vec<Address> = Vec::new();
    for word in text.split(',').map(str::trim) {
        let seed = Address::parse(word)
            .map_err(|_| "write HOST:PORT,..., as in 10.0.0.1:33146,10.0.0.2:33146".to_owned())?;
        match () {
            () if seed.port == 0 => {
                return Err(format!("nodes cannot connect to port 0, write the port of {}", seed.host));
            }
            () if seed.is_every_interface() => {
                return Err(format!(
                    "nodes cannot connect to {seed}, write a name or address that reaches the node"
                ));
            }
            () if seeds.contains(&seed) => return Err(format!("write {seed} once")),
            () => seeds.push(seed),
        }
    }
    Ok(seeds)
}

/// More are not worth a thread of their own in any machine seen; a typing mistake is.
const CORES_MAX: u16 = 1024;
/// Less does not hold a connection's buffers beside a tail worth the name.
const CORE_MEMORY_BYTES_MIN: u64 = 16 << 20;
const CORE_MEMORY_BYTES_DEFAULT: u64 = 512 << 20;

fn memory_by_default(cores: u16, machine: &Machine) -> u64 {
    let least = u64::from(cores) * CORE_MEMORY_BYTES_MIN;
    (u64::from(cores) * CORE_MEMORY_BYTES_DEFAULT).min(machine.memory_bytes / 2).max(least)
}

fn loopback(port: u16) -> Address {
    Address { host: "127.0.0.1".to_owned(), port }
}

/// Reads what was said, or takes the default.
fn read<T>(
    said: Option<(&Source, &str)>,
    name: Name,
    default: T,
    parse: impl FnOnce(&str) -> Result<T, String>,
) -> Result<T, UsageError> {
    let Some((source, text)) = said else { return Ok(default) };
    parse(text).map_err(|mend| UsageError(format!("{} cannot be '{text}': {mend}", source.names(name))))
}

/// The settings of all layers, those of the winning layer last: a later one replaces an earlier one.
fn settings(layers: &[Layer]) -> Result<StaticConfig, UsageError> {
    let pairs =
        || layers.iter().rev().flat_map(|layer| layer.settings.iter().map(move |pair| (&layer.source, pair)));
    // One by one first, so that the blame falls on whoever wrote it. Whether two contradict each other shows only
    // when all are together.
    for (source, (key, value)) in pairs() {
        match StaticConfig::from_settings([(key, value)]) {
            Ok(_) | Err(SettingError::Contradiction { .. }) => {}
            Err(error) => return Err(UsageError(format!("{}: {error}", source.names_settings()))),
        }
    }
    StaticConfig::from_settings(pairs().map(|(_, (key, value))| (key, value)))
        .map_err(|error| UsageError(format!("{error}, change one of them")))
}

/// Splits `KEY=VALUE`.
pub(crate) fn split_setting(text: &str, whose: &str) -> Result<(String, String), UsageError> {
    match text.split_once('=') {
        Some((key, _)) if key.trim().is_empty() => {
            Err(UsageError(format!("{whose} '{text}' has no key: write KEY=VALUE, as in num.partitions=3")))
        }
        Some((key, value)) => Ok((key.trim().to_owned(), value.trim().to_owned())),
        None => {
            Err(UsageError(format!("{whose} '{text}' has no value: write KEY=VALUE, as in num.partitions=3")))
        }
    }
}

#[cfg(test)]
mod tests;
