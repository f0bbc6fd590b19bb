//! Who keeps the controller's own log.
//!
//! A node opens its replica of that log before it knows anything of the cluster, so the replica's name follows from what
//! the node has: its number and its data directory. Nobody hands it out, and a wiped node is somebody else by itself.

use ouzel_model::{NodeId, ReplicaId, TopicId};

/// The replica of the controller's log that a node holds in the directory with this id.
///
/// Directory ids are random, so two directories of one node share a replica once in four billion; a broker that is
/// registered on such a directory after another is refused.
pub fn keeper(node: NodeId, directory_id: TopicId) -> ReplicaId {
    // FNV-1a: any spread that every release keeps.
    let spread = |hash: u32, byte: &u8| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
    let incarnation = directory_id.0.iter().fold(0x811C_9DC5, spread);
    ReplicaId { node, incarnation }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_is_named_by_its_directory() {
        let of = |bytes: [u8; 16]| keeper(NodeId(7), TopicId(bytes));
        // It is in every log: another spread would make strangers of all keepers.
        assert_eq!(of(*b"0123456789abcdef"), ReplicaId { node: NodeId(7), incarnation: 0x87BC_333D });
        // Every byte counts.
        let distinct: std::collections::BTreeSet<ReplicaId> = (0..16)
            .map(|at| {
                let mut bytes = [0; 16];
                bytes[at] = 1 + at as u8;
                of(bytes)
            })
            .collect();
        assert_eq!(distinct.len(), 16);
    }
}
