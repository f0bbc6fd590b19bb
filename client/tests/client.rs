//! The client against a broker of a few lines that can be told to misbehave.

mod support;

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use ouzel_client::{
    Acks, Client, ClientError, Committed, Connection, Consumer, ConsumerConfig, NewRecord, NewTopic,
    OffsetSpec, Producer, ProducerConfig, Stored, Topics, partitioner,
};
use ouzel_model::Offset;
use ouzel_model::batch::Codec;
use ouzel_protocol::messages::kafka::MetadataRequest;
use ouzel_protocol::{ApiKey, ErrorCode};
use support::{Faults, State, config, on_core, serve_as, with_fake};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn topic(name: &str, partitions: i32) -> NewTopic {
    NewTopic {
        name: name.to_owned(),
        partitions: Some(partitions),
        replication_factor: None,
        configs: BTreeMap::new(),
    }
}

fn records(count: usize, partition: i32) -> Vec<NewRecord> {
    let record = |i| NewRecord {
        value: Some(Bytes::from(format!("value {i}"))),
        partition: Some(partition),
        ..NewRecord::default()
    };
    (0..count).map(record).collect()
}

/// Reads `count` records of one partition from its start.
async fn read(client: &Client, topic: &str, partition: i32, count: usize) -> Vec<String> {
    let mut consumer = Consumer::new(client, ConsumerConfig::default());
    consumer.seek(topic, partition, Offset::ZERO);
    let mut values = Vec::new();
    while values.len() < count {
        for consumed in consumer.poll().await.unwrap() {
            assert_eq!(consumed.record.offset, Offset(values.len() as i64));
            values.push(String::from_utf8(consumed.record.value.unwrap()).unwrap());
        }
    }
    assert!(consumer.is_at_end());
    values
}

#[test]
fn what_is_produced_is_consumed_in_order() {
    with_fake(Faults::default(), |_, client, _| async move {
        client.create_topic(&topic("orders", 2), false).await.unwrap();
        for codec in Codec::ALL {
            let settings = ProducerConfig { codec, batch_bytes_max: 100, ..ProducerConfig::default() };
            let mut producer = Producer::new(&client, settings);
            let stored = producer.send("orders", records(40, 1)).await.unwrap();
            let first = stored[0].offset.unwrap();
            let expected = (0..40).map(|i| Stored { partition: 1, offset: Some(first + i) });
            assert_eq!(stored, expected.collect::<Vec<_>>(), "{codec:?}");
        }
        let values = read(&client, "orders", 1, 200).await;
        assert!(values.chunks(40).all(|chunk| chunk[39] == "value 39"));
    });
}

#[test]
fn keys_choose_partitions_as_in_java_and_the_rest_sticks_together() {
    with_fake(Faults::default(), |_, client, fake| async move {
        client.create_topic(&topic("keyed", 6), false).await.unwrap();
        let mut producer = Producer::new(&client, ProducerConfig::default());
        let keyed = |key: &'static str| NewRecord { key: Some(Bytes::from(key)), ..NewRecord::default() };
        let stored = producer.send("keyed", ["a", "b", "a", "21"].map(keyed).to_vec()).await.unwrap();
        let partitions: Vec<i32> = stored.iter().map(|stored| stored.partition).collect();
        assert_eq!(partitions, ["a", "b", "a", "21"].map(|key| partitioner::for_key(key.as_bytes(), 6)));
        assert_eq!(stored[2].offset, stored[0].offset.map(|first| first + 1));

        let keyless = vec![NewRecord::default(); 10];
        let stored = producer.send("keyed", keyless.clone()).await.unwrap();
        assert!(stored.iter().all(|one| one.partition == stored[0].partition));
        let next = producer.send("keyed", keyless).await.unwrap();
        assert_ne!(next[0].partition, stored[0].partition);
        assert_eq!(fake.borrow().producers, 1, "one identity serves all sends");
    });
}

#[test]
fn a_lost_response_stores_nothing_twice() {
    let faults = Faults { lost_produce_responses: 2, ..Faults::default() };
    with_fake(faults, |_, client, fake| async move {
        client.create_topic(&topic("orders", 1), false).await.unwrap();
        let mut producer = Producer::new(&client, ProducerConfig::default());
        let stored = producer.send("orders", records(3, 0)).await.unwrap();
        assert_eq!(stored[0].offset, Some(Offset::ZERO));
        assert_eq!(fake.borrow().topics["orders"][0].end(), 3);
        let tries = fake.borrow().requests.iter().filter(|(api, _)| *api == ApiKey::Produce).count();
        assert_eq!(tries, 3);
        let next = producer.send("orders", records(1, 0)).await.unwrap();
        assert_eq!(next[0].offset, Some(Offset(3)));
    });
}

