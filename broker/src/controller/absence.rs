//! Since when which brokers have not answered.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ouzel_metadata::image::Broker;
use ouzel_metadata::plan::fence_broker::plan_fence_broker;
use ouzel_metadata::{Image, Record};
use ouzel_model::NodeId;
use ouzel_runtime::clock::Instant;

/// A broker that does not answer for this long is taken for dead: longer than a restart takes, since clients and new
/// topics are sent elsewhere then. Leaders are replaced much earlier, by their own groups.
const FENCE_AFTER: Duration = Duration::from_secs(9);
/// A broker that keeps the controller's log and does not answer for this long is replaced there, if another one can.
const REPLACE_AFTER: Duration = Duration::from_secs(120);

/// What a controller has seen of the brokers' silence in its reign: one that has just come to lead has seen none of it.
#[derive(Debug, Default)]
pub(super) struct Absences {
    since: BTreeMap<NodeId, Absence>,
}

#[derive(Debug)]
struct Absence {
    /// Of the process: one that registers is another, and has the whole time before it.
    incarnation: [u8; 16],
    since: Instant,
}

impl Absences {
    /// Takes note of who answers, and of who does not.
    pub(super) fn observe(&mut self, image: &Image, now: Instant, is_up: impl Fn(NodeId) -> bool) {
        let is_same = |known: &Broker, absence: &Absence| known.incarnation == absence.incarnation;
        self.since.retain(|node, absence| {
            !is_up(*node) && image.broker(*node).is_some_and(|known| is_same(known, absence))
        });
        for broker in image.brokers().filter(|broker| !is_up(broker.node)) {
            let absence = Absence { incarnation: broker.incarnation, since: now };
            self.since.entry(broker.node).or_insert(absence);
        }
    }

    /// Who is taken for dead, and who for alive again.
    pub(super) fn plan_fencing(&self, image: &Image, now: Instant) -> Vec<Record> {
        let plan = |broker: &Broker| match self.since.get(&broker.node) {
            None => plan_fence_broker(image, broker.node, false),
            Some(absence) if now >= absence.since + FENCE_AFTER => {
                plan_fence_broker(image, broker.node, true)
            }
            Some(_) => None,
        };
        image.brokers().filter_map(|broker| plan(broker)).collect()
    }

    /// The brokers that have been dead for so long that others take their place.
    pub(super) fn gone(&self, now: Instant) -> BTreeSet<NodeId> {
        let is_gone = |absence: &Absence| now >= absence.since + REPLACE_AFTER;
        self.since.iter().filter(|(_, absence)| is_gone(absence)).map(|(node, _)| *node).collect()
    }

    /// Forgets it all: another node leads.
    pub(super) fn clear(&mut self) {
        self.since.clear();
    }
}

#[cfg(test)]
mod tests {
    use ouzel_model::TopicId;
    use ouzel_runtime::Clock;

    use super::*;

    fn broker(node: i32, life: u8) -> Record {
        Record::BrokerRegistered(Broker::new(NodeId(node), [life; 16], TopicId([node as u8; 16])))
    }

    /// A cluster of three as its controller, node 1, sees it pass the seconds.
    struct Scene {
        image: Image,
        absences: Absences,
        start: Instant,
        silent: Vec<i32>,
    }

    impl Scene {
        fn new() -> Scene {
            let image = Image::from_records(&[broker(1, 1), broker(2, 1), broker(3, 1)]).expect("sound");
            Scene { image, absences: Absences::default(), start: Clock::system().now(), silent: Vec::new() }
        }

        fn apply(&mut self, record: &Record) {
            self.image.apply(record).expect("it fits");
        }

        /// What is decided at a second; it is carried out.
        fn at(&mut self, second: u64) -> Vec<(i32, bool)> {
            let now = self.start + Duration::from_secs(second);
            self.absences.observe(&self.image, now, |node| !self.silent.contains(&node.0));
            let records = self.absences.plan_fencing(&self.image, now);
            records.iter().for_each(|record| self.apply(record));
            let fenced = records.iter().map(|record| match record {
                Record::BrokerFenced { node, fenced } => (node.0, *fenced),
                other => panic!("{other:?}"),
            });
            fenced.collect()
        }

        fn gone(&self, second: u64) -> Vec<i32> {
            self.absences.gone(self.start + Duration::from_secs(second)).iter().map(|node| node.0).collect()
        }
    }

    #[test]
    fn silence_fences_and_a_word_lifts_it() {
        let mut scene = Scene::new();
        scene.silent = vec![2, 3];
        assert_eq!(scene.at(100), [], "it has only now come to look");
        assert_eq!(scene.at(108), []);
        scene.silent = vec![3];
        assert_eq!(scene.at(109), [(3, true)], "the other one said something in time");
        assert_eq!(scene.at(110), [], "it is known");
        scene.silent = Vec::new();
        assert_eq!(scene.at(111), [(3, false)]);
        scene.silent = vec![3];
        assert_eq!(scene.at(112), []);
        assert_eq!(scene.at(120), [], "a later silence counts from its own beginning");
        assert_eq!(scene.at(121), [(3, true)]);
    }

    #[test]
    fn who_is_silent_for_minutes_is_gone() {
        let mut scene = Scene::new();
        scene.silent = vec![3];
        scene.at(0);
        assert_eq!(scene.gone(119), [0; 0]);
        assert_eq!(scene.gone(120), [3]);
        scene.silent = Vec::new();
        scene.at(121);
        assert_eq!(scene.gone(1_000), [0; 0]);
    }

    /// A broker that had been away for long, came back and registered was fenced again, and its place in the controller's log
    /// given away, if the controller looked before the first answer to its pings was there: only the node's number counted.
    #[test]
    fn a_new_process_has_the_whole_time_before_it() {
        let mut scene = Scene::new();
        scene.silent = vec![3];
        scene.at(0);
        assert_eq!(scene.at(500), [(3, true)]);
        scene.apply(&broker(3, 2));
        assert_eq!(scene.at(501), []);
        assert_eq!(scene.gone(501), [0; 0]);
        assert_eq!(scene.at(509), []);
        assert_eq!(scene.at(510), [(3, true)]);
    }

    #[test]
    fn who_left_is_forgotten() {
        let mut scene = Scene::new();
        scene.silent = vec![3];
        scene.at(0);
        scene.apply(&Record::BrokerUnregistered { node: NodeId(3) });
        assert_eq!(scene.at(500), []);
        assert_eq!(scene.gone(500), [0; 0]);
    }

    #[test]
    fn another_reign_has_seen_nothing() {
        let mut scene = Scene::new();
        scene.silent = vec![3];
        scene.at(0);
        scene.absences.clear();
        assert_eq!(scene.at(500), []);
        assert_eq!(scene.at(509), [(3, true)]);
    }
}
