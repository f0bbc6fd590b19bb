//! `ouk partition`: where replicas are and who leads them.

use clap::{Args, Subcommand};

use super::Consent;

#[derive(Debug, Subcommand)]
pub(crate) enum Partition {
    /// Give partitions other replicas; exit 0 once the move has begun, `--wait` for its end
    Reassign(Reassign),
    /// List partitions whose replicas are on the move
    Reassignments,
    /// Hold elections: the preferred replica, the first of the list, leads again
    Elect {
        /// Partitions; all of them without any
        #[arg(value_name = "TOPIC[:P,...]", value_parser = chosen)]
        partitions: Vec<Chosen>,
        /// Where no majority is left, let whoever has most go on: what only the others had is lost
        #[arg(long)]
        unclean: bool,
        #[command(flatten)]
        consent: Consent,
    },
    /// Let another replica of a partition lead, and prefer it from now on
    MoveLeader {
        #[arg(value_name = "TOPIC:P", value_parser = one)]
        partition: (String, i32),
        /// The node that is to lead; it has a replica
        #[arg(long, value_name = "NODE")]
        to: i32,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Reassign {
    /// Partitions with the nodes of their replicas, the preferred leader first
    #[arg(value_name = "TOPIC:P=N,...", value_parser = target, required_unless_present = "cancel")]
    pub(crate) targets: Vec<((String, i32), Vec<i32>)>,
    /// Give this partition's move up; may be repeated
    #[arg(long, value_name = "TOPIC:P", value_parser = one, conflicts_with = "targets")]
    pub(crate) cancel: Vec<(String, i32)>,
    /// Wait until the moves have come to their end
    #[arg(short, long, conflicts_with = "cancel")]
    pub(crate) wait: bool,
    #[command(flatten)]
    pub(crate) consent: Consent,
}

/// A topic with some of its partitions, or all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Chosen {
    pub(crate) topic: String,
    /// Empty for all.
    pub(crate) partitions: Vec<i32>,
}

fn index(text: &str) -> Result<i32, String> {
    text.parse().ok().filter(|index| *index >= 0).ok_or_else(|| format!("'{text}' is no partition number"))
}

fn one(text: &str) -> Result<(String, i32), String> {
    match text.rsplit_once(':') {
        Some((topic, partition)) if !topic.is_empty() => Ok((topic.to_owned(), index(partition)?)),
        _ => Err("write TOPIC:P, as in orders:0".to_owned()),
    }
}

fn chosen(text: &str) -> Result<Chosen, String> {
    match text.rsplit_once(':') {
        None if !text.is_empty() => Ok(Chosen { topic: text.to_owned(), partitions: Vec::new() }),
        Some((topic, partitions)) if !topic.is_empty() => Ok(Chosen {
            topic: topic.to_owned(),
            partitions: partitions.split(',').map(index).collect::<Result<_, _>>()?,
        }),
        _ => Err("write TOPIC or TOPIC:P,..., as in orders:0,1".to_owned()),
    }
}

fn target(text: &str) -> Result<((String, i32), Vec<i32>), String> {
    let form = || "write TOPIC:P=N,..., as in orders:0=1,2,3".to_owned();
    let (place, nodes) = text.split_once('=').ok_or_else(form)?;
    let nodes: Vec<i32> =
        nodes.split(',').map(|node| node.parse().map_err(|_| form())).collect::<Result<_, _>>()?;
    let mut once = nodes.clone();
    once.sort_unstable();
    once.dedup();
    match once.len() == nodes.len() {
        true => Ok((one(place)?, nodes)),
        false => Err("name each node once".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_are_named_in_one_way() {
        assert_eq!(one("a.b:3"), Ok(("a.b".to_owned(), 3)));
        assert_eq!(target("a:0=3,1"), Ok((("a".to_owned(), 0), vec![3, 1])));
        assert_eq!(chosen("a"), Ok(Chosen { topic: "a".to_owned(), partitions: Vec::new() }));
        assert_eq!(chosen("a:0,2"), Ok(Chosen { topic: "a".to_owned(), partitions: vec![0, 2] }));
        for wrong in ["a", ":0", "a:", "a:-1", "a:x"] {
            assert!(one(wrong).is_err(), "{wrong}");
        }
        for wrong in ["a:0", "a:0=", "a:0=1,", "a:0=1,1", "a=1"] {
            assert!(target(wrong).is_err(), "{wrong}");
        }
        assert!(chosen("a:0,").is_err() && chosen("").is_err());
    }
}
