//! What people and machines do to a cluster by mistake: each is refused or healed, in words, and nothing is lost. The
//! words are those of the table in docs/operations.md.

use std::collections::BTreeMap;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use ouzel_client::{ClientError, NewTopic};
use ouzel_protocol::ErrorCode;

use crate::broker::{Broker, run};
use crate::cluster::{Cluster, numbered, with_client};
use crate::peer::{self, Card};

/// A cluster of three whose topic `t` holds some values, which is what may not be lost.
struct Precious {
    cluster: Cluster,
    values: Vec<String>,
}

impl Precious {
    fn new() -> Precious {
        let cluster = Cluster::of(3);
        cluster.create_topic("t", 3);
        let values = numbered("before", 20);
        cluster.produce("t", &values);
        Precious { cluster, values }
    }

    /// All three are there, all in sync, more can be stored, and what was stored is there once.
    fn assert_whole(mut self) {
        self.cluster.await_in_sync("t", 3);
        let more = numbered("after", 20);
        self.cluster.produce("t", &more);
        self.values.extend(more);
        assert_eq!(self.cluster.read_all("t"), self.values);
    }
}

/// One line of a node's meta.properties.
fn property(dir: &Path, key: &str) -> String {
    let text = fs::read_to_string(dir.join("meta.properties")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    line.unwrap_or_else(|| panic!("no {key} in {text}")).to_owned()
}

/// A node that has never been part of anything here.
fn stranger(cluster_id: &str) -> Card<'_> {
    Card { versions: (1, 1), cluster_id, node: 9, directory_id: [9; 16], target: 1 }
}

#[test]
fn a_peer_of_another_cluster_is_refused() {
    let mut precious = Precious::new();
    let cluster = &mut precious.cluster;
    let own = property(&cluster.data_dir(1), "cluster.id");
    let (_, kind, answer) = peer::introduce(&cluster.rpc_address(1), &stranger("elsewhere"));
    assert_eq!(kind, peer::REFUSAL);
    let said = format!(
        "node 9 belongs to cluster elsewhere, node 1 to cluster {own}; check seeds and data directories"
    );
    assert_eq!(peer::words(&answer), said);
    cluster.node(1).await_log(&said);

    // A whole node of another cluster, where one of this cluster was.
    cluster.stop(3);
    let mut others = Cluster::of(1);
    others.stop(1);
    let theirs = property(&others.data_dir(1), "cluster.id");
    let here = cluster.rpc_address(3);
    others.launch(1, &["--rpc-listener", &here]);
    let said = format!("node 1 belongs to cluster {own}, node 1 to cluster {theirs}");
    cluster.node(1).await_log(&said);
    others.node(1).await_ready();
    others.stop(1);
    cluster.start(3);
    precious.assert_whole();
}

#[test]
fn a_peer_of_another_protocol_version_is_refused() {
    let mut precious = Precious::new();
    let cluster = &mut precious.cluster;
    let own = property(&cluster.data_dir(1), "cluster.id");
    let newer = Card { versions: (7, 9), ..stranger(&own) };
    let (_, kind, answer) = peer::introduce(&cluster.rpc_address(1), &newer);
    assert_eq!(kind, peer::REFUSAL);
    let said = "versions 7..9 of the peer protocol are spoken there, 1..1 here; upgrade the older node";
    assert_eq!(peer::words(&answer), said);
    cluster.node(1).await_log(said);
    // One that speaks this version too is no stranger to it.
    let both = Card { versions: (1, 9), ..stranger(&own) };
    assert_eq!(peer::introduce(&cluster.rpc_address(1), &both).1, peer::WELCOME);
    precious.assert_whole();
}

