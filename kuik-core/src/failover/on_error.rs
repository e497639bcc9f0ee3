//! Error handling across several sources: return the error or try the next source.
//!
//! An error of the origin is final if it concerns the content or the client. After any other error, another source may
//! still have the content. If several sources fail, the client gets the most actionable error.

use crate::content::{SourceError, SourceErrorKind};

/// Role of a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Role {
    /// A cache or mirror that may have a copy. If it lacks or denies content, the next source is tried.
    Copy,
    /// The authoritative registry of the content: its 404 is final.
    Origin,
}

/// Action after a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnError {
    /// Return the error.
    Return,
    /// Try the next source.
    TryNext,
}

impl Role {
    /// Returns the action after an error of `kind` from a source in this role.
    #[must_use]
    pub fn on_error(self, kind: SourceErrorKind) -> OnError {
        use SourceErrorKind as Kind;
        match (self, kind) {
            // The content of a digest has the same size at every source.
            (_, Kind::RangeNotSatisfiable) => OnError::Return,
            (
                Self::Origin,
                Kind::NotFound | Kind::Unauthorized | Kind::Denied | Kind::Unsupported | Kind::Forbidden,
            ) => OnError::Return,
            _ => OnError::TryNext,
        }
    }
}

/// Returns the more actionable of two errors; `later` is that of the source that was tried later.
#[must_use]
pub fn most_actionable(earlier: Option<SourceError>, later: SourceError) -> SourceError {
    match earlier {
        Some(earlier) if actionability(earlier.kind()) > actionability(later.kind()) => earlier,
        _ => later,
    }
}

/// Whether an error means that its source is unresponsive: no response, or not in time. A source that responds, even
/// with an error, is responsive.
#[must_use]
pub fn is_unresponsive(error: &SourceError) -> bool {
    error.is_unreachable() || error.kind() == SourceErrorKind::TimedOut
}

/// Ranks errors: a source that may have the content but failed outweighs one that denied it; a known wait outweighs an
/// unknown one.
fn actionability(kind: SourceErrorKind) -> u8 {
    use SourceErrorKind as Kind;
    match kind {
        Kind::NotFound => 0,
        Kind::Unsupported => 1,
        Kind::Unauthorized | Kind::Denied | Kind::Forbidden => 2,
        Kind::InvalidContent | Kind::Storage => 3,
        Kind::Unavailable | Kind::TimedOut => 4,
        Kind::RateLimited => 5,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use SourceErrorKind as Kind;

    use super::*;

    const ALL: [Kind; 11] = [
        Kind::NotFound,
        Kind::Unauthorized,
        Kind::Denied,
        Kind::RateLimited,
        Kind::Unavailable,
        Kind::TimedOut,
        Kind::InvalidContent,
        Kind::Unsupported,
        Kind::RangeNotSatisfiable,
        Kind::Forbidden,
        Kind::Storage,
    ];

    #[test]
    fn on_error_tries_next_after_copy_and_returns_final_origin_errors() {
        let answers = |role: Role| {
            ALL.into_iter().filter(|&kind| role.on_error(kind) == OnError::Return).collect::<Vec<_>>()
        };
        assert_eq!(answers(Role::Copy), [Kind::RangeNotSatisfiable]);
        assert_eq!(
            answers(Role::Origin),
            [
                Kind::NotFound,
                Kind::Unauthorized,
                Kind::Denied,
                Kind::Unsupported,
                Kind::RangeNotSatisfiable,
                Kind::Forbidden
            ]
        );
    }

    #[test]
    fn most_actionable_error_is_reported() {
        let reported = |earlier, later| {
            most_actionable(Some(SourceError::new(earlier, "earlier")), SourceError::new(later, "later"))
                .to_string()
        };
        for (earlier, later, expected) in [
            // The cache lacks it, and the origin is down: try again, not "it does not exist".
            (Kind::NotFound, Kind::Unavailable, "later"),
            (Kind::Unavailable, Kind::NotFound, "earlier"),
            (Kind::Unauthorized, Kind::TimedOut, "later"),
            (Kind::RateLimited, Kind::Unavailable, "earlier"),
            (Kind::Unavailable, Kind::TimedOut, "later"),
            (Kind::Storage, Kind::NotFound, "earlier"),
        ] {
            assert_eq!(reported(earlier, later), expected, "{earlier:?} {later:?}");
        }
        assert_eq!(most_actionable(None, SourceError::new(Kind::NotFound, "only")).to_string(), "only");
    }
}
