//! What a leader says of its group, and how claims travel: many to a message.

use bytes::{BufMut, BytesMut};
use ouzel_model::{LeaderEpoch, ReplicaId, TopicIdPartition};

use crate::peers::Malformed;
use crate::peers::wire::{Reader, put_group};
use crate::transport::PeerMessage;

/// The layout of a message of claims.
const FORMAT: u8 = 1;
/// Group, epoch, sequence, leader and three counts.
const CLAIM_BYTES_MIN: usize = 20 + 4 + 8 + 8 + 3 * 2;
/// More replicas than this no partition has.
const REPLICAS_MAX: usize = 256;

/// Who leads a group, and with whom, as the leader itself says it.
///
/// Claims of one group are ordered by their fields as they stand here: a later epoch beats an earlier one (elections
/// decide), within an epoch the leader's newer word beats its older one. The fields after these are in the order only
/// so that it is total: two nodes that hold different claims always agree which one wins.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Claim {
    /// Whose leader this is about.
    pub group: TopicIdPartition,
    /// The reign it is about.
    pub epoch: LeaderEpoch,
    /// Counts what the leader said within its reign; given by [`super::ClaimTable::publish`].
    pub sequence: u64,
    /// Who leads.
    pub leader: ReplicaId,
    /// Voters that are caught up, as clients see in-sync replicas; the leader among them.
    pub in_sync: Vec<ReplicaId>,
    /// Who votes, the preferred leader first.
    pub voters: Vec<ReplicaId>,
    /// Who follows without a vote.
    pub learners: Vec<ReplicaId>,
}

impl Claim {
    /// Whether another claim says the same, whenever it was said.
    pub(super) fn says_the_same(&self, other: &Claim) -> bool {
        (self.group, self.epoch, self.leader) == (other.group, other.epoch, other.leader)
            && self.in_sync == other.in_sync
            && self.voters == other.voters
            && self.learners == other.learners
    }

    fn encoded_bytes(&self) -> usize {
        CLAIM_BYTES_MIN + 8 * (self.in_sync.len() + self.voters.len() + self.learners.len())
    }

    fn encode(&self, to: &mut BytesMut) {
        put_group(to, &self.group);
        to.put_i32(self.epoch.0);
        to.put_u64(self.sequence);
        to.put_u64(self.leader.to_u64());
        for replicas in [&self.in_sync, &self.voters, &self.learners] {
            let replicas = &replicas[..replicas.len().min(REPLICAS_MAX)];
            to.put_u16(replicas.len() as u16);
            replicas.iter().for_each(|replica| to.put_u64(replica.to_u64()));
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Claim, Malformed> {
        let group = reader.group("group")?;
        let epoch = reader.epoch("epoch")?;
        let sequence = reader.u64("sequence")?;
        let leader = reader.replica("leader")?;
        let mut replicas = |what| {
            let count = reader.count(what, 8, REPLICAS_MAX)?;
            (0..count).map(|_| reader.replica(what)).collect::<Result<Vec<_>, _>>()
        };
        let (in_sync, voters) = (replicas("in-sync replicas")?, replicas("voters")?);
        Ok(Claim { group, epoch, sequence, leader, in_sync, voters, learners: replicas("learners")? })
    }
}

/// Puts claims into a message until it would have more than `bytes_max`, at least one; returns how many it took.
pub(super) fn encode_claims<'a>(
    claims: impl Iterator<Item = &'a Claim>,
    bytes_max: usize,
) -> (PeerMessage, usize) {
    let mut head = BytesMut::new();
    head.put_u8(FORMAT);
    let mut taken = 0;
    for claim in claims {
        if taken > 0 && head.len() + claim.encoded_bytes() > bytes_max {
            break;
        }
        claim.encode(&mut head);
        taken += 1;
    }
    (PeerMessage { head: head.freeze(), bodies: Vec::new() }, taken)
}

/// Reads a message of claims.
pub(super) fn decode_claims(message: &PeerMessage) -> Result<Vec<Claim>, Malformed> {
    let mut reader = Reader::new(&message.head);
    let format = reader.u8("format")?;
    if format != FORMAT {
        return Err(Malformed::Meaningless { what: "format of claims", found: i64::from(format) });
    }
    let mut claims = Vec::new();
    while !reader.is_empty() {
        claims.push(Claim::decode(&mut reader)?);
    }
    Ok(claims)
}

#[cfg(test)]
mod tests {
    use super::super::tests::claim;
    use super::*;

    #[test]
    fn claims_come_back_as_many_as_fit() {
        let claims: Vec<Claim> = (0..10).map(|n| claim(n, 3, n as u64, n % 3)).collect();
        let one = claims[0].encoded_bytes();
        let (message, taken) = encode_claims(claims.iter(), 1 + 4 * one + one / 2);
        assert_eq!((taken, decode_claims(&message).unwrap()), (4, claims[..4].to_vec()));
        let (message, taken) = encode_claims(claims.iter(), 0);
        assert_eq!(
            (taken, decode_claims(&message).unwrap().len()),
            (1, 1),
            "at least one, or nothing would move"
        );
        let (message, taken) = encode_claims([].into_iter(), 100);
        assert_eq!((taken, decode_claims(&message).unwrap()), (0, vec![]));
    }

    /// Ten thousand groups of three replicas: what a node sends to a peer that has just come.
    #[test]
    fn a_full_table_is_a_few_messages_of_bounded_size() {
        let claims: Vec<Claim> = (0..10_000).map(|n| claim(n, 3, 0, n % 3)).collect();
        let (mut sent, mut messages, mut bytes) = (0, 0, 0);
        while sent < claims.len() {
            let (message, taken) = encode_claims(claims[sent..].iter(), super::super::MESSAGE_BYTES_MAX);
            assert!(message.head.len() <= super::super::MESSAGE_BYTES_MAX);
            (sent, messages, bytes) = (sent + taken, messages + 1, bytes + message.head.len());
        }
        assert!(messages <= 8 && bytes < 1_100_000, "{messages} messages, {bytes} bytes");
    }

    #[test]
    fn random_bytes_as_claims() {
        bolero::check!()
            .with_iterations(20_000)
            .with_test_time(std::time::Duration::from_millis(500))
            .with_max_len(512)
            .for_each(|input: &[u8]| {
                let mut head = vec![FORMAT];
                head.extend_from_slice(input);
                let message = PeerMessage { head: head.into(), bodies: Vec::new() };
                if let Ok(claims) = decode_claims(&message) {
                    let (again, taken) = encode_claims(claims.iter(), usize::MAX);
                    assert_eq!((taken, again), (claims.len(), message));
                }
            });
    }
}
