//! The order of the layers, and what is said of bad values.

use super::*;

const MACHINE: Machine = Machine { cores: 2, memory_bytes: 8 << 30 };

fn layer(source: Source, values: &[(Name, &str)], settings: &[(&str, &str)]) -> Layer {
    Layer {
        source,
        values: values.iter().map(|(name, text)| (*name, (*text).to_owned())).collect(),
        settings: settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
    }
}

fn file() -> Source {
    Source::File("ouzel.toml".into())
}

fn sentence(layers: &[Layer]) -> String {
    choose(layers, &MACHINE).unwrap_err().to_string()
}

#[test]
fn nothing_said_is_the_documented_start() {
    let choices = choose(&[], &MACHINE).unwrap();
    assert_eq!(choices.data_dir, PathBuf::from(Name::DataDir.default_words()));
    assert_eq!(choices.node_id.to_string(), Name::NodeId.default_words());
    assert_eq!(choices.kafka_listener.to_string(), Name::KafkaListener.default_words());
    assert_eq!(choices.admin_listener.to_string(), Name::AdminListener.default_words());
    assert_eq!(choices.rpc_listener.to_string(), Name::RpcListener.default_words());
    assert_eq!(choices.seeds, []);
    assert_eq!((choices.cores, choices.pin, choices.memory_bytes), (2, false, 1 << 30));
    assert_eq!(choices.advertised, None);
    assert!(choices.settings.settings().is_empty());
}

#[test]
fn memory_by_default_leaves_half_of_a_small_machine() {
    let choice = |cores, memory_bytes| choose(&[], &Machine { cores, memory_bytes }).unwrap().memory_bytes;
    assert_eq!(choice(2, 1 << 30), 512 << 20);
    assert_eq!(choice(4, 64 << 30), 2 << 30);
    assert_eq!(choice(4, 64 << 20), 64 << 20, "never below what the cores need");
}

/// For every choice: of the layers that speak, the first in the order flag, environment, file.
#[test]
fn the_first_layer_that_speaks_wins() {
    for name in Name::ALL {
        let text = |nth: usize| match name {
            Name::DataDir => format!("/data/{nth}"),
            Name::NodeId | Name::Cores => format!("{nth}"),
            Name::KafkaListener | Name::AdvertisedKafkaListener | Name::AdminListener | Name::RpcListener => {
                format!("localhost:{nth}")
            }
            Name::Seeds => format!("a:{nth}, b:{nth}"),
            Name::Pin => format!("{}", nth == 1),
            Name::Memory => format!("{nth}GiB"),
        };
        let shown = |choices: &Choices| match name {
            Name::DataDir => choices.data_dir.display().to_string(),
            Name::NodeId => choices.node_id.to_string(),
            Name::KafkaListener => choices.kafka_listener.to_string(),
            Name::AdvertisedKafkaListener => {
                choices.advertised.as_ref().map(Address::to_string).unwrap_or_default()
            }
            Name::AdminListener => choices.admin_listener.to_string(),
            Name::RpcListener => choices.rpc_listener.to_string(),
            Name::Seeds => choices.seeds.iter().map(Address::to_string).collect::<Vec<_>>().join(", "),
            Name::Cores => choices.cores.to_string(),
            Name::Pin => choices.pin.to_string(),
            Name::Memory => format!("{}GiB", choices.memory_bytes >> 30),
        };
        for speaking in 1..8_usize {
            let sources = [Source::Flags, Source::Environment, file()];
            let layers: Vec<Layer> = sources
                .into_iter()
                .enumerate()
                .map(|(nth, source)| {
                    let said = text(nth + 1);
                    let values: &[(Name, &str)] =
                        if speaking & (1 << nth) != 0 { &[(name, said.as_str())] } else { &[] };
                    layer(source, values, &[])
                })
                .collect();
            let winner = speaking.trailing_zeros() as usize + 1;
            assert_eq!(
                shown(&choose(&layers, &MACHINE).unwrap()),
                text(winner),
                "{name:?}, layers {speaking:03b}"
            );
        }
    }
}

#[test]
fn settings_of_all_layers_add_up_and_the_nearer_one_wins() {
    let layers = [
        layer(Source::Flags, &[], &[("num.partitions", "4"), ("num.partitions", "5")]),
        layer(Source::Environment, &[], &[("num.partitions", "3"), ("message.max.bytes", "3000")]),
        layer(
            file(),
            &[],
            &[("num.partitions", "2"), ("message.max.bytes", "2000"), ("log.segment.bytes", "2097152")],
        ),
    ];
    let choices = choose(&layers, &MACHINE).unwrap();
    let settings: Vec<(&str, &str)> =
        choices.settings.settings().iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    assert_eq!(
        settings,
        [("log.segment.bytes", "2097152"), ("message.max.bytes", "3000"), ("num.partitions", "5")]
    );
}

