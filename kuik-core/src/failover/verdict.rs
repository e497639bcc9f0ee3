//! What a failure of one source means where there are others: pure rules.
//!
//! An origin's word is final where it is a word about the content or about who asks. Whatever a cache cannot give,
//! another source may have. Of several failures the client learns the one that tells it best what to do.

use crate::content::{SourceError, SourceErrorKind};

/// What a source is to the content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Role {
    /// It may have a copy: a cache, a mirror. What it lacks or refuses, the next source is asked for.
    Copy,
    /// It is where the content comes from: what it says does not exist does not exist.
    Origin,
}

/// What is done after a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The failure is the answer.
    Answer,
    /// The next source is asked.
    AskNext,
}

impl Role {
    /// What a failure of `kind` means, where a source in this role has it.
    #[must_use]
    pub fn verdict(self, kind: SourceErrorKind) -> Verdict {
        use SourceErrorKind as Kind;
        match (self, kind) {
            // What a digest names has one size, whoever has it.
            (_, Kind::RangeNotSatisfiable) => Verdict::Answer,
            (
                Self::Origin,
                Kind::NotFound | Kind::Unauthorized | Kind::Denied | Kind::Unsupported | Kind::Forbidden,
            ) => Verdict::Answer,
            _ => Verdict::AskNext,
        }
    }
}

/// The failure that is reported, of two; `later` is that of the source that was asked later.
#[must_use]
pub fn most_useful(earlier: Option<SourceError>, later: SourceError) -> SourceError {
    match earlier {
        Some(earlier) if usefulness(earlier.kind()) > usefulness(later.kind()) => earlier,
        _ => later,
    }
}

/// Whether a failure says that its source is away, or as good as that: nothing was heard, or not in time. Whoever
/// answers is there, whatever the answer.
#[must_use]
pub fn is_silence(error: &SourceError) -> bool {
    error.is_unreachable() || error.kind() == SourceErrorKind::TimedOut
}

/// Who may have the content and could not say is news that outweighs who said no; a wait that was told outweighs one
/// that has to be guessed.
fn usefulness(kind: SourceErrorKind) -> u8 {
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
    fn a_copy_that_fails_is_passed_over_and_an_origin_is_believed() {
        let answers = |role: Role| {
            ALL.into_iter().filter(|&kind| role.verdict(kind) == Verdict::Answer).collect::<Vec<_>>()
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
    fn the_most_useful_failure_is_reported() {
        let told = |earlier, later| {
            most_useful(Some(SourceError::new(earlier, "earlier")), SourceError::new(later, "later"))
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
            assert_eq!(told(earlier, later), expected, "{earlier:?} {later:?}");
        }
        assert_eq!(most_useful(None, SourceError::new(Kind::NotFound, "only")).to_string(), "only");
    }
}
