//! SSRF guard: an image name in a pod must not give access to addresses that only this machine can reach.
//!
//! Loopback, link-local (cloud metadata), unspecified and multicast addresses are refused however they are reached:
//! literally in an image name, by DNS, by a redirect, or as the realm of a challenge. So are plain HTTP and literal
//! private addresses, in every spelling that a resolver accepts. A host that the configuration *names* is exempt, with
//! its port. Names behind a forward proxy are resolved by the proxy, so only the literal name can be checked there:
//! known names of this machine and of metadata services are refused too.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use http::{Uri, uri::Scheme};
use parking_lot::RwLock;

use super::{
    host_port::{HostPort, bare},
    insecure::{InsecureRegistry, with_scheme},
};

/// The hosts that the configuration names, and the rules for all others. Clones share state.
#[derive(Debug, Clone, Default)]
pub struct Guard {
    named: Arc<RwLock<Arc<[Named]>>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Named {
    host: HostPort,
    http: bool,
    /// Set if the host is an insecure registry.
    insecure: Option<InsecureRegistry>,
}

/// The configuration does not allow an address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// Plain http, to a host that is not configured as insecure.
    #[error("plain http to {0} is refused: it is not configured as an insecure registry")]
    PlainHttp(String),
    /// An address that is refused unless the configuration names it.
    #[error("{host} is {kind} ({address}), which is refused unless the configuration names it")]
    Address {
        /// The host as it was written.
        host: String,
        /// The kind of address.
        kind: &'static str,
        /// The address.
        address: IpAddr,
    },
    /// A name of this machine or of a metadata service, or one that a resolver may parse as an address.
    #[error("{host} is {kind}, which is refused unless the configuration names it")]
    Name {
        /// The host as it was written.
        host: String,
        /// The kind of name.
        kind: &'static str,
    },
    /// Not an http or https URL with a host.
    #[error("{0} is not an http or https address of a host")]
    NotHttp(String),
}

impl Guard {
    /// Returns a guard with one more exempt host: its addresses are not checked, and `http` tells whether plain HTTP is
    /// allowed.
    #[must_use]
    pub fn naming(&self, host: HostPort, http: bool) -> Self {
        self.with(Named { host, http, insecure: None })
    }

    /// Returns a guard with one more insecure registry, which is exempt like a [named](Self::naming) host.
    #[must_use]
    pub fn naming_insecure(&self, registry: InsecureRegistry) -> Self {
        let (host, http) = (registry.host.clone(), registry.allows_plain());
        self.with(Named { host, http, insecure: Some(registry) })
    }

    fn with(&self, new: Named) -> Self {
        let named = self.named().iter().cloned().chain([new]).collect();
        Self { named: Arc::new(RwLock::new(named)) }
    }

    /// Replaces the exemptions of all clones with the current ones of `other`.
    pub fn become_like(&self, other: &Self) {
        let named = other.named();
        *self.named.write() = named;
    }

    fn named(&self) -> Arc<[Named]> {
        self.named.read().clone()
    }

    /// Checks `uri` as far as possible before its name is resolved. `over_http` allows plain HTTP because it is allowed
    /// for the registry itself.
    ///
    /// # Errors
    /// Returns the reason if the address is refused.
    pub fn check(&self, uri: &Uri, over_http: bool) -> Result<(), Refused> {
        let host = uri.host().ok_or_else(|| Refused::NotHttp(authority(uri)))?;
        match uri.scheme_str() {
            Some("https") => {}
            Some("http") if over_http || self.find(uri).is_some_and(|http| http) => {}
            Some("http") => return Err(Refused::PlainHttp(authority(uri))),
            _ => return Err(Refused::NotHttp(authority(uri))),
        }
        if self.names(uri) {
            return Ok(());
        }
        let Some(address) = literal(host) else {
            return forbidden_name(host)
                .map_or(Ok(()), |kind| Err(Refused::Name { host: authority(uri), kind }));
        };
        let kind = forbidden(address).or_else(|| private(address));
        kind.map_or(Ok(()), |kind| Err(Refused::Address { host: authority(uri), kind, address }))
    }

