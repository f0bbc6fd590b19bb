//! Byte counts as people write them.

use std::fmt;

/// Why a text is no byte count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidSize {
    text: String,
}

impl fmt::Display for InvalidSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "'{}' is not a size; write bytes, or a number with KiB, MiB, GiB, kB, MB or GB", self.text)
    }
}

impl std::error::Error for InvalidSize {}

/// The units, longest suffix first so that `MiB` is not read as `B`.
const UNITS: [(&str, u64); 10] = [
    ("kib", 1 << 10),
    ("mib", 1 << 20),
    ("gib", 1 << 30),
    ("kb", 1_000),
    ("mb", 1_000_000),
    ("gb", 1_000_000_000),
    ("k", 1 << 10),
    ("m", 1 << 20),
    ("g", 1 << 30),
    ("b", 1),
];

/// Reads `1048576`, `64MiB`, `2 GB`; a bare `k`, `m`, `g` counts in 1024s. Letters in either case.
///
/// # Errors
/// A text that is no number with a known unit, or that overflows 64 bits.
pub fn parse_size(text: &str) -> Result<u64, InvalidSize> {
    let invalid = || InvalidSize { text: text.to_owned() };
    let lower = text.trim().to_ascii_lowercase();
    let (digits, factor) = UNITS
        .iter()
        .find_map(|(unit, factor)| Some((lower.strip_suffix(unit)?, *factor)))
        .unwrap_or((&lower, 1));
    let count: u64 = digits.trim().parse().map_err(|_| invalid())?;
    count.checked_mul(factor).ok_or_else(invalid)
}

/// Shows a byte count with the largest binary unit that keeps it readable: `512 B`, `1.5 MiB`.
pub fn display_size(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value < 1024.0 {
            return if value.fract() == 0.0 {
                format!("{value:.0} {unit}")
            } else {
                format!("{value:.1} {unit}")
            };
        }
        value /= 1024.0;
    }
    format!("{value:.1} TiB")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_as_people_write_them() {
        for (text, bytes) in [
            ("0", 0),
            ("1048576", 1 << 20),
            ("64MiB", 64 << 20),
            ("64 mib", 64 << 20),
            ("2GB", 2_000_000_000),
            ("3k", 3 << 10),
            ("12B", 12),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in ["", "MiB", "-1", "1.5GiB", "1XB", "99999999999GiB"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_as_people_read_them() {
        for (bytes, text) in
            [(0, "0 B"), (512, "512 B"), (1536, "1.5 KiB"), (64 << 20, "64 MiB"), (5 << 40, "5.0 TiB")]
        {
            assert_eq!(display_size(bytes), text);
        }
    }
}
