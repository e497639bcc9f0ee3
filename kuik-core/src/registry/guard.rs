//! Which addresses may be contacted: a name in a pod must not become a way to what only this machine can reach.
//!
//! Loopback, link-local (cloud metadata), unspecified and multicast addresses are refused, however they are reached:
//! written in an image name, behind DNS, behind a redirect, or as the realm of a challenge. So is plain http, and an
//! address written as such in a private network. A host that the configuration *names* is exempt, with its port.
//! What a name behind a proxy resolves to is the proxy's business: there only what is written can be checked.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
    sync::{Arc, PoisonError, RwLock},
};

use http::Uri;

/// The hosts that the configuration names, and the rules for all others. Its clones are one guard.
#[derive(Debug, Clone, Default)]
pub struct Guard {
    named: Arc<RwLock<Arc<[Named]>>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Named {
    host: HostPort,
    http: bool,
}

/// A host, with a port or for all its ports: `registry.example`, `127.0.0.1:5000`, `[::1]:5000`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort {
    host: String,
    port: Option<u16>,
}

/// A text that is not `HOST[:PORT]`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not HOST[:PORT]")]
pub struct InvalidHostPort(String);

/// The configuration does not allow to contact an address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// Plain http, to a host that is not configured as insecure.
    #[error("plain http to {0} is refused: it is not configured as an insecure registry")]
    PlainHttp(String),
    /// An address that is not to be contacted unless it is named.
    #[error("{host} is {kind} ({address}), which is refused unless the configuration names it")]
    Address {
        /// The host as it was written.
        host: String,
        /// What kind of address it is.
        kind: &'static str,
        /// The address.
        address: IpAddr,
    },
    /// Not an http or https URL with a host.
    #[error("{0} is not an http or https address of a host")]
    NotHttp(String),
}

impl Guard {
    /// A guard with one more host exempt: its addresses are not checked, and `http` says whether it may be
    /// contacted without TLS.
    #[must_use]
    pub fn naming(&self, host: HostPort, http: bool) -> Self {
        let new = Named { host, http };
        let named = self.named().iter().cloned().chain([new]).collect();
        Self { named: Arc::new(RwLock::new(named)) }
    }

    /// From now on exempts what `other` exempts now, in all its clones.
    pub fn become_like(&self, other: &Self) {
        let named = other.named();
        *self.named.write().unwrap_or_else(PoisonError::into_inner) = named;
    }

    fn named(&self) -> Arc<[Named]> {
        self.named.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether `uri` may be contacted, as far as can be seen before its name is resolved. `over_http` says that
    /// plain http is allowed here because the registry itself is allowed it.
    ///
    /// # Errors
    /// Where it may not.
    pub fn check(&self, uri: &Uri, over_http: bool) -> Result<(), Refused> {
        let host = uri.host().ok_or_else(|| Refused::NotHttp(uri.to_string()))?;
        match uri.scheme_str() {
            Some("https") => {}
            Some("http") if over_http || self.find(uri).is_some_and(|http| http) => {}
            Some("http") => return Err(Refused::PlainHttp(authority(uri))),
            _ => return Err(Refused::NotHttp(authority(uri))),
        }
        match literal(host) {
            Some(address) if !self.names(uri) => match forbidden(address).or_else(|| private(address)) {
                Some(kind) => Err(Refused::Address { host: authority(uri), kind, address }),
                None => Ok(()),
            },
            _ => Ok(()),
        }
    }

    /// Whether the configuration names the host of `uri`, at its port.
    pub(super) fn names(&self, uri: &Uri) -> bool {
        self.find(uri).is_some()
    }

    /// Whether the host of `uri` may be spoken to over plain http, where it is named.
    fn find(&self, uri: &Uri) -> Option<bool> {
        let named = self.named();
        let mut found =
            named.iter().filter(|named| named.host.covers(uri)).map(|named| named.http).peekable();
        found.peek()?;
        Some(found.any(|http| http))
    }
}

/// Refuses an address that a name resolved to.
pub(super) fn check_resolved(host: &str, address: IpAddr) -> Result<(), Refused> {
    match forbidden(address) {
        Some(kind) => Err(Refused::Address { host: host.to_owned(), kind, address }),
        None => Ok(()),
    }
}

impl HostPort {
    /// Whether this is the host of `uri`, at its port.
    pub(super) fn covers(&self, uri: &Uri) -> bool {
        let host = uri.host().map(bare).unwrap_or_default();
        self.host.eq_ignore_ascii_case(host) && self.port.is_none_or(|port| port == port_of(uri))
    }
}

impl FromStr for HostPort {
    type Err = InvalidHostPort;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || InvalidHostPort(text.to_owned());
        // A bare IPv6 address is a host; `http::uri::Authority` knows all other forms.
        if let Ok(address) = text.parse::<Ipv6Addr>() {
            return Ok(Self { host: address.to_string(), port: None });
        }
        let authority: http::uri::Authority = text.parse().map_err(|_| wrong())?;
        let port = authority.port_u16();
        if authority.host().is_empty()
            || text.contains('@')
            || (port.is_none() && authority.as_str() != authority.host())
        {
            return Err(wrong());
        }
        Ok(Self { host: bare(authority.host()).to_ascii_lowercase(), port })
    }
}

