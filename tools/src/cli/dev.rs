//! `ouk dev`: a cluster of processes on this machine.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::Consent;

#[derive(Debug, Subcommand)]
pub(crate) enum Dev {
    /// Start a cluster, or what of it does not run; more nodes than it has join it
    Up(Up),
    /// Show the nodes; exit 6 if not all of them serve
    Status {
        #[command(flatten)]
        place: Place,
    },
    /// Show what nodes said
    Logs {
        /// Only this node
        #[arg(value_name = "NODE")]
        node: Option<i32>,
        /// Go on with what they say from now on, until Ctrl-C
        #[arg(short, long)]
        follow: bool,
        #[command(flatten)]
        place: Place,
    },
    /// Stop all nodes and wait until they have ended; what they stored stays
    Down {
        /// Delete what they stored as well
        #[arg(long)]
        wipe: bool,
        #[command(flatten)]
        consent: Consent,
        #[command(flatten)]
        place: Place,
    },
    /// Becomes a node, in a session of its own that no terminal ends; for `up` alone
    #[command(hide = true)]
    BecomeNode {
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "WORD")]
        words: Vec<String>,
    },
}

/// Which of the clusters on this machine.
#[derive(Debug, Args)]
pub(crate) struct Place {
    /// Where the cluster's data, logs and addresses are kept
    #[arg(long, value_name = "DIR", default_value = "ouzel-dev")]
    pub(crate) data_dir: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Up {
    /// How many nodes [default: 3 for a new cluster, else as many as it has]
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=9))]
    pub(crate) nodes: Option<u16>,
    /// Port of the first node's Kafka listener, the others follow; 0 takes free ones [default: 9092]
    #[arg(long, value_name = "BASE")]
    pub(crate) kafka_port: Option<u16>,
    /// How safe a batch is before it counts, in topics that do not choose [default: durable]
    #[arg(long, value_enum)]
    pub(crate) durability: Option<Durability>,
    /// The broker's binary [default: the `ouzel` beside this `ouk`]
    #[arg(long, value_name = "PATH")]
    pub(crate) ouzel: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) place: Place,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Durability {
    Durable,
    WriteCaching,
    Os,
}

impl Durability {
    /// The value of log.ouzel.durability.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Durability::Durable => "durable",
            Durability::WriteCaching => "write-caching",
            Durability::Os => "os",
        }
    }
}
