//! A request's path and query, and what they ask for: pure, and the first thing that hostile input meets.
//!
//! The paths are those of the OCI distribution specification, section "Endpoints". A repository is named in one of
//! two ways: in the path, as the webhook rewrites images (`/v2/docker.io/library/nginx/…`), or by the path and a
//! `ns` parameter, as containerd names it when it is told of a mirror (`/v2/library/nginx/…?ns=docker.io`).

use std::borrow::Cow;

use kuik_core::{
    content::{Digest, TagOrDigest, TagPage},
    reference::{PortForms, RepositoryName, decode_path},
};

/// The longest path and the longest query that are read, in bytes: a name has at most 255, a digest 136.
const MAX_BYTES: usize = 2048;

/// What a request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Route {
    /// Whether this is a registry (`/v2/`).
    Version,
    /// A manifest.
    Manifest {
        /// The repository.
        repository: RepositoryName,
        /// Which of its manifests.
        at: TagOrDigest,
    },
    /// A blob.
    Blob {
        /// The repository.
        repository: RepositoryName,
        /// Which of its blobs.
        digest: Digest,
    },
    /// The tags of a repository.
    Tags {
        /// The repository.
        repository: RepositoryName,
        /// Which of its tags.
        page: TagPage,
    },
    /// The referrers of a manifest.
    Referrers {
        /// The repository.
        repository: RepositoryName,
        /// The manifest that is referred to.
        digest: Digest,
        /// Only those of this type.
        artifact_type: Option<String>,
    },
}

/// Why a request asks for nothing that exists here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RouteError {
    /// No endpoint has such a path.
    #[error("there is no such endpoint")]
    NoEndpoint,
    /// The path or the query is longer than any valid one.
    #[error("the path or the query is longer than {MAX_BYTES} bytes")]
    TooLong,
    /// The repository's name is not valid.
    #[error("the repository's name is not valid: {0}")]
    Name(String),
    /// The tag is not valid.
    #[error("{0:?} is neither a tag nor a digest")]
    Tag(String),
    /// The digest is not valid.
    #[error("{0:?} is not a digest: {1}")]
    Digest(String, String),
    /// A query parameter is not valid.
    #[error("the parameter {0} is not valid")]
    Parameter(&'static str),
}

impl Route {
    /// Reads a path and a query.
    ///
    /// # Errors
    /// Where they name no endpoint, or name something that cannot exist.
    pub fn parse(path: &str, query: Option<&str>, ports: PortForms) -> Result<Self, RouteError> {
        if path.len() > MAX_BYTES || query.is_some_and(|query| query.len() > MAX_BYTES) {
            return Err(RouteError::TooLong);
        }
        let rest = match path.strip_prefix("/v2") {
            Some("" | "/") => return Ok(Self::Version),
            Some(rest) => rest.strip_prefix('/').ok_or(RouteError::NoEndpoint)?,
            None => return Err(RouteError::NoEndpoint),
        };
        let (head, last) = rest.rsplit_once('/').ok_or(RouteError::NoEndpoint)?;
        let (name, kind) = head.rsplit_once('/').ok_or(RouteError::NoEndpoint)?;
        let parameters = Parameters(query.unwrap_or_default());
        match (kind, last) {
            ("manifests", at) => Ok(Self::Manifest {
                repository: repository(name, &parameters, ports)?,
                at: tag_or_digest(at)?,
            }),
            ("blobs", text) => {
                Ok(Self::Blob { repository: repository(name, &parameters, ports)?, digest: digest(text)? })
            }
            ("tags", "list") => Ok(Self::Tags {
                repository: repository(name, &parameters, ports)?,
                page: TagPage {
                    limit: match parameters.get("n")? {
                        Some(n) => Some(n.parse().map_err(|_| RouteError::Parameter("n"))?),
                        None => None,
                    },
                    after: parameters.get("last")?.map(Cow::into_owned),
                },
            }),
            ("referrers", text) => Ok(Self::Referrers {
                repository: repository(name, &parameters, ports)?,
                digest: digest(text)?,
                artifact_type: parameters.get("artifactType")?.map(Cow::into_owned),
            }),
            _ => Err(RouteError::NoEndpoint),
        }
    }

