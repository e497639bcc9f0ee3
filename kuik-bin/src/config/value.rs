//! Parsers of setting values: durations, booleans, addresses, files.

use std::{fs, io, str::FromStr, time::Duration};

use kuik_proxy::serve::BindAddress;

use super::Problems;

/// A file named by a setting cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {file}")]
pub(super) struct Unreadable {
    file: String,
    source: io::Error,
}

pub(super) fn read_file(file: &str) -> Result<Vec<u8>, Unreadable> {
    fs::read(file).map_err(|source| Unreadable { file: file.to_owned(), source })
}

/// Parses a Go duration: `90s`, `5m`, `1h30m`.
pub(super) fn duration(
    key: &str,
    text: Option<&str>,
    default: Duration,
    problems: &mut Problems,
) -> Duration {
    let Some(text) = text else { return default };
    let span = text.parse::<jiff::SignedDuration>().ok().and_then(|span| Duration::try_from(span).ok());
    span.unwrap_or_else(|| {
        problems.add(key, format_args!("{text:?} is not a duration such as 90s, 5m or 1h30m"));
        default
    })
}

/// Parses a boolean: `true` or `false`.
pub(super) fn switch(key: &str, text: Option<&str>, default: bool, problems: &mut Problems) -> bool {
    parsed(key, text, default, "true or false", problems)
}

/// Parses an address; returns `None` for `0`.
pub(super) fn address(
    key: &str,
    text: Option<&str>,
    default: &str,
    problems: &mut Problems,
) -> Option<BindAddress> {
    match text.unwrap_or(default) {
        "0" => None,
        text => problems.check(key, BindAddress::from_str(text)),
    }
}

/// Parses any `FromStr` type; `expected` describes it in the error.
pub(super) fn parsed<T: FromStr>(
    key: &str,
    text: Option<&str>,
    default: T,
    expected: &str,
    problems: &mut Problems,
) -> T {
    let Some(text) = text else { return default };
    text.parse().unwrap_or_else(|_| {
        problems.add(key, format_args!("{text:?} is not {expected}"));
        default
    })
}
