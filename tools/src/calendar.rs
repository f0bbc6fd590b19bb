//! Dates, times and durations as people write them, in UTC. Values only: the present is an argument.

const DAY_MS: i64 = 86_400_000;

/// Reads a point in time: 13 digits are milliseconds, 9 or 10 are seconds, then `2026-02-14`, RFC 3339, and `today`.
pub(crate) fn parse_time(text: &str, now_ms: i64) -> Option<i64> {
    if text == "today" {
        return Some(now_ms - now_ms.rem_euclid(DAY_MS));
    }
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return match text.len() {
            13 => text.parse().ok(),
            9 | 10 => text.parse::<i64>().ok().map(|seconds| seconds * 1000),
            _ => None,
        };
    }
    match text.split_once(['T', 't', ' ']) {
        None => parse_date(text),
        Some((date, time)) => Some(parse_date(date)? + parse_time_of_day(time)?),
    }
}

/// Reads a duration such as `15m`, `1h30m`, `2d`, `500ms`; negative with a leading `-`. Gives milliseconds.
pub(crate) fn parse_duration(text: &str) -> Option<i64> {
    if let Some(positive) = text.strip_prefix('-') {
        return parse_duration(positive)
            .filter(|_| !positive.starts_with('-'))
            .map(|milliseconds| -milliseconds);
    }
    let mut rest = text;
    let mut total: i64 = 0;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let count: i64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let letters = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
        let unit_ms = match &rest[..letters] {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => DAY_MS,
            "w" => 7 * DAY_MS,
            _ => return None,
        };
        rest = &rest[letters..];
        total = total.checked_add(count.checked_mul(unit_ms)?)?;
    }
    (!text.is_empty()).then_some(total)
}

fn parse_date(text: &str) -> Option<i64> {
    let mut fields = text.split('-');
    let (year, month, day) = (fields.next()?, fields.next()?, fields.next()?);
    if fields.next().is_some() || year.len() != 4 || month.len() != 2 || day.len() != 2 {
        return None;
    }
    let (year, month, day): (i64, u32, u32) = (year.parse().ok()?, month.parse().ok()?, day.parse().ok()?);
    if !(1..=12).contains(&month) || day < 1 || day > days_of_month(year, month) {
        return None;
    }
    Some(days_from_date(year, month, day) * DAY_MS)
}

/// `12:34`, `12:34:56`, `12:34:56.789`, then `Z`, `+01:00` or nothing (UTC).
fn parse_time_of_day(text: &str) -> Option<i64> {
    let zone_at = text.find(['Z', 'z', '+', '-']).unwrap_or(text.len());
    let (clock, zone) = text.split_at(zone_at);
    let offset_ms = match zone {
        "" | "Z" | "z" => 0,
        zone => {
            let (hours, minutes) = zone[1..].split_once(':')?;
            let (hours, minutes) = (two_digits(hours, 23)?, two_digits(minutes, 59)?);
            let offset_ms = (hours * 60 + minutes) * 60_000;
            if zone.starts_with('-') { -offset_ms } else { offset_ms }
        }
    };
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, ""));
    let mut fields = clock.split(':');
    let hours = two_digits(fields.next()?, 23)?;
    let minutes = two_digits(fields.next()?, 59)?;
    let seconds = fields.next().map_or(Some(0), |seconds| two_digits(seconds, 59))?;
    if fields.next().is_some() || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let milliseconds: i64 = format!("{fraction:0<3}")[..3].parse().ok()?;
    Some(((hours * 60 + minutes) * 60 + seconds) * 1000 + milliseconds - offset_ms)
}

fn two_digits(text: &str, max: i64) -> Option<i64> {
    let number: i64 = text.parse().ok()?;
    (text.len() == 2 && (0..=max).contains(&number)).then_some(number)
}

/// The pattern of RFC 3339 in UTC with milliseconds.
pub(crate) const RFC3339: &str = "%Y-%m-%dT%H:%M:%S.%LZ";

