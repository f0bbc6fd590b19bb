//! The command line: which commands there are and what they take. What they do is in `commands`.

mod dev;
mod partition;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub(crate) use dev::{Dev, Up};
pub(crate) use partition::{Chosen, Partition, Reassign};

use crate::output::Format;

const EXIT_CODES: &str = "Exit codes: 0 ok, 1 some item failed, 2 usage, 3 not found, 4 auth, 5 timeout or unreachable, 6 unhealthy.
Data goes to stdout, words go to stderr.";

/// Talks to a cluster of ouzel, or to any that speaks Kafka's protocol.
#[derive(Debug, Parser)]
#[command(name = "ouk", version, after_help = EXIT_CODES, disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command takes.
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// Brokers to ask first [env: OUK_BROKERS] [default: 127.0.0.1:9092]
    #[arg(long, global = true, value_name = "HOST:PORT,...")]
    pub(crate) brokers: Option<String>,
    /// Sets a connection option; `-X list` names them
    #[arg(short = 'X', global = true, value_name = "KEY=VALUE")]
    pub(crate) options: Vec<String>,
    /// Takes brokers and options from this profile [env: OUK_PROFILE]
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) profile: Option<String>,
    /// How data is written
    #[arg(long, global = true, value_enum)]
    pub(crate) format: Option<Format>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Create, look at, delete, write and read topics
    #[command(subcommand)]
    Topic(Topic),
    /// Look at and delete consumer groups
    #[command(subcommand)]
    Group(Group),
    /// Look at the cluster
    #[command(subcommand)]
    Cluster(Cluster),
    /// Move replicas and leaders of partitions
    #[command(subcommand)]
    Partition(Partition),
    /// Show who keeps the cluster's own log, and how far each is
    Quorum,
    /// Run a cluster of processes on this machine
    #[command(subcommand)]
    Dev(Dev),
    /// Write a completion script for a shell
    Completion {
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Topic {
    /// Create topics
    Create(TopicCreate),
    /// List topics
    List {
        /// Internal topics too
        #[arg(short, long)]
        internal: bool,
        /// Only topics with partitions whose replicas are not all in sync
        #[arg(short, long)]
        under_replicated: bool,
    },
    /// Show partitions, offsets and configs of topics
    Describe {
        #[arg(required = true, value_name = "TOPIC")]
        topics: Vec<String>,
        /// Show the configs instead of the partitions
        #[arg(short, long)]
        configs: bool,
    },
    /// Delete topics and their records
    Delete {
        #[arg(required = true, value_name = "TOPIC")]
        topics: Vec<String>,
        #[command(flatten)]
        consent: Consent,
    },
    /// Write records, from stdin or from a file
    Produce(Produce),
    /// Read records
    Consume(Consume),
}

#[derive(Debug, Args)]
pub(crate) struct TopicCreate {
    #[arg(required = true, value_name = "TOPIC")]
    pub(crate) topics: Vec<String>,
    /// Number of partitions; the broker's default without it
    #[arg(short, long, value_parser = clap::value_parser!(i32).range(1..))]
    pub(crate) partitions: Option<i32>,
    /// Replicas of each partition; the broker's default without it
    #[arg(short, long, value_parser = clap::value_parser!(i16).range(1..))]
    pub(crate) replicas: Option<i16>,
    /// Topic configs
    #[arg(short, long = "config", value_name = "KEY=VALUE", value_parser = pair)]
    pub(crate) configs: Vec<(String, String)>,
    /// A topic that is there already is no failure
    #[arg(long)]
    pub(crate) if_not_exists: bool,
    /// Only ask whether it could be created
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// Whether a command that destroys may go on.
#[derive(Debug, Args)]
pub(crate) struct Consent {
    /// Do it without asking
    #[arg(short, long)]
    pub(crate) yes: bool,
    /// Only show what would be done
    #[arg(long, conflicts_with = "yes")]
    pub(crate) dry_run: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Produce {
    /// The topic; may be left out if the format reads %t
    #[arg(value_name = "TOPIC")]
    pub(crate) topic: Option<String>,
    /// How a record is read, such as '%k %v\n' (verbs: %t %p %d %k %v %K %V)
    #[arg(short = 'f', long, value_name = "FORMAT", default_value = "%v\\n")]
    pub(crate) record_format: String,
    /// The key of every record
    #[arg(short, long)]
    pub(crate) key: Option<String>,
    /// A header of every record
    #[arg(short = 'H', long = "header", value_name = "KEY:VALUE", value_parser = header)]
    pub(crate) headers: Vec<(String, String)>,
    /// The partition of every record; by the key's hash without it
    #[arg(short, long, value_parser = clap::value_parser!(i32).range(0..))]
    pub(crate) partition: Option<i32>,
    /// How batches are compressed
    #[arg(short = 'z', long, value_enum, default_value_t = Compression::None)]
    pub(crate) compression: Compression,
    /// Who must have a record before it counts: all, 1 or 0
    #[arg(long, value_enum, default_value_t = Acks::All)]
    pub(crate) acks: Acks,
    /// Send an empty value as no value at all (a tombstone)
    #[arg(short = 'Z', long)]
    pub(crate) tombstone: bool,
    /// Read from a file instead of stdin
    #[arg(long, value_name = "FILE")]
    pub(crate) from: Option<std::path::PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Compression {
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Acks {
    All,
    #[value(name = "1")]
    Leader,
    #[value(name = "0")]
    None,
}

const OFFSETS: &str = "Offsets:
  start, end            the first record; only what comes from now on
  +N, -N                N behind the start; N before the end, of each partition
  N, N:M, :M            from offset N, until before M
  :end, N:end, -N:end   until what is the end now, then stop
  @T, @T:U, @:U         by time: 1795264496789, 2026-02-14, 2026-02-14T10:00:00Z, today, -1h (ago)
  @2026-02-14:1h        after the colon a duration counts from the time before it";

#[derive(Debug, Args)]
#[command(after_help = OFFSETS)]
pub(crate) struct Consume {
    #[arg(required = true, value_name = "TOPIC")]
    pub(crate) topics: Vec<String>,
    /// From where, and until where
    #[arg(short, long, default_value = "start", allow_hyphen_values = true)]
    pub(crate) offset: String,
    /// Only these partitions
    #[arg(short, long, value_name = "P,...", value_delimiter = ',')]
    pub(crate) partitions: Vec<i32>,
    /// Stop after so many records
    #[arg(short, long, value_name = "N")]
    pub(crate) num: Option<u64>,
    /// How a record is written, such as '%t/%p/%o %k=%v\n'; outranks --format
    #[arg(short = 'f', long, value_name = "FORMAT")]
    pub(crate) record_format: Option<String>,
    /// What is seen of transactions
    #[arg(long, value_enum, default_value_t = Isolation::ReadUncommitted)]
    pub(crate) isolation: Isolation,
    /// Only records whose key or value this regular expression matches; -n counts those
    #[arg(short, long, value_name = "REGEX")]
    pub(crate) grep: Option<String>,
}

/// Kafka's own words for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Isolation {
    #[value(name = "read_uncommitted")]
    ReadUncommitted,
    #[value(name = "read_committed")]
    ReadCommitted,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Group {
    /// List groups
    List,
    /// Show members, committed offsets and lag of groups
    Describe {
        #[arg(required = true, value_name = "GROUP")]
        groups: Vec<String>,
        /// Show the members instead of the offsets
        #[arg(short, long)]
        members: bool,
    },
    /// Delete groups and their committed offsets; a group with members is refused
    Delete {
        #[arg(required = true, value_name = "GROUP")]
        groups: Vec<String>,
        #[command(flatten)]
        consent: Consent,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Cluster {
    /// Show the brokers
    Info,
    /// Show what each broker leads and holds, and what of it is not in sync
    Status,
    /// Say whether every broker answers and every partition has its leader and replicas; exit 6 if not
    Health {
        /// Ask again every second until the cluster is healthy
        #[arg(short, long)]
        wait: bool,
    },
    /// Forget a node that has left for good: it is stopped, and its replicas are on others
    Unregister {
        #[arg(value_name = "NODE")]
        node: i32,
        #[command(flatten)]
        consent: Consent,
    },
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write key=value".to_owned()),
    }
}

fn header(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once(':').ok_or("write key:value")?;
    Ok((key.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(std::iter::once("ouk").chain(line.split(' ')))
    }

    #[test]
    fn the_tree_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_takes_the_format_before_and_behind() {
        let commands = [
            "topic create a",
            "topic list",
            "topic describe a",
            "topic delete a",
            "topic produce a",
            "topic consume a",
            "group list",
            "group describe a",
            "group delete a",
            "cluster info",
            "cluster status",
            "cluster health",
            "partition reassign a:0=1",
            "partition reassignments",
            "partition elect",
            "partition move-leader a:0 --to 1",
            "quorum",
            "dev up",
            "dev status",
            "dev logs",
            "dev down",
        ];
        for command in commands {
            for line in [
                format!("--format json {command}"),
                format!("{command} --format json --brokers h:1 -X a=b --profile p"),
            ] {
                let cli = parse(&line).unwrap_or_else(|error| panic!("{line}: {error}"));
                assert_eq!(cli.global.format, Some(Format::Json), "{line}");
            }
        }
        assert!(parse("completion bash").is_ok());
    }

    #[test]
    fn offsets_may_begin_with_a_minus() {
        let Command::Topic(Topic::Consume(consume)) =
            parse("topic consume a -o -10 -n 3 -p 0,2").unwrap().command
        else {
            panic!("that is consume")
        };
        assert_eq!((consume.offset.as_str(), consume.num, consume.partitions), ("-10", Some(3), vec![0, 2]));
    }

    #[test]
    fn wrong_words_are_refused() {
        for line in [
            "topic",
            "topic create",
            "topic create a -p 0",
            "topic create a -c x",
            "topic produce a -z rar",
            "topic produce a --acks 2",
            "topic delete a --yes --dry-run",
            "cluster info --format xml",
            "partition reassign",
            "partition reassign a:0=1,1",
            "partition reassign a:0=1 --cancel a:0",
            "partition move-leader a:0",
            "dev up -n 0",
            "dev up --durability maybe",
            "completion tcl",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
