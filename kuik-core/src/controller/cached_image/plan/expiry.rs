//! Image expiry: a delay after the last pod stops using the image, unless it is retained.

use jiff::Timestamp;

use super::{Observed, time::after};

/// Decision about `spec.expiresAt`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expiry {
    /// Set to this date, or clear.
    Set(Option<Timestamp>),
    /// Leave at this date.
    Unchanged(Option<Timestamp>),
    /// The date has passed and the image is not needed.
    Expired,
}

/// Usage takes precedence over the date: an image that is used again is kept, however long past its expiry date. If
/// usage is unknown, nothing expires and no date is set.
pub(super) fn plan(observed: &Observed, now: Timestamp) -> Expiry {
    let date = observed.expires_at;
    let used = observed.usage.as_ref().map(|usage| usage.count > 0);
    match (observed.retain || used == Some(true), used, date) {
        (true, _, Some(_)) => Expiry::Set(None),
        (true, _, None) | (false, None, _) => Expiry::Unchanged(None),
        (false, Some(_), None) => Expiry::Set(Some(after(now, observed.settings.expiry_delay))),
        (false, Some(_), Some(date)) if date <= now => Expiry::Expired,
        (false, Some(_), Some(date)) => Expiry::Unchanged(Some(date)),
    }
}
