//! The arguments of `cargo xtask clients`.

use crate::broker_process::Against;

pub(super) const USAGE: &str = "usage: cargo xtask clients [arguments]

  --against ouzel|kafka   the broker under test (ouzel)
  --filter S              only rows whose name holds S; may be given again
  --quick                 a sample of every kind of row
  --nodes N               a cluster of so many brokers, 1 to 5 (1)
  --restart-loop          with a cluster: its brokers are restarted one after the other beside the rows that bear it
  --cores N               ouzel with N cores, in this configuration alone
  --backend B             ouzel with the disk backend auto, uring or blocking, in this configuration alone
  --require-all           a skipped row fails the run
  --list                  the names of the rows
";

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Options {
    pub(super) against: Against,
    pub(super) filters: Vec<String>,
    pub(super) quick: bool,
    pub(super) nodes: usize,
    pub(super) restart_loop: bool,
    cores: Option<u16>,
    backend: Option<String>,
    pub(super) require_all: bool,
    pub(super) list: bool,
}

impl Options {
    pub(super) fn parse(arguments: &[String]) -> Result<Options, String> {
        let mut options = Options {
            against: Against::Ouzel,
            filters: Vec::new(),
            quick: false,
            nodes: 1,
            restart_loop: false,
            cores: None,
            backend: None,
            require_all: false,
            list: false,
        };
        let mut words = arguments.iter();
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or_else(|| format!("{word} wants a value"));
            match word.as_str() {
                "--against" => options.against = Against::parse(value()?)?,
                "--filter" => options.filters.push(value()?.clone()),
                "--quick" => options.quick = true,
                "--nodes" => {
                    let nodes = value()?;
                    let parsed = nodes.parse().ok().filter(|nodes| (1..=5).contains(nodes));
                    options.nodes =
                        parsed.ok_or_else(|| format!("--nodes {nodes} is no number from 1 to 5"))?;
                }
                "--restart-loop" => options.restart_loop = true,
                "--cores" => {
                    let cores = value()?;
                    let parsed = cores.parse().ok().filter(|cores| *cores > 0);
                    options.cores =
                        Some(parsed.ok_or_else(|| format!("--cores {cores} is no number of cores"))?);
                }
                "--backend" => {
                    let backend = value()?;
                    if !["auto", "uring", "blocking"].contains(&backend.as_str()) {
                        return Err(format!("--backend knows auto, uring and blocking, not {backend:?}"));
                    }
                    options.backend = Some(backend.clone());
                }
                "--require-all" => options.require_all = true,
                "--list" => options.list = true,
                other => return Err(format!("{other:?} is not an argument of clients")),
            }
        }
        if options.against == Against::Kafka && (options.cores.is_some() || options.backend.is_some()) {
            return Err("--cores and --backend are ouzel's".to_owned());
        }
        if options.restart_loop && options.nodes < 3 {
            return Err(
                "--restart-loop needs --nodes 3 or more: fewer do not serve while one is away".to_owned()
            );
        }
        Ok(options)
    }

    pub(super) fn chooses(&self, name: &str) -> bool {
        self.filters.is_empty() || self.filters.iter().any(|filter| name.contains(filter.as_str()))
    }

    /// The configurations to run in: the one asked for, or the usual one whole and the others by sample.
    pub(super) fn configurations(&self) -> Vec<Configuration> {
        let one = |cores: Option<u16>, backend: &str, sampled| Configuration {
            nodes: self.nodes,
            cores,
            backend: backend.to_owned(),
            sampled,
        };
        match (self.against, self.cores, &self.backend) {
            (Against::Kafka, ..) => vec![one(None, "", false)],
            (Against::Ouzel, None, None) if self.nodes == 1 => {
                vec![one(Some(2), "auto", false), one(Some(1), "auto", true), one(Some(2), "blocking", true)]
            }
            (Against::Ouzel, cores, backend) => {
                vec![one(Some(cores.unwrap_or(2)), backend.as_deref().unwrap_or("auto"), false)]
            }
        }
    }
}

/// How the broker under test is set up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Configuration {
    /// Brokers of the cluster.
    pub(super) nodes: usize,
    /// `None` for Kafka, which has no such thing.
    cores: Option<u16>,
    backend: String,
    /// Only the quick rows are played in it.
    pub(super) sampled: bool,
}

impl Configuration {
    /// In front of the names of rows.
    pub(super) fn prefix(&self) -> String {
        let mut facts = Vec::new();
        if self.nodes > 1 {
            facts.push(format!("{} nodes", self.nodes));
        }
        if let Some(cores) = self.cores {
            facts.extend([format!("{cores} cores"), self.backend.clone()]);
        }
        if facts.is_empty() { String::new() } else { format!("[{}] ", facts.join(", ")) }
    }

    /// For the name of a folder.
    pub(super) fn word(&self) -> String {
        let nodes = if self.nodes > 1 { format!("-{}-nodes", self.nodes) } else { String::new() };
        match self.cores {
            None => format!("kafka{nodes}"),
            Some(cores) => format!("ouzel{nodes}-{cores}-{}", self.backend),
        }
    }

    /// Settings and flags for the broker's start.
    pub(super) fn for_broker(&self) -> (Vec<(&'static str, String)>, Vec<String>) {
        match self.cores {
            None => (Vec::new(), Vec::new()),
            Some(cores) => (
                vec![("ouzel.disk.backend", self.backend.clone())],
                vec!["--cores".to_owned(), cores.to_string()],
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options, String> {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        Options::parse(&words)
    }

    #[test]
    fn ouzel_runs_whole_once_and_by_sample_in_the_other_configurations() {
        let configurations = parse("").unwrap().configurations();
        assert_eq!(configurations.iter().filter(|configuration| !configuration.sampled).count(), 1);
        assert!(configurations.iter().any(|configuration| configuration.cores == Some(1)));
        assert!(configurations.iter().any(|configuration| configuration.backend == "blocking"));
    }

    #[test]
    fn a_configuration_that_is_asked_for_runs_alone_and_whole() {
        let configurations = parse("--cores 1").unwrap().configurations();
        assert_eq!(configurations.len(), 1);
        assert_eq!(configurations[0].prefix(), "[1 cores, auto] ");
        assert!(!configurations[0].sampled);
    }

    #[test]
    fn a_cluster_is_one_configuration_and_named_by_its_nodes() {
        let configurations = parse("--nodes 3").unwrap().configurations();
        assert_eq!(configurations.len(), 1);
        assert_eq!(configurations[0].prefix(), "[3 nodes, 2 cores, auto] ");
        let kafka = parse("--against kafka --nodes 3 --restart-loop").unwrap().configurations();
        assert_eq!((kafka[0].prefix().as_str(), kafka[0].word().as_str()), ("[3 nodes] ", "kafka-3-nodes"));
    }

    #[test]
    fn nonsense_is_refused_by_name() {
        assert!(parse("--backend tape").unwrap_err().contains("tape"));
        assert!(parse("--against kafka --cores 2").is_err());
        assert!(parse("--filter").unwrap_err().contains("--filter"));
        assert!(parse("--cores 0").is_err());
        assert!(parse("--nodes 9").unwrap_err().contains("9"));
        assert!(parse("--nodes 2 --restart-loop").is_err());
    }

    #[test]
    fn any_of_the_filters_chooses_a_row() {
        let options = parse("--filter kills --filter groups").unwrap();
        assert!(options.chooses("kills: java") && options.chooses("[2 cores, auto] groups: x"));
        assert!(!options.chooses("admin: x"));
    }
}
