//! Chains of errors: an error and its causes, as a sequence and as one line.

use std::error::Error;

/// Returns the error and all its causes, the outermost first.
pub fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

/// Formats the error and all its causes as one line, for a log or a message: `read the file: permission denied`.
#[must_use]
pub fn chain(error: &(dyn Error + 'static)) -> String {
    causes(error).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
