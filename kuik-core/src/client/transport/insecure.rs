//! Insecure registries: those that the configuration allows to contact with less protection.
//!
//! | configured | means |
//! |---|---|
//! | `https://HOST[:PORT]` | TLS, without verification of the certificate |
//! | `http://HOST[:PORT]` | plain HTTP |
//! | `HOST[:PORT]` | TLS without verification, or plain HTTP if the registry does not speak TLS |
//!
//! Invariant: a registry that has spoken TLS is never contacted over plain HTTP again by this process. Before that, a
//! credential is sent over plain HTTP only if the registry asks for it over plain HTTP.

use std::{collections::HashMap, str::FromStr, time::Duration};

use http::{StatusCode, Uri, uri::Scheme};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::host_port::{HostPort, InvalidHostPort, port_of};

/// How long a registry that speaks plain HTTP is not tried with TLS again.
const PLAIN_FOR: Duration = Duration::from_secs(60);

/// An insecure registry: its host, and how it is contacted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InsecureRegistry {
    pub(crate) host: HostPort,
    pub(crate) transport: InsecureTransport,
}

/// How an insecure registry is contacted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InsecureTransport {
    /// TLS without verification.
    Unverified,
    /// Plain HTTP.
    Plain,
    /// TLS without verification, or plain HTTP if the registry does not speak TLS.
    UnverifiedOrPlain,
}

impl InsecureRegistry {
    /// Returns whether plain HTTP is allowed.
    pub(crate) fn allows_plain(&self) -> bool {
        self.transport != InsecureTransport::Unverified
    }

    /// Returns whether TLS without verification is allowed.
    pub(crate) fn allows_unverified(&self) -> bool {
        self.transport != InsecureTransport::Plain
    }
}

impl FromStr for InsecureRegistry {
    type Err = InvalidHostPort;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let trimmed = text.strip_suffix('/').unwrap_or(text);
        let (transport, host) = match trimmed.split_once("://") {
            Some((scheme, host)) if scheme.eq_ignore_ascii_case("https") => {
                (InsecureTransport::Unverified, host)
            }
            Some((scheme, host)) if scheme.eq_ignore_ascii_case("http") => (InsecureTransport::Plain, host),
            Some(_) => return Err(InvalidHostPort::of(text)),
            None => (InsecureTransport::UnverifiedOrPlain, trimmed),
        };
        let host = host.parse().map_err(|_| InvalidHostPort::of(text))?;
        Ok(Self { host, transport })
    }
}

/// Returns `uri` with another scheme. Its port stays, or is the default of that scheme.
pub(crate) fn with_scheme(uri: &Uri, scheme: Scheme) -> Option<Uri> {
    let mut parts = uri.clone().into_parts();
    parts.scheme = Some(scheme);
    Uri::from_parts(parts).ok()
}

/// The protocols of insecure registries that may speak both, as far as they are known.
#[derive(Debug, Default)]
pub(super) struct SpokenProtocols(Mutex<HashMap<(String, u16), Spoken>>);

/// The protocol that a registry speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spoken {
    /// TLS, as long as this process runs.
    Tls,
    /// Plain HTTP, until the next attempt at TLS.
    Plain { until: Instant },
}

impl SpokenProtocols {
    /// Returns what the registry at `uri` speaks, if it is known.
    pub(super) fn of(&self, uri: &Uri) -> Option<Spoken> {
        let spoken = self.0.lock().get(&key(uri)).copied()?;
        match spoken {
            Spoken::Plain { until } if until <= Instant::now() => None,
            spoken => Some(spoken),
        }
    }

    /// Records that the registry at `uri` speaks TLS.
    pub(super) fn tls(&self, uri: &Uri) {
        self.0.lock().insert(key(uri), Spoken::Tls);
    }

    /// Records a response over plain HTTP, which is no proof if a server rejects the request as such: servers of TLS do
    /// so.
    pub(super) fn plain(&self, uri: &Uri, status: StatusCode) {
        if status == StatusCode::BAD_REQUEST {
            return;
        }
        let plain = Spoken::Plain { until: Instant::now() + PLAIN_FOR };
        let mut spoken = self.0.lock();
        let now = spoken.entry(key(uri)).or_insert(plain);
        if *now != Spoken::Tls {
            *now = plain;
        }
    }
}

fn key(uri: &Uri) -> (String, u16) {
    (uri.host().unwrap_or_default().to_ascii_lowercase(), port_of(uri))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registries_are_parsed_with_and_without_scheme() {
        for (text, transport, covered) in [
            ("reg:5000", InsecureTransport::UnverifiedOrPlain, "http://reg:5000/"),
            ("https://reg:5000", InsecureTransport::Unverified, "https://reg:5000/"),
            ("https://reg/", InsecureTransport::Unverified, "https://reg/"),
            ("HTTP://reg", InsecureTransport::Plain, "http://reg/"),
            ("http://10.0.0.1:5000", InsecureTransport::Plain, "http://10.0.0.1:5000/"),
            ("https://[::1]:5000", InsecureTransport::Unverified, "https://[::1]:5000/"),
        ] {
            let registry: InsecureRegistry = text.parse().unwrap();
            assert_eq!(registry.transport, transport, "{text}");
            assert!(registry.host.covers(&covered.parse().unwrap()), "{text}");
        }
        for text in
            ["", "https://", "ftp://reg", "reg/path", "https://reg/path", "https://u@reg", "http://reg//"]
        {
            let error = text.parse::<InsecureRegistry>().unwrap_err().to_string();
            assert!(error.starts_with(&format!("{text:?} is not")), "{error}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn tls_is_remembered_and_plain_http_is_not_for_long() {
        let spoken = SpokenProtocols::default();
        let uri: Uri = "http://reg:5000/v2/".parse().unwrap();
        spoken.plain(&uri, StatusCode::BAD_REQUEST);
        assert_eq!(spoken.of(&uri), None, "a server of TLS responds so");
        spoken.plain(&uri, StatusCode::OK);
        assert!(matches!(spoken.of(&uri), Some(Spoken::Plain { .. })));
        tokio::time::advance(PLAIN_FOR).await;
        assert_eq!(spoken.of(&uri), None);
        spoken.tls(&uri);
        spoken.plain(&uri, StatusCode::OK);
        tokio::time::advance(PLAIN_FOR * 1000).await;
        assert_eq!(spoken.of(&uri), Some(Spoken::Tls));
        assert_eq!(spoken.of(&"http://reg:5001/".parse().unwrap()), None);
    }

    #[test]
    fn scheme_changes_and_an_explicit_port_stays() {
        for (uri, expected) in
            [("http://reg:5000/v2/?n=1", "https://reg:5000/v2/?n=1"), ("http://reg/v2/", "https://reg/v2/")]
        {
            let changed = with_scheme(&uri.parse().unwrap(), Scheme::HTTPS).unwrap();
            assert_eq!(changed.to_string(), expected);
        }
    }
}
