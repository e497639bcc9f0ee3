//! Parser of request paths and queries: pure, and the first code that sees hostile input.
//!
//! The paths are those of the OCI distribution specification, section "Endpoints". A repository is named in one of
//! two ways: in the path, as the webhook rewrites images (`/v2/docker.io/library/nginx/…`), or by the path and a `ns`
//! parameter, as containerd names it for a registry mirror (`/v2/library/nginx/…?ns=docker.io`).

mod endpoint;
mod names;
mod parameters;

use std::borrow::Cow;

use kuik_core::{
    content::{Digest, TagOrDigest, TagPage},
    reference::RepositoryName,
};

pub(crate) use self::endpoint::{Endpoint, digest, tag_or_digest};
pub use self::names::Names;
use self::{endpoint::MAX_BYTES, parameters::Parameters};

/// A parsed read request.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Route {
    /// API version check (`/v2/`).
    Version,
    /// A manifest.
    Manifest {
        /// The repository.
        repository: RepositoryName,
        /// Tag or digest of the manifest.
        at: TagOrDigest,
    },
    /// A blob.
    Blob {
        /// The repository.
        repository: RepositoryName,
        /// Digest of the blob.
        digest: Digest,
    },
    /// The tags of a repository.
    Tags {
        /// The repository.
        repository: RepositoryName,
        /// Page of the list.
        page: TagPage,
    },
    /// The referrers of a manifest.
    Referrers {
        /// The repository.
        repository: RepositoryName,
        /// The manifest that is referred to.
        digest: Digest,
        /// Only referrers of this type.
        artifact_type: Option<String>,
    },
}

/// Why a request is invalid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RouteError {
    /// The path does not match an endpoint.
    #[error("no such endpoint")]
    NoEndpoint,
    /// The path or the query is longer than any valid one.
    #[error("path or query longer than {MAX_BYTES} bytes")]
    TooLong,
    /// The repository's name is invalid.
    #[error("invalid repository name: {0}")]
    Name(String),
    /// The tag is invalid.
    #[error("{0:?} is neither a tag nor a digest")]
    Tag(String),
    /// The digest is invalid.
    #[error("{0:?} is not a digest: {1}")]
    Digest(String, String),
    /// A query parameter is invalid.
    #[error("invalid parameter {0}")]
    Parameter(&'static str),
}

impl Route {
    /// Parses a path and a query. `names` selects how repositories are named; a cache can pass [`PortForms`] alone.
    ///
    /// [`PortForms`]: kuik_core::reference::PortForms
    ///
    /// # Errors
    /// Fails if they do not match an endpoint, or name content that cannot exist.
    pub fn parse(path: &str, query: Option<&str>, names: impl Into<Names>) -> Result<Self, RouteError> {
        let names = names.into();
        let Some(endpoint) = Endpoint::read(path, query)? else { return Ok(Self::Version) };
        let parameters = &endpoint.parameters;
        match (endpoint.kind, endpoint.last) {
            ("manifests", at) => {
                Ok(Self::Manifest { repository: endpoint.repository(names)?, at: tag_or_digest(at)? })
            }
            ("blobs", text) => {
                Ok(Self::Blob { repository: endpoint.repository(names)?, digest: digest(text)? })
            }
            ("tags", "list") => Ok(Self::Tags {
                repository: endpoint.repository(names)?,
                page: TagPage {
                    limit: match parameters.get("n")? {
                        Some(n) => Some(n.parse().map_err(|_| RouteError::Parameter("n"))?),
                        None => None,
                    },
                    after: parameters.get("last")?.map(Cow::into_owned),
                },
            }),
            ("referrers", text) => Ok(Self::Referrers {
                repository: endpoint.repository(names)?,
                digest: digest(text)?,
                artifact_type: parameters.get("artifactType")?.map(Cow::into_owned),
            }),
            _ => Err(RouteError::NoEndpoint),
        }
    }

    /// Returns the requested repository, if there is one.
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

#[cfg(test)]
mod tests {
    use kuik_core::reference::PortForms;

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
    fn repository_is_named_in_the_path_or_by_namespace() {
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
    fn local_names_are_used_as_written() {
        for path in ["/v2/nginx/manifests/1", "/v2/nginx/manifests/1?ns=docker.io"] {
            let (path, query) =
                path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
            let route = Route::parse(path, query, Names::Local).unwrap();
            assert_eq!(route.repository().map(ToString::to_string).as_deref(), Some("nginx"));
        }
        for name in ["..", "%2e%2e", "A", "a//b", "a:5000/b"] {
            let refused = Route::parse(&format!("/v2/{name}/manifests/1"), None, Names::Local);
            assert!(matches!(refused, Err(RouteError::Name(_))), "{name}");
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
        for digest in
            ["", "latest", "sha256:abc", "sha256:..%2f", "sha256:", &format!("x:{}", "a".repeat(255))]
        {
            assert!(matches!(parse(&format!("/v2/nginx/blobs/{digest}")), Err(E::Digest(..))), "{digest}");
        }
        assert_eq!(parse("/v2/nginx/tags/list?n=-1"), Err(E::Parameter("n")));
        assert_eq!(parse("/v2/nginx/tags/list?last=%zz"), Err(E::Parameter("last")));
        assert!(matches!(parse("/v2/nginx/manifests/1?ns=../x"), Err(E::Name(_))));
        assert!(matches!(parse("/v2/nginx/manifests/1?ns="), Err(E::Name(_))));
    }
}
