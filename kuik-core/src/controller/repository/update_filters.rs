//! `updateFilters` of a Repository: patterns that select the images to check for updates.

use regex::{RegexSet, RegexSetBuilder};

/// Maximum memory of a compiled list.
const MAX_BYTES: usize = 1 << 20;

/// Compiles the patterns.
///
/// # Errors
/// Returns an error if a pattern is invalid or they take too much memory; then none of them applies.
pub(crate) fn compile(patterns: &[String]) -> Result<RegexSet, regex::Error> {
    RegexSetBuilder::new(patterns).size_limit(MAX_BYTES).build()
}