/// The port of `uri`, written or not.
pub(super) fn port_of(uri: &Uri) -> u16 {
    uri.port_u16().unwrap_or(if uri.scheme_str() == Some("http") { 80 } else { 443 })
}

fn authority(uri: &Uri) -> String {
    uri.authority().map(ToString::to_string).unwrap_or_default()
}

/// The host without the brackets of an IPv6 address, and without the dot that ends a full name.
fn bare(host: &str) -> &str {
    let inner = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    inner.strip_suffix('.').unwrap_or(inner)
}

fn literal(host: &str) -> Option<IpAddr> {
    bare(host).parse().ok()
}

/// The IPv4 address inside an IPv6 one (mapped, or translated by NAT64), which is where packets would go.
fn unwrapped(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else { return address };
    if let Some(v4) = v6.to_ipv4_mapped() {
        return IpAddr::V4(v4);
    }
    match v6.segments() {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
            IpAddr::V4(Ipv4Addr::from((u32::from(high) << 16) | u32::from(low)))
        }
        _ => address,
    }
}

/// What kind of address it is, where no registry can be reached by it without being named.
fn forbidden(address: IpAddr) -> Option<&'static str> {
    match unwrapped(address) {
        address if address.is_loopback() => Some("a loopback address"),
        address if address.is_unspecified() => Some("the unspecified address"),
        address if address.is_multicast() => Some("a multicast address"),
        IpAddr::V4(v4) if v4.is_link_local() => Some("a link-local address"),
        IpAddr::V4(v4) if v4.is_broadcast() || v4.octets().starts_with(&[0]) => Some("a broadcast address"),
        // Cloud metadata services outside the link-local range.
        IpAddr::V4(v4) if v4 == Ipv4Addr::new(100, 100, 100, 200) => Some("a metadata service"),
        IpAddr::V6(v6) if v6.is_unicast_link_local() => Some("a link-local address"),
        IpAddr::V6(v6) if v6 == Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254) => {
            Some("a metadata service")
        }
        _ => None,
    }
}

fn private(address: IpAddr) -> Option<&'static str> {
    let private = match unwrapped(address) {
        IpAddr::V4(v4) => v4.is_private() || matches!(v4.octets(), [100, 64..=127, _, _]),
        IpAddr::V6(v6) => v6.is_unique_local(),
    };
    private.then_some("a private address")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(guard: &Guard, uri: &str) -> bool {
        guard.check(&uri.parse().unwrap(), false).is_ok()
    }

    #[test]
    fn refuses_what_is_not_named() {
        let guard = Guard::default();
        for uri in [
            "http://registry.example/",
            "https://127.0.0.1/",
            "https://127.9.9.9:5000/",
            "https://[::1]:5000/",
            "https://[::ffff:127.0.0.1]/",
            "https://[64:ff9b::a9fe:a9fe]/",
            "https://169.254.169.254/latest/meta-data",
            "https://[fe80::1]/",
            "https://0.0.0.0/",
            "https://[::]/",
            "https://224.0.0.1/",
            "https://[ff02::1]/",
            "https://10.0.0.1/",
            "https://192.168.1.1/",
            "https://172.16.0.1/",
            "https://[fd00::1]/",
            "ftp://registry.example/",
        ] {
            assert!(!check(&guard, uri), "{uri}");
        }
        for uri in ["https://registry.example/", "https://registry.example:5000/", "https://8.8.8.8/"] {
            assert!(check(&guard, uri), "{uri}");
        }
    }

    #[test]
    fn names_are_exempt_at_their_port() {
        let guard = Guard::default()
            .naming("127.0.0.1:5000".parse().unwrap(), true)
            .naming("[::1]".parse().unwrap(), true)
            .naming("10.0.0.1".parse().unwrap(), false)
            .naming("Plain.example".parse().unwrap(), true);
        for (uri, expected) in [
            ("http://127.0.0.1:5000/", true),
            ("https://127.0.0.1:5000/", true),
            ("http://127.0.0.1:5001/", false),
            ("http://[::1]:77/", true),
            ("https://10.0.0.1/", true),
            ("http://10.0.0.1/", false),
            ("http://plain.example:80/", true),
            ("http://plain.example./", true),
            ("http://other.plain.example/", false),
        ] {
            assert_eq!(check(&guard, uri), expected, "{uri}");
        }
    }

    #[test]
    fn what_names_resolve_to() {
        let resolved = |text: &str| check_resolved("h", text.parse().unwrap()).is_ok();
        for address in ["127.0.0.1", "::1", "169.254.1.1", "0.0.0.0", "0.1.2.3", "fe80::1", "fd00:ec2::254"] {
            assert!(!resolved(address), "{address}");
        }
        for address in ["10.0.0.1", "192.168.0.1", "1.1.1.1", "2606:4700::1111", "fd12::1"] {
            assert!(resolved(address), "{address}");
        }
    }

    #[test]
    fn reads_hosts_and_ports() {
        for text in ["a", "a.example:5000", "127.0.0.1", "[::1]:5000", "[::1]", "::1"] {
            assert!(text.parse::<HostPort>().is_ok(), "{text}");
        }
        for text in ["", ":5000", "a:b", "a:", "http://a", "a/b", "u@a", "a:99999"] {
            assert!(text.parse::<HostPort>().is_err(), "{text}");
        }
    }
}
