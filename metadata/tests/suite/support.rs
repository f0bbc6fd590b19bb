//! Small clusters for the cases.

use ouzel_metadata::{Broker, Endpoint, Image, Record, SecurityProtocol, StaticConfig, features};
use ouzel_model::{NodeId, TopicId};

/// A broker on its loopback.
pub(crate) fn broker(node: i32) -> Broker {
    Broker {
        node: NodeId(node),
        incarnation: [node as u8; 16],
        endpoints: vec![Endpoint {
            listener: "PLAINTEXT".to_owned(),
            host: "127.0.0.1".to_owned(),
            port: 9092,
            security: SecurityProtocol::Plaintext,
        }],
        rack: None,
        directory_id: TopicId([node as u8; 16]),
        rpc_address: format!("127.0.0.1:{}", 33146 + node),
        fenced: false,
        features: features::supported(),
    }
}

/// A cluster with brokers 1 to `count`.
pub(crate) fn cluster(count: i32) -> Image {
    let records: Vec<Record> = (1..=count).map(|node| Record::BrokerRegistered(broker(node))).collect();
    Image::from_records(&records).expect("brokers register")
}

/// Ids 2, 3, 4...: neither zero nor reserved.
pub(crate) fn counting_ids() -> impl FnMut() -> TopicId {
    let mut next = 1u128;
    move || {
        next += 1;
        TopicId(next.to_be_bytes())
    }
}

pub(crate) fn settings(pairs: &[(&str, &str)]) -> StaticConfig {
    StaticConfig::from_settings(pairs.iter().copied()).expect("good settings")
}

/// Applies records, each of them after a trip through its bytes.
pub(crate) fn apply(image: &mut Image, records: &[Record]) {
    for record in records {
        let read = Record::decode(&record.encode()).expect("a record reads itself");
        assert_eq!(&read, record);
        image.apply(&read).expect("a planned record fits the image it was planned on");
    }
}
