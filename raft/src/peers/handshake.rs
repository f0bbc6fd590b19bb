//! Who speaks: the first frame each way of a connection, and the judgement over it.
//!
//! A connection opens with eight bytes of magic and a hello; the answer is a welcome, or a refusal that says in words
//! what is wrong. The layout of hello and refusal up to the versions is for ever: a node must be able to tell one of
//! another version that they cannot talk.

use bytes::{BufMut, Bytes, BytesMut};
use ouzel_model::{NodeId, TopicId};

use super::wire::{Malformed, Reader, put_text};
use crate::transport::Lane;

/// The first bytes of a connection between peers.
pub(crate) const MAGIC: [u8; 8] = *b"OUZELRPC";
/// Versions of the protocol spoken here, the first and the last.
pub const VERSIONS: (u16, u16) = (1, 1);
/// A hello is never longer than this.
pub(crate) const HELLO_BYTES_MAX: usize = 1024;
/// Kafka's own cluster ids have 22 bytes.
const CLUSTER_ID_BYTES_MAX: usize = 255;
/// A host name and a port.
pub(crate) const ADDRESS_BYTES_MAX: usize = 262;
const REASON_BYTES_MAX: usize = 600;

/// Who a node is, as its peers know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeIdentity {
    /// Its cluster; none while it has not founded or joined one.
    pub cluster_id: Option<String>,
    /// Its number.
    pub node: NodeId,
    /// The identity of its data directory: a wiped disk comes back with another one.
    pub directory_id: TopicId,
    /// Drawn at each start: tells a restart from a connection that was lost.
    pub process_id: u64,
    /// Where it listens to its peers, `HOST:PORT`.
    pub rpc_address: String,
}

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Traffic of a cluster, of one lane.
    Member(Lane),
    /// Asking a seed what it knows, before there is a cluster.
    Discover,
}

impl Purpose {
    fn to_u8(self) -> u8 {
        match self {
            Purpose::Member(Lane::Control) => 0,
            Purpose::Member(Lane::Data) => 1,
            Purpose::Member(Lane::Recovery) => 2,
            Purpose::Discover => 3,
        }
    }

    fn of(byte: u8) -> Result<Purpose, Malformed> {
        Ok(match byte {
            0 => Purpose::Member(Lane::Control),
            1 => Purpose::Member(Lane::Data),
            2 => Purpose::Member(Lane::Recovery),
            3 => Purpose::Discover,
            _ => return Err(Malformed::Meaningless { what: "purpose", found: i64::from(byte) }),
        })
    }
}

/// The first frame of who connects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hello {
    /// First and last version it speaks.
    pub(crate) versions: (u16, u16),
    pub(crate) purpose: Purpose,
    pub(crate) sender: NodeIdentity,
    /// The core it connects from.
    pub(crate) core: u16,
    /// Whom it means to reach; -1 if it does not know (discovering).
    pub(crate) target: NodeId,
}

impl Hello {
    pub(crate) fn encode(&self) -> Bytes {
        let mut to = BytesMut::with_capacity(128);
        to.put_u16(self.versions.0);
        to.put_u16(self.versions.1);
        to.put_u8(self.purpose.to_u8());
        put_identity(&mut to, &self.sender);
        to.put_u16(self.core);
        to.put_i32(self.target.0);
        to.freeze()
    }

    /// Reads the versions alone: the rest may be another version's.
    pub(crate) fn decode_versions(bytes: &[u8]) -> Result<(u16, u16), Malformed> {
        let mut reader = Reader::new(bytes);
        Ok((reader.u16("first version")?, reader.u16("last version")?))
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Hello, Malformed> {
        let mut reader = Reader::new(bytes);
        let hello = Hello {
            versions: (reader.u16("first version")?, reader.u16("last version")?),
            purpose: Purpose::of(reader.u8("purpose")?)?,
            sender: identity(&mut reader)?,
            core: reader.u16("core")?,
            target: reader.node("target")?,
        };
        // Fields of later versions may follow.
        Ok(hello)
    }
}

/// The answer to a hello that is taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Welcome {
    /// The version both will speak.
    pub(crate) version: u16,
    pub(crate) receiver: NodeIdentity,
}

