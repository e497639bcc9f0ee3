//! Discovery of cache replicas: a static list, or the addresses that DNS names resolve to.

use std::{collections::BTreeSet, fmt, io, net::SocketAddr, str::FromStr, time::Duration};

use async_trait::async_trait;
use http::uri::Authority;

/// Timeout of one DNS lookup.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);

/// Lists the current replicas of the cache. It is polled: replicas come and go.
#[async_trait]
pub trait Replicas: fmt::Debug + Send + Sync + 'static {
    /// Returns the replicas by the names by which every proxy ranks them: `HOST:PORT` over plain HTTP, or `ADDRESS=URL`
    /// for the replica at an IP address and port that the name in a URL resolves to. Their order has no meaning.
    ///
    /// # Errors
    /// Fails if the lookup fails; the caller keeps the replicas it knows.
    async fn replicas(&self) -> io::Result<BTreeSet<String>>;
}

/// A static list of replicas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StaticReplicas(BTreeSet<String>);

/// The addresses that DNS names resolve to: for a headless Service, its pods.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DnsReplicas(Vec<Endpoint>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Endpoint {
    authority: String,
    /// URL at which its replicas are requested; `None` is plain HTTP to their addresses.
    url: Option<String>,
}

/// Error for a text that is not `HOST:PORT`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not HOST:PORT")]
pub struct InvalidEndpoint(String);

impl StaticReplicas {
    /// Returns these replicas, each `HOST:PORT`.
    ///
    /// # Errors
    /// Fails if one is not `HOST:PORT`.
    pub fn new<S: AsRef<str>>(replicas: impl IntoIterator<Item = S>) -> Result<Self, InvalidEndpoint> {
        replicas.into_iter().map(|text| checked(text.as_ref())).collect::<Result<_, _>>().map(Self)
    }
}

impl DnsReplicas {
    /// Returns the union of the addresses of these names, each `HOST:PORT`. An IP address resolves to itself.
    ///
    /// # Errors
    /// Fails if one is not `HOST:PORT`.
    pub fn new<S: AsRef<str>>(endpoints: impl IntoIterator<Item = S>) -> Result<Self, InvalidEndpoint> {
        let endpoint = |text: S| Ok(Endpoint { authority: checked(text.as_ref())?, url: None });
        endpoints.into_iter().map(endpoint).collect::<Result<_, _>>().map(Self)
    }

    /// Adds the addresses of `authority` (`HOST:PORT`), which are requested at `url`: over TLS, the certificate is that
    /// of the URL's host.
    ///
    /// # Errors
    /// Fails if `authority` is not `HOST:PORT`.
    pub fn and_url(mut self, authority: &str, url: &str) -> Result<Self, InvalidEndpoint> {
        self.0.push(Endpoint { authority: checked(authority)?, url: Some(url.to_owned()) });
        Ok(self)
    }
}

fn checked(text: &str) -> Result<String, InvalidEndpoint> {
    let invalid = || InvalidEndpoint(text.to_owned());
    let authority = Authority::from_str(text).map_err(|_| invalid())?;
    let usable = !authority.host().is_empty() && !text.contains('@') && authority.port_u16().is_some();
    if usable { Ok(text.to_ascii_lowercase()) } else { Err(invalid()) }
}

#[async_trait]
impl Replicas for StaticReplicas {
    async fn replicas(&self) -> io::Result<BTreeSet<String>> {
        Ok(self.0.clone())
    }
}

#[async_trait]
impl Replicas for DnsReplicas {
    async fn replicas(&self) -> io::Result<BTreeSet<String>> {
        let mut addresses = BTreeSet::new();
        let mut failed = None;
        for Endpoint { authority: endpoint, url } in &self.0 {
            let name = |address: SocketAddr| match url {
                Some(url) => format!("{address}={url}"),
                None => address.to_string(),
            };
            match tokio::time::timeout(LOOKUP_TIMEOUT, tokio::net::lookup_host(endpoint)).await {
                Ok(Ok(found)) => addresses.extend(found.map(name)),
                Ok(Err(error)) => failed = Some(io::Error::new(error.kind(), format!("{endpoint}: {error}"))),
                Err(_) => {
                    let problem = format!("{endpoint}: no answer within {LOOKUP_TIMEOUT:?}");
                    failed = Some(io::Error::new(io::ErrorKind::TimedOut, problem));
                }
            }
        }
        match failed {
            // A partial result would remove replicas that still exist.
            Some(error) => Err(error),
            None => Ok(addresses),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_have_a_host_and_a_port() {
        for text in ["registry:5000", "10.0.0.1:5000", "[::1]:5000", "Registry.kuik.svc:5000"] {
            assert!(StaticReplicas::new([text]).is_ok() && DnsReplicas::new([text]).is_ok(), "{text}");
        }
        for text in
            ["", "registry", ":5000", "http://registry:5000", "registry:", "registry:99999", "u:p@r:1"]
        {
            assert!(StaticReplicas::new([text]).is_err() && DnsReplicas::new([text]).is_err(), "{text}");
        }
    }

    #[tokio::test]
    async fn ip_addresses_resolve_to_themselves_in_any_order() {
        let expected: BTreeSet<_> = ["127.0.0.1:1", "127.0.0.2:1"].map(str::to_owned).into();
        for order in [["127.0.0.2:1", "127.0.0.1:1"], ["127.0.0.1:1", "127.0.0.2:1"]] {
            assert_eq!(StaticReplicas::new(order).unwrap().replicas().await.unwrap(), expected);
            assert_eq!(DnsReplicas::new(order).unwrap().replicas().await.unwrap(), expected);
        }
        let url = "https://cache.test";
        let over_tls = DnsReplicas::default().and_url("127.0.0.1:443", url).unwrap();
        assert_eq!(
            over_tls.replicas().await.unwrap(),
            ["127.0.0.1:443=https://cache.test".to_owned()].into()
        );
        // RFC 6761: `localhost` resolves to loopback addresses, and `invalid` to none.
        let named = DnsReplicas::new(["localhost:5000"]).unwrap().replicas().await.unwrap();
        assert!(!named.is_empty() && named.iter().all(|name| name.ends_with(":5000")), "{named:?}");
        let unknown = DnsReplicas::new(["127.0.0.1:1", "registry.invalid:5000"]).unwrap();
        assert!(unknown.replicas().await.is_err(), "a partial result is an error");
    }
}
