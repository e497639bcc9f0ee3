//! Address of the registry that is the cache: a host with port, over plain HTTP, or a URL.

use std::{fmt, str::FromStr};

use http::Uri;

use super::upstream::{Upstream, checked_base, redacted};
use crate::reference::RepositoryName;

/// Address of the registry that is the cache.
///
/// `HOST:PORT` is over plain HTTP: kuik's own registry inside the cluster. A URL has its scheme, and may have no port:
/// `https://zot.example`. With a path, `https://harbor.example/v2/kuik`, repositories are below that path.
///
/// ```
/// use kuik_core::client::CacheEndpoint;
///
/// let endpoint: CacheEndpoint = "https://zot.example".parse()?;
/// assert_eq!((endpoint.authority(), endpoint.is_https()), ("zot.example:443", true));
/// # Ok::<(), kuik_core::client::InvalidCacheEndpoint>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheEndpoint {
    base: String,
    authority: String,
    https: bool,
    credentials_of: RepositoryName,
}

/// Error for a text that is no address of a cache. It contains no password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is neither HOST:PORT nor a URL such as https://HOST:PORT")]
pub struct InvalidCacheEndpoint(String);

impl CacheEndpoint {
    /// Returns the base URL.
    #[must_use]
    pub fn base(&self) -> &str {
        &self.base
    }

    /// Returns `HOST:PORT`, with the default port of the scheme if the address has none.
    #[must_use]
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// Returns whether connections use TLS.
    #[must_use]
    pub fn is_https(&self) -> bool {
        self.https
    }

    /// Returns the registry as the only upstream of a client. Its credentials are looked up under its host and port.
    #[must_use]
    pub fn upstream(&self) -> Upstream {
        Upstream::at(self.base.clone(), self.credentials_of.clone())
    }
}

impl FromStr for CacheEndpoint {
    type Err = InvalidCacheEndpoint;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidCacheEndpoint(redacted(text));
        let url = match text.split_once("://") {
            Some((scheme, rest)) => format!("{}://{rest}", scheme.to_ascii_lowercase()),
            None => format!("http://{text}"),
        };
        let (base, uri): (String, Uri) = checked_base(&url).map_err(|_| invalid())?;
        let host = uri.host().unwrap_or_default().to_ascii_lowercase();
        let https = uri.scheme_str() == Some("https");
        let port = match uri.port_u16() {
            Some(port) if port > 0 => port,
            None if text.contains("://") => {
                if https {
                    443
                } else {
                    80
                }
            }
            _ => return Err(invalid()),
        };
        if !text.contains("://") && !matches!(uri.path(), "" | "/") {
            return Err(invalid());
        }
        let authority = format!("{host}:{port}");
        let credentials_of = RepositoryName::new(&authority, "cache").map_err(|_| invalid())?;
        Ok(Self { base, authority, https, credentials_of })
    }
}

impl fmt::Display for CacheEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.base)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoint_is_a_host_with_port_or_a_url() {
        for (text, base, authority, https) in [
            ("registry:5000", "http://registry:5000", "registry:5000", false),
            ("10.0.0.1:5000", "http://10.0.0.1:5000", "10.0.0.1:5000", false),
            ("[::1]:5000", "http://[::1]:5000", "[::1]:5000", false),
            ("http://registry", "http://registry", "registry:80", false),
            ("https://zot.example/", "https://zot.example", "zot.example:443", true),
            ("HTTPS://zot.example:5000", "https://zot.example:5000", "zot.example:5000", true),
            ("https://h.example/v2/kuik", "https://h.example/v2/kuik", "h.example:443", true),
        ] {
            let endpoint: CacheEndpoint = text.parse().unwrap();
            assert_eq!(
                (endpoint.base(), endpoint.authority(), endpoint.is_https()),
                (base, authority, https)
            );
        }
        for text in [
            "",
            "registry",
            ":5000",
            "registry:",
            "registry:0",
            "registry:99999",
            "registry:5000/path",
            "ftp://registry",
            "https://",
            "https://registry?x",
        ] {
            assert!(text.parse::<CacheEndpoint>().is_err(), "{text}");
        }
        let error = "https://user:secret@registry".parse::<CacheEndpoint>().unwrap_err().to_string();
        assert!(!error.contains("secret"), "{error}");
    }
}
