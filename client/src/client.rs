//! The client: knows brokers, keeps one connection to each, and finds the right one for a request.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use ouzel_model::TopicId;
use ouzel_protocol::messages::Call;
use ouzel_protocol::messages::kafka::FindCoordinatorRequest;
use ouzel_protocol::{ErrorCode, StrBytes};
use ouzel_runtime::Runtime;

use crate::config::ClientConfig;
use crate::connection::Connection;
use crate::error::ClientError;
use crate::metadata::{Metadata, Topics};

/// A client of one cluster. Clones share connections and what is known of the cluster.
#[derive(Clone)]
pub struct Client {
    inner: Rc<Inner>,
}

struct Inner {
    runtime: Runtime,
    config: ClientConfig,
    /// By address. A connection that has ended is replaced by the next call that needs it.
    connections: RefCell<BTreeMap<String, Connection>>,
    /// Addresses where the last attempt at a connection failed: of several that would do, they are tried last.
    failed: RefCell<BTreeSet<String>>,
    /// Brokers and topics seen so far; topics are refreshed when their leader turns out to be wrong.
    known: RefCell<Metadata>,
    /// Where each group's coordinator was found.
    coordinators: RefCell<BTreeMap<String, String>>,
}

/// Where a partition's leader is, as far as is known.
#[derive(Clone, Debug)]
pub struct Leader {
    /// A connection to it.
    pub connection: Connection,
    /// Its node id.
    pub node_id: i32,
    /// Its epoch; -1 if unknown.
    pub leader_epoch: i32,
    /// The topic's id; zero if the broker has none.
    pub topic_id: TopicId,
}

impl Client {
    /// A client; it connects when first used.
    pub fn new(runtime: &Runtime, config: ClientConfig) -> Client {
        Client {
            inner: Rc::new(Inner {
                runtime: runtime.clone(),
                config,
                connections: RefCell::default(),
                failed: RefCell::default(),
                known: RefCell::new(Metadata { controller_id: -1, ..Metadata::default() }),
                coordinators: RefCell::default(),
            }),
        }
    }

    /// Its settings.
    pub fn config(&self) -> &ClientConfig {
        &self.inner.config
    }

    pub(crate) fn runtime(&self) -> &Runtime {
        &self.inner.runtime
    }

    /// A connection to `HOST:PORT`, shared with everybody who asks for it.
    ///
    /// # Errors
    /// See [`Connection::open`].
    pub async fn connection(&self, address: &str) -> Result<Connection, ClientError> {
        if let Some(connection) = self.open_connection(address) {
            return Ok(connection);
        }
        let opened = Connection::open(&self.inner.runtime, address, &self.inner.config).await;
        // Who has found brokers has its addresses from them: one that ends before it has said its versions is being stopped,
        // and is back in a moment.
        let has_found = !self.inner.connections.borrow().is_empty();
        let opened = opened.map_err(|error| match error {
            ClientError::NotKafka { address, reason } if has_found => {
                ClientError::Connect { address, reason }
            }
            error => error,
        });
        let connection =
            opened.inspect_err(|_| _ = self.inner.failed.borrow_mut().insert(address.to_owned()))?;
        self.inner.failed.borrow_mut().remove(address);
        self.inner.connections.borrow_mut().insert(address.to_owned(), connection.clone());
        Ok(connection)
    }

    fn open_connection(&self, address: &str) -> Option<Connection> {
        let open = self.inner.connections.borrow().get(address).cloned();
        open.filter(|connection| !connection.is_closed())
    }

    /// A connection to any broker, bootstrap servers before others: one that is open, else the first that opens, those
    /// that lately failed last.
    ///
    /// # Errors
    /// [`ClientError::Unreachable`] with the reason at each address; the reason itself if there is only one address.
    pub async fn any(&self) -> Result<Connection, ClientError> {
        let mut addresses = self.inner.config.bootstrap_servers.clone();
        for broker in self.inner.known.borrow().brokers.values() {
            if !addresses.contains(&broker.address()) {
                addresses.push(broker.address());
            }
        }
        if let Some(open) = addresses.iter().find_map(|address| self.open_connection(address)) {
            return Ok(open);
        }
        addresses.sort_by_key(|address| self.inner.failed.borrow().contains(address));
        let mut failures = Vec::new();
        for address in &addresses {
            match self.connection(address).await {
                Ok(connection) => return Ok(connection),
                Err(error) => failures.push((address, error)),
            }
        }
        if let [(_, only)] = &failures[..] {
            return Err(only.clone());
        }
        let reasons = failures.iter().map(|(address, error)| match error {
            ClientError::Connect { reason, .. } => format!("{address}: {reason}"),
            error => format!("{address}: {error}"),
        });
        let tried = reasons.collect::<Vec<_>>().join("; ");
        let tried = if tried.is_empty() { "no address was given".to_owned() } else { tried };
        Err(ClientError::Unreachable { tried })
    }

