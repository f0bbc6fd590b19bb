//! The judge of the demo: whether what the group saw is what the producers were told was stored. Pure: it is handed
//! the flights, the acknowledgements and the sights, and gives a verdict.

use std::collections::{BTreeMap, HashMap};

/// Faults that are told one by one; beyond these only the count goes on.
const FAULTS_TOLD_MAX: usize = 20;

/// One record of the input, as it was to be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Flight<'a> {
    pub(crate) key: &'a str,
    pub(crate) timestamp_ms: i64,
    pub(crate) value: &'a str,
}

impl<'a> Flight<'a> {
    /// Reads one line of the input: key, timestamp and value with tabs between.
    pub(crate) fn parse(line: &'a str) -> Result<Flight<'a>, String> {
        let mut fields = line.splitn(3, '\t');
        let mut next = || fields.next().ok_or_else(|| format!("a flight has three fields, not {line:?}"));
        let (key, timestamp_ms, value) = (next()?, next()?, next()?);
        let timestamp_ms =
            timestamp_ms.parse().map_err(|_| format!("{timestamp_ms:?} is no timestamp in ms"))?;
        Ok(Flight { key, timestamp_ms, value })
    }
}

/// One record as one member of the group was handed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sight<'a> {
    pub(crate) wall_ms: u64,
    pub(crate) partition: usize,
    pub(crate) offset: u64,
    pub(crate) flight: Flight<'a>,
}

impl<'a> Sight<'a> {
    /// Reads one line of a member's file: wall clock, partition, offset, then the flight.
    pub(crate) fn parse(line: &'a str) -> Result<Sight<'a>, String> {
        let mut fields = line.splitn(4, '\t');
        let mut next = || fields.next().ok_or_else(|| format!("a sight has six fields, not {line:?}"));
        let (wall_ms, partition, offset, flight) = (next()?, next()?, next()?, next()?);
        let broken = || format!("a sight starts with three numbers, not {line:?}");
        Ok(Sight {
            wall_ms: wall_ms.parse().map_err(|_| broken())?,
            partition: partition.parse().map_err(|_| broken())?,
            offset: offset.parse().map_err(|_| broken())?,
            flight: Flight::parse(flight)?,
        })
    }
}

/// Collects acknowledgements, then sights, then decides.
#[derive(Debug)]
pub(crate) struct Judge<'a> {
    flights: &'a [Flight<'a>],
    /// Whether a flight stored a second time is no fault.
    may_store_again: bool,
    /// For each partition, which flight was acknowledged at each offset.
    places: Vec<BTreeMap<u64, usize>>,
    /// For each flight whether it was acknowledged.
    acknowledged: Vec<bool>,
    /// How often each acknowledged place was seen, beside `places`.
    sights: Vec<BTreeMap<u64, u32>>,
    /// Wall clock of every sight but a place's first.
    redelivered_at_ms: Vec<u64>,
    /// Places that hold a flight which was acknowledged elsewhere, and that flight.
    stored_again: Vec<BTreeMap<u64, usize>>,
    /// Flights by what they say, to know a second copy from an alien record.
    known: HashMap<Flight<'a>, usize>,
    faults: Faults,
}

#[derive(Debug, Default)]
struct Faults {
    told: Vec<String>,
    count: usize,
}

impl Faults {
    fn add(&mut self, what: impl FnOnce() -> String) {
        self.count += 1;
        if self.told.len() < FAULTS_TOLD_MAX {
            self.told.push(what());
        }
    }
}

/// What the judge found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// Records stored in each partition.
    pub(crate) records: Vec<u64>,
    /// Keys of each partition, in alphabetical order.
    pub(crate) keys: Vec<Vec<String>>,
    /// Sights beyond the first, in each partition.
    pub(crate) redelivered: Vec<u64>,
    pub(crate) redelivered_at_ms: Vec<u64>,
    /// Places that hold a second copy of a record; faults unless they were declared possible.
    pub(crate) stored_again: u64,
    /// The first faults in words.
    pub(crate) faults: Vec<String>,
    pub(crate) fault_count: usize,
}

