//! Which known word somebody meant.

/// The candidate with the fewest edits from `given`, if it is close enough to be a slip of the hand.
pub(crate) fn nearest<'a>(given: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    // A text longer than any key is not a slip, and must not cost a table of its length.
    const GIVEN_BYTES_MAX: usize = 128;
    if given.len() > GIVEN_BYTES_MAX {
        return None;
    }
    let slips_max = (given.chars().count() / 4).clamp(1, 3);
    candidates
        .map(|candidate| (edits(given, candidate), candidate))
        .min_by_key(|(edits, _)| *edits)
        .filter(|(edits, _)| *edits <= slips_max)
        .map(|(_, candidate)| candidate)
}

/// Insertions, deletions and replacements from one text to the other.
fn edits(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (done, left) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = done + 1;
        for (column, right) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(left != *right);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_edits() {
        for (from, to, count) in [("", "", 0), ("", "abc", 3), ("kitten", "sitting", 3), ("flaw", "lawn", 2)]
        {
            assert_eq!(edits(from, to), count, "{from} {to}");
            assert_eq!(edits(to, from), count, "{to} {from}");
        }
    }

    #[test]
    fn suggests_slips_only() {
        let known = ["num.partitions", "num.io.threads", "log.dirs"];
        let suggest = |given| nearest(given, known.into_iter());
        assert_eq!(suggest("num.partition"), Some("num.partitions"));
        assert_eq!(suggest("num_partitions"), Some("num.partitions"));
        assert_eq!(suggest("completely.different"), None);
        assert_eq!(suggest(&"num.partitions".repeat(100)), None);
    }
}
