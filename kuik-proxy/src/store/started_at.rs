//! Start time of an upload, as Docker's registry writes it: RFC 3339, in whole seconds.

use std::{io, time::SystemTime};

pub(super) fn to_text(time: SystemTime) -> io::Result<String> {
    let second = jiff::Timestamp::try_from(time).map(jiff::Timestamp::as_second);
    let whole = second.and_then(jiff::Timestamp::from_second);
    whole.map(|whole| whole.to_string()).map_err(|error| io::Error::other(error.to_string()))
}

pub(super) fn from_text(text: &str) -> Option<SystemTime> {
    text.trim().parse::<jiff::Timestamp>().ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn times_are_written_as_dockers_registry_writes_them() {
        let time = SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_999);
        assert_eq!(to_text(time).unwrap(), "2023-11-14T22:13:20Z");
        let whole = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        assert_eq!(from_text("2023-11-14T22:13:20Z"), Some(whole));
        assert_eq!(from_text("2023-11-14T23:13:20+01:00\n"), Some(whole));
        assert_eq!(from_text("yesterday"), None);
    }
}