impl<'a> Judge<'a> {
    pub(crate) fn new(flights: &'a [Flight<'a>], partitions: usize, may_store_again: bool) -> Judge<'a> {
        Judge {
            flights,
            may_store_again,
            places: vec![BTreeMap::new(); partitions],
            acknowledged: vec![false; flights.len()],
            sights: vec![BTreeMap::new(); partitions],
            redelivered_at_ms: Vec::new(),
            stored_again: vec![BTreeMap::new(); partitions],
            known: flights.iter().enumerate().map(|(index, flight)| (*flight, index)).collect(),
            faults: Faults::default(),
        }
    }

    /// A producer was told that flight `index` is stored at this place.
    pub(crate) fn acknowledge(&mut self, index: usize, partition: usize, offset: u64) {
        let (Some(flight), Some(places)) = (self.flights.get(index), self.places.get_mut(partition)) else {
            self.faults.add(|| {
                format!("record {index} was acknowledged at {partition}/{offset}, which does not exist")
            });
            return;
        };
        if std::mem::replace(&mut self.acknowledged[index], true) {
            self.faults.add(|| format!("record {index} was acknowledged twice"));
        }
        if let Some(before) = places.insert(offset, index) {
            self.faults.add(|| {
                format!("records {before} and {index} were both acknowledged at {partition}/{offset}")
            });
        }
        let wanted = murmur2_partition(flight.key, self.places.len());
        if wanted != partition {
            self.faults
                .add(|| format!("key {} went to partition {partition}, its hash says {wanted}", flight.key));
        }
    }

    /// A member of the group was handed a record.
    pub(crate) fn see(&mut self, sight: &Sight<'_>) {
        let (partition, offset) = (sight.partition, sight.offset);
        let Some(places) = self.places.get(partition) else {
            self.faults.add(|| format!("{partition}/{offset} was seen, and there is no such partition"));
            return;
        };
        if let Some(index) = places.get(&offset).copied() {
            if self.flights[index] != sight.flight {
                let wanted = self.flights[index];
                self.faults.add(|| {
                    format!(
                        "{partition}/{offset} holds {:?}, acknowledged was record {index}: {wanted:?}",
                        sight.flight
                    )
                });
            }
        } else {
            self.see_unacknowledged(sight);
        }
        let times = self.sights[partition].entry(offset).or_insert(0);
        *times += 1;
        if *times > 1 {
            self.redelivered_at_ms.push(sight.wall_ms);
        }
    }

    /// A record where nothing was acknowledged: a flight stored a second time, or one that nobody sent.
    fn see_unacknowledged(&mut self, sight: &Sight<'_>) {
        let (partition, offset) = (sight.partition, sight.offset);
        let Some(index) = self.known.get(&sight.flight).copied() else {
            self.faults
                .add(|| format!("{partition}/{offset} holds a record that nobody sent: {:?}", sight.flight));
            return;
        };
        let before = self.stored_again[partition].insert(offset, index);
        if before.is_none() && !self.may_store_again {
            self.faults.add(|| format!("{partition}/{offset} holds record {index}, which was acknowledged elsewhere: stored twice"));
        } else if before.is_some_and(|before| before != index) {
            self.faults.add(|| format!("{partition}/{offset} held another record before"));
        }
    }

    /// Decides, once all acknowledgements and sights are in.
    pub(crate) fn verdict(mut self) -> Verdict {
        let lost = self.acknowledged.iter().filter(|acknowledged| !**acknowledged).count();
        if lost > 0 {
            self.faults.add(|| format!("{lost} records were never acknowledged"));
        }
        for (partition, places) in self.places.iter().enumerate() {
            // A fresh topic without transactions has no place for anything but records: offsets have no gap.
            let mut offsets: Vec<u64> =
                places.keys().chain(self.stored_again[partition].keys()).copied().collect();
            offsets.sort_unstable();
            for (wanted, offset) in offsets.iter().enumerate() {
                if wanted as u64 != *offset {
                    self.faults
                        .add(|| format!("partition {partition} has offset {offset} where {wanted} was next"));
                    break;
                }
            }
            for (offset, index) in places {
                if !self.sights[partition].contains_key(offset) {
                    self.faults.add(|| format!("{partition}/{offset} (record {index}) was never seen"));
                }
            }
            // The input's order is each key's order, because one producer owns the key.
            let mut last_of_key: BTreeMap<&str, (u64, usize)> = BTreeMap::new();
            for (offset, index) in places {
                let key = self.flights[*index].key;
                if let Some((before, earlier)) = last_of_key.insert(key, (*offset, *index))
                    && earlier > *index
                {
                    self.faults.add(|| {
                        format!("key {key} is out of order: record {earlier} at {partition}/{before}, then record {index} at {offset}")
                    });
                }
            }
        }
        let keys = |places: &BTreeMap<u64, usize>| {
            let mut keys: Vec<String> =
                places.values().map(|index| self.flights[*index].key.to_owned()).collect();
            keys.sort();
            keys.dedup();
            keys
        };
        Verdict {
            records: self.places.iter().map(|places| places.len() as u64).collect(),
            keys: self.places.iter().map(keys).collect(),
            redelivered: self
                .sights
                .iter()
                .map(|sights| sights.values().map(|times| u64::from(*times) - 1).sum())
                .collect(),
            redelivered_at_ms: self.redelivered_at_ms,
            stored_again: self.stored_again.iter().map(|places| places.len() as u64).sum(),
            faults: self.faults.told,
            fault_count: self.faults.count,
        }
    }
}