impl Welcome {
    pub(crate) fn encode(&self) -> Bytes {
        let mut to = BytesMut::with_capacity(128);
        to.put_u16(self.version);
        put_identity(&mut to, &self.receiver);
        to.freeze()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Welcome, Malformed> {
        let mut reader = Reader::new(bytes);
        Ok(Welcome { version: reader.u16("version")?, receiver: identity(&mut reader)? })
    }
}

fn put_identity(to: &mut BytesMut, identity: &NodeIdentity) {
    put_text(to, identity.cluster_id.as_deref().unwrap_or(""), CLUSTER_ID_BYTES_MAX);
    to.put_i32(identity.node.0);
    to.put_slice(&identity.directory_id.0);
    to.put_u64(identity.process_id);
    put_text(to, &identity.rpc_address, ADDRESS_BYTES_MAX);
}

fn identity(reader: &mut Reader<'_>) -> Result<NodeIdentity, Malformed> {
    let cluster_id = reader.text("cluster id", CLUSTER_ID_BYTES_MAX)?;
    Ok(NodeIdentity {
        cluster_id: (!cluster_id.is_empty()).then(|| cluster_id.to_owned()),
        node: reader.node("node id")?,
        directory_id: reader.topic_id("directory id")?,
        process_id: reader.u64("process id")?,
        rpc_address: reader.text("rpc address", ADDRESS_BYTES_MAX)?.to_owned(),
    })
}

/// Why a hello is not taken. The text is what the other side logs: it names both sides, and the mend.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Refusal {
    /// No version in common.
    #[error(
        "versions {}..{} of the peer protocol are spoken there, {}..{} here; upgrade the older node",
        theirs.0, theirs.1, VERSIONS.0, VERSIONS.1
    )]
    Version {
        /// The first and last one offered.
        theirs: (u16, u16),
    },
    /// Another cluster's node.
    #[error(
        "node {node} belongs to cluster {theirs}, node {own_node} to cluster {own}; check seeds and data directories"
    )]
    OtherCluster {
        /// Who came.
        node: NodeId,
        /// Its cluster.
        theirs: String,
        /// Who was asked.
        own_node: NodeId,
        /// This cluster.
        own: String,
    },
    /// The receiver, or the sender, has no cluster yet.
    #[error("node {0} belongs to no cluster yet")]
    NoCluster(NodeId),
    /// The address is another node's.
    #[error("node {own} listens here, not node {target}; an address is out of date")]
    NotAddressed {
        /// Who was meant.
        target: NodeId,
        /// Who is here.
        own: NodeId,
    },
    /// It is ourselves.
    #[error("node {0} reached itself; its address stands where another node's should")]
    OwnId(NodeId),
    /// Two directories under one node id, this node's own.
    #[error(
        "node id {node} is taken by the node that answers (directory {own}), and cannot be that of directory {theirs} as \
         well; start one of them with another --node-id"
    )]
    NodeIdIsMine {
        /// The id.
        node: NodeId,
        /// The directory here.
        own: TopicId,
        /// The one that came.
        theirs: TopicId,
    },
    /// Two directories under one node id, both alive.
    #[error(
        "node id {node} is in use by directory {held} at this moment, and cannot be that of directory {theirs} as well; \
         start one of them with another --node-id"
    )]
    NodeIdInUse {
        /// The id.
        node: NodeId,
        /// Who has it.
        held: TopicId,
        /// Who came.
        theirs: TopicId,
    },
    /// Two processes with one directory (a copied disk), both alive.
    #[error(
        "directory {directory} of node {node} is in use by another process at this moment; one of the two is a copy: wipe \
         it and give it a node id of its own"
    )]
    DirectoryInUse {
        /// Whose.
        node: NodeId,
        /// Which.
        directory: TopicId,
    },
    /// What came says something, but nothing that can be taken. Also how an unknown refusal of a peer is read.
    #[error("{0}")]
    Other(String),
}

