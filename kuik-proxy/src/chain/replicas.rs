//! Which replicas the cache has: a list that was given, or what a name resolves to.

use std::{collections::BTreeSet, fmt, io, str::FromStr, time::Duration};

use async_trait::async_trait;
use http::uri::Authority;

/// How long one look-up may take.
const LOOK_UP: Duration = Duration::from_secs(5);

/// Says which replicas the cache has now. It is asked again and again: replicas come and go.
#[async_trait]
pub trait Replicas: fmt::Debug + Send + Sync + 'static {
    /// The replicas, each as `HOST:PORT`: the name by which every proxy ranks it. Their order says nothing.
    ///
    /// # Errors
    /// Where that is not known now: those that were known stay.
    async fn replicas(&self) -> io::Result<BTreeSet<String>>;
}

/// Replicas that were given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StaticReplicas(BTreeSet<String>);

/// The addresses that names resolve to: those of a headless Service are its pods.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsReplicas(Vec<String>);

/// A text that is not `HOST:PORT`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not HOST:PORT")]
pub struct InvalidEndpoint(String);

impl StaticReplicas {
    /// These replicas, each `HOST:PORT`.
    ///
    /// # Errors
    /// Where one is not.
    pub fn new<S: AsRef<str>>(replicas: impl IntoIterator<Item = S>) -> Result<Self, InvalidEndpoint> {
        replicas.into_iter().map(|text| checked(text.as_ref())).collect::<Result<_, _>>().map(Self)
    }
}

impl DnsReplicas {
    /// The addresses of all these names together, each `HOST:PORT`. An address stands for itself.
    ///
    /// # Errors
    /// Where one is not.
    pub fn new<S: AsRef<str>>(endpoints: impl IntoIterator<Item = S>) -> Result<Self, InvalidEndpoint> {
        endpoints.into_iter().map(|text| checked(text.as_ref())).collect::<Result<_, _>>().map(Self)
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
        for endpoint in &self.0 {
            match tokio::time::timeout(LOOK_UP, tokio::net::lookup_host(endpoint)).await {
                Ok(Ok(found)) => addresses.extend(found.map(|address| address.to_string())),
                Ok(Err(error)) => failed = Some(io::Error::new(error.kind(), format!("{endpoint}: {error}"))),
                Err(_) => {
                    let problem = format!("{endpoint}: no answer within {LOOK_UP:?}");
                    failed = Some(io::Error::new(io::ErrorKind::TimedOut, problem));
                }
            }
        }
        match failed {
            // Half an answer would take the other half's replicas away.
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
    async fn addresses_stand_for_themselves_in_any_order() {
        let expected: BTreeSet<_> = ["127.0.0.1:1", "127.0.0.2:1"].map(str::to_owned).into();
        for order in [["127.0.0.2:1", "127.0.0.1:1"], ["127.0.0.1:1", "127.0.0.2:1"]] {
            assert_eq!(StaticReplicas::new(order).unwrap().replicas().await.unwrap(), expected);
            assert_eq!(DnsReplicas::new(order).unwrap().replicas().await.unwrap(), expected);
        }
        // RFC 6761: `localhost` resolves to loopback addresses, and `invalid` to none.
        let named = DnsReplicas::new(["localhost:5000"]).unwrap().replicas().await.unwrap();
        assert!(!named.is_empty() && named.iter().all(|name| name.ends_with(":5000")), "{named:?}");
        let unknown = DnsReplicas::new(["127.0.0.1:1", "registry.invalid:5000"]).unwrap();
        assert!(unknown.replicas().await.is_err(), "half an answer is none");
    }
}