    /// The repository that is asked, where one is.
    #[must_use]
    pub fn repository(&self) -> Option<&RepositoryName> {
        match self {
            Self::Version => None,
            Self::Manifest { repository, .. }
            | Self::Blob { repository, .. }
            | Self::Tags { repository, .. }
            | Self::Referrers { repository, .. } => Some(repository),
        }
    }
}

/// No valid name needs percent-encoding, and what is encoded is refused with the rest: `%2e%2e` is not a name.
fn repository(
    name: &str,
    parameters: &Parameters<'_>,
    ports: PortForms,
) -> Result<RepositoryName, RouteError> {
    let invalid = |error: &dyn std::error::Error| {
        RouteError::Name(error.source().map_or_else(|| error.to_string(), ToString::to_string))
    };
    match parameters.get("ns")? {
        Some(registry) => RepositoryName::new(&registry, name).map_err(|error| invalid(&error)),
        None => decode_path(name, ports).map_err(|error| invalid(&error)),
    }
}

fn tag_or_digest(text: &str) -> Result<TagOrDigest, RouteError> {
    if text.contains(':') || text.contains('%') {
        return digest(text).map(TagOrDigest::Digest);
    }
    text.parse().map(TagOrDigest::Tag).map_err(|_| RouteError::Tag(shortened(text)))
}

/// Some clients write the colon of a digest as `%3A`.
fn digest(text: &str) -> Result<Digest, RouteError> {
    let decoded = match text.split_once("%3A").or_else(|| text.split_once("%3a")) {
        Some((algorithm, encoded)) => Cow::Owned(format!("{algorithm}:{encoded}")),
        None => Cow::Borrowed(text),
    };
    decoded.parse().map_err(|error| RouteError::Digest(shortened(text), format!("{error}")))
}

/// Enough of a bad text to recognise it in a message.
fn shortened(text: &str) -> String {
    text.chars().take(80).collect()
}

/// The parameters of a query.
struct Parameters<'a>(&'a str);

