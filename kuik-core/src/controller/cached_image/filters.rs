//! The patterns that say which images of a repository are checked again, compiled once.

use std::{
    num::NonZeroUsize,
    sync::{Arc, Mutex, PoisonError},
};

use lru::LruCache;
use regex::RegexSet;

use crate::controller::update_filters::compile;

/// How many lists of patterns are kept.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(256).expect("not zero");

/// Compiled lists of patterns.
pub(super) struct Filters(Mutex<LruCache<Vec<String>, Option<Arc<RegexSet>>>>);

impl Default for Filters {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(REMEMBERED)))
    }
}

impl Filters {
    /// Whether one of the patterns is found in `image`; none at all means that it is. A list with a mistake in it
    /// matches nothing.
    pub(super) fn matches(&self, patterns: &[String], image: &str) -> bool {
        if patterns.is_empty() {
            return true;
        }
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let compiled = known.get_or_insert(patterns.to_vec(), || match compile(patterns) {
            Ok(set) => Some(Arc::new(set)),
            Err(error) => {
                tracing::warn!(?patterns, %error, "updateFilters has a mistake: no image of it is checked again");
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
    fn patterns_are_searched() {
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
