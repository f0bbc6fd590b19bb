//! What a node knows of its cluster, as it is kept on disk, and what newborn nodes and others say to each other.

use std::fmt::Write;

use bytes::{BufMut, BytesMut};
use ouzel_model::{NodeId, TopicId};

use crate::peers::Malformed;
use crate::peers::handshake::ADDRESS_BYTES_MAX;
use crate::peers::wire::{Reader, put_text};
use crate::transport::PeerMessage;

/// The layout of questions and answers.
const FORMAT: u8 = 1;
/// Kafka's own ids have 22 characters.
const CLUSTER_ID_BYTES_MAX: usize = 255;
/// Seeds, founders, members of which somebody tells: more are not needed to meet one that lives.
const NODES_MAX: usize = 1_000;

/// A node that founds, or founded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Founder {
    /// Its number.
    pub node: NodeId,
    /// Its data directory: a founder whose disk was wiped is none any more.
    pub directory_id: TopicId,
    /// Where it listens to its peers, as the seed list says.
    pub rpc_address: String,
}

/// A cluster, as its members know it from the day they joined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterCard {
    /// Its id.
    pub cluster_id: String,
    /// Who founded it, in the order of the seeds: the first voters of its controller.
    pub founders: Vec<Founder>,
    /// Who belongs to it and where they listen, as far as whoever told of it knew.
    pub members: Vec<(NodeId, String)>,
}

/// What a node answers to whoever discovers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Known {
    /// It belongs to no cluster.
    Newborn {
        /// The seeds it was given.
        seeds: Vec<String>,
    },
    /// It belongs to one, or is about to.
    Belongs(ClusterCard),
}

impl ClusterCard {
    /// Whether a data directory is one of those that founded.
    pub fn is_founder(&self, directory_id: TopicId) -> bool {
        self.founders.iter().any(|founder| founder.directory_id == directory_id)
    }

    /// Writes what is kept on disk: id and founders, one a line.
    pub fn encode_text(&self) -> String {
        let mut text = format!("version=1\ncluster.id={}\n", self.cluster_id);
        for Founder { node, directory_id, rpc_address } in &self.founders {
            let _ = writeln!(text, "founder={node} {directory_id} {rpc_address}");
        }
        text
    }

    /// Reads what [`ClusterCard::encode_text`] wrote; its members are the founders.
    ///
    /// # Errors
    /// The number of the first line that is not what it should be, from 1, and what was expected there.
    pub fn decode_text(text: &str) -> Result<ClusterCard, (usize, &'static str)> {
        let mut card = ClusterCard { cluster_id: String::new(), founders: Vec::new(), members: Vec::new() };
        for (nth, line) in text.lines().enumerate() {
            let at = nth + 1;
            match (nth, line.split_once('=')) {
                (0, Some(("version", "1"))) => {}
                (0, _) => return Err((at, "version=1")),
                (1, Some(("cluster.id", id))) if !id.is_empty() => id.clone_into(&mut card.cluster_id),
                (1, _) => return Err((at, "cluster.id= and an id")),
                (_, Some(("founder", founder))) => {
                    let expected = (at, "founder= and a node, a directory and an address");
                    let mut words = founder.splitn(3, ' ');
                    let mut word = || words.next().ok_or(expected);
                    let (node, directory, address) = (word()?, word()?, word()?);
                    let node = NodeId(node.parse().map_err(|_| expected)?);
                    let directory_id = directory.parse().map_err(|_| expected)?;
                    card.members.push((node, address.to_owned()));
                    card.founders.push(Founder { node, directory_id, rpc_address: address.to_owned() });
                }
                _ => return Err((at, "founder=...")),
            }
        }
        if card.founders.is_empty() { Err((text.lines().count() + 1, "founder=...")) } else { Ok(card) }
    }
}

/// Writes a question: what seeds the one who asks was given.
pub(super) fn encode_question(seeds: &[String]) -> PeerMessage {
    let mut head = BytesMut::new();
    head.put_u8(FORMAT);
    put_list(&mut head, seeds, |to, seed| put_text(to, seed, ADDRESS_BYTES_MAX));
    PeerMessage { head: head.freeze(), bodies: Vec::new() }
}

pub(super) fn decode_question(message: &PeerMessage) -> Result<Vec<String>, Malformed> {
    let mut reader = reader_of(message)?;
    addresses(&mut reader, "seeds")
}

pub(super) fn encode_answer(known: &Known) -> PeerMessage {
    let mut head = BytesMut::new();
    head.put_u8(FORMAT);
    match known {
        Known::Newborn { seeds } => {
            head.put_u8(0);
            put_list(&mut head, seeds, |to, seed| put_text(to, seed, ADDRESS_BYTES_MAX));
        }
        Known::Belongs(ClusterCard { cluster_id, founders, members }) => {
            head.put_u8(1);
            put_text(&mut head, cluster_id, CLUSTER_ID_BYTES_MAX);
            put_list(&mut head, founders, |to, founder| {
                to.put_i32(founder.node.0);
                to.put_slice(&founder.directory_id.0);
                put_text(to, &founder.rpc_address, ADDRESS_BYTES_MAX);
            });
            put_list(&mut head, members, |to, (node, address)| {
                to.put_i32(node.0);
                put_text(to, address, ADDRESS_BYTES_MAX);
            });
        }
    }
    PeerMessage { head: head.freeze(), bodies: Vec::new() }
}