    /// A connection to a broker by node id.
    ///
    /// # Errors
    /// If it is not in the cluster, or cannot be reached.
    pub async fn broker(&self, node_id: i32) -> Result<Connection, ClientError> {
        let known = self.address_of(node_id);
        let address = match known {
            Some(address) => address,
            None => {
                self.metadata(Topics::None).await?;
                let missing = || ClientError::Missing { what: format!("find broker {node_id}") };
                self.address_of(node_id).ok_or_else(missing)?
            }
        };
        self.connection(&address).await
    }

    fn address_of(&self, node_id: i32) -> Option<String> {
        self.inner.known.borrow().brokers.get(&node_id).map(crate::metadata::Broker::address)
    }

    /// A connection to the node that takes administration: the controller if it is named, else any broker.
    ///
    /// # Errors
    /// If it cannot be reached.
    pub async fn controller(&self) -> Result<Connection, ClientError> {
        let metadata = self.metadata(Topics::None).await?;
        match metadata.controller_id {
            -1 => self.any().await,
            node_id => self.broker(node_id).await,
        }
    }

    /// Asks any broker about the cluster and the given topics, and remembers the answer.
    ///
    /// Codes of single topics are left in the result.
    ///
    /// # Errors
    /// If no broker answers.
    pub async fn metadata(&self, topics: Topics<'_>) -> Result<Metadata, ClientError> {
        let connection = self.any().await?;
        let response = connection.call(topics.request()).await?;
        ClientError::check(response.error_code, None, || "describe the cluster".to_owned())?;
        let metadata = Metadata::from(response);
        let mut known = self.inner.known.borrow_mut();
        known.cluster_id.clone_from(&metadata.cluster_id);
        known.controller_id = metadata.controller_id;
        known.brokers.clone_from(&metadata.brokers);
        known.topics.extend(metadata.topics.clone());
        Ok(metadata)
    }

    /// How many partitions a topic has, which `create` lets the broker create.
    ///
    /// # Errors
    /// The topic's own error, once it is not one that passes.
    pub async fn partition_count(&self, topic: &str, create: bool) -> Result<i32, ClientError> {
        let known = self.inner.known.borrow().topics.get(topic).map(|topic| topic.partitions.len());
        if let Some(count) = known.filter(|count| *count > 0) {
            return Ok(count as i32);
        }
        self.retrying(async || {
            let names = [topic];
            let asked = if create { Topics::Created(&names) } else { Topics::Named(&names) };
            let metadata = self.metadata(asked).await?;
            let what = || format!("look up topic {topic}");
            let found = metadata.topics.get(topic).ok_or_else(|| ClientError::Missing { what: what() })?;
            // Unknown passes while a topic is being created, and only then.
            if !create && found.error_code == ErrorCode::UnknownTopicOrPartition.code() {
                return Ok(Err(ClientError::Refused { what: what(), code: found.error_code, message: None }));
            }
            ClientError::check(found.error_code, None, what)?;
            Ok(Ok(found.partitions.len() as i32))
        })
        .await?
    }

    /// The leader of a partition: from what is known, or asked for afresh.
    ///
    /// # Errors
    /// [`ErrorCode::UnknownTopicOrPartition`] or [`ErrorCode::LeaderNotAvailable`] as a refusal; both are retriable.
    pub async fn leader(&self, topic: &str, partition: i32) -> Result<Leader, ClientError> {
        if self.known_leader(topic, partition).is_none() {
            self.metadata(Topics::Named(&[topic])).await?;
        }
        let refused = |code: ErrorCode| {
            let what = format!("find the leader of {topic}-{partition}");
            ClientError::Refused { what, code: code.code(), message: None }
        };
        let Some((node_id, leader_epoch, topic_id)) = self.known_leader(topic, partition) else {
            let known = self.inner.known.borrow();
            let exists =
                known.topics.get(topic).is_some_and(|topic| topic.partitions.contains_key(&partition));
            let code =
                if exists { ErrorCode::LeaderNotAvailable } else { ErrorCode::UnknownTopicOrPartition };
            return Err(refused(code));
        };
        Ok(Leader { connection: self.broker(node_id).await?, node_id, leader_epoch, topic_id })
    }

    fn known_leader(&self, topic: &str, partition: i32) -> Option<(i32, i32, TopicId)> {
        let known = self.inner.known.borrow();
        let topic = known.topics.get(topic)?;
        let found = topic.partitions.get(&partition)?;
        (found.leader >= 0).then_some((found.leader, found.leader_epoch, topic.topic_id))
    }

    /// The name behind a topic id, as far as is known.
    pub(crate) fn topic_named(&self, topic_id: TopicId) -> Option<String> {
        let known = self.inner.known.borrow();
        known.topics.iter().find(|(_, topic)| topic.topic_id == topic_id).map(|(name, _)| name.clone())
    }

    /// Drops what is known of a topic, so that the next call asks afresh.
    pub fn forget_topic(&self, topic: &str) {
        self.inner.known.borrow_mut().topics.remove(topic);
    }

