//! What one seed's process said, and the sums over all of them. Pure: texts in, numbers out.

use std::collections::BTreeMap;

/// What became of one seed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) seed: u64,
    /// What was broken, or how the process ended if it was not able to say; empty for a good run.
    pub(super) violations: Vec<String>,
    /// Faults and whatever else was counted, by name.
    pub(super) counts: BTreeMap<String, u64>,
}

impl Finding {
    /// Reads what a process said. `ended` is how it ended if that was not with 0 or 1.
    pub(super) fn read(seed: u64, said: &str, well: bool, ended: Option<String>) -> Finding {
        let mark = format!("seed {seed}: ");
        let mut violations = Vec::new();
        let mut counts = BTreeMap::new();
        for line in said.lines().filter_map(|line| line.strip_prefix(&mark)) {
            match line.strip_prefix("VIOLATION ") {
                Some(violation) => violations.push(violation.to_owned()),
                None => counts.extend(counts_in(line)),
            }
        }
        if let Some(ended) = ended {
            violations.push(ended);
        } else if !well && violations.is_empty() {
            // A run that failed says why in its last line.
            let last = said.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it said nothing");
            violations.push(format!("the run failed: {last}"));
        }
        Finding { seed, violations, counts }
    }
}

/// The numbers of a closing line: `N faults` and the like between its commas, `name: N` within its braces.
fn counts_in(line: &str) -> Vec<(String, u64)> {
    let mut counts = Vec::new();
    for part in line.split([',', '{', '}', ';']).map(str::trim) {
        let named = part.rsplit_once(": ").map(|(name, number)| (number, name));
        // A closing `... faults: 0 violations` has its name behind the number as well.
        let words = part.rsplit(": ").next().and_then(|words| words.split_once(' '));
        for (number, name) in [named, words].into_iter().flatten() {
            let is_name =
                !name.is_empty() && name.chars().all(|c| c.is_ascii_lowercase() || "_-".contains(c));
            if let (true, Ok(number)) = (is_name, number.parse()) {
                counts.push((name.replace('_', " "), number));
            }
        }
        if let Some((number, name)) = part.split_once(": ").and_then(|(before, _)| before.split_once(' '))
            && let Ok(number) = number.parse()
        {
            counts.push((name.to_owned(), number));
        }
    }
    // Violations are counted themselves, and nodes were given: they add up to nothing.
    counts.retain(|(name, _)| name != "violations" && name != "nodes");
    counts
}

/// All seeds together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) seeds: u64,
    pub(super) failed: Vec<Finding>,
    counts: BTreeMap<String, u64>,
}

impl Tally {
    pub(super) fn add(&mut self, finding: Finding) {
        self.seeds += 1;
        for (name, count) in &finding.counts {
            *self.counts.entry(name.clone()).or_default() += count;
        }
        if !finding.violations.is_empty() {
            self.failed.push(finding);
        }
    }

    pub(super) fn violations(&self) -> usize {
        self.failed.iter().map(|finding| finding.violations.len()).sum()
    }

    /// The sums, a line each.
    pub(super) fn table(&self) -> String {
        let rows: Vec<(String, u64)> = [("seeds".to_owned(), self.seeds)]
            .into_iter()
            .chain(self.counts.iter().map(|(name, count)| (name.clone(), *count)))
            .chain([("violations".to_owned(), self.violations() as u64)])
            .collect();
        let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        rows.iter().map(|(name, count)| format!("{name:<width$}  {count:>12}\n")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str =
        "seed 5: brokers, 3 nodes, Durable, 16 faults: 0 violations, Counts { read: 44, lost_admitted: 0 }\n";

    #[test]
    fn a_closing_line_gives_its_numbers() {
        let finding = Finding::read(5, GOOD, true, None);
        assert_eq!(finding.violations, Vec::<String>::new());
        let expected = [("faults", 16), ("lost admitted", 0), ("read", 44)];
        assert_eq!(finding.counts, expected.map(|(name, count)| (name.to_owned(), count)).into());
        let by_kind = "seed 5: events { fault-kill: 3, snapshots-installed: 2 }\n";
        let counts = Finding::read(5, by_kind, true, None).counts;
        assert_eq!(counts, [("fault-kill".to_owned(), 3), ("snapshots-installed".to_owned(), 2)].into());
    }

    #[test]
    fn a_seed_fails_by_what_it_says_and_by_how_it_ends() {
        let said = format!("seed 5: VIOLATION lost: t-0 at 7\n{GOOD}");
        assert_eq!(Finding::read(5, &said, false, None).violations, ["lost: t-0 at 7"]);
        let failed = Finding::read(5, "seed 5: node 2 panicked\n", false, None);
        assert_eq!(failed.violations, ["the run failed: seed 5: node 2 panicked"]);
        let killed = Finding::read(5, "", false, Some("ended by signal 6".to_owned()));
        assert_eq!(killed.violations, ["ended by signal 6"]);
    }

    #[test]
    fn sums_are_over_all_seeds() {
        let mut tally = Tally::default();
        tally.add(Finding::read(5, GOOD, true, None));
        tally.add(Finding::read(6, &GOOD.replace("seed 5", "seed 6"), true, None));
        tally.add(Finding::read(7, "seed 7: VIOLATION a\nseed 7: VIOLATION b\n", false, None));
        assert_eq!((tally.seeds, tally.failed.len(), tally.violations()), (3, 1, 2));
        let table = tally.table();
        assert!(table.contains("faults") && table.contains(" 32\n"), "{table}");
        assert!(table.lines().last().unwrap().ends_with(" 2"), "{table}");
    }
}