pub(super) fn decode_answer(message: &PeerMessage) -> Result<Known, Malformed> {
    let mut reader = reader_of(message)?;
    match reader.u8("state")? {
        0 => Ok(Known::Newborn { seeds: addresses(&mut reader, "seeds")? }),
        1 => {
            let cluster_id = reader.text("cluster id", CLUSTER_ID_BYTES_MAX)?.to_owned();
            if cluster_id.is_empty() {
                return Err(Malformed::Meaningless { what: "length of a cluster id", found: 0 });
            }
            let founders = reader.count("founders", 22, NODES_MAX)?;
            let founders = (0..founders)
                .map(|_| {
                    Ok(Founder {
                        node: reader.node("founder")?,
                        directory_id: reader.topic_id("directory")?,
                        rpc_address: reader.text("address", ADDRESS_BYTES_MAX)?.to_owned(),
                    })
                })
                .collect::<Result<_, Malformed>>()?;
            let members = reader.count("members", 6, NODES_MAX)?;
            let members = (0..members)
                .map(|_| Ok((reader.node("member")?, reader.text("address", ADDRESS_BYTES_MAX)?.to_owned())))
                .collect::<Result<_, Malformed>>()?;
            Ok(Known::Belongs(ClusterCard { cluster_id, founders, members }))
        }
        other => Err(Malformed::Meaningless { what: "state", found: i64::from(other) }),
    }
}

fn reader_of(message: &PeerMessage) -> Result<Reader<'_>, Malformed> {
    let mut reader = Reader::new(&message.head);
    match reader.u8("format")? {
        FORMAT => Ok(reader),
        format => Err(Malformed::Meaningless { what: "format", found: i64::from(format) }),
    }
}

fn put_list<T>(to: &mut BytesMut, list: &[T], put: impl Fn(&mut BytesMut, &T)) {
    let list = &list[..list.len().min(NODES_MAX)];
    to.put_u16(list.len() as u16);
    list.iter().for_each(|one| put(to, one));
}

fn addresses(reader: &mut Reader<'_>, what: &'static str) -> Result<Vec<String>, Malformed> {
    let count = reader.count(what, 2, NODES_MAX)?;
    (0..count).map(|_| Ok(reader.text(what, ADDRESS_BYTES_MAX)?.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn card() -> ClusterCard {
        let founder = |node: i32| Founder {
            node: NodeId(node),
            directory_id: TopicId([node as u8; 16]),
            rpc_address: format!("host-{node}:33146"),
        };
        ClusterCard {
            cluster_id: "4L6g3nShT-eMCtK--X86sw".to_owned(),
            founders: vec![founder(1), founder(2)],
            members: vec![(NodeId(1), "host-1:33146".to_owned()), (NodeId(2), "host-2:33146".to_owned())],
        }
    }

    #[test]
    fn what_is_said_comes_back_and_half_of_it_is_refused() {
        let seeds = vec!["one:1".to_owned(), "two:2".to_owned()];
        let question = encode_question(&seeds);
        assert_eq!(decode_question(&question), Ok(seeds.clone()));
        for known in [Known::Newborn { seeds: seeds.clone() }, Known::Belongs(card())] {
            let message = encode_answer(&known);
            assert_eq!(decode_answer(&message).as_ref(), Ok(&known));
            for cut in 0..message.head.len() {
                let half = PeerMessage { head: message.head.slice(..cut), bodies: Vec::new() };
                assert!(decode_answer(&half).is_err(), "cut at {cut} of {known:?}");
            }
        }
    }

    #[test]
    fn a_card_is_kept_as_lines() {
        let text = card().encode_text();
        assert_eq!(
            text,
            "version=1\ncluster.id=4L6g3nShT-eMCtK--X86sw\nfounder=1 AQEBAQEBAQEBAQEBAQEBAQ host-1:33146\n\
             founder=2 AgICAgICAgICAgICAgICAg host-2:33146\n"
        );
        assert_eq!(ClusterCard::decode_text(&text), Ok(card()));
        assert!(card().is_founder(TopicId([2; 16])) && !card().is_founder(TopicId([3; 16])));
        let expected = |text: &str| ClusterCard::decode_text(text).unwrap_err();
        assert_eq!(expected(""), (1, "founder=..."));
        assert_eq!(expected("version=2\n"), (1, "version=1"));
        assert_eq!(expected("version=1\ncluster.id=\n"), (2, "cluster.id= and an id"));
        assert_eq!(expected("version=1\ncluster.id=c\n"), (3, "founder=..."));
        let (line, words) = expected("version=1\ncluster.id=c\nfounder=1 x y\n");
        assert_eq!((line, words), (3, "founder= and a node, a directory and an address"));
    }

    #[test]
    fn random_bytes_as_what_nodes_say() {
        bolero::check!()
            .with_iterations(20_000)
            .with_test_time(std::time::Duration::from_millis(500))
            .with_max_len(512)
            .for_each(|input: &[u8]| {
                let message = PeerMessage { head: input.to_vec().into(), bodies: Vec::new() };
                let _ = decode_question(&message);
                if let Ok(known) = decode_answer(&message) {
                    assert_eq!(decode_answer(&encode_answer(&known)), Ok(known));
                }
            });
    }
}