/// The partition that Kafka's default partitioner gives a key: murmur2, made positive, modulo the count.
fn murmur2_partition(key: &str, partitions: usize) -> usize {
    const SEED: u32 = 0x9747_b28c;
    const FACTOR: u32 = 0x5bd1_e995;
    let bytes = key.as_bytes();
    let mut hash = SEED ^ bytes.len() as u32;
    let mut words = bytes.chunks_exact(4);
    for word in &mut words {
        let mut mixed = u32::from_le_bytes([word[0], word[1], word[2], word[3]]).wrapping_mul(FACTOR);
        mixed ^= mixed >> 24;
        hash = hash.wrapping_mul(FACTOR) ^ mixed.wrapping_mul(FACTOR);
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        for (nth, byte) in rest.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * nth);
        }
        hash = hash.wrapping_mul(FACTOR);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(FACTOR);
    hash ^= hash >> 15;
    (hash & 0x7fff_ffff) as usize % partitions
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keys UA and B6 share no partition of six; four records, two of each.
    const INPUT: [&str; 4] = ["UA\t1\tone", "B6\t2\ttwo", "UA\t3\tthree", "B6\t4\tfour"];

    fn flights() -> Vec<Flight<'static>> {
        INPUT.iter().map(|line| Flight::parse(line).unwrap()).collect()
    }

    fn place(index: usize) -> (usize, u64) {
        (murmur2_partition(flights()[index].key, 6), index as u64 / 2)
    }

    /// What a faultless run says, which each case bends: acknowledgements as (record, partition, offset) and sights.
    struct Run {
        acknowledgements: Vec<(usize, usize, u64)>,
        sights: Vec<(usize, u64, String)>,
        may_store_again: bool,
    }

    impl Run {
        fn faultless() -> Run {
            let at = |index: usize| (index, place(index).0, place(index).1);
            Run {
                acknowledgements: (0..4).map(at).collect(),
                sights: (0..4)
                    .map(|index| (place(index).0, place(index).1, INPUT[index].to_owned()))
                    .collect(),
                may_store_again: false,
            }
        }

        fn verdict(&self) -> Verdict {
            let flights = flights();
            let mut judge = Judge::new(&flights, 6, self.may_store_again);
            for (index, partition, offset) in &self.acknowledgements {
                judge.acknowledge(*index, *partition, *offset);
            }
            for (partition, offset, flight) in &self.sights {
                judge.see(&Sight::parse(&format!("7\t{partition}\t{offset}\t{flight}")).unwrap());
            }
            judge.verdict()
        }

        fn fault(&self, words: &str) {
            let verdict = self.verdict();
            assert!(
                verdict.fault_count > 0 && verdict.faults.iter().any(|fault| fault.contains(words)),
                "{verdict:?}"
            );
        }
    }

    #[test]
    fn a_faultless_run_passes_and_redelivery_is_counted() {
        let mut run = Run::faultless();
        assert_eq!(run.verdict().fault_count, 0, "{:?}", run.verdict());
        assert_eq!(run.verdict().records.iter().sum::<u64>(), 4);
        run.sights.push(run.sights[1].clone());
        let verdict = run.verdict();
        assert_eq!((verdict.fault_count, verdict.redelivered.iter().sum::<u64>()), (0, 1));
        assert_eq!(verdict.redelivered_at_ms, [7]);
    }

    #[test]
    fn a_lost_record_is_caught() {
        let mut run = Run::faultless();
        run.sights.remove(3);
        run.fault("never seen");
        let mut run = Run::faultless();
        run.acknowledgements.pop();
        run.fault("never acknowledged");
    }

    #[test]
    fn a_record_stored_twice_is_caught() {
        let mut run = Run::faultless();
        run.sights.push((place(3).0, 2, INPUT[3].to_owned()));
        run.fault("stored twice");
        run.may_store_again = true;
        assert_eq!((run.verdict().fault_count, run.verdict().stored_again), (0, 1));
        run.sights.push((place(3).0, 3, "B6\t4\tfive".to_owned()));
        run.fault("nobody sent");
    }

    #[test]
    fn a_changed_value_key_or_timestamp_is_caught() {
        for bent in ["UA\t3\tTHREE", "AA\t3\tthree", "UA\t4\tthree"] {
            let mut run = Run::faultless();
            run.sights[2].2 = bent.to_owned();
            run.fault("acknowledged was record 2");
        }
    }

    #[test]
    fn another_sight_with_other_bytes_is_caught() {
        let mut run = Run::faultless();
        run.sights.push((place(2).0, place(2).1, INPUT[0].to_owned()));
        run.fault("acknowledged was record 2");
    }

    #[test]
    fn a_broken_order_is_caught() {
        let mut run = Run::faultless();
        run.acknowledgements[0].2 = 1;
        run.acknowledgements[2].2 = 0;
        run.fault("out of order");
    }

    #[test]
    fn a_gap_a_shared_place_and_a_wrong_partition_are_caught() {
        let mut run = Run::faultless();
        run.acknowledgements[2].2 = 9;
        run.fault("was next");
        let mut run = Run::faultless();
        run.acknowledgements[2].2 = 0;
        run.fault("both acknowledged");
        let mut run = Run::faultless();
        run.acknowledgements[0].1 = (place(0).0 + 1) % 6;
        run.fault("its hash says");
    }

    #[test]
    fn the_hash_is_the_clients() {
        // Where kafka-clients 4.3 puts these keys among six partitions.
        let known = [
            ("UA", 4),
            ("B6", 0),
            ("EV", 3),
            ("DL", 5),
            ("US", 2),
            ("a", 4),
            ("flight", 0),
            ("nycflights13", 5),
            ("é", 3),
        ];
        for (key, partition) in known {
            assert_eq!(murmur2_partition(key, 6), partition, "{key}");
        }
    }
}
