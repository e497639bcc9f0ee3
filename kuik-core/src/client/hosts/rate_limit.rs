//! Rate limit windows: how long requests pause after a response. A pure function.

use std::time::Duration;

use http::StatusCode;

use super::Quota;

/// The first pause after a 429 without `Retry-After`.
const FIRST_PAUSE: Duration = Duration::from_secs(10);
/// The longest such pause; it doubles with each further 429.
const MAX_DEFAULT_PAUSE: Duration = Duration::from_secs(300);
/// The longest pause after a 503.
const MAX_UNAVAILABLE_PAUSE: Duration = Duration::from_secs(300);

/// Returns the pause after a response. `retry_after` is its `Retry-After`; `before` is the previous pause, if there was no
/// success since. After at most `longest`, one request is sent to see whether the limit still applies.
pub(super) fn pause(
    status: StatusCode,
    retry_after: Option<Duration>,
    quota: Option<&Quota>,
    before: Option<Duration>,
    longest: Duration,
) -> Option<Duration> {
    let exhausted = quota.filter(|quota| quota.remaining == 0).and_then(|quota| quota.reset);
    let wait = match status {
        StatusCode::TOO_MANY_REQUESTS => retry_after.or(exhausted).unwrap_or_else(|| {
            before.map_or(FIRST_PAUSE, |before| before.saturating_mul(2).min(MAX_DEFAULT_PAUSE))
        }),
        StatusCode::SERVICE_UNAVAILABLE => retry_after?.min(MAX_UNAVAILABLE_PAUSE),
        _ => exhausted?,
    };
    Some(wait.min(longest)).filter(|wait| !wait.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pause_follows_the_response() {
        const HOUR: u64 = 3600;
        let quota = |remaining, reset: Option<u64>| Quota {
            remaining,
            limit: None,
            window: None,
            reset: reset.map(Duration::from_secs),
        };
        for (status, retry_after, left, before, expected) in [
            (429, Some(30), None, None, Some(30)),
            (429, Some(0), None, None, None),
            (429, Some(7 * HOUR), None, None, Some(HOUR)),
            (429, None, None, None, Some(10)),
            (429, None, None, Some(10), Some(20)),
            (429, None, None, Some(200), Some(300)),
            (429, None, Some(quota(0, Some(60))), None, Some(60)),
            (429, Some(5), Some(quota(0, Some(60))), None, Some(5)),
            (429, None, Some(quota(0, None)), None, Some(10)),
            (503, Some(3), None, None, Some(3)),
            (503, Some(HOUR), None, None, Some(300)),
            (503, None, None, Some(10), None),
            (200, None, Some(quota(0, Some(60))), None, Some(60)),
            (200, None, Some(quota(1, Some(60))), None, None),
            (200, None, Some(quota(0, None)), None, None),
            (500, Some(30), None, None, None),
            (200, None, None, Some(10), None),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            let seconds = |seconds: u64| Duration::from_secs(seconds);
            let wait =
                pause(status, retry_after.map(seconds), left.as_ref(), before.map(seconds), seconds(HOUR));
            assert_eq!(
                wait.map(|wait| wait.as_secs()),
                expected,
                "{status} {retry_after:?} {left:?} {before:?}"
            );
        }
    }
}
