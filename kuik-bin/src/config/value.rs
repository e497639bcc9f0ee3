//! The values that settings have: durations, switches, files.

use std::{fs, io, str::FromStr, time::Duration};

use kuik_proxy::server::BindAddress;

use super::Problems;

/// A file that a setting names cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {file}")]
pub(super) struct Unreadable {
    file: String,
    source: io::Error,
}

pub(super) fn read_file(file: &str) -> Result<Vec<u8>, Unreadable> {
    fs::read(file).map_err(|source| Unreadable { file: file.to_owned(), source })
}

/// A duration as Go and Kubernetes write it: `90s`, `5m`, `1h30m`.
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

/// A switch: `true` or `false`.
pub(super) fn switch(key: &str, text: Option<&str>, default: bool, problems: &mut Problems) -> bool {
    parsed(key, text, default, "true or false", problems)
}

/// An address, or none where it is `0`.
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

/// Anything that reads itself; `expected` says what that is.
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
