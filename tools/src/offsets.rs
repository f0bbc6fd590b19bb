//! The grammar of `--offset`: from where a topic is consumed, and until where.
//!
//! ```text
//! start  end            the first record; only what comes from now on
//! +n  -n                n behind the first record; n before the end
//! n  n:  n:m  :m        from offset n; until before offset m
//! :end  n:end           until what was the end when the command began
//! @t  @t:  @t:u  @:u    from the first record at time t or later; until before time u
//! ```
//! A time is 13 digits (ms), 9 or 10 digits (s), `2026-02-14`, RFC 3339 or `today`; a duration such as `1h` or `-15m`
//! counts back from now, and after a colon a positive one counts on from the time before it.

use crate::calendar;

/// A place in every partition of a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Start,
    End,
    /// So many records behind the log start offset.
    AfterStart(i64),
    /// So many offsets before the end.
    BeforeEnd(i64),
    /// The offset itself.
    At(i64),
    /// The first record with this timestamp (ms) or a later one.
    Time(i64),
}

/// From where, inclusive, until where, exclusive; without an end consuming goes on for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) from: Place,
    pub(crate) until: Option<Place>,
}

/// Reads the grammar above.
pub(crate) fn parse(text: &str, now_ms: i64) -> Result<Range, String> {
    let range = match text.strip_prefix('@') {
        Some(times) => parse_times(times, now_ms),
        None => parse_offsets(text),
    };
    range.ok_or_else(|| {
        format!("{text:?} is no offset; try start, end, +10, -10, 42, 42:50, :end, @-1h, @2026-02-14:1h")
    })
}

fn parse_offsets(text: &str) -> Option<Range> {
    match text.split_once(':') {
        None => Some(Range { from: parse_from(text)?, until: None }),
        Some(("", "")) => None,
        Some((from, until)) => Some(Range {
            from: if from.is_empty() { Place::Start } else { parse_from(from)? },
            until: match until {
                "" => None,
                "end" => Some(Place::End),
                number => Some(Place::At(parse_number(number)?)),
            },
        }),
    }
}

fn parse_from(text: &str) -> Option<Place> {
    match (text, text.split_at_checked(1)) {
        ("start", _) => Some(Place::Start),
        ("end", _) => Some(Place::End),
        (_, Some(("+", number))) => parse_number(number).map(Place::AfterStart),
        (_, Some(("-", number))) => parse_number(number).map(Place::BeforeEnd),
        _ => parse_number(text).map(Place::At),
    }
}

/// Digits only: a second sign would be read by `i64` and mean something else than was meant.
fn parse_number(text: &str) -> Option<i64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// Times hold colons themselves, so each colon is tried as the one that parts them.
fn parse_times(text: &str, now_ms: i64) -> Option<Range> {
    if let Some(from_ms) = parse_moment(text, now_ms, now_ms) {
        return Some(Range { from: Place::Time(from_ms), until: None });
    }
    text.match_indices(':').find_map(|(at, _)| {
        let (from, until) = (&text[..at], &text[at + 1..]);
        let from_ms = if from.is_empty() { None } else { Some(parse_moment(from, now_ms, now_ms)?) };
        let until = match until {
            "" => from_ms.map(|_| None)?,
            "end" => Some(Place::End),
            until => Some(Place::Time(parse_moment(until, now_ms, from_ms.unwrap_or(now_ms))?)),
        };
        Some(Range { from: from_ms.map_or(Place::Start, Place::Time), until })
    })
}

/// A point in time, or a duration: a negative one from now, a positive one from `origin_ms` (and before now, if now
/// is the origin: `@1h` is an hour ago, as nobody means the future).
fn parse_moment(text: &str, now_ms: i64, origin_ms: i64) -> Option<i64> {
    if let Some(time_ms) = calendar::parse_time(text, now_ms) {
        return Some(time_ms);
    }
    match calendar::parse_duration(text)? {
        negative if negative < 0 => Some(now_ms + negative),
        positive if origin_ms == now_ms => Some(now_ms - positive),
        positive => origin_ms.checked_add(positive),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: i64 = 1_795_264_496_789;
    const HOUR_MS: i64 = 3_600_000;
    /// 2026-02-14T00:00:00Z
    const DAY_MS: i64 = 1_771_027_200_000;

    #[test]
    fn the_grammar_is_read() {
        use Place::{AfterStart, At, BeforeEnd, End, Start, Time};
        let cases: &[(&str, Place, Option<Place>)] = &[
            ("start", Start, None),
            ("end", End, None),
            ("+5", AfterStart(5), None),
            ("-5", BeforeEnd(5), None),
            ("42", At(42), None),
            ("42:", At(42), None),
            ("42:50", At(42), Some(At(50))),
            (":50", Start, Some(At(50))),
            (":end", Start, Some(End)),
            ("-5:end", BeforeEnd(5), Some(End)),
            ("+5:end", AfterStart(5), Some(End)),
            ("@1795264496789", Time(NOW_MS), None),
            ("@2026-02-14", Time(DAY_MS), None),
            ("@2026-02-14:", Time(DAY_MS), None),
            ("@2026-02-14:1h", Time(DAY_MS), Some(Time(DAY_MS + HOUR_MS))),
            ("@2026-02-14:end", Time(DAY_MS), Some(End)),
            ("@-1h", Time(NOW_MS - HOUR_MS), None),
            ("@1h", Time(NOW_MS - HOUR_MS), None),
            ("@-48h:-24h", Time(NOW_MS - 48 * HOUR_MS), Some(Time(NOW_MS - 24 * HOUR_MS))),
            ("@-2h:1h", Time(NOW_MS - 2 * HOUR_MS), Some(Time(NOW_MS - HOUR_MS))),
            ("@:-1h", Start, Some(Time(NOW_MS - HOUR_MS))),
            (
                "@2026-02-14T01:00:00Z:2026-02-14T02:00:00Z",
                Time(DAY_MS + HOUR_MS),
                Some(Time(DAY_MS + 2 * HOUR_MS)),
            ),
            ("@2026-02-14T01:00:00Z:30m", Time(DAY_MS + HOUR_MS), Some(Time(DAY_MS + HOUR_MS + HOUR_MS / 2))),
        ];
        for (text, from, until) in cases {
            assert_eq!(parse(text, NOW_MS), Ok(Range { from: *from, until: *until }), "{text}");
        }
    }

    #[test]
    fn nonsense_is_refused_with_examples() {
        for wrong in [
            "",
            ":",
            "begin",
            "--5",
            "+-5",
            "1:2:3",
            "@",
            "@:",
            "@x",
            "@1h:x",
            "5:start",
            "99999999999999999999",
        ] {
            let message = parse(wrong, NOW_MS).unwrap_err();
            assert!(message.contains("@-1h"), "{wrong}: {message}");
        }
    }
}