    /// Returns whether the certificate of the host of an `https` URI is not verified.
    pub(crate) fn is_unverified(&self, uri: &Uri) -> bool {
        let covers = |registry: &InsecureRegistry| registry.allows_unverified() && registry.host.covers(uri);
        uri.scheme() == Some(&Scheme::HTTPS)
            && self.named().iter().filter_map(|named| named.insecure.as_ref()).any(covers)
    }

    /// Returns the `https` form of an `http` URI if its host is an insecure registry that may speak either.
    pub(crate) fn unverified_form(&self, uri: &Uri) -> Option<Uri> {
        if uri.scheme() != Some(&Scheme::HTTP) {
            return None;
        }
        with_scheme(uri, Scheme::HTTPS).filter(|tls| self.is_unverified(tls))
    }

    /// Returns whether the configuration names the host of `uri`, at its port.
    pub(crate) fn names(&self, uri: &Uri) -> bool {
        self.find(uri).is_some()
    }

    /// Returns whether the host of `uri` may be contacted over plain HTTP, if it is named.
    fn find(&self, uri: &Uri) -> Option<bool> {
        let named = self.named();
        let mut found =
            named.iter().filter(|named| named.host.covers(uri)).map(|named| named.http).peekable();
        found.peek()?;
        Some(found.any(|http| http))
    }
}

/// Refuses a forbidden address that a name resolved to.
pub(crate) fn check_resolved(host: &str, address: IpAddr) -> Result<(), Refused> {
    match forbidden(address) {
        Some(kind) => Err(Refused::Address { host: host.to_owned(), kind, address }),
        None => Ok(()),
    }
}

fn authority(uri: &Uri) -> String {
    uri.authority().map(ToString::to_string).unwrap_or_default()
}

/// Parses a literal address in any of the spellings that resolvers accept.
fn literal(host: &str) -> Option<IpAddr> {
    let bare = bare(host);
    bare.parse().ok().or_else(|| old_ipv4(bare).map(IpAddr::V4))
}

/// Parses an IPv4 address like `inet_aton`: one to four numbers, each decimal, octal or hexadecimal; the last one fills
/// the remaining bytes. `127.1`, `0x7f.0.0.1`, `017700000001` and `2130706433` are all 127.0.0.1.
fn old_ipv4(host: &str) -> Option<Ipv4Addr> {
    let numbers = host.split('.').map(old_number).collect::<Option<Vec<u32>>>()?;
    let (&last, first) = numbers.split_last()?;
    let room = 32_u32.checked_sub(8 * u32::try_from(first.len()).ok()?).filter(|&room| room > 0)?;
    if first.iter().any(|&number| number > 255) || last.checked_shr(room).unwrap_or(0) != 0 {
        return None;
    }
    let front = first.iter().fold(0_u32, |front, number| (front << 8) | number);
    Some(Ipv4Addr::from(front.checked_shl(room).unwrap_or(0) | last))
}

fn old_number(text: &str) -> Option<u32> {
    let lower = text.to_ascii_lowercase();
    let (digits, radix) = match (lower.strip_prefix("0x"), lower.strip_prefix('0')) {
        (Some(digits), _) => (digits, 16),
        (None, Some(digits)) if !digits.is_empty() => (digits, 8),
        _ => (lower.as_str(), 10),
    };
    let plain = digits.chars().all(|c| c.is_ascii_hexdigit());
    plain.then(|| u32::from_str_radix(digits, radix).ok()).flatten()
}

