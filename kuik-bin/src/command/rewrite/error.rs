//! Error of a manifest, with its position.

use std::fmt;

/// A position in a manifest, as editors show it: in characters, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) line: usize,
    pub(super) column: usize,
}

/// A manifest that cannot be parsed, or cannot be edited without a risk of changing more than its images.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{at}: {problem}")]
pub(super) struct BadManifest {
    pub(super) at: Position,
    pub(super) problem: String,
}

impl Position {
    pub(super) const START: Self = Self { line: 1, column: 1 };

    pub(super) fn bad(self, problem: impl Into<String>) -> BadManifest {
        BadManifest { at: self, problem: problem.into() }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}
