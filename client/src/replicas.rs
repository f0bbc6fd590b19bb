//! Where replicas are, who leads them, and who keeps the cluster's own log: reassignments, elections, the quorum.

use std::collections::BTreeMap;
use std::time::Duration;

use ouzel_protocol::StrBytes;
use ouzel_protocol::messages::kafka::alter_partition_reassignments_request::{
    ReassignablePartition, ReassignableTopic,
};
use ouzel_protocol::messages::kafka::elect_leaders_request::TopicPartitions;
use ouzel_protocol::messages::kafka::{
    AlterPartitionReassignmentsRequest, BrokerId, DescribeQuorumRequest, ElectLeadersRequest,
    ListPartitionReassignmentsRequest, UnregisterBrokerRequest, describe_quorum_request,
    describe_quorum_response,
};

use crate::client::Client;
use crate::error::ClientError;

/// How long the broker may take to carry a change out.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(30);
const CHANGE_TIMEOUT_MS: i32 = 30_000;

/// Topic and partition.
pub type Place = (String, i32);

/// By partition, whether it was done.
pub type Outcomes = BTreeMap<Place, Result<(), ClientError>>;

/// Who is to be elected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Election {
    /// The first of the replicas, if it is in sync.
    Preferred,
    /// Any replica that lives, if none in sync does: what only the others had is lost.
    Unclean,
}

/// A partition whose replicas are on the move.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reassignment {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// All its replicas now, old and new.
    pub replicas: Vec<i32>,
    /// Those that are not in it yet.
    pub adding: Vec<i32>,
    /// Those that will leave it.
    pub removing: Vec<i32>,
}

/// The keepers of the cluster's own log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quorum {
    /// The node that leads; -1 for none.
    pub leader: i32,
    /// Its epoch.
    pub leader_epoch: i32,
    /// Up to where a majority holds the log.
    pub high_watermark: i64,
    /// Those that vote.
    pub voters: Vec<Keeper>,
    /// Those that only follow.
    pub observers: Vec<Keeper>,
}

/// One replica of the cluster's own log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keeper {
    /// Its node.
    pub node_id: i32,
    /// The end of its log.
    pub log_end_offset: i64,
    /// When the leader last heard from it, in ms since 1970; -1 if not told.
    pub last_fetch_ms: i64,
    /// When it last had all that the leader had, in ms since 1970; -1 if not told.
    pub last_caught_up_ms: i64,
}

/// The topic that holds the cluster's own log.
const CLUSTER_LOG: &str = "__cluster_metadata";

impl Client {
    /// Elects leaders; `None` for all partitions, of which only those are told that an election was held for.
    ///
    /// # Errors
    /// The broker's refusal of the whole.
    pub async fn elect_leaders(
        &self,
        election: Election,
        places: Option<&[Place]>,
    ) -> Result<Outcomes, ClientError> {
        let wanted = places.map(|places| {
            let topics = by_topic(places.iter().map(|(topic, partition)| (topic.as_str(), *partition)));
            let named = |(topic, partitions): (&str, Vec<i32>)| {
                TopicPartitions::default().with_topic(name(topic).into()).with_partitions(partitions)
            };
            topics.into_iter().map(named).collect()
        });
        let request = ElectLeadersRequest::default()
            .with_election_type(match election {
                Election::Preferred => 0,
                Election::Unclean => 1,
            })
            .with_topic_partitions(wanted)
            .with_timeout_ms(CHANGE_TIMEOUT_MS);
        let response = self.call_controller(request, CHANGE_TIMEOUT).await?;
        ClientError::check(response.error_code, None, || "elect leaders".to_owned())?;
        let mut outcomes = Outcomes::new();
        for topic in response.replica_election_results {
            for result in topic.partition_result {
                let place = (topic.topic.to_string(), result.partition_id);
                let outcome = ClientError::check(result.error_code, result.error_message.as_deref(), || {
                    format!("elect the leader of {}-{}", place.0, place.1)
                });
                outcomes.insert(place, outcome);
            }
        }
        outcomes.keys().for_each(|(topic, _)| self.forget_topic(topic));
        Ok(said_of_each(places.unwrap_or_default(), outcomes, "elect the leader of"))
    }

