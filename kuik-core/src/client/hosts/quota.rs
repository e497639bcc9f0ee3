//! Rate limit quota from response headers: pure functions.
//!
//! Docker Hub sends `ratelimit-limit: 100;w=21600` and `ratelimit-remaining: 76;w=21600`. The drafts of the IETF's
//! "RateLimit header fields for HTTP" have those two with `ratelimit-reset`, then one field `RateLimit: limit=100,
//! remaining=50, reset=5`, then `RateLimit: "default";r=50;t=30` with `RateLimit-Policy: "default";q=100;w=60`. All of
//! them are parsed.

use std::time::Duration;

use http::HeaderMap;
use jiff::Timestamp;

/// A rate limit quota, as last reported by a registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Quota {
    /// Remaining requests.
    pub remaining: u64,
    /// Requests per window.
    pub limit: Option<u64>,
    /// The length of a window.
    pub window: Option<Duration>,
    /// The time until the quota resets.
    pub reset: Option<Duration>,
}

/// Parses the quota from the headers of a response received at `now`.
pub(super) fn quota(headers: &HeaderMap, now: Timestamp) -> Option<Quota> {
    combined(headers).or_else(|| separate(headers, now))
}

/// A number this large is not a duration (30 years) but a timestamp: GitLab sends the time of the reset.
const FIRST_TIMESTAMP: u64 = 1_000_000_000;

/// Returns the time until a reset, given in seconds or as a Unix timestamp.
fn reset(value: u64, now: Timestamp) -> Duration {
    match value {
        0..FIRST_TIMESTAMP => Duration::from_secs(value),
        date => Duration::from_secs(date.saturating_sub(u64::try_from(now.as_second()).unwrap_or_default())),
    }
}

/// Parses `RateLimit`, in its two forms. If it has several limits, the one with the fewest remaining requests counts.
fn combined(headers: &HeaderMap) -> Option<Quota> {
    let field = text(headers, "ratelimit")?;
    if field.contains("remaining=") {
        let (remaining, reset) = (parameter(field, "remaining")?, parameter(field, "reset"));
        let limit = parameter(field, "limit");
        return Some(Quota { remaining, limit, window: None, reset: reset.map(Duration::from_secs) });
    }
    let nearest = field.split(',').filter_map(|item| Some((parameter(item, "r")?, item))).min()?;
    let (remaining, item) = nearest;
    let name = item.split(';').next().unwrap_or_default().trim();
    let policy = text(headers, "ratelimit-policy").and_then(|policies| {
        policies.split(',').find(|policy| policy.split(';').next().unwrap_or_default().trim() == name)
    });
    let of_policy = |key| policy.and_then(|policy| parameter(policy, key));
    Some(Quota {
        remaining,
        limit: of_policy("q"),
        window: of_policy("w").map(Duration::from_secs),
        reset: parameter(item, "t").map(Duration::from_secs),
    })
}

/// Parses `RateLimit-Limit`, `RateLimit-Remaining` and `RateLimit-Reset`.
fn separate(headers: &HeaderMap, now: Timestamp) -> Option<Quota> {
    let remaining = text(headers, "ratelimit-remaining")?;
    let limit = text(headers, "ratelimit-limit");
    let window = limit.and_then(|limit| parameter(limit, "w")).or_else(|| parameter(remaining, "w"));
    Some(Quota {
        remaining: first_number(remaining)?,
        limit: limit.and_then(first_number),
        window: window.map(Duration::from_secs),
        reset: text(headers, "ratelimit-reset").and_then(first_number).map(|value| reset(value, now)),
    })
}

fn text<'a>(headers: &'a HeaderMap, name: &'static str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

fn first_number(text: &str) -> Option<u64> {
    text.split([';', ',']).next()?.trim().parse().ok()
}

/// Returns the value of `KEY=VALUE` in a list separated by commas and semicolons.
fn parameter(text: &str, key: &str) -> Option<u64> {
    let mut pairs = text.split([';', ',']).filter_map(|part| part.trim().split_once('='));
    pairs.find(|(name, _)| name.trim().eq_ignore_ascii_case(key))?.1.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quota_is_parsed_from_every_form_of_the_headers() {
        let seconds = |seconds: u64| Some(Duration::from_secs(seconds));
        for (fields, expected) in [
            // Docker Hub.
            (
                vec![("ratelimit-limit", "100;w=21600"), ("ratelimit-remaining", "76;w=21600")],
                Some((76, Some(100), seconds(21600), None)),
            ),
            // draft-ietf-httpapi-ratelimit-headers-03.
            (
                vec![
                    ("ratelimit-limit", "10, 10;w=1, 50;w=60"),
                    ("ratelimit-remaining", "0"),
                    ("ratelimit-reset", "7"),
                ],
                Some((0, Some(10), seconds(1), seconds(7))),
            ),
            // GitLab sends the reset as a timestamp.
            (
                vec![
                    ("ratelimit-limit", "60"),
                    ("ratelimit-remaining", "0"),
                    ("ratelimit-reset", "1800000042"),
                ],
                Some((0, Some(60), None, seconds(42))),
            ),
            // -07.
            (
                vec![("ratelimit", "limit=100, remaining=50, reset=5")],
                Some((50, Some(100), None, seconds(5))),
            ),
            // -08 and later.
            (
                vec![
                    ("ratelimit", r#""hour";r=900;t=1800, "burst";r=3;t=2"#),
                    ("ratelimit-policy", r#""burst";q=5;w=2, "hour";q=1000;w=3600"#),
                ],
                Some((3, Some(5), seconds(2), seconds(2))),
            ),
            (vec![("ratelimit", r#""default";r=50"#)], Some((50, None, None, None))),
            (vec![("ratelimit-limit", "100")], None),
            (vec![("ratelimit-remaining", "many")], None),
            (vec![("ratelimit-remaining", "-1")], None),
            (vec![("ratelimit", "")], None),
            (vec![], None),
        ] {
            let headers = fields.iter().map(|&(name, value)| {
                (http::HeaderName::from_static(name), value.parse::<http::HeaderValue>().unwrap())
            });
            let found = quota(&headers.collect(), Timestamp::from_second(1_800_000_000).unwrap());
            let found = found.map(|quota| (quota.remaining, quota.limit, quota.window, quota.reset));
            assert_eq!(found, expected, "{fields:?}");
        }
    }
}