/// Returns the kind of a name that no registry can have. Names are checked in addition to their addresses because a
/// forward proxy resolves them itself.
fn forbidden_name(host: &str) -> Option<&'static str> {
    let name = bare(host).to_ascii_lowercase();
    let last = name.rsplit('.').next().unwrap_or_default();
    // `[fe80::1%eth0]`, `1.2.3.4.5`, `0x7f.1`: some resolver may parse it as an address.
    if host.starts_with('[') || last.starts_with(|c: char| c.is_ascii_digit()) && is_number(last) {
        return Some("not a valid address");
    }
    match name.as_str() {
        "" => Some("an empty name"),
        "metadata.google.internal" | "metadata.goog" | "instance-data" | "instance-data.ec2.internal" => {
            Some("a metadata service")
        }
        _ if last == "localhost" || name == "localhost.localdomain" => Some("this machine"),
        _ => None,
    }
}

fn is_number(label: &str) -> bool {
    let digits = label.strip_prefix("0x").unwrap_or(label);
    digits.chars().all(|c| c.is_ascii_digit())
        || (digits != label && digits.chars().all(|c| c.is_ascii_hexdigit()))
}

/// Returns the IPv4 address embedded in an IPv6 one, the actual destination: mapped, compatible, translated (SIIT,
/// NAT64, also with its local prefix), and tunneled (6to4, Teredo).
fn unwrapped(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else { return address };
    let v4 = |high: u16, low: u16| IpAddr::V4(Ipv4Addr::from((u32::from(high) << 16) | u32::from(low)));
    match v6.segments() {
        // `::` and `::1` are native IPv6 addresses.
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => address,
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] | [0, 0, 0, 0, 0xffff, 0, high, low] => v4(high, low),
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x64, 0xff9b, 1, _, _, _, high, low] => v4(high, low),
        [0x2002, high, low, ..] => v4(high, low),
        [0x2001, 0, _, _, _, _, high, low] => v4(!high, !low),
        _ => address,
    }
}

/// Returns the kind of an address that is refused unless the configuration names it.
fn forbidden(address: IpAddr) -> Option<&'static str> {
    match unwrapped(address) {
        address if address.is_loopback() => Some("a loopback address"),
        address if address.is_unspecified() => Some("the unspecified address"),
        address if address.is_multicast() => Some("a multicast address"),
        IpAddr::V4(v4) if v4.is_link_local() => Some("a link-local address"),
        IpAddr::V4(v4) if v4.is_broadcast() || v4.octets().starts_with(&[0]) => Some("a broadcast address"),
        IpAddr::V6(v6) if v6.is_unicast_link_local() => Some("a link-local address"),
        address if METADATA.contains(&address) => Some("a metadata service"),
        // All services of AWS on the instance: metadata, DNS, time, pod identities.
        IpAddr::V6(v6) if v6.segments().starts_with(&[0xfd00, 0xec2]) => Some("a metadata service"),
        _ => None,
    }
}

/// Metadata services outside the link-local range: Alibaba, Azure, Oracle, and Google on IPv6.
const METADATA: [IpAddr; 4] = [
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)),
];

