//! What the commands do. Each asks the cluster through the client, and gives a report, and an exit code if some of it
//! failed; words about single failures go to stderr as they happen.

pub(crate) mod cluster;
pub(crate) mod consume;
pub(crate) mod group;
pub(crate) mod partition;
pub(crate) mod produce;
pub(crate) mod quorum;
pub(crate) mod topic;

use std::io::{BufRead, IsTerminal, Write};
use std::time::Duration;

use ouzel_client::{Client, ClientConfig, ClientError, Metadata, Topics};
use ouzel_protocol::ErrorCode;
use ouzel_runtime::Runtime;

use crate::cli::{Cluster, Command, Consent, Group, Topic};
use crate::failure::{Exit, Failure, exit_of_items};
use crate::output::Report;
use crate::settings::Settings;

/// What every command works with.
pub(crate) struct Session {
    pub(crate) runtime: Runtime,
    pub(crate) client: Client,
    pub(crate) settings: Settings,
}

/// How a command ended, if it could begin at all.
#[derive(Debug, Default)]
pub(crate) struct Done {
    /// What is to be written; a command that streams has written it already.
    pub(crate) report: Option<Report>,
    /// `None` for success.
    pub(crate) exit: Option<Exit>,
}

impl Done {
    fn with(report: Report) -> Done {
        Done { report: Some(report), exit: None }
    }

    /// A report over several items, of which some failed.
    fn of_items(report: Report, items: usize, failures: &[Failure]) -> Done {
        for failure in failures {
            eprintln!("ouk: {failure}");
        }
        Done { report: Some(report), exit: exit_of_items(items, failures) }
    }
}

impl Session {
    pub(crate) fn new(runtime: Runtime, settings: Settings) -> Session {
        let config = ClientConfig {
            bootstrap_servers: settings.brokers.clone(),
            client_id: settings.client_id.clone(),
            connect_timeout: settings.timeout,
            request_timeout: settings.timeout,
            call_timeout: settings.timeout,
            ..ClientConfig::new("")
        };
        let client = Client::new(&runtime, config);
        Session { runtime, client, settings }
    }

    /// Runs one command.
    pub(crate) async fn run(&self, command: Command) -> Result<Done, Failure> {
        match command {
            Command::Topic(Topic::Create(wanted)) => topic::create(self, wanted).await,
            Command::Topic(Topic::List { internal, under_replicated }) => {
                topic::list(self, internal, under_replicated).await
            }
            Command::Topic(Topic::Describe { topics, configs: false }) => {
                topic::describe(self, &topics).await
            }
            Command::Topic(Topic::Describe { topics, configs: true }) => topic::configs(self, &topics).await,
            Command::Topic(Topic::Delete { topics, consent }) => topic::delete(self, &topics, &consent).await,
            Command::Topic(Topic::Produce(wanted)) => produce::produce(self, wanted).await,
            Command::Topic(Topic::Consume(wanted)) => consume::consume(self, &wanted).await,
            Command::Group(Group::List) => group::list(self).await,
            Command::Group(Group::Describe { groups, members: false }) => {
                group::describe(self, &groups).await
            }
            Command::Group(Group::Describe { groups, members: true }) => group::members(self, &groups).await,
            Command::Group(Group::Delete { groups, consent }) => group::delete(self, &groups, &consent).await,
            Command::Cluster(Cluster::Info) => cluster::info(self).await,
            Command::Cluster(Cluster::Status) => cluster::status(self).await,
            Command::Cluster(Cluster::Health { wait }) => cluster::health(self, wait).await,
            Command::Cluster(Cluster::Unregister { node, consent }) => {
                cluster::unregister(self, node, &consent).await
            }
            Command::Partition(command) => partition::run(self, command).await,
            Command::Quorum => quorum::describe(self).await,
            Command::Dev(command) => crate::dev::run(self, command).await,
            Command::Completion { .. } => Ok(Done::default()),
        }
    }

    /// Refuses to go on if the profile is for reading only.
    fn must_be_writable(&self) -> Result<(), Failure> {
        match self.settings.read_only {
            true => Err(Failure::usage("this profile is read_only; choose another one with --profile")),
            false => Ok(()),
        }
    }

    /// Whether to carry on with what cannot be undone. Shows the plan; asks if somebody is there to answer.
    pub(crate) fn may_destroy(&self, plan: &str, consent: &Consent) -> Result<bool, Failure> {
        self.must_be_writable()?;
        eprintln!("ouk: {plan}");
        if consent.dry_run {
            return Ok(false);
        }
        if consent.yes {
            return Ok(true);
        }
        let stdin = std::io::stdin();
        if !stdin.is_terminal() {
            return Err(Failure::usage(
                "nobody is there to confirm; say --yes, or --dry-run to only see the plan",
            ));
        }
        eprint!("go on? [y/N] ");
        std::io::stderr().flush()?;
        let mut answer = String::new();
        stdin.lock().read_line(&mut answer)?;
        match matches!(answer.trim(), "y" | "Y" | "yes") {
            true => Ok(true),
            false => Err(Failure::new(Exit::Failed, "not confirmed, nothing was done")),
        }
    }

    /// The named topics' metadata, and a failure for each that cannot be described.
    async fn named_topics(&self, names: &[String]) -> Result<(Metadata, Vec<Failure>), Failure> {
        let asked: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut metadata = self.client.metadata(Topics::Named(&asked)).await?;
        let mut failures = Vec::new();
        for name in names {
            let code = metadata.topics.get(name).map(|topic| topic.error_code);
            if code == Some(0) {
                continue;
            }
            metadata.topics.remove(name);
            let code = code.unwrap_or(ErrorCode::UnknownTopicOrPartition.code());
            let what = format!("look up topic {name}");
            failures.push(ClientError::Refused { what, code, message: None }.into());
        }
        Ok((metadata, failures))
    }

    pub(crate) async fn sleep(&self, duration: Duration) {
        self.runtime.clock.sleep(duration).await;
    }
}