    /// Gives partitions other replicas, the preferred leader first, or with `None` gives a move that is under way up.
    /// The move itself goes on after the answer; [`Client::reassignments`] tells how far it is.
    ///
    /// # Errors
    /// The broker's refusal of the whole.
    pub async fn reassign(&self, wanted: &[(Place, Option<Vec<i32>>)]) -> Result<Outcomes, ClientError> {
        let mut topics: BTreeMap<&str, Vec<ReassignablePartition>> = BTreeMap::new();
        for ((topic, partition), replicas) in wanted {
            let replicas = replicas.as_ref().map(|nodes| nodes.iter().map(|node| (*node).into()).collect());
            let partition =
                ReassignablePartition::default().with_partition_index(*partition).with_replicas(replicas);
            topics.entry(topic).or_default().push(partition);
        }
        let topics = topics.into_iter().map(|(topic, partitions)| {
            ReassignableTopic::default().with_name(name(topic).into()).with_partitions(partitions)
        });
        let request = AlterPartitionReassignmentsRequest::default()
            .with_timeout_ms(CHANGE_TIMEOUT_MS)
            .with_topics(topics.collect());
        let response = self.call_controller(request, CHANGE_TIMEOUT).await?;
        let message = response.error_message.as_deref();
        ClientError::check(response.error_code, message, || "reassign partitions".to_owned())?;
        let mut outcomes = Outcomes::new();
        for topic in response.responses {
            for result in topic.partitions {
                let place = (topic.name.to_string(), result.partition_index);
                let outcome = ClientError::check(result.error_code, result.error_message.as_deref(), || {
                    format!("reassign {}-{}", place.0, place.1)
                });
                outcomes.insert(place, outcome);
            }
        }
        let places: Vec<Place> = wanted.iter().map(|(place, _)| place.clone()).collect();
        places.iter().for_each(|(topic, _)| self.forget_topic(topic));
        Ok(said_of_each(&places, outcomes, "reassign"))
    }

    /// All partitions whose replicas are on the move.
    ///
    /// # Errors
    /// The broker's refusal.
    pub async fn reassignments(&self) -> Result<Vec<Reassignment>, ClientError> {
        let request =
            ListPartitionReassignmentsRequest::default().with_timeout_ms(CHANGE_TIMEOUT_MS).with_topics(None);
        let response = self.call_controller(request, CHANGE_TIMEOUT).await?;
        let message = response.error_message.as_deref();
        ClientError::check(response.error_code, message, || "list reassignments".to_owned())?;
        let mut moves: Vec<Reassignment> = Vec::new();
        for topic in response.topics {
            for partition in topic.partitions {
                let nodes = |ids: &[BrokerId]| ids.iter().map(|id| id.0).collect();
                moves.push(Reassignment {
                    topic: topic.name.to_string(),
                    partition: partition.partition_index,
                    replicas: nodes(&partition.replicas),
                    adding: nodes(&partition.adding_replicas),
                    removing: nodes(&partition.removing_replicas),
                });
            }
        }
        moves.sort_by(|a, b| (&a.topic, a.partition).cmp(&(&b.topic, b.partition)));
        Ok(moves)
    }

    /// Who keeps the cluster's own log, and how far each is.
    ///
    /// # Errors
    /// The broker's refusal.
    pub async fn describe_quorum(&self) -> Result<Quorum, ClientError> {
        let partition = describe_quorum_request::PartitionData::default().with_partition_index(0);
        let topic = describe_quorum_request::TopicData::default()
            .with_topic_name(name(CLUSTER_LOG).into())
            .with_partitions(vec![partition]);
        let request = DescribeQuorumRequest::default().with_topics(vec![topic]);
        let response = self.any().await?.call(request).await?;
        let what = || "describe the quorum".to_owned();
        ClientError::check(response.error_code, response.error_message.as_deref(), what)?;
        let partition = response.topics.into_iter().flat_map(|topic| topic.partitions).next();
        let partition = partition.ok_or_else(|| ClientError::Missing { what: what() })?;
        ClientError::check(partition.error_code, partition.error_message.as_deref(), what)?;
        Ok(Quorum {
            leader: partition.leader_id.0,
            leader_epoch: partition.leader_epoch,
            high_watermark: partition.high_watermark,
            voters: partition.current_voters.iter().map(keeper).collect(),
            observers: partition.observers.iter().map(keeper).collect(),
        })
    }

    /// Has the cluster forget a broker that has left for good.
    ///
    /// # Errors
    /// The broker's refusal: it is alive, or something still rests on it.
    pub async fn unregister_broker(&self, node: i32) -> Result<(), ClientError> {
        let request = UnregisterBrokerRequest::default().with_broker_id(node.into());
        let response = self.call_controller(request, CHANGE_TIMEOUT).await?;
        let what = || format!("unregister broker {node}");
        ClientError::check(response.error_code, response.error_message.as_deref(), what)
    }
}

fn keeper(state: &describe_quorum_response::ReplicaState) -> Keeper {
    Keeper {
        node_id: state.replica_id.0,
        log_end_offset: state.log_end_offset,
        last_fetch_ms: state.last_fetch_timestamp,
        last_caught_up_ms: state.last_caught_up_timestamp,
    }
}

fn name(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn by_topic<'a>(places: impl Iterator<Item = (&'a str, i32)>) -> BTreeMap<&'a str, Vec<i32>> {
    let mut topics: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
    for (topic, partition) in places {
        topics.entry(topic).or_default().push(partition);
    }
    topics
}

/// Adds an error for each partition that was named and that the answer says nothing of.
fn said_of_each(places: &[Place], mut outcomes: Outcomes, what: &str) -> Outcomes {
    for place in places {
        outcomes
            .entry(place.clone())
            .or_insert_with(|| Err(ClientError::Missing { what: format!("{what} {}-{}", place.0, place.1) }));
    }
    outcomes
}
