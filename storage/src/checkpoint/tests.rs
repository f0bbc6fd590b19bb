use std::path::Path;

use super::*;

fn of(topic: &str, partition: i32) -> TopicPartition {
    TopicPartition { topic: TopicName::new(topic).unwrap(), partition: PartitionIndex(partition) }
}

#[test]
fn offset_checkpoints_are_kafkas_text() {
    let checkpoint = OffsetCheckpoint(BTreeMap::from([(of("a", 0), Offset(5)), (of("b.c", 11), Offset(0))]));
    assert_eq!(checkpoint.encode(), "0\n2\na 0 5\nb.c 11 0\n");
    assert_eq!(OffsetCheckpoint::decode(checkpoint.encode().as_bytes()), Ok(checkpoint));
    assert_eq!(OffsetCheckpoint::decode(b""), Ok(OffsetCheckpoint::default()));
    assert_eq!(OffsetCheckpoint::decode(b"0\n1\nt \t 3   7\n").unwrap().0[&of("t", 3)], Offset(7));
}

#[test]
fn malformed_offset_checkpoints_name_their_line() {
    for (text, line) in [
        ("7\n", 1),
        ("0\n99999999999\n", 2),
        ("0\n1\nt 0\n", 3),
        ("0\n1\nt -1 5\n", 3),
        ("0\n1\nt 0 -5\n", 3),
        ("0\n2\nt 0 5\nt/u 0 5\n", 4),
        ("0\n3\nt 0 5\n", 4),
        ("0\n0\nt 0 5\n", 3),
    ] {
        let error = OffsetCheckpoint::decode(text.as_bytes()).unwrap_err();
        assert_eq!(error.line, line, "{text:?}: {error}");
    }
}

#[test]
fn partition_metadata_is_kafkas_text() {
    let metadata = PartitionMetadata { topic_id: TopicId([0xfb; 16]) };
    assert_eq!(metadata.encode(), "version: 0\ntopic_id: -_v7-_v7-_v7-_v7-_v7-w");
    assert_eq!(PartitionMetadata::decode(metadata.encode().as_bytes()), Ok(metadata));
    assert_eq!(
        PartitionMetadata::decode(b"version: 1\ntopic_id: -_v7-_v7-_v7-_v7-_v7-w\nmore: x\n"),
        Ok(metadata)
    );
    for (text, line) in [
        ("", 1),
        ("version 0\n", 1),
        ("version: -1\ntopic_id: -_v7-_v7-_v7-_v7-_v7-w", 1),
        ("version: 0\n", 2),
        ("version: 0\ntopic: x\n", 2),
        ("version: 0\ntopic_id: short\n", 2),
        ("version: 0\ntopic_id: AAAAAAAAAAAAAAAAAAAAAA\n", 2),
    ] {
        let error = PartitionMetadata::decode(text.as_bytes()).unwrap_err();
        assert_eq!(error.line, line, "{text:?}: {error}");
    }
}

#[test]
fn meta_properties_are_javas() {
    let ours = MetaProperties {
        cluster_id: "MkU3OEVBNTcwNTJENDM2Qg".to_owned(),
        node_id: NodeId(3),
        directory_id: TopicId([7; 16]),
    };
    assert_eq!(
        ours.encode(),
        "#\ncluster.id=MkU3OEVBNTcwNTJENDM2Qg\ndirectory.id=BwcHBwcHBwcHBwcHBwcHBw\nnode.id=3\nversion=1\n"
    );
    assert_eq!(MetaProperties::decode(ours.encode().as_bytes()), Ok(ours.clone()));
    // As Kafka writes it: a date, another order.
    let kafkas = "#\n#Sat Nov 21 02:00:00 UTC 2026\nnode.id=3\ndirectory.id=BwcHBwcHBwcHBwcHBwcHBw\nversion=1\n\
                  cluster.id=MkU3OEVBNTcwNTJENDM2Qg\n";
    assert_eq!(MetaProperties::decode(kafkas.as_bytes()), Ok(ours));
    for (text, line) in [
        ("version=0\nbroker.id=3\n", 1),
        ("version=1\nnode.id=3\n", 3),
        ("version=1\ncluster.id=x\nnode.id=three\ndirectory.id=y\n", 3),
        ("version=1\ncluster.id=x\nnode.id=3\ndirectory.id=y\n", 4),
        ("version=1\nnonsense\n", 2),
    ] {
        let error = MetaProperties::decode(text.as_bytes()).unwrap_err();
        assert_eq!(error.line, line, "{text:?}: {error}");
    }
}

#[test]
fn the_clean_shutdown_mark_is_kafkas_json() {
    let mark = CleanShutdown { broker_epoch: -1 };
    assert_eq!(mark.encode(), r#"{"version":0,"brokerEpoch":-1}"#);
    assert_eq!(CleanShutdown::decode(mark.encode().as_bytes()), Ok(mark));
    let other_order = br#"{ "brokerEpoch" : 12, "version" : 0 }"#;
    assert_eq!(CleanShutdown::decode(other_order), Ok(CleanShutdown { broker_epoch: 12 }));
    for text in ["", "{}", "[]", r#"{"version":0}"#, r#"{"brokerEpoch":null}"#] {
        assert_eq!(CleanShutdown::decode(text.as_bytes()).unwrap_err().line, 1, "{text:?}");
    }
}

#[test]
fn files_are_replaced_whole_and_errors_name_them() {
    ouzel_runtime::sim::run(1, |node| async move {
        let disk = node.runtime().disk;
        let path = node.data_dir().join(RECOVERY_POINTS);
        assert!(read(&disk, &path, OffsetCheckpoint::decode).await.unwrap().is_none());
        let checkpoint = OffsetCheckpoint(BTreeMap::from([(of("a", 0), Offset(5))]));
        write(&disk, &path, checkpoint.encode()).await.unwrap();
        assert_eq!(read(&disk, &path, OffsetCheckpoint::decode).await.unwrap(), Some(checkpoint));
        write(&disk, &path, "0\n1\noops\n".to_owned()).await.unwrap();
        let error = read(&disk, &path, OffsetCheckpoint::decode).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("{}, line 3: expected a topic, a partition and an offset, found oops", path.display())
        );
        let error = read(&disk, Path::new("/data"), OffsetCheckpoint::decode).await.unwrap_err();
        assert!(matches!(error, CheckpointError::Io { .. }), "{error}");
    });
}
