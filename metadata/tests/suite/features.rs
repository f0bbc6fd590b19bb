//! Levels of features. Where Apache Kafka 4.3 was asked the same, its words are the expected ones.

use ouzel_metadata::features::{LevelRange, SUPPORTED};
use ouzel_metadata::plan::{FeatureUpdate, UpdateKind, plan_register_broker, plan_update_features};
use ouzel_metadata::{Image, Record};

use crate::support::{apply, broker};

fn update(name: &str, level: i16, kind: UpdateKind) -> FeatureUpdate {
    FeatureUpdate { name: name.to_owned(), level, kind }
}

/// A broker that set the first levels.
fn image() -> Image {
    let admission = plan_register_broker(&Image::default(), &broker(1), false).expect("there is nobody");
    let mut image = Image::default();
    apply(&mut image, &admission.records);
    image
}

#[test]
fn refusals_are_kafkas() {
    use UpdateKind::{SafeDowngrade, Unknown, UnsafeDowngrade, Upgrade};
    let image = image();
    let check = |name: &str, level: i16, kind, kafka: &str| {
        let answer = plan_update_features(&image, &[update(name, level, kind)]);
        let answer = answer.map_or_else(|error| error.to_string(), |record| format!("{}", record.is_some()));
        assert_eq!(answer, kafka, "{name} {level} {kind:?}");
    };
    let invalid = |name: &str, level: i16, fault: &str| {
        format!("Invalid update version {level} for feature {name}. {fault}")
    };
    // Kafka says "Local controller 1" where we say "Broker 1".
    let range = "Broker 1 only supports versions 7-30";
    for (level, kind) in [(31, Upgrade), (31, SafeDowngrade), (6, SafeDowngrade), (0, UnsafeDowngrade)] {
        check("metadata.version", level, kind, &invalid("metadata.version", level, range));
    }
    check("metadata.version", 30, Upgrade, "false");
    check("metadata.version", 30, SafeDowngrade, "false");
    let not_so = "Can't downgrade the version of this feature without setting the upgrade type to either safe or unsafe \
                  downgrade.";
    check("metadata.version", 29, Upgrade, &invalid("metadata.version", 29, not_so));
    check(
        "metadata.version",
        29,
        SafeDowngrade,
        "Unsupported metadata.version downgrade from 30 to 29. Refusing to perform the requested downgrade because it might \
         delete metadata information.",
    );
    check(
        "metadata.version",
        20,
        UnsafeDowngrade,
        "Unsupported metadata.version downgrade from 30 to 20. Unsafe metadata downgrade is not supported in this version.",
    );
    let no_way = "Can't downgrade the version of this feature.";
    check("kraft.version", 0, SafeDowngrade, &invalid("kraft.version", 0, no_way));
    check("kraft.version", 0, UnsafeDowngrade, &invalid("kraft.version", 0, no_way));
    check("kraft.version", 1, Upgrade, "false");
    let range = "Broker 1 only supports versions 0-1";
    check("kraft.version", 2, Upgrade, &invalid("kraft.version", 2, range));
    let unsupported = "Broker 1 does not support this feature.";
    check("no.version", 1, Upgrade, &invalid("no.version", 1, unsupported));
    check("no.version", 0, SafeDowngrade, &invalid("no.version", 0, "Feature no.version not found."));
    let negative = "A feature version cannot be less than 0.";
    check("kraft.version", -1, SafeDowngrade, &invalid("kraft.version", -1, negative));
    let unknown = "The controller does not support the given upgrade type.";
    check("group.version", 1, Unknown, &invalid("group.version", 1, unknown));
    let twice = [update("kraft.version", 1, Upgrade), update("kraft.version", 1, Upgrade)];
    let refused = plan_update_features(&image, &twice).expect_err("named twice");
    assert_eq!(refused.to_string(), "Feature kraft.version is named more than once.");
}

#[test]
fn a_level_rises_once_every_broker_knows_it() {
    let mut image = image();
    let with = |node, max| {
        let mut broker = broker(node);
        broker.features.insert("next.version".to_owned(), LevelRange { min: 1, max });
        Record::BrokerRegistered(broker)
    };
    apply(&mut image, &[with(1, 2), with(2, 1)]);
    let wanted = |level| [update("next.version", level, UpdateKind::Upgrade)];
    let refused = plan_update_features(&image, &wanted(2)).expect_err("2 knows only 1");
    assert_eq!(
        refused.to_string(),
        "Invalid update version 2 for feature next.version. Broker 2 only supports versions 1-1"
    );
    // The dead count: they may be back.
    apply(&mut image, &[Record::BrokerFenced { node: ouzel_model::NodeId(2), fenced: true }]);
    assert!(plan_update_features(&image, &wanted(2)).is_err());
    let record = plan_update_features(&image, &wanted(1)).expect("both know 1").expect("it was 0");
    apply(&mut image, &[record]);
    assert_eq!((image.features().epoch, image.features().level("next.version")), (1, 1));
    assert_eq!(plan_update_features(&image, &wanted(1)), Ok(None), "as it is");
    let refused = plan_update_features(&image, &[update("next.version", 2, UpdateKind::SafeDowngrade)]);
    assert!(refused.is_err());
    // All of a request, or nothing.
    let both =
        [update("kraft.version", 1, UpdateKind::Upgrade), update("next.version", 2, UpdateKind::Upgrade)];
    assert!(plan_update_features(&image, &both).is_err());
}

#[test]
fn what_is_supported_is_sorted_and_sound() {
    assert!(SUPPORTED.windows(2).all(|pair| pair[0].0 < pair[1].0));
    assert!(SUPPORTED.iter().all(|(_, range)| 0 <= range.min && range.min <= range.max));
}