/// Returns the kind of an address that may be reached by a name, but not literally.
fn private(address: IpAddr) -> Option<&'static str> {
    let private = match unwrapped(address) {
        IpAddr::V4(v4) => {
            v4.is_private()
                || matches!(
                    v4.octets(),
                    [100, 64..=127, _, _] | [192, 0, 0, _] | [198, 18..=19, _, _] | [240..=255, ..]
                )
        }
        IpAddr::V6(v6) => v6.is_unique_local() || matches!(v6.segments(), [0xfec0..=0xfeff, ..]),
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
    fn guard_refuses_forbidden_addresses() {
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
            "https://[fec0::1]/",
            "https://100.64.0.1/",
            "https://198.18.0.1/",
            "https://240.0.0.1/",
            "ftp://registry.example/",
            // Alternative spellings of addresses.
            "https://127.1/",
            "https://2130706433/",
            "https://0x7f000001/",
            "https://0x7F.0.0.1/",
            "https://0177.0.0.1/",
            "https://017700000001/",
            "https://127.0.0.1./",
            "https://127.0.0.1../",
            "https://0xa9fea9fe/",
            "https://10.1/",
            "https://0xa.0x0.0x0.0x1/",
            "https://1.2.3.4.5/",
            "https://999.1.1.1/",
            "https://0x/",
            // IPv4 inside IPv6.
            "https://[::127.0.0.1]/",
            "https://[::ffff:a9fe:a9fe]/",
            "https://[::ffff:0:127.0.0.1]/",
            "https://[64:ff9b:1::10.0.0.1]/",
            "https://[2002:7f00:1::]/",
            "https://[2002:a9fe:a9fe::1]/",
            "https://[2001:0:1::80ff:fffe]/",
            // Metadata services, and names of them and of this machine.
            "https://168.63.129.16/",
            "https://100.100.100.200/",
            "https://192.0.0.192/",
            "https://[fd00:ec2::23]/",
            "https://[fd20:ce::254]/",
            "https://metadata.google.internal/",
            "https://METADATA.google.internal./",
            "https://localhost/",
            "https://LocalHost.:5000/",
            "https://registry.localhost/",
        ] {
            assert!(!check(&guard, uri), "{uri}");
        }
        for uri in [
            "https://registry.example/",
            "https://registry.example:5000/",
            "https://registry/",
            "https://8.8.8.8/",
            "https://134744072/",
            "https://[2606:4700::1111]/",
            "https://[::ffff:8.8.8.8]/",
            "https://[2001:4860:4860::8888]/",
            "https://0xcafe.example/",
            "https://1.example/",
            "https://beef/",
        ] {
            assert!(check(&guard, uri), "{uri}");
        }
    }

    #[test]
    fn named_hosts_are_exempt_at_their_port() {
        let guard = Guard::default()
            .naming("127.0.0.1:5000".parse().unwrap(), true)
            .naming("[::1]".parse().unwrap(), true)
            .naming("10.0.0.1".parse().unwrap(), false)
            .naming("Plain.example".parse().unwrap(), true)
            .naming("localhost:5000".parse().unwrap(), false);
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
            ("https://localhost:5000/", true),
            ("https://localhost:5001/", false),
            // Another spelling of a named host is not exempt.
            ("http://127.1:5000/", false),
        ] {
            assert_eq!(check(&guard, uri), expected, "{uri}");
        }
    }

    #[test]
    fn resolved_addresses_are_checked() {
        let resolved = |text: &str| check_resolved("h", text.parse().unwrap()).is_ok();
        for address in [
            "127.0.0.1",
            "::1",
            "169.254.1.1",
            "0.0.0.0",
            "0.1.2.3",
            "fe80::1",
            "fd00:ec2::254",
            "::ffff:127.0.0.1",
            "64:ff9b::7f00:1",
            "168.63.129.16",
        ] {
            assert!(!resolved(address), "{address}");
        }
        for address in ["10.0.0.1", "192.168.0.1", "1.1.1.1", "2606:4700::1111", "fd12::1"] {
            assert!(resolved(address), "{address}");
        }
    }

    #[test]
    fn ipv4_is_parsed_like_inet_aton() {
        for (text, expected) in [
            ("127.1", Some([127, 0, 0, 1])),
            ("127.0.1", Some([127, 0, 0, 1])),
            ("0x7f.1", Some([127, 0, 0, 1])),
            ("017700000001", Some([127, 0, 0, 1])),
            ("10.0.65535", Some([10, 0, 255, 255])),
            ("10.0.65536", None),
            ("256.1", None),
            ("4294967296", None),
            ("1.2.3.4.5", None),
            ("08", None),
            ("0x", None),
            ("+1", None),
            ("a.1", None),
            ("", None),
        ] {
            assert_eq!(old_ipv4(text), expected.map(Ipv4Addr::from), "{text}");
        }
    }

    #[test]
    fn parses_host_with_optional_port() {
        for text in ["a", "a.example:5000", "127.0.0.1", "[::1]:5000", "[::1]", "::1"] {
            assert!(text.parse::<HostPort>().is_ok(), "{text}");
        }
        for text in ["", ":5000", "a:b", "a:", "http://a", "a/b", "u@a", "a:99999"] {
            assert!(text.parse::<HostPort>().is_err(), "{text}");
        }
    }
}