impl Refusal {
    /// The refusal's frame: a number for programs, and words for people.
    pub(crate) fn encode(&self) -> Bytes {
        let mut to = BytesMut::with_capacity(128);
        to.put_u16(self.code());
        put_text(&mut to, &self.to_string(), REASON_BYTES_MAX);
        to.freeze()
    }

    /// Reads the words of a refusal.
    pub(crate) fn decode_reason(bytes: &[u8]) -> Result<String, Malformed> {
        let mut reader = Reader::new(bytes);
        reader.u16("refusal code")?;
        Ok(reader.text("reason", REASON_BYTES_MAX)?.to_owned())
    }

    fn code(&self) -> u16 {
        match self {
            Refusal::Other(_) => 0,
            Refusal::Version { .. } => 1,
            Refusal::OtherCluster { .. } => 2,
            Refusal::NoCluster(_) => 3,
            Refusal::NotAddressed { .. } => 4,
            Refusal::OwnId(_) => 5,
            Refusal::NodeIdIsMine { .. } => 6,
            Refusal::NodeIdInUse { .. } => 7,
            Refusal::DirectoryInUse { .. } => 8,
        }
    }
}

/// Which directory and process hold a node id at this moment, as far as this node hears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Holder {
    pub(crate) directory_id: TopicId,
    pub(crate) process_id: u64,
}

/// Judges a hello. `holder` is who holds the sender's node id and is alive.
pub(crate) fn judge(own: &NodeIdentity, hello: &Hello, holder: Option<Holder>) -> Result<u16, Refusal> {
    let sender = &hello.sender;
    let version = common_version(hello.versions)?;
    if hello.purpose == Purpose::Discover {
        // Whoever asks may ask: nodes without a cluster, strangers, and ourselves. The answer says who we are.
        return Ok(version);
    }
    if sender.directory_id == own.directory_id && sender.process_id == own.process_id {
        return Err(Refusal::OwnId(own.node));
    }
    match (&own.cluster_id, &sender.cluster_id) {
        (Some(own_cluster), Some(theirs)) if own_cluster == theirs => {}
        (Some(own_cluster), Some(theirs)) => {
            return Err(Refusal::OtherCluster {
                node: sender.node,
                theirs: theirs.clone(),
                own_node: own.node,
                own: own_cluster.clone(),
            });
        }
        (Some(_), None) => return Err(Refusal::NoCluster(sender.node)),
        (None, _) => return Err(Refusal::NoCluster(own.node)),
    }
    if sender.directory_id == own.directory_id {
        return Err(Refusal::DirectoryInUse { node: own.node, directory: own.directory_id });
    }
    if sender.node == own.node {
        return Err(Refusal::NodeIdIsMine {
            node: own.node,
            own: own.directory_id,
            theirs: sender.directory_id,
        });
    }
    if hello.target != own.node {
        return Err(Refusal::NotAddressed { target: hello.target, own: own.node });
    }
    match holder {
        Some(holder) if holder.directory_id != sender.directory_id => Err(Refusal::NodeIdInUse {
            node: sender.node,
            held: holder.directory_id,
            theirs: sender.directory_id,
        }),
        Some(holder) if holder.process_id != sender.process_id => {
            Err(Refusal::DirectoryInUse { node: sender.node, directory: sender.directory_id })
        }
        _ => Ok(version),
    }
}