#[test]
fn bytes_that_are_no_peers_end_a_connection_and_nothing_else() {
    let mut precious = Precious::new();
    let cluster = &mut precious.cluster;
    let own = property(&cluster.data_dir(1), "cluster.id");
    let mut noise = Noise(0x9e37_79b9_7f4a_7c15);
    for node in 1..=3 {
        let address = cluster.rpc_address(node);
        // Nothing like a peer; a peer's first bytes and nothing like a hello; a connection that says nothing.
        for opening in [&b""[..], b"OUZELRPC", b"GET / HTTP/1.1\r\n"] {
            let mut stream = peer::connect(&address);
            let written = stream.write_all(&[opening, &noise.bytes(4096)].concat());
            is_cut_off(written);
            is_cut_off(stream.read_to_end(&mut Vec::new()).map(drop));
        }
        let silent = peer::connect(&address);
        // Somebody of the cluster, and then nonsense.
        let card = Card { target: node, node: 9, ..stranger(&own) };
        let (mut stream, kind, _) = peer::introduce(&address, &card);
        assert_eq!(kind, peer::WELCOME);
        is_cut_off(stream.write_all(&noise.bytes(4096)));
        is_cut_off(stream.read_to_end(&mut Vec::new()).map(drop));
        cluster.node(node).await_log("a peer sent nonsense, its connection is closed");
        // Frames that are whole, with heads of anything, for every service there is and some that there are not.
        let (mut stream, kind, _) = peer::introduce(&address, &card);
        assert_eq!(kind, peer::WELCOME);
        for service in 0..=8 {
            for bytes in [0, 1, 19, 20, 21, 64, 300] {
                is_cut_off(stream.write_all(&peer::frame(peer::CALL, service, &noise.bytes(bytes))));
            }
        }
        drop((stream, silent));
    }
    precious.assert_whole();
}

/// Written or read to its end, or the other side was done with the connection before.
fn is_cut_off(outcome: std::io::Result<()>) {
    if let Err(error) = outcome {
        let kind = error.kind();
        assert!(matches!(kind, ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{error}");
    }
}

/// The same bytes in every run: xorshift.
struct Noise(u64);

impl Noise {
    fn bytes(&mut self, count: usize) -> Vec<u8> {
        let next = || {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 >> 32) as u8
        };
        std::iter::repeat_with(next).take(count).collect()
    }
}

#[test]
fn the_id_of_a_node_that_lives_is_refused_to_another() {
    let mut precious = Precious::new();
    let cluster = &mut precious.cluster;
    let mut impostor = Broker::launch(cluster.command(4, &["--node-id", "2"]));
    impostor.await_log("a peer refuses this node");
    impostor.await_log("start one of them with another --node-id");
    let brokers = cluster.await_all("who belongs to it", |seen| seen.brokers.len() == 3).brokers;
    let address = cluster.kafka_address(2);
    assert_eq!(brokers[&2].address(), address);
    impostor.signal("-KILL");
    assert_eq!(impostor.ended().stdout, "", "it was never ready");
    precious.assert_whole();
}

#[test]
fn a_copy_of_a_nodes_directory_is_refused() {
    let mut precious = Precious::new();
    let cluster = &mut precious.cluster;
    cluster.stop(2);
    copy_dir(&cluster.data_dir(2), &cluster.data_dir(4));
    cluster.start(2);
    cluster.await_in_sync("t", 3);
    let mut copy = Broker::launch(cluster.command(4, &["--node-id", "2"]));
    copy.await_log("is in use by another process at this moment; one of the two is a copy");
    copy.signal("-KILL");
    assert_eq!(copy.ended().stdout, "", "it was never ready");
    precious.assert_whole();
}

fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy_dir(&entry.path(), &target),
            false => drop(fs::copy(entry.path(), target).unwrap()),
        }
    }
}

#[test]
fn two_nodes_cannot_have_one_data_directory() {
    let precious = Precious::new();
    let cluster = &precious.cluster;
    let dir = cluster.data_dir(2).display().to_string();
    for node_id in ["2", "4"] {
        let mut command = cluster.command(4, &["--data-dir", &dir, "--node-id", node_id]);
        command.env("OUZEL_LOG", "off");
        let ended = run(command);
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(2), ""), "{}", ended.stderr);
        let said = format!("ouzel: data directory {dir} is in use by another broker");
        assert!(ended.stderr.starts_with(&said), "{}", ended.stderr);
    }
    precious.assert_whole();
}

#[test]
fn a_wiped_disk_under_an_old_id_is_filled_again() {
    let mut precious = Precious::new();
    let cluster = &mut precious.cluster;
    let directory = property(&cluster.data_dir(3), "directory.id");
    cluster.kill(3);
    fs::remove_dir_all(cluster.data_dir(3)).unwrap();
    cluster.start(3);
    assert_ne!(property(&cluster.data_dir(3), "directory.id"), directory);
    precious.assert_whole();
}

