//! Cache of compiled `updateFilters`, which select the images of a repository that are checked for updates.

use std::{num::NonZeroUsize, sync::Arc};

use lru::LruCache;
use parking_lot::Mutex;
use regex::RegexSet;

use crate::controller::repository::update_filters::compile;

/// Maximum number of cached pattern lists.
const CAPACITY: NonZeroUsize = NonZeroUsize::new(256).expect("not zero");

/// LRU cache of compiled pattern lists.
pub(super) struct Filters(Mutex<LruCache<Vec<String>, Option<Arc<RegexSet>>>>);

impl Default for Filters {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(CAPACITY)))
    }
}

impl Filters {
    /// Returns whether one of the patterns is found in `image`. An empty list matches everything, an invalid list
    /// nothing.
    pub(super) fn matches(&self, patterns: &[String], image: &str) -> bool {
        if patterns.is_empty() {
            return true;
        }
        let mut known = self.0.lock();
        let compiled = known.get_or_insert(patterns.to_vec(), || match compile(patterns) {
            Ok(set) => Some(Arc::new(set)),
            Err(error) => {
                tracing::warn!(?patterns, %error, "invalid updateFilters, no image matches");
                None
            }
        });
        compiled.as_ref().is_some_and(|set| set.is_match(image))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_match_substrings_and_empty_list_matches_all() {
        let filters = Filters::default();
        let matches = |patterns: &[&str], image| {
            filters.matches(&patterns.iter().map(|&pattern| pattern.to_owned()).collect::<Vec<_>>(), image)
        };
        assert!(matches(&[], "nginx"));
        assert!(matches(&["^alpine", ":latest$"], "nginx:latest"));
        assert!(!matches(&["^alpine", ":latest$"], "nginx:1.25"));
        assert!(!matches(&["("], "nginx"));
    }
}
