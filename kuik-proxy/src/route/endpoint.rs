//! Split of a `/v2/` path into its segments, shared by reads and writes.

use std::borrow::Cow;

use kuik_core::{
    content::{Digest, TagOrDigest},
    reference::RepositoryName,
};

use super::{Names, Parameters, RouteError};

/// Maximum length of a path and of a query, in bytes: a name has at most 255, a digest 136.
pub(super) const MAX_BYTES: usize = 2048;

/// `/v2/NAME/KIND/LAST`: repository, kind of content, and its reference. Nothing is validated yet.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Endpoint<'a> {
    pub(crate) name: &'a str,
    pub(crate) kind: &'a str,
    pub(crate) last: &'a str,
    pub(crate) parameters: Parameters<'a>,
}

impl<'a> Endpoint<'a> {
    /// Splits a path; `None` is `/v2/` itself.
    ///
    /// # Errors
    /// Fails if it is not a path below `/v2/`, or is longer than any valid one.
    pub(crate) fn read(path: &'a str, query: Option<&'a str>) -> Result<Option<Self>, RouteError> {
        if path.len() > MAX_BYTES || query.is_some_and(|query| query.len() > MAX_BYTES) {
            return Err(RouteError::TooLong);
        }
        let rest = match path.strip_prefix("/v2") {
            Some("" | "/") => return Ok(None),
            Some(rest) => rest.strip_prefix('/').ok_or(RouteError::NoEndpoint)?,
            None => return Err(RouteError::NoEndpoint),
        };
        let (head, last) = rest.rsplit_once('/').ok_or(RouteError::NoEndpoint)?;
        let (name, kind) = head.rsplit_once('/').ok_or(RouteError::NoEndpoint)?;
        Ok(Some(Self { name, kind, last, parameters: Parameters::new(query) }))
    }

    /// Returns the named repository.
    pub(crate) fn repository(&self, names: Names) -> Result<RepositoryName, RouteError> {
        names.repository(self.name, self.parameters.get("ns")?.as_deref())
    }
}

pub(crate) fn tag_or_digest(text: &str) -> Result<TagOrDigest, RouteError> {
    if text.contains(':') || text.contains('%') {
        return digest(text).map(TagOrDigest::Digest);
    }
    text.parse().map(TagOrDigest::Tag).map_err(|_| RouteError::Tag(shortened(text)))
}

/// Maximum length of a digest, in bytes: twice what any algorithm in use needs. The grammar has no bound.
const MAX_DIGEST_BYTES: usize = 256;

/// Some clients write the colon of a digest as `%3A`.
pub(crate) fn digest(text: &str) -> Result<Digest, RouteError> {
    let decoded = match text.split_once("%3A").or_else(|| text.split_once("%3a")) {
        Some((algorithm, encoded)) => Cow::Owned(format!("{algorithm}:{encoded}")),
        None => Cow::Borrowed(text),
    };
    if decoded.len() > MAX_DIGEST_BYTES {
        let problem = format!("longer than {MAX_DIGEST_BYTES} bytes");
        return Err(RouteError::Digest(shortened(text), problem));
    }
    decoded.parse().map_err(|error| RouteError::Digest(shortened(text), format!("{error}")))
}

/// Shortens an invalid text for an error message.
fn shortened(text: &str) -> String {
    text.chars().take(80).collect()
}
