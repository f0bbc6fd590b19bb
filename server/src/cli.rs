//! The command line: which flags there are. What they mean is decided in `config`, with the other layers.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, FromArgMatches, Parser};

use crate::config::{Layer, Name, Source, UsageError, split_setting};

const AFTER_HELP: &str = "\
A choice is looked for in this order: flag, environment, file, default.
OUZEL_SET holds KEY=VALUE pairs with ';' between them.
OUZEL_LOG says what is logged, as in 'info' or 'info,ouzel_storage=debug'.

Exit codes: 0 stopped as told, 1 failed while serving, 2 did not start, 130 or 143 ended at once by a signal.";

/// A Kafka-compatible broker: with no argument, one node that needs nothing.
#[derive(Debug, Parser)]
#[command(
    name = "ouzel",
    version,
    after_help = AFTER_HELP,
    allow_negative_numbers = true,
    max_term_width = 110
)]
pub(crate) struct Flags {
    /// Reads further choices from this TOML file [env: OUZEL_CONFIG]
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<String>,
    /// Where everything is kept [env: OUZEL_DATA_DIR] [default: ./ouzel-data]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// This node's number in its cluster [env: OUZEL_NODE_ID] [default: 1]
    #[arg(long, value_name = "N")]
    node_id: Option<String>,
    /// Where Kafka clients connect; port 0 takes a free one [env: OUZEL_KAFKA_LISTENER] [default: 127.0.0.1:9092]
    #[arg(long, value_name = "HOST:PORT")]
    kafka_listener: Option<String>,
    /// Where clients are told to connect [env: OUZEL_ADVERTISED_KAFKA_LISTENER] [default: the address it listens at]
    #[arg(long, value_name = "HOST:PORT")]
    advertised_kafka_listener: Option<String>,
    /// Where the admin HTTP listens; port 0 takes a free one [env: OUZEL_ADMIN_LISTENER] [default: 127.0.0.1:9644]
    #[arg(long, value_name = "HOST:PORT")]
    admin_listener: Option<String>,
    /// Where the other nodes of the cluster connect; port 0 takes a free one [env: OUZEL_RPC_LISTENER] [default:
    /// 127.0.0.1:33146]
    #[arg(long, value_name = "HOST:PORT")]
    rpc_listener: Option<String>,
    /// The rpc addresses of the nodes that found the cluster, alike on every node; a node that is not among them joins
    /// [env: OUZEL_SEEDS] [default: none, a cluster of one]
    #[arg(long, value_name = "HOST:PORT,...")]
    seeds: Option<String>,
    /// How many cores serve [env: OUZEL_CORES] [default: as many as the process may use]
    #[arg(long, value_name = "N")]
    cores: Option<String>,
    /// Pins each core's thread to a CPU; for a machine of its own only [env: OUZEL_PIN=true] [default: no]
    #[arg(long)]
    pin: bool,
    /// Memory for requests, responses and caches [env: OUZEL_MEMORY] [default: 512MiB a core, at most half of the
    /// machine's]
    #[arg(long, value_name = "SIZE")]
    memory: Option<String>,
    /// Sets one of Kafka's keys, as in num.partitions=3; may be repeated [env: OUZEL_SET]
    #[arg(long = "set", value_name = "KEY=VALUE")]
    settings: Vec<String>,
}

/// What a command line asks for.
#[derive(Debug)]
pub(crate) enum Asked {
    /// A node.
    Start(Box<Flags>),
    /// Help or the version, for stdout.
    Words(String),
}

/// Reads the command line, program name first.
pub(crate) fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Asked, UsageError> {
    let matches = Flags::command().try_get_matches_from(arguments);
    match matches.and_then(|matches| Flags::from_arg_matches(&matches)) {
        Ok(flags) => Ok(Asked::Start(Box::new(flags))),
        Err(error) if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
            Ok(Asked::Words(error.to_string()))
        }
        Err(error) => Err(UsageError(sentence(&error))),
    }
}

/// What is wrong with the command line, in one sentence.
fn sentence(error: &clap::Error) -> String {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        Some(ContextValue::Strings(texts)) => texts.first().cloned(),
        _ => None,
    };
    let argument = text(ContextKind::InvalidArg).unwrap_or_default();
    // Some contexts hold `--flag <VALUE>`.
    let flag = argument.split([' ', '=']).next().unwrap_or_default();
    match error.kind() {
        ErrorKind::UnknownArgument if !argument.starts_with('-') => {
            format!("'{argument}' is not understood: ouzel takes flags only, 'ouzel --help' names them")
        }
        ErrorKind::UnknownArgument => match text(ContextKind::SuggestedArg) {
            Some(known) => format!("there is no flag '{flag}'; did you mean '{known}'?"),
            None => format!("there is no flag '{flag}'; 'ouzel --help' names those there are"),
        },
        ErrorKind::InvalidValue => {
            let form = argument.split(' ').nth(1).unwrap_or("VALUE").trim_matches(['<', '>']).to_owned();
            format!("{flag} has no value: write {flag} {form}")
        }
        ErrorKind::TooManyValues => format!("{flag} takes no value: write {flag} alone"),
        ErrorKind::ArgumentConflict => format!("{flag} is given more than once: give it once"),
        ErrorKind::InvalidUtf8 => "an argument is not UTF-8: write it in UTF-8".to_owned(),
        _ => {
            // The first line without its label; what follows it is usage.
            let whole = error.to_string();
            let first = whole.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned();
            format!("{first}; see 'ouzel --help'")
        }
    }
}