/// A broker was killed just after it had accepted a connection again. The client took what it had produced to for no Kafka
/// broker at all, and gave up at once.
#[test]
fn a_broker_that_dies_in_the_handshake_is_tried_again() {
    let faults = Faults { lost_produce_responses: 1, ..Faults::default() };
    with_fake(faults, |_, client, fake| async move {
        client.create_topic(&topic("orders", 1), false).await.unwrap();
        fake.borrow_mut().faults.cut_handshakes = 2;
        let mut producer = Producer::new(&client, ProducerConfig::default());
        producer.send("orders", records(3, 0)).await.unwrap();
        assert_eq!((fake.borrow().faults.cut_handshakes, fake.borrow().topics["orders"][0].end()), (0, 3));
    });
}

#[test]
fn without_idempotence_a_lost_response_stores_twice() {
    let faults = Faults { lost_produce_responses: 1, ..Faults::default() };
    with_fake(faults, |_, client, fake| async move {
        client.create_topic(&topic("orders", 1), false).await.unwrap();
        let settings = ProducerConfig { idempotent: false, acks: Acks::Leader, ..ProducerConfig::default() };
        Producer::new(&client, settings).send("orders", records(3, 0)).await.unwrap();
        assert_eq!(fake.borrow().topics["orders"][0].end(), 6, "the fake does lose responses");
    });
}

#[test]
fn passing_refusals_are_tried_again_and_final_ones_told() {
    let passing = vec![ErrorCode::NotLeaderOrFollower, ErrorCode::LeaderNotAvailable];
    with_fake(Faults { produce_refusals: passing, ..Faults::default() }, |_, client, fake| async move {
        client.create_topic(&topic("orders", 1), false).await.unwrap();
        let mut producer = Producer::new(&client, ProducerConfig::default());
        producer.send("orders", records(1, 0)).await.unwrap();

        fake.borrow_mut().faults.produce_refusals = vec![ErrorCode::MessageTooLarge];
        let error = producer.send("orders", records(1, 0)).await.unwrap_err();
        assert_eq!(error.code(), Some(ErrorCode::MessageTooLarge));
        assert_eq!(
            error.to_string(),
            "produce to orders-0: MESSAGE_TOO_LARGE (the record batch is larger than the topic allows)"
        );
        producer.send("orders", records(1, 0)).await.unwrap();
        assert_eq!(
            fake.borrow().producers,
            2,
            "after a failure the sequence is unknown, so the identity is new"
        );
    });
}

#[test]
fn acks_of_none_wait_for_nothing() {
    with_fake(Faults::default(), |_, client, _| async move {
        client.create_topic(&topic("orders", 1), false).await.unwrap();
        let settings = ProducerConfig { idempotent: false, acks: Acks::None, ..ProducerConfig::default() };
        let stored = Producer::new(&client, settings).send("orders", records(2, 0)).await.unwrap();
        assert_eq!(stored, [Stored { partition: 0, offset: None }; 2]);
        assert_eq!(read(&client, "orders", 0, 2).await, ["value 0", "value 1"]);
    });
}

#[test]
fn calls_of_one_connection_are_under_way_together() {
    with_fake(Faults { silent: Some(ApiKey::ListGroups), ..Faults::default() }, |_, client, _| async move {
        let connection = client.any().await.unwrap();
        let calls: Vec<_> = (0..50)
            .map(|_| {
                let connection = connection.clone();
                ouzel_runtime::spawn(async move { connection.call(MetadataRequest::default()).await })
            })
            .collect();
        for call in calls {
            assert_eq!(call.await.unwrap().unwrap().cluster_id.as_deref(), Some("fake"));
        }
    });
}

#[test]
fn an_old_broker_is_spoken_to_in_its_own_versions() {
    let versions_max = HashMap::from([
        (ApiKey::Produce, 7),
        (ApiKey::Fetch, 11),
        (ApiKey::Metadata, 5),
        (ApiKey::FindCoordinator, 2),
        (ApiKey::OffsetFetch, 5),
        (ApiKey::DeleteTopics, 3),
    ]);
    let faults = Faults { old_api_versions: true, versions_max, ..Faults::default() };
    with_fake(faults, |_, client, fake| async move {
        client.create_topic(&topic("orders", 1), false).await.unwrap();
        let mut producer = Producer::new(&client, ProducerConfig::default());
        producer.send("orders", records(2, 0)).await.unwrap();
        assert_eq!(read(&client, "orders", 0, 2).await.len(), 2);
        let committed = Committed { offset: Offset(2), leader_epoch: -1, metadata: "mine".to_owned() };
        let offsets = BTreeMap::from([(("orders".to_owned(), 0), committed)]);
        client.commit_offsets("readers", &offsets).await.unwrap();
        assert_eq!(client.committed_offsets("readers").await.unwrap(), offsets);
        client.delete_topic("orders").await.unwrap();
        let requests = &fake.borrow().requests;
        for (api, version) in [(ApiKey::ApiVersions, 0), (ApiKey::Produce, 7), (ApiKey::FindCoordinator, 2)] {
            assert!(requests.contains(&(api, version)), "{requests:?}");
        }
    });
}