    /// Forgets where a group's coordinator was found: whoever asks next looks for it.
    pub fn forget_coordinator(&self, group: &str) {
        self.inner.coordinators.borrow_mut().remove(group);
    }

    /// A connection to a group's coordinator.
    ///
    /// # Errors
    /// The coordinator's error, or that no broker can be reached.
    pub async fn coordinator(&self, group: &str) -> Result<Connection, ClientError> {
        let known = self.inner.coordinators.borrow().get(group).cloned();
        if let Some(address) = known {
            let reached = self.connection(&address).await;
            if reached.is_err() {
                // It is gone, and another one coordinates, or will: whoever tries again asks who.
                self.inner.coordinators.borrow_mut().remove(group);
            }
            return reached;
        }
        let connection = self.any().await?;
        let key = StrBytes::from_string(group.to_owned());
        // Versions below 4 take one key in a field of its own.
        let (lowest, highest) = connection.versions().range(FindCoordinatorRequest::API).unwrap_or((0, 0));
        let what = || format!("find the coordinator of group {group}");
        let (host, port) = if highest >= 4 && lowest <= 6 {
            let request = FindCoordinatorRequest::default().with_coordinator_keys(vec![key]);
            let mut response = connection.call(request).await?;
            let found = response.coordinators.pop().ok_or_else(|| ClientError::Missing { what: what() })?;
            ClientError::check(found.error_code, found.error_message.as_deref(), what)?;
            (found.host, found.port)
        } else {
            let request = FindCoordinatorRequest::default().with_key(key);
            let found = connection.call_within(request, 3, Duration::ZERO).await?;
            ClientError::check(found.error_code, found.error_message.as_deref(), what)?;
            (found.host, found.port)
        };
        let broker = crate::metadata::Broker { node_id: -1, host: host.to_string(), port, rack: None };
        self.inner.coordinators.borrow_mut().insert(group.to_owned(), broker.address());
        self.connection(&broker.address()).await
    }

    /// Calls a group's coordinator, and looks for it afresh when it has moved or is still loading.
    ///
    /// `code` reads the one error that concerns the whole call out of the response, `what` names it.
    ///
    /// # Errors
    /// What remains after the retries.
    pub(crate) async fn call_coordinator<C: Call + Clone>(
        &self,
        group: &str,
        request: C,
        version_max: i16,
        what: &str,
        code: impl Fn(&C::Response) -> i16,
    ) -> Result<C::Response, ClientError> {
        self.retrying(async || {
            let connection = self.coordinator(group).await?;
            let called = connection.call_within(request.clone(), version_max, Duration::ZERO).await;
            let checked = called.and_then(|response| {
                ClientError::check(code(&response), None, || format!("{what} at {}", connection.address()))?;
                Ok(response)
            });
            if checked.as_ref().is_err_and(ClientError::is_retriable) {
                self.inner.coordinators.borrow_mut().remove(group);
            }
            checked
        })
        .await
    }

    /// Calls the controller, and looks for it afresh when it has moved.
    pub(crate) async fn call_controller<C: Call + Clone>(
        &self,
        request: C,
        wait: Duration,
    ) -> Result<C::Response, ClientError> {
        let connection = self.controller().await?;
        connection.call_within(request, i16::MAX, wait).await
    }

    /// Repeats `attempt` while it fails with something that may pass, until the call timeout is over.
    ///
    /// # Errors
    /// The last error.
    pub(crate) async fn retrying<T>(
        &self,
        mut attempt: impl AsyncFnMut() -> Result<T, ClientError>,
    ) -> Result<T, ClientError> {
        let clock = &self.inner.runtime.clock;
        let deadline = clock.now() + self.inner.config.call_timeout;
        loop {
            match attempt().await {
                Err(error) if error.is_retriable() && clock.now() < deadline => {
                    clock.sleep(self.inner.config.retry_backoff).await;
                }
                result => return result,
            }
        }
    }

    /// Groups partitions by the address of their leader, with one connection each.
    pub(crate) async fn by_leader<T>(
        &self,
        partitions: impl IntoIterator<Item = (String, i32, T)>,
    ) -> Result<Vec<(Connection, Vec<OnLeader<T>>)>, ClientError> {
        let mut leaders: BTreeMap<i32, (Connection, Vec<OnLeader<T>>)> = BTreeMap::new();
        for (topic, partition, value) in partitions {
            let leader = self.leader(&topic, partition).await?;
            let (_, on_leader) =
                leaders.entry(leader.node_id).or_insert_with(|| (leader.connection.clone(), Vec::new()));
            on_leader.push(OnLeader { topic, partition, leader, value });
        }
        Ok(leaders.into_values().collect())
    }
}

/// A partition with its leader and whatever belongs to it.
pub(crate) struct OnLeader<T> {
    pub(crate) topic: String,
    pub(crate) partition: i32,
    pub(crate) leader: Leader,
    pub(crate) value: T,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("bootstrap_servers", &self.inner.config.bootstrap_servers)
            .finish_non_exhaustive()
    }
}
