//! When an image goes: some time after the last pod that used it, unless it is retained.

use jiff::Timestamp;

use super::{Observed, time::after};

/// What becomes of `spec.expiresAt`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expiry {
    /// It is set to this, or cleared.
    Set(Option<Timestamp>),
    /// It stays as it is: this.
    Kept(Option<Timestamp>),
    /// The time is over, and nobody needs the image.
    Over,
}

/// Whether anybody needs the image is asked before the date is read: one that is used again is kept, however long ago
/// it should have gone. Where that is not known yet nothing expires and no date is set.
pub(super) fn plan(observed: &Observed, now: Timestamp) -> Expiry {
    let date = observed.expires_at;
    let used = observed.usage.as_ref().map(|usage| usage.count > 0);
    match (observed.retain || used == Some(true), used, date) {
        (true, _, Some(_)) => Expiry::Set(None),
        (true, _, None) | (false, None, _) => Expiry::Kept(None),
        (false, Some(_), None) => Expiry::Set(Some(after(now, observed.settings.expiry_delay))),
        (false, Some(_), Some(date)) if date <= now => Expiry::Over,
        (false, Some(_), Some(date)) => Expiry::Kept(Some(date)),
    }
}
