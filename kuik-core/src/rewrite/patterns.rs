//! The patterns that say which images are left alone: RE2-style regular expressions, compiled once.
//!
//! Invariant: an [`ImagePatterns`] holds valid patterns only. All bad ones of a configuration are reported at once,
//! each with its text and where in it the mistake is.

use std::{error::Error, fmt, sync::Arc};

use regex::RegexSet;

/// Patterns that are searched in an image as it is written, anywhere in it where they have no `^` or `$`.
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

/// Which of the two lists a pattern is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PatternList {
    /// Images that match are kept.
    Ignore,
    /// Images that do not match are kept.
    Accept,
}

/// Patterns that are not regular expressions: all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidPatterns(Vec<BadPattern>);

/// A pattern that is not a regular expression.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct BadPattern {
    /// The list that it is in.
    pub list: PatternList,
    /// The pattern.
    pub text: String,
    /// The byte of the pattern where the mistake begins; 0 where all of it is too large.
    pub at: usize,
    /// What the mistake is.
    pub problem: String,
}

impl ImagePatterns {
    /// Compiles the patterns of both lists.
    ///
    /// # Errors
    /// Where patterns are bad: names every one of them.
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

    /// The first ignore pattern that matches `image`.
    #[must_use]
    pub fn ignoring(&self, image: &str) -> Option<Arc<str>> {
        let index = self.ignore.set.matches(image).iter().next()?;
        self.ignore.texts.get(index).cloned()
    }

    /// Whether an accept pattern matches `image`, or there is none.
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
        // Each pattern compiles by itself; only all together can be too large.
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
            // Well formed, but perhaps too large: the compiler knows, and has no position to tell.
            Ok(_) | Err(_) => (0, regex::Regex::new(text).err()?.to_string()),
        };
        Some(Self { list, text: text.to_owned(), at, problem })
    }
}

impl InvalidPatterns {
    /// The bad patterns, in the order of the configuration, those to ignore first.
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
        write!(f, "the {list} pattern {:?} is wrong at byte {}: {}", self.text, self.at, self.problem)
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
