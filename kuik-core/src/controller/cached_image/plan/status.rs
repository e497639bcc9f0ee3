//! Status of a CachedImage, in plain types.

use jiff::Timestamp;

use super::{PodUsage, Transfer};
use crate::crd::CachedImagePhase;

/// `status`, as read or as to be written.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct Status {
    /// `isCached`.
    pub is_cached: Option<bool>,
    /// `phase`.
    pub phase: Option<CachedImagePhase>,
    /// `usedBy`.
    pub used_by: Option<PodUsage>,
    /// `size`, in bytes.
    pub size: Option<u64>,
    /// `progress`.
    pub progress: Option<Transfer>,
    /// `digest`, in hex.
    pub digest: Option<String>,
    /// `upstreamDigest`, in hex.
    pub upstream_digest: Option<String>,
    /// `upToDate`.
    pub up_to_date: Option<bool>,
    /// `lastSync`.
    pub last_sync: Option<Timestamp>,
    /// `lastSuccessfulPull`.
    pub last_successful_pull: Option<Timestamp>,
    /// `availableUpstream`.
    pub available_upstream: Option<bool>,
    /// `lastSeenUpstream`.
    pub last_seen_upstream: Option<Timestamp>,
    /// `observedGeneration`.
    pub observed_generation: Option<i64>,
    /// The condition `Ready`.
    pub ready: Option<Readiness>,
}

/// The condition `Ready`. The writer maintains its transition time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Readiness {
    /// Whether the image is in the cache.
    pub is: bool,
    /// Machine-readable reason.
    pub reason: String,
    /// Human-readable message.
    pub message: String,
}

impl Status {
    /// Returns whether the status reports the image as cached.
    #[must_use]
    pub fn says_cached(&self) -> bool {
        self.is_cached == Some(true)
    }

    pub(super) fn ready(&mut self, reason: &str, message: impl Into<String>) {
        let is = self.says_cached();
        self.ready = Some(Readiness { is, reason: reason.to_owned(), message: message.into() });
    }
}