/// The newest version that both speak.
pub(crate) fn common_version(theirs: (u16, u16)) -> Result<u16, Refusal> {
    let newest = theirs.1.min(VERSIONS.1);
    if newest < theirs.0.max(VERSIONS.0) { Err(Refusal::Version { theirs }) } else { Ok(newest) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(node: i32, directory: u8, process_id: u64) -> NodeIdentity {
        NodeIdentity {
            cluster_id: Some("east".to_owned()),
            node: NodeId(node),
            directory_id: TopicId([directory; 16]),
            process_id,
            rpc_address: format!("host-{node}:33146"),
        }
    }

    fn hello(sender: NodeIdentity, target: i32) -> Hello {
        Hello {
            versions: VERSIONS,
            purpose: Purpose::Member(Lane::Data),
            sender,
            core: 1,
            target: NodeId(target),
        }
    }

    #[test]
    fn a_hello_comes_back_and_later_versions_may_say_more() {
        let mut sent = hello(identity(2, 2, 22), 1);
        for purpose in [Purpose::Member(Lane::Control), Purpose::Member(Lane::Recovery), Purpose::Discover] {
            sent.purpose = purpose;
            let mut bytes = sent.encode().to_vec();
            assert_eq!(Hello::decode(&bytes).unwrap(), sent);
            for cut in 0..bytes.len() {
                assert!(Hello::decode(&bytes[..cut]).is_err(), "cut at {cut}");
            }
            bytes.extend_from_slice(b"more");
            assert_eq!(Hello::decode(&bytes).unwrap(), sent);
        }
        let welcome =
            Welcome { version: 1, receiver: NodeIdentity { cluster_id: None, ..identity(1, 1, 11) } };
        assert_eq!(Welcome::decode(&welcome.encode()).unwrap(), welcome);
    }

    #[test]
    fn each_wrong_hello_is_refused_in_words() {
        let own = identity(1, 1, 11);
        let good = hello(identity(2, 2, 22), 1);
        let holder =
            |directory, process_id| Some(Holder { directory_id: TopicId([directory; 16]), process_id });
        let other = |change: &dyn Fn(&mut Hello)| {
            let mut hello = good.clone();
            change(&mut hello);
            hello
        };
        #[rustfmt::skip]
        let refused: &[(&str, Hello, Option<Holder>)] = &[
            ("versions 2..3 of the peer protocol are spoken there, 1..1 here", other(&|h| h.versions = (2, 3)), None),
            ("node 2 belongs to cluster west, node 1 to cluster east", other(&|h| h.sender.cluster_id = Some("west".into())), None),
            ("node 2 belongs to no cluster yet", other(&|h| h.sender.cluster_id = None), None),
            ("node 1 listens here, not node 3", other(&|h| h.target = NodeId(3)), None),
            ("node 1 reached itself", hello(own.clone(), 2), None),
            ("directory AQEBAQEBAQEBAQEBAQEBAQ of node 1 is in use by another process", hello(identity(1, 1, 12), 1), None),
            ("node id 1 is taken by the node that answers", hello(identity(1, 9, 12), 1), None),
            ("node id 2 is in use by directory CQkJCQkJCQkJCQkJCQkJCQ", good.clone(), holder(9, 99)),
            ("directory AgICAgICAgICAgICAgICAg of node 2 is in use by another process", good.clone(), holder(2, 23)),
        ];
        for (words, hello, holder) in refused {
            let refusal = judge(&own, hello, *holder).expect_err(words);
            assert!(refusal.to_string().starts_with(words), "{refusal}, expected {words}");
            assert_eq!(Refusal::decode_reason(&refusal.encode()).unwrap(), refusal.to_string());
        }
        assert_eq!(judge(&own, &good, None), Ok(1));
        assert_eq!(judge(&own, &good, holder(2, 22)), Ok(1), "another lane of the same process");
        let newborn = NodeIdentity { cluster_id: None, ..own.clone() };
        assert_eq!(judge(&newborn, &good, None), Err(Refusal::NoCluster(NodeId(1))));
        let discover = Hello { purpose: Purpose::Discover, ..hello(own.clone(), -1) };
        assert_eq!(judge(&newborn, &discover, None), Ok(1), "whoever asks may ask, ourselves included");
    }
}
