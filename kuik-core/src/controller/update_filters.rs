//! `updateFilters` of a Repository: the patterns that say which of its images are checked again.

use regex::{RegexSet, RegexSetBuilder};

/// The most memory that a list of patterns may take.
const MAX_BYTES: usize = 1 << 20;

/// The patterns, to be searched for in an image.
///
/// # Errors
/// Where one of them is no regular expression, or they take too much memory: then none of them is believed.
pub(super) fn compile(patterns: &[String]) -> Result<RegexSet, regex::Error> {
    RegexSetBuilder::new(patterns).size_limit(MAX_BYTES).build()
}