/// A founder's disk was wiped, and its next start was killed when it had been told of its cluster and had not noted who it is. The
/// start after that took its name from the list of founders, which has the one from before: an empty directory passed for
/// the one that had voted and acknowledged. (Found by seed 4000146 of clusters.)
#[test]
fn a_wiped_founder_whose_start_is_killed_does_not_take_its_old_name() {
    let mut precious = Precious::new();
    let cluster = &mut precious.cluster;
    let dir = cluster.data_dir(1);
    let directory = property(&dir, "directory.id");
    cluster.kill(1);
    fs::remove_dir_all(&dir).unwrap();
    cluster.start(1);
    let drawn = property(&dir, "directory.id");
    assert_ne!(drawn, directory);
    cluster.kill(1);
    let card = fs::read(dir.join("cluster.card")).unwrap();
    assert!(
        String::from_utf8_lossy(&card).contains(&directory),
        "the card tells of the founders as they were"
    );
    fs::remove_dir_all(&dir).unwrap();
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("cluster.card"), card).unwrap();
    fs::write(dir.join("directory.id"), format!("{drawn}\n")).unwrap();
    cluster.start(1);
    assert_eq!(property(&dir, "directory.id"), drawn);
    precious.assert_whole();
}

/// A node whose votes were gone, and its log of the controller was not, took part as if it had never voted: in a reign in
/// which it had, it could have helped a second leader up.
#[test]
fn a_node_whose_write_ahead_files_are_gone_is_refused_and_filled_again_once_it_is_empty() {
    let mut precious = Precious::new();
    let cluster = &mut precious.cluster;
    cluster.kill(3);
    let dir = cluster.data_dir(3);
    let mut removed = 0;
    for entry in fs::read_dir(dir.join("core-0")).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap().to_string_lossy().starts_with("meta.wal") {
            fs::remove_file(path).unwrap();
            removed += 1;
        }
    }
    assert!(removed > 0, "no write-ahead file in {}", dir.display());
    let ended = run(cluster.command(3, &[]));
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(2), ""), "{}", ended.stderr);
    assert!(ended.stderr.contains("it must not vote again; put the files back"), "{}", ended.stderr);

    fs::rename(&dir, dir.with_extension("away")).unwrap();
    cluster.start(3);
    precious.assert_whole();
}

/// Somebody removed a partition's files on most of its nodes. What is left is not enough to elect a leader, and nothing goes
/// on by itself, since the others may have known more; but somebody may say that it shall.
#[test]
fn what_is_left_of_a_partition_goes_on_when_it_is_told_to() {
    let mut precious = Precious::new();
    let cluster = &mut precious.cluster;
    // Whoever is left has all there is.
    let left = cluster.await_same("t", &[1, 2, 3]);
    let others: Vec<i32> = (1..=3).filter(|node| *node != left.leader).collect();
    for node in &others {
        cluster.kill(*node);
        fs::remove_dir_all(cluster.data_dir(*node).join("t-0")).unwrap();
    }
    others.iter().for_each(|node| cluster.launch(*node, &[]));
    others.iter().for_each(|node| cluster.node(*node).await_ready());
    for node in &others {
        cluster.node(*node).await_log("the files of this replica are gone");
    }
    cluster.await_partition("t", "nobody else is in sync", |seen| seen.in_sync.len() == 1);

    cluster.elect_unclean("t");
    let led = cluster.await_in_sync("t", 3);
    assert!(led.leader_epoch > left.leader_epoch, "{led:?} after {left:?}");
    cluster.node(left.leader).await_log("this replica goes on alone, by an unclean election");
    // Whoever looks at numbers alone hears of it as well, and of no other cause.
    let (status, metrics) = cluster.node(left.leader).get("/metrics");
    assert_eq!(status, 200);
    for (cause, events) in [("unclean", 1), ("power", 0), ("disk", 0)] {
        let line = format!("ouzel_data_loss_events_total{{cause=\"{cause}\"}} {events}");
        assert!(metrics.lines().any(|shown| shown == line), "{line} is missing:\n{metrics}");
    }
    // It goes on once: neither a restart nor a node that loses its files again makes it do so a second time.
    cluster.stop(left.leader);
    cluster.start(left.leader);
    precious.assert_whole();
}

