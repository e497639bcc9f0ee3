//! Why a manifest cannot be rewritten, and where.

use std::fmt;

/// A place in a manifest's text, as editors count: from 1, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) line: usize,
    pub(super) column: usize,
}

/// A manifest that cannot be read, or not be edited without a risk of changing more than its images.
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
