//! For how long a host is not asked any more, because it said so: a pure function over its answers.

use std::time::Duration;

use http::StatusCode;

use super::Quota;

/// How long a host is left alone at first that says "too many requests" and not for how long.
const FIRST: Duration = Duration::from_secs(10);
/// What that grows to, doubling with each time that it says so again.
const MOST_GUESSED: Duration = Duration::from_secs(300);
/// The longest that a host is left alone that says "not now".
const MOST_UNAVAILABLE: Duration = Duration::from_secs(300);

/// For how long nothing more of the kind is asked of a host after an answer. `told` is what its `Retry-After` says,
/// `before` how long it was left alone last, where no good answer came since. However long it says, one request is
/// made after `longest`, to see.
pub(super) fn hold(
    status: StatusCode,
    told: Option<Duration>,
    quota: Option<&Quota>,
    before: Option<Duration>,
    longest: Duration,
) -> Option<Duration> {
    let exhausted = quota.filter(|quota| quota.remaining == 0).and_then(|quota| quota.reset);
    let wait = match status {
        StatusCode::TOO_MANY_REQUESTS => told
            .or(exhausted)
            .unwrap_or_else(|| before.map_or(FIRST, |before| before.saturating_mul(2).min(MOST_GUESSED))),
        StatusCode::SERVICE_UNAVAILABLE => told?.min(MOST_UNAVAILABLE),
        _ => exhausted?,
    };
    Some(wait.min(longest)).filter(|wait| !wait.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_host_says_is_obeyed() {
        const HOUR: u64 = 3600;
        let quota = |remaining, reset: Option<u64>| Quota {
            remaining,
            limit: None,
            window: None,
            reset: reset.map(Duration::from_secs),
        };
        for (status, told, left, before, expected) in [
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
            let wait = hold(status, told.map(seconds), left.as_ref(), before.map(seconds), seconds(HOUR));
            assert_eq!(wait.map(|wait| wait.as_secs()), expected, "{status} {told:?} {left:?} {before:?}");
        }
    }
}