/// Writes a timestamp by a pattern: `%Y %m %d %H %M %S %L` (ms) `%s` (epoch seconds) `%F` (date) `%T` (time) `%z` `%%`.
pub(crate) fn strftime(pattern: &str, timestamp_ms: i64) -> String {
    let days = timestamp_ms.div_euclid(DAY_MS);
    let of_day = timestamp_ms.rem_euclid(DAY_MS);
    let (year, month, day) = date_from_days(days);
    let (hour, minute, second) = (of_day / 3_600_000, of_day / 60_000 % 60, of_day / 1000 % 60);
    let mut text = String::new();
    let mut characters = pattern.chars();
    while let Some(character) = characters.next() {
        if character != '%' {
            text.push(character);
            continue;
        }
        match characters.next() {
            Some('Y') => text.push_str(&format!("{year:04}")),
            Some('m') => text.push_str(&format!("{month:02}")),
            Some('d') => text.push_str(&format!("{day:02}")),
            Some('H') => text.push_str(&format!("{hour:02}")),
            Some('M') => text.push_str(&format!("{minute:02}")),
            Some('S') => text.push_str(&format!("{second:02}")),
            Some('L') => text.push_str(&format!("{:03}", of_day % 1000)),
            Some('s') => text.push_str(&timestamp_ms.div_euclid(1000).to_string()),
            Some('F') => text.push_str(&format!("{year:04}-{month:02}-{day:02}")),
            Some('T') => text.push_str(&format!("{hour:02}:{minute:02}:{second:02}")),
            Some('z') => text.push_str("+0000"),
            Some('%') => text.push('%'),
            Some(other) => text.extend(['%', other]),
            None => text.push('%'),
        }
    }
    text
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_of_month(year: i64, month: u32) -> u32 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970-01-01 of a date in the proleptic Gregorian calendar. Years begin in March here, so that the leap
/// day is a year's last and needs no case of its own.
fn days_from_date(year: i64, month: u32, day: u32) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let month_from_march = i64::from((month + 9) % 12);
    let day_of_year = (153 * month_from_march + 2) / 5 + i64::from(day) - 1;
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    // 719,468 days lie between 0000-03-01 and 1970-01-01.
    year * 365 + leap_days + day_of_year - 719_468
}

fn date_from_days(days: i64) -> (i64, u32, u32) {
    // The year by estimate, which is at most one too large or too small, then by looking.
    let mut year = 1970 + days.div_euclid(365);
    while days_from_date(year, 1, 1) > days {
        year -= 1;
    }
    while days_from_date(year + 1, 1, 1) <= days {
        year += 1;
    }
    let mut month = 1;
    while month < 12 && days_from_date(year, month + 1, 1) <= days {
        month += 1;
    }
    let day = days - days_from_date(year, month, 1) + 1;
    (year, month, u32::try_from(day).unwrap_or(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-21T12:34:56.789Z
    const NOW_MS: i64 = 1_795_264_496_789;

    #[test]
    fn points_in_time_are_read() {
        let parse = |text| parse_time(text, NOW_MS);
        assert_eq!(parse("1795264496789"), Some(NOW_MS));
        assert_eq!(parse("1795264496"), Some(NOW_MS - 789));
        assert_eq!(parse("2026-11-21"), Some(1_795_219_200_000));
        assert_eq!(parse("today"), Some(1_795_219_200_000));
        assert_eq!(parse("2026-11-21T12:34:56.789Z"), Some(NOW_MS));
        assert_eq!(parse("2026-11-21T13:34:56.789+01:00"), Some(NOW_MS));
        assert_eq!(parse("2026-11-21T12:34"), Some(NOW_MS - 56_789));
        assert_eq!(parse("1969-12-31T23:59:59Z"), Some(-1000));
        assert_eq!(parse("2024-02-29"), Some(1_709_164_800_000));
        for wrong in [
            "",
            "2026-02-29",
            "2026-13-01",
            "26-01-01",
            "123",
            "2026-11-21T25:00",
            "yesterday",
            "2026-11-21T1:00",
        ] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn durations_are_read() {
        assert_eq!(parse_duration("15m"), Some(900_000));
        assert_eq!(parse_duration("-1h30m"), Some(-5_400_000));
        assert_eq!(parse_duration("2d500ms"), Some(2 * DAY_MS + 500));
        for wrong in ["", "-", "1", "h", "1y", "--1h", "99999999999999999w"] {
            assert_eq!(parse_duration(wrong), None, "{wrong}");
        }
    }

    fn rfc3339(timestamp_ms: i64) -> String {
        strftime(RFC3339, timestamp_ms)
    }

    #[test]
    fn timestamps_are_written_and_read_back() {
        assert_eq!(rfc3339(NOW_MS), "2026-11-21T12:34:56.789Z");
        assert_eq!(rfc3339(-1), "1969-12-31T23:59:59.999Z");
        assert_eq!(strftime("%F %T %% %s", 0), "1970-01-01 00:00:00 % 0");
        // Every 37th day and a bit over five centuries, leap years and all.
        for step in 0..5000i64 {
            let at = -7_000_000_000_000 + step * (37 * DAY_MS + 1_234_567);
            assert_eq!(parse_time(&rfc3339(at), 0), Some(at), "{}", rfc3339(at));
        }
    }
}