#[test]
fn groups_are_listed_described_by_progress_and_deleted() {
    let faults = Faults { absent_coordinators: 3, ..Faults::default() };
    with_fake(faults, |_, client, fake| async move {
        let committed = Committed { offset: Offset(9), leader_epoch: -1, metadata: String::new() };
        let offsets = BTreeMap::from([(("orders".to_owned(), 4), committed)]);
        client.commit_offsets("readers", &offsets).await.unwrap();
        assert_eq!(client.committed_offsets("readers").await.unwrap(), offsets);
        let groups = client.list_groups().await.unwrap();
        let names: Vec<&str> = groups.iter().map(|group| group.group_id.as_str()).collect();
        assert_eq!(names, ["ants", "zebras"]);
        client.delete_group("zebras").await.unwrap();
        assert_eq!(fake.borrow().deleted_groups, ["zebras"]);
    });
}

/// A coordinator was killed, and for a moment the others still named it. The client kept its address, found nobody there,
/// and tried that address alone until its time was over.
#[test]
fn a_coordinator_that_is_gone_is_looked_for_again() {
    with_fake(Faults { dead_coordinators: 2, ..Faults::default() }, |_, client, _| async move {
        assert_eq!(client.committed_offsets("readers").await.unwrap(), BTreeMap::new());
    });
}

#[test]
fn topics_are_created_described_and_deleted() {
    with_fake(Faults::default(), |_, client, _| async move {
        let created = client.create_topic(&topic("orders", 3), false).await.unwrap();
        assert_eq!(created.partitions, 3);
        let error = client.create_topic(&topic("orders", 3), false).await.unwrap_err();
        assert_eq!(error.code(), Some(ErrorCode::TopicAlreadyExists));
        assert!(error.to_string().ends_with("it is there already"));
        let metadata = client.metadata(Topics::All).await.unwrap();
        assert_eq!(metadata.topics["orders"].partitions.len(), 3);
        let wanted = [
            ("orders".to_owned(), 0, OffsetSpec::Latest),
            ("orders".to_owned(), 1, OffsetSpec::Earliest),
            ("orders".to_owned(), 2, OffsetSpec::MaxTimestamp),
        ];
        let found = client.list_offsets(&wanted).await.unwrap();
        assert_eq!(found[&("orders".to_owned(), 0)].offset, Some(Offset::ZERO));
        assert_eq!(found[&("orders".to_owned(), 2)].offset, None);
        client.delete_topic("orders").await.unwrap();
        let error = client.delete_topic("orders").await.unwrap_err();
        assert_eq!(error.code(), Some(ErrorCode::UnknownTopicOrPartition));
    });
}

#[test]
fn a_missing_topic_is_created_by_producing_or_named_as_missing() {
    with_fake(Faults::default(), |_, client, _| async move {
        let settings = ProducerConfig { create_topics: false, ..ProducerConfig::default() };
        let error = Producer::new(&client, settings).send("new", records(1, 0)).await.unwrap_err();
        assert_eq!(error.code(), Some(ErrorCode::UnknownTopicOrPartition));
        assert!(error.to_string().starts_with("look up topic new: "));
        Producer::new(&client, ProducerConfig::default()).send("new", records(1, 0)).await.unwrap();
        assert_eq!(read(&client, "new", 0, 1).await, ["value 0"]);
    });
}

#[test]
fn an_offset_outside_the_log_is_told() {
    with_fake(Faults::default(), |_, client, _| async move {
        client.create_topic(&topic("orders", 1), false).await.unwrap();
        let mut consumer = Consumer::new(&client, ConsumerConfig::default());
        consumer.seek("orders", 0, Offset(7));
        let error = consumer.poll().await.unwrap_err();
        assert_eq!(error.code(), Some(ErrorCode::OffsetOutOfRange));
        assert!(error.to_string().starts_with("fetch orders-0 from offset 7: "));
    });
}

#[test]
fn silence_times_out_with_words_and_the_next_call_has_a_connection_of_its_own() {
    with_fake(
        Faults { silent: Some(ApiKey::ListOffsets), ..Faults::default() },
        |runtime, client, fake| async move {
            client.create_topic(&topic("orders", 1), false).await.unwrap();
            let mut hasty = config(fake.borrow().port);
            hasty.request_timeout = Duration::from_millis(50);
            hasty.call_timeout = Duration::ZERO;
            let client = Client::new(&runtime, hasty);
            let error =
                client.list_offsets(&[("orders".to_owned(), 0, OffsetSpec::Latest)]).await.unwrap_err();
            assert!(matches!(&error, ClientError::Timeout { api: ApiKey::ListOffsets, .. }), "{error}");
            assert!(error.to_string().contains("has not answered ListOffsets within 50 ms"), "{error}");
            assert!(!client.any().await.unwrap().is_closed());
        },
    );
}

