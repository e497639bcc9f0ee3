//! Expiry of images that no cluster manages: they go when they have not been pulled for a while.

use std::{
    collections::HashMap,
    time::{Duration, SystemTime},
};

use kuik_core::{content::SourceError, reference::RepositoryName};

use super::{Quota, evict::Cause, inventory::Inventory, push_recorder};

/// Bounds of the interval between two searches, each of which reads every manifest of the store.
const MIN_INTERVAL: Duration = Duration::from_secs(1);
const MAX_INTERVAL: Duration = Duration::from_secs(3600);

/// Pulls are recorded to the minute.
const RESOLUTION: Duration = Duration::from_secs(60);

/// When images expire that no cluster manages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct UnmanagedExpiry {
    /// Time since the last pull after which an image expires.
    pub after: Duration,
    /// Whether to skip repositories that a client has pushed to: pulled-through content can be fetched again, pushed
    /// content cannot.
    pub spares_pushed: bool,
}

impl UnmanagedExpiry {
    /// The expiry delay of controllers: 30 days.
    pub const DEFAULT_AFTER: Duration = Duration::from_secs(30 * 24 * 3600);

    /// Expiry `after` this time; repositories that clients push to are skipped.
    #[must_use]
    pub fn of_pulled_through(after: Duration) -> Self {
        Self { after, spares_pushed: true }
    }

    /// Expiry of all unmanaged images `after` this time, pushed or pulled through.
    #[must_use]
    pub fn of_everything(after: Duration) -> Self {
        Self { after, spares_pushed: false }
    }

    /// Returns the time from one search to the next.
    pub(super) fn interval(self) -> Duration {
        (self.after / 8).clamp(MIN_INTERVAL, MAX_INTERVAL)
    }

    /// Returns whether an image that was last pulled then has expired at `now`.
    fn is_over(self, last_pulled: SystemTime, now: SystemTime) -> bool {
        let over = self.after.checked_add(RESOLUTION).and_then(|after| last_pulled.checked_add(after));
        over.is_some_and(|over| over <= now)
    }
}

impl Quota {
    /// Removes the images that no cluster manages and that have expired. Does nothing while it is unknown which ones
    /// are managed.
    ///
    /// # Errors
    /// Fails if the store fails. Everything removed before that was due.
    pub async fn expire(&self, expiry: UnmanagedExpiry) -> Result<(), SourceError> {
        if !self.retention.is_loaded() {
            return Ok(());
        }
        let written_before = self.written_before();
        let (run, inventory) = self.inventory(written_before).await?;
        let chosen = self.expired(&inventory, expiry).await?;
        if chosen.is_empty() {
            return Ok(());
        }
        let bytes = self.remove(run, &inventory, &chosen, written_before, Cause::Age).await?;
        tracing::info!(bytes, "removed unmanaged images that were not pulled for long");
        Ok(())
    }

    /// Returns the places of the images that have expired.
    async fn expired(
        &self,
        inventory: &Inventory,
        expiry: UnmanagedExpiry,
    ) -> Result<Vec<usize>, SourceError> {
        let (now, mut pushed) = (self.retention.now(), HashMap::<&RepositoryName, bool>::new());
        let mut chosen = Vec::new();
        for (place, (image, candidate)) in inventory.images.iter().zip(&inventory.candidates).enumerate() {
            // Content that was just written ranks as kept.
            if !candidate.rank.is_unmanaged() || !expiry.is_over(candidate.last_pulled, now) {
                continue;
            }
            let is_pushed = match pushed.get(&image.repository) {
                Some(known) => *known,
                None if !expiry.spares_pushed => false,
                None => push_recorder::is_pushed(self.store.as_ref(), &image.repository).await?,
            };
            pushed.insert(&image.repository, is_pushed);
            if !is_pushed {
                chosen.push(place);
            }
        }
        Ok(chosen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn image_expires_after_the_time_and_not_if_the_clock_is_behind() {
        let (day, now) =
            (Duration::from_secs(24 * 3600), SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 31));
        let expiry = UnmanagedExpiry::of_pulled_through(30 * day);
        assert!(expiry.is_over(now - 31 * day, now));
        assert!(!expiry.is_over(now - 30 * day, now), "the pull may have been a minute later than recorded");
        assert!(!expiry.is_over(now + 400 * day, now));
        assert_eq!(expiry.interval(), MAX_INTERVAL);
        assert_eq!(UnmanagedExpiry::of_everything(Duration::ZERO).interval(), MIN_INTERVAL);
        assert!(!UnmanagedExpiry::of_everything(Duration::MAX).is_over(SystemTime::UNIX_EPOCH, now));
    }
}