impl Flags {
    /// The layer of the flags.
    pub(crate) fn into_layer(self) -> Result<Layer, UsageError> {
        let pin = self.pin.then(|| "true".to_owned());
        let values = [
            (Name::DataDir, self.data_dir),
            (Name::NodeId, self.node_id),
            (Name::KafkaListener, self.kafka_listener),
            (Name::AdvertisedKafkaListener, self.advertised_kafka_listener),
            (Name::AdminListener, self.admin_listener),
            (Name::RpcListener, self.rpc_listener),
            (Name::Seeds, self.seeds),
            (Name::Cores, self.cores),
            (Name::Pin, pin),
            (Name::Memory, self.memory),
        ];
        Ok(Layer {
            source: Source::Flags,
            values: values.into_iter().filter_map(|(name, text)| Some((name, text?))).collect(),
            settings: self
                .settings
                .iter()
                .map(|text| split_setting(text, "--set"))
                .collect::<Result<_, _>>()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Asked, UsageError> {
        super::parse(std::iter::once("ouzel").chain(arguments.iter().copied()).map(OsString::from))
    }

    fn layer(arguments: &[&str]) -> Result<Layer, UsageError> {
        match parse(arguments)? {
            Asked::Start(flags) => flags.into_layer(),
            Asked::Words(words) => panic!("{arguments:?} asks for words: {words}"),
        }
    }

    #[test]
    fn flags_become_a_layer() {
        let layer =
            layer(&["--data-dir", "/d", "--cores=2", "--pin", "--set", "a=1", "--set", "b = x=y"]).unwrap();
        let values: Vec<(Name, &str)> =
            layer.values.iter().map(|(name, text)| (*name, text.as_str())).collect();
        assert_eq!(values, [(Name::DataDir, "/d"), (Name::Cores, "2"), (Name::Pin, "true")]);
        let settings: Vec<(&str, &str)> =
            layer.settings.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(settings, [("a", "1"), ("b", "x=y")]);
    }

    #[test]
    fn a_bad_command_line_ends_with_one_sentence() {
        for (arguments, expected) in [
            (
                &["--kafka-listen", "x"][..],
                "there is no flag '--kafka-listen'; did you mean '--kafka-listener'?",
            ),
            (&["--gateway=a:1"], "there is no flag '--gateway'; 'ouzel --help' names those there are"),
            (&["--data-dirs", "x"], "there is no flag '--data-dirs'; did you mean '--data-dir'?"),
            (&["-d"], "there is no flag '-d'; 'ouzel --help' names those there are"),
            (&["start"], "'start' is not understood: ouzel takes flags only, 'ouzel --help' names them"),
            (&["--node-id"], "--node-id has no value: write --node-id N"),
            (&["--kafka-listener"], "--kafka-listener has no value: write --kafka-listener HOST:PORT"),
            (&["--pin=yes"], "--pin takes no value: write --pin alone"),
            (&["--cores", "1", "--cores", "2"], "--cores is given more than once: give it once"),
            (
                &["--set", "num.partitions"],
                "--set 'num.partitions' has no value: write KEY=VALUE, as in num.partitions=3",
            ),
            (&["--set", "=3"], "--set '=3' has no key: write KEY=VALUE, as in num.partitions=3"),
        ] {
            assert_eq!(layer(arguments).unwrap_err().to_string(), expected, "{arguments:?}");
        }
    }

    #[test]
    fn a_negative_number_is_a_value() {
        assert_eq!(layer(&["--node-id", "-1"]).unwrap().values[&Name::NodeId], "-1");
    }

    #[test]
    fn help_names_every_choice_with_its_variable_and_default() {
        let Ok(Asked::Words(help)) = parse(&["--help"]) else { panic!("--help asks for words") };
        let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
        for name in Name::ALL {
            assert!(help.contains(&format!("--{}", name.word())), "{name:?}: {help}");
            assert!(help.contains(&format!("[env: {}", name.variable())), "{name:?}: {help}");
            assert!(help.contains(&format!("[default: {}]", name.default_words())), "{name:?}: {help}");
        }
        for word in ["--config", "OUZEL_CONFIG", "--set", "OUZEL_SET", "OUZEL_LOG", "Exit codes"] {
            assert!(help.contains(word), "{word}: {help}");
        }
        let Ok(Asked::Words(version)) = parse(&["--version"]) else { panic!("--version asks for words") };
        assert_eq!(version, concat!("ouzel ", env!("CARGO_PKG_VERSION"), "\n"));
    }
}