/// A client whose first bootstrap server hung, its process stopped and its socket open, asked that server again and
/// again until its time was over, though the next one would have answered: the connection counted as good, and whoever
/// was named first was asked first.
#[test]
fn who_hangs_is_not_asked_again_while_others_answer() {
    with_fake(Faults::default(), |runtime, _, fake| async move {
        // Accepts, and answers nothing but what it is asked first.
        let hung = Rc::new(RefCell::new(State::default()));
        hung.borrow_mut().faults.silent = Some(ApiKey::Metadata);
        let hung_port = serve_as(&runtime, hung.clone()).await;
        let mut settings = config(fake.borrow().port);
        settings.bootstrap_servers.insert(0, format!("127.0.0.1:{hung_port}"));
        settings.request_timeout = Duration::from_millis(100);
        settings.connect_timeout = Duration::from_millis(100);
        let client = Client::new(&runtime, settings);

        let error = client.metadata(Topics::All).await.unwrap_err();
        assert!(matches!(&error, ClientError::Timeout { .. }), "{error}");
        // Now it does not even say its versions.
        hung.borrow_mut().faults.silent = Some(ApiKey::ApiVersions);
        for _ in 0..3 {
            client.metadata(Topics::All).await.unwrap();
        }
        let asked = hung.borrow().requests.iter().map(|(api, _)| *api).collect::<Vec<_>>();
        assert_eq!(asked, [ApiKey::ApiVersions, ApiKey::Metadata, ApiKey::ApiVersions]);
    });
}

#[test]
fn a_response_that_cannot_be_read_is_an_error_and_no_panic() {
    with_fake(Faults { garbled: Some(ApiKey::Metadata), ..Faults::default() }, |_, client, _| async move {
        let error = client.metadata(Topics::All).await.unwrap_err();
        assert!(matches!(&error, ClientError::Decode { .. } | ClientError::NotKafka { .. }), "{error}");
        assert!(!error.is_retriable());
    });
}

#[test]
fn nobody_there_is_said_with_the_address() {
    on_core(|runtime| async move {
        // A port that was free a moment ago.
        let port = runtime.net.listen("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        let error = Client::new(&runtime, config(port)).metadata(Topics::All).await.unwrap_err();
        assert!(error.to_string().starts_with(&format!("cannot connect to 127.0.0.1:{port}: ")), "{error}");
        assert!(error.to_string().contains("is the broker running"), "{error}");

        let mut several = config(port);
        several.bootstrap_servers.push(format!("localhost:{port}"));
        let error = Client::new(&runtime, several).any().await.unwrap_err().to_string();
        assert!(
            error.contains(&format!("127.0.0.1:{port}: ")) && error.contains(&format!("localhost:{port}: "))
        );

        let error = Client::new(&runtime, ouzel_client::ClientConfig::new("")).any().await.unwrap_err();
        assert!(error.to_string().contains("no address was given"), "{error}");
    });
}

/// Connects to something that answers every connection with `bytes` and closes it.
fn stranger(bytes: &'static [u8], check: impl FnOnce(ClientError) + 'static) {
    on_core(move |runtime| async move {
        let listener = runtime.net.listen("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        ouzel_runtime::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 64];
            let _ = stream.read(&mut request).await.unwrap();
            stream.write_all(bytes).await.unwrap();
        });
        check(Connection::open(&runtime, &address, &config(0)).await.unwrap_err());
    });
}

#[test]
fn strangers_are_recognised() {
    stranger(b"HTTP/1.1 400 Bad Request\r\n\r\n", |error| {
        assert!(matches!(error, ClientError::NotKafka { .. }), "{error}");
        assert!(error.to_string().contains("does not answer like a Kafka broker"), "{error}");
    });
    stranger(b"", |error| {
        assert!(error.to_string().contains("the broker closed it"), "{error}");
    });
    // A frame of 100 bytes of which two come.
    stranger(b"\0\0\0\x64ab", |error| {
        assert!(error.to_string().contains("after 2 of 100 bytes"), "{error}");
    });
    // The right length, another request's correlation id.
    stranger(b"\0\0\0\x06\0\0\0\x09\0\0", |error| {
        assert!(error.to_string().contains("correlation id 9 came where 0 was due"), "{error}");
    });
    stranger(b"\xff\xff\xff\xff", |error| {
        assert!(error.to_string().contains("claims a length of -1 bytes"), "{error}");
    });
}