#[test]
fn stale_seeds_matter_to_a_newcomer_alone_and_one_good_one_is_enough() {
    let mut precious = Precious::new();
    let cluster = &mut precious.cluster;
    // Nobody has ever listened there.
    let nobody = cluster.rpc_address(8);
    cluster.launch(4, &["--seeds", &nobody]);
    cluster.node(4).await_log(&format!("seed {nobody} does not answer"));
    assert_eq!(cluster.kill(4).stdout, "", "it was never ready");

    let seeds = format!("{nobody},{}", cluster.rpc_address(3));
    cluster.launch(4, &["--seeds", &seeds]);
    cluster.node(4).await_ready();
    cluster.await_all("four brokers", |seen| seen.brokers.len() == 4);

    // Who belongs to it knows the way.
    cluster.stop(2);
    cluster.launch(2, &["--seeds", &nobody]);
    cluster.node(2).await_ready();
    precious.assert_whole();
}

/// A replica of a group that found the directory of another topic in its place was not opened until somebody took that away. It was
/// enough to delete a topic and to make it again while a node was just being started: the node had swept before it heard of the
/// deletion. One replica less, and nobody led once another node was restarted.
#[test]
fn a_directory_in_the_way_of_a_new_replica_is_set_aside() {
    let cluster = Cluster::of(3);
    let in_the_way = cluster.data_dir(3).join("t-0");
    std::fs::create_dir(&in_the_way).unwrap();
    let metadata = "version: 0\ntopic_id: dnjwfA44QnWABNtcwQ_AfQ\n";
    std::fs::write(in_the_way.join("partition.metadata"), metadata).unwrap();

    cluster.create_topic("t", 3);
    let values = numbered("v", 20);
    cluster.produce("t", &values);
    assert_eq!(cluster.read_all("t"), values);
    let aside = set_aside(&cluster, 3);
    let [aside] = &aside[..] else { panic!("one directory was in the way: {aside:?}") };
    assert_eq!(std::fs::read_to_string(aside.join("partition.metadata")).unwrap(), metadata);
}

/// A node that hears at one time of a topic's deletion and of another topic under its name opened the new one's replica first: the
/// old one's directory was set aside under its open log, and when that one was deleted its name was taken for its directory. The
/// new topic lost its replica.
#[test]
fn a_node_that_was_away_keeps_the_replica_of_a_topic_that_was_made_again() {
    let mut cluster = Cluster::of(3);
    cluster.create_topic("t", 3);
    cluster.produce("t", &numbered("old", 10));
    let held = cluster.await_same("t", &[1, 2, 3]);
    let away = (1..=3).find(|node| *node != held.leader).unwrap();
    cluster.pause(away);
    for _ in 0..3 {
        // One that was not heard in time is asked for again, and may have been obeyed.
        let done = |outcome: Result<(), ClientError>, already: ErrorCode| match outcome {
            Err(error) if error.code() != Some(already) => panic!("{error}"),
            _ => {}
        };
        with_client(&cluster.bootstrap(), async move |client, _| {
            done(client.delete_topic("t").await, ErrorCode::UnknownTopicOrPartition);
            let wanted = NewTopic {
                name: "t".to_owned(),
                partitions: Some(1),
                replication_factor: Some(3),
                configs: BTreeMap::new(),
            };
            done(client.create_topic(&wanted, false).await.map(|_| ()), ErrorCode::TopicAlreadyExists);
        });
    }
    cluster.resume(away);
    cluster.await_in_sync("t", 3);
    let values = numbered("new", 20);
    cluster.produce("t", &values);
    assert_eq!(cluster.read_all("t"), values);
    cluster.await_same("t", &[1, 2, 3]);
    assert_eq!(set_aside(&cluster, away), Vec::<PathBuf>::new(), "the controller knows what was deleted");
}

/// What stood in the way of partition 0 of "t" on a node, and is kept.
fn set_aside(cluster: &Cluster, node: i32) -> Vec<PathBuf> {
    let files = fs::read_dir(cluster.data_dir(node)).unwrap().map(|file| file.unwrap());
    let is_aside = |name: &str| name.starts_with("t-0.") && name.ends_with("-stray");
    files.filter(|file| is_aside(&file.file_name().to_string_lossy())).map(|file| file.path()).collect()
}
