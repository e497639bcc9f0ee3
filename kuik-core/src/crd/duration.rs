//! Go durations: `1h30m`, `1.5h`, `45s`, `250ms`.
//!
//! The format is exactly that of kuik 1.x: a sequence of numbers, each with a unit.

use std::time::Duration;

/// Units with their nanoseconds, longer ones before their prefixes.
const UNITS: [(&str, f64); 8] = [
    ("ns", 1.0),
    ("us", 1e3),
    ("\u{b5}s", 1e3),
    ("\u{3bc}s", 1e3),
    ("ms", 1e6),
    ("s", 1e9),
    ("m", 60e9),
    ("h", 3600e9),
];

/// Pattern of valid durations, for the schema.
pub(super) const PATTERN: &str = "^[+]?(0|(([0-9]+[.]?[0-9]*|[.][0-9]+)(ns|us|\u{b5}s|\u{3bc}s|ms|s|m|h))+)$";

/// Parses a duration; `None` if invalid, negative or out of range (292 years in Go).
pub(super) fn parse(text: &str) -> Option<Duration> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    if rest.is_empty() {
        return None;
    }
    let mut nanoseconds = 0.0;
    while !rest.is_empty() {
        let end = rest.find(|character: char| !character.is_ascii_digit() && character != '.')?;
        let (number, behind) = rest.split_at(end);
        let (unit, length) = UNITS.iter().find(|(unit, _)| behind.starts_with(unit))?;
        nanoseconds += number.parse::<f64>().ok()? * length;
        rest = behind.strip_prefix(unit)?;
    }
    (nanoseconds <= i64::MAX as f64).then(|| Duration::from_nanos(nanoseconds.round() as u64))
}

#[cfg(test)]
mod tests {
    use regex::Regex;

    use super::*;

    #[test]
    fn parse_matches_go_and_the_schema_pattern() {
        let pattern = Regex::new(PATTERN).unwrap();
        let milliseconds = Duration::from_millis;
        for (text, span) in [
            ("1h30m", milliseconds(5_400_000)),
            ("24h0m0s", milliseconds(86_400_000)),
            ("1.5h30m", milliseconds(7_200_000)),
            ("45s", milliseconds(45_000)),
            (".5s", milliseconds(500)),
            ("1.s", milliseconds(1000)),
            ("+250ms", milliseconds(250)),
            ("3us", Duration::from_micros(3)),
            ("3\u{b5}s", Duration::from_micros(3)),
            ("3\u{3bc}s4ns", Duration::from_nanos(3004)),
            ("0", Duration::ZERO),
            ("0s", Duration::ZERO),
        ] {
            assert_eq!(parse(text), Some(span), "{text}");
            assert!(pattern.is_match(text), "{text}");
        }
        for text in
            ["", "+", "5", "s", ".s", "-1h", "1h 30m", "1d", "PT1H", "1..5h", "1h30", "often", "1e3s", "00"]
        {
            assert_eq!(parse(text), None, "{text}");
            assert!(!pattern.is_match(text), "{text}");
        }
        assert_eq!(parse("9999999h"), None, "out of range in Go too");
    }
}