#[test]
fn a_bad_value_is_blamed_on_its_layer_with_the_mend() {
    let address = "write HOST:PORT, as in 127.0.0.1:9092";
    for (name, text, mend) in [
        (Name::DataDir, "", "write the directory's path".to_owned()),
        (Name::NodeId, "-1", "write a whole number from 0 to 2147483647".to_owned()),
        (Name::NodeId, "one", "write a whole number from 0 to 2147483647".to_owned()),
        (Name::NodeId, "2147483648", "write a whole number from 0 to 2147483647".to_owned()),
        (Name::KafkaListener, "9092", address.to_owned()),
        (Name::AdminListener, "localhost", address.to_owned()),
        (Name::AdvertisedKafkaListener, "example.org", address.to_owned()),
        (
            Name::AdvertisedKafkaListener,
            "example.org:0",
            "clients cannot connect to port 0, write the port they reach".to_owned(),
        ),
        (
            Name::AdvertisedKafkaListener,
            "0.0.0.0:9092",
            "clients cannot connect to every interface, write a name or address that reaches this node"
                .to_owned(),
        ),
        (
            Name::RpcListener,
            "[::]:33146",
            "the other nodes are told this address, write a name or address that reaches this node"
                .to_owned(),
        ),
        (Name::Seeds, "", "write HOST:PORT,..., as in 10.0.0.1:33146,10.0.0.2:33146".to_owned()),
        (Name::Seeds, "a:1,", "write HOST:PORT,..., as in 10.0.0.1:33146,10.0.0.2:33146".to_owned()),
        (Name::Seeds, "a:1,b:0", "nodes cannot connect to port 0, write the port of b".to_owned()),
        (
            Name::Seeds,
            "a:1,0.0.0.0:1",
            "nodes cannot connect to 0.0.0.0:1, write a name or address that reaches the node".to_owned(),
        ),
        (Name::Seeds, "a:1,b:1,a:1", "write a:1 once".to_owned()),
        (Name::Cores, "0", "write a whole number from 1 to 1024".to_owned()),
        (Name::Cores, "1025", "write a whole number from 1 to 1024".to_owned()),
        (Name::Cores, "two", "write a whole number from 1 to 1024".to_owned()),
        (Name::Pin, "yes", "write true or false".to_owned()),
        (Name::Memory, "plenty", "write a size, as in 512MiB or 2GiB".to_owned()),
        (Name::Memory, "31MiB", "2 cores need at least 32 MiB, or choose fewer --cores".to_owned()),
    ] {
        for (source, whose) in [
            (Source::Flags, format!("--{}", name.word())),
            (Source::Environment, name.variable()),
            (file(), format!("{} in ouzel.toml", name.word())),
        ] {
            let layers = [layer(source, &[(name, text)], &[])];
            assert_eq!(sentence(&layers), format!("{whose} cannot be '{text}': {mend}"));
        }
    }
}

#[test]
fn a_bad_setting_is_blamed_on_its_layer_with_the_mend() {
    for (source, whose) in
        [(Source::Flags, "--set"), (Source::Environment, "OUZEL_SET"), (file(), "ouzel.toml")]
    {
        for (key, value, rest) in [
            ("num.partitons", "3", "there is no setting 'num.partitons'; did you mean 'num.partitions'?"),
            (
                "retention.ms",
                "3",
                "'retention.ms' is a setting of a topic; the default for all topics is 'log.retention.ms'",
            ),
            ("node.id", "3", "'node.id' is decided by the flag --node-id; use that instead"),
        ] {
            let layers = [layer(source.clone(), &[], &[(key, value)])];
            assert_eq!(sentence(&layers), format!("{whose}: {rest}"));
        }
        let layers = [layer(source.clone(), &[], &[("num.partitions", "three")])];
        assert!(
            sentence(&layers).starts_with(&format!("{whose}: setting 'num.partitions' cannot be 'three': ")),
            "{}",
            sentence(&layers)
        );
    }
}

#[test]
fn two_settings_that_contradict_each_other_are_both_named() {
    let layers = [
        layer(Source::Flags, &[], &[("group.max.session.timeout.ms", "5000")]),
        layer(file(), &[], &[("group.min.session.timeout.ms", "7000")]),
    ];
    assert_eq!(
        sentence(&layers),
        "'group.min.session.timeout.ms' (7000) must not be above 'group.max.session.timeout.ms' (5000), \
         change one of them"
    );
}

#[test]
fn listening_everywhere_needs_an_address_for_clients() {
    let everywhere = |more: &[(Name, &str)]| {
        let values: Vec<(Name, &str)> =
            [(Name::KafkaListener, "0.0.0.0:9092")].into_iter().chain(more.iter().copied()).collect();
        choose(&[layer(Source::Environment, &values, &[])], &MACHINE)
    };
    assert_eq!(
        everywhere(&[]).unwrap_err().to_string(),
        "OUZEL_KAFKA_LISTENER listens on every interface (0.0.0.0:9092), and clients must be told one address that \
         reaches this node: add --advertised-kafka-listener HOST:PORT"
    );
    let choices = everywhere(&[(Name::AdvertisedKafkaListener, "example.org:9092")]).unwrap();
    assert_eq!(choices.advertised.unwrap().to_string(), "example.org:9092");
}
