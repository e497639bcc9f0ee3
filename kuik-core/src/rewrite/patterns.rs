//! Ignore and accept patterns for images: RE2-style regular expressions, compiled once.
//!
//! Invariant: an [`ImagePatterns`] holds only valid patterns. All invalid ones of a configuration are reported at once,
//! each with its text and the position of the error.

use std::{error::Error, fmt, sync::Arc};

use regex::RegexSet;

/// Patterns that are searched in an image as written, anywhere in it unless anchored by `^` or `$`.
#[derive(Debug, Clone, Default)]
pub struct ImagePatterns {
    ignore: Patterns,
    accept: Patterns,
}

#[derive(Debug, Clone, Default)]
struct Patterns {
    set: RegexSet,
    texts: Vec<Arc<str>>,
}

/// The list of a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PatternList {
    /// Matching images are not rewritten.
    Ignore,
    /// Images that match none are not rewritten.
    Accept,
}

/// All patterns of a configuration that are not valid regular expressions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidPatterns(Vec<BadPattern>);

/// A pattern that is not a valid regular expression.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct BadPattern {
    /// Its list.
    pub list: PatternList,
    /// The pattern.
    pub text: String,
    /// Byte offset of the error; 0 if the whole pattern is too large.
    pub at: usize,
    /// The error.
    pub problem: String,
}

impl ImagePatterns {
    /// Compiles the patterns of both lists.
    ///
    /// # Errors
    /// If patterns are invalid; lists all of them.
    pub fn new<I, A>(ignore: &[I], accept: &[A]) -> Result<Self, InvalidPatterns>
    where
        I: AsRef<str>,
        A: AsRef<str>,
    {
        match (Patterns::compile(PatternList::Ignore, ignore), Patterns::compile(PatternList::Accept, accept))
        {
            (Ok(ignore), Ok(accept)) => Ok(Self { ignore, accept }),
            (ignore, accept) => {
                Err(InvalidPatterns([ignore.err(), accept.err()].into_iter().flatten().flatten().collect()))
            }
        }
    }

    /// Returns the first ignore pattern that matches `image`.
    #[must_use]
    pub fn ignoring(&self, image: &str) -> Option<Arc<str>> {
        let index = self.ignore.set.matches(image).iter().next()?;
        self.ignore.texts.get(index).cloned()
    }

    /// Returns true if an accept pattern matches `image`, or none is configured.
    #[must_use]
    pub fn accepts(&self, image: &str) -> bool {
        self.accept.set.is_empty() || self.accept.set.is_match(image)
    }
}

impl Patterns {
    fn compile(list: PatternList, texts: &[impl AsRef<str>]) -> Result<Self, Vec<BadPattern>> {
        let texts: Vec<Arc<str>> = texts.iter().map(|text| text.as_ref().into()).collect();
        let bad: Vec<_> = texts.iter().filter_map(|text| BadPattern::find_in(list, text)).collect();
        if !bad.is_empty() {
            return Err(bad);
        }
        // Each pattern compiles on its own; only the set can be too large.
        let set = RegexSet::new(texts.iter().map(AsRef::as_ref)).map_err(|error| {
            vec![BadPattern { list, text: texts.join(" "), at: 0, problem: error.to_string() }]
        })?;
        Ok(Self { set, texts })
    }
}

impl BadPattern {
    fn find_in(list: PatternList, text: &str) -> Option<Self> {
        let (at, problem) = match regex_syntax::parse(text) {
            Err(regex_syntax::Error::Parse(error)) => (error.span().start.offset, error.kind().to_string()),
            Err(regex_syntax::Error::Translate(error)) => {
                (error.span().start.offset, error.kind().to_string())
            }
            // Well-formed, but perhaps too large: only the compiler detects that, without a position.
            Ok(_) | Err(_) => (0, regex::Regex::new(text).err()?.to_string()),
        };
        Some(Self { list, text: text.to_owned(), at, problem })
    }
}

impl InvalidPatterns {
    /// Returns the invalid patterns in configuration order, ignore patterns first.
    #[must_use]
    pub fn patterns(&self) -> &[BadPattern] {
        &self.0
    }
}

impl fmt::Display for BadPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = match self.list {
            PatternList::Ignore => "ignore",
            PatternList::Accept => "accept",
        };
        write!(f, "invalid {list} pattern {:?} at byte {}: {}", self.text, self.at, self.problem)
    }
}

impl fmt::Display for InvalidPatterns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, pattern) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(f, "{separator}{pattern}")?;
        }
        Ok(())
    }
}

impl Error for InvalidPatterns {}