impl<'a> Parameters<'a> {
    /// The value of the first parameter called `key`.
    fn get(&self, key: &'static str) -> Result<Option<Cow<'a, str>>, RouteError> {
        let found = self.0.split('&').find_map(|pair| match pair.split_once('=') {
            Some((name, value)) if name == key => Some(value),
            None if pair == key => Some(""),
            _ => None,
        });
        found.map(|value| percent_decoded(value).ok_or(RouteError::Parameter(key))).transpose()
    }
}

fn percent_decoded(value: &str) -> Option<Cow<'_, str>> {
    if !value.contains(['%', '+']) {
        return Some(Cow::Borrowed(value));
    }
    let mut decoded = Vec::with_capacity(value.len());
    let mut bytes = value.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'+' => b' ',
            b'%' => {
                let high = char::from(bytes.next()?).to_digit(16)?;
                let low = char::from(bytes.next()?).to_digit(16)?;
                u8::try_from(high << 4 | low).ok()?
            }
            other => other,
        });
    }
    String::from_utf8(decoded).ok().map(Cow::Owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";

    fn parse(path_and_query: &str) -> Result<Route, RouteError> {
        let (path, query) = match path_and_query.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (path_and_query, None),
        };
        Route::parse(path, query, PortForms::default())
    }

    fn named(registry: &str, path: &str) -> RepositoryName {
        RepositoryName::new(registry, path).unwrap()
    }

    #[test]
    fn names_in_the_path_and_by_namespace() {
        for (path, registry, name) in [
            ("/v2/nginx/manifests/1.25", "docker.io", "library/nginx"),
            ("/v2/docker.io/library/nginx/manifests/1.25", "docker.io", "library/nginx"),
            ("/v2/registry__5000/app/manifests/1.25", "registry:5000", "app"),
            ("/v2/library/nginx/manifests/1.25?ns=docker.io", "docker.io", "library/nginx"),
            ("/v2/app/manifests/1.25?ns=registry%3A5000", "registry:5000", "app"),
            ("/v2/manifests/manifests/manifests/1.25", "docker.io", "manifests/manifests"),
            ("/v2/ghcr.io/tags/list/manifests/1.25", "ghcr.io", "tags/list"),
        ] {
            let expected = Route::Manifest {
                repository: named(registry, name),
                at: TagOrDigest::Tag("1.25".parse().unwrap()),
            };
            assert_eq!(parse(path), Ok(expected), "{path}");
        }
    }

    #[test]
    fn every_endpoint() {
        let repository = named("docker.io", "library/nginx");
        let digest: Digest = HEX.parse().unwrap();
        assert_eq!(parse("/v2"), Ok(Route::Version));
        assert_eq!(parse("/v2/"), Ok(Route::Version));
        for path in [format!("/v2/nginx/blobs/{HEX}"), format!("/v2/nginx/blobs/{}", HEX.replace(':', "%3A"))]
        {
            let expected = Route::Blob { repository: repository.clone(), digest: digest.clone() };
            assert_eq!(parse(&path), Ok(expected));
        }
        assert_eq!(
            parse(&format!("/v2/nginx/manifests/{HEX}")),
            Ok(Route::Manifest { repository: repository.clone(), at: TagOrDigest::Digest(digest.clone()) })
        );
        assert_eq!(
            parse("/v2/nginx/tags/list?n=5&last=1.2"),
            Ok(Route::Tags {
                repository: repository.clone(),
                page: TagPage { limit: Some(5), after: Some("1.2".to_owned()) }
            })
        );
        assert_eq!(
            parse(&format!("/v2/nginx/referrers/{HEX}?artifactType=application%2Fspdx%2Bjson")),
            Ok(Route::Referrers {
                repository,
                digest,
                artifact_type: Some("application/spdx+json".to_owned())
            })
        );
    }

    #[test]
    fn hostile_paths_are_refused() {
        use RouteError as E;
        assert_eq!(parse("/"), Err(E::NoEndpoint));
        assert_eq!(parse("/v2x/nginx/manifests/1"), Err(E::NoEndpoint));
        assert_eq!(parse("/v2/manifests/1"), Err(E::NoEndpoint));
        assert_eq!(parse("/v2/_catalog"), Err(E::NoEndpoint));
        assert_eq!(parse("/v2/nginx/tags/other"), Err(E::NoEndpoint));
        assert_eq!(parse(&format!("/v2/{}/manifests/1", "a".repeat(10_000))), Err(E::TooLong));
        for name in ["..", "a/../b", "%2e%2e/a", "a//b", "/a", "a/", "A/b", "a b", "a/./b", "é"] {
            assert!(matches!(parse(&format!("/v2/{name}/manifests/1")), Err(E::Name(_))), "{name}");
        }
        for tag in ["", ".a", "a%20b", &"a".repeat(129)] {
            let refused = parse(&format!("/v2/nginx/manifests/{tag}"));
            assert!(matches!(refused, Err(E::Tag(_) | E::Digest(..))), "{tag}: {refused:?}");
        }
        for digest in ["", "latest", "sha256:abc", "sha256:..%2f", "sha256:"] {
            assert!(matches!(parse(&format!("/v2/nginx/blobs/{digest}")), Err(E::Digest(..))), "{digest}");
        }
        assert_eq!(parse("/v2/nginx/tags/list?n=-1"), Err(E::Parameter("n")));
        assert_eq!(parse("/v2/nginx/tags/list?last=%zz"), Err(E::Parameter("last")));
        assert!(matches!(parse("/v2/nginx/manifests/1?ns=../x"), Err(E::Name(_))));
        assert!(matches!(parse("/v2/nginx/manifests/1?ns="), Err(E::Name(_))));
    }
}
