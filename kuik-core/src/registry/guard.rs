//! Which addresses may be contacted: a name in a pod must not become a way to what only this machine can reach.
//!
//! Loopback, link-local (cloud metadata), unspecified and multicast addresses are refused, however they are reached:
//! written in an image name, behind DNS, behind a redirect, or as the realm of a challenge. So is plain http, and an
//! address written as such in a private network, in whichever spelling a resolver would understand. A host that the
//! configuration *names* is exempt, with its port. What a name behind a proxy resolves to is the proxy's business: there
//! only what is written can be checked, so names that are known to be this machine or a metadata service are refused too.

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
    /// A name of what only this machine can reach, or what a resolver may take for an address.
    #[error("{host} is {kind}, which is refused unless the configuration names it")]
    Name {
        /// The host as it was written.
        host: String,
        /// What it is.
        kind: &'static str,
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

/// The host without the brackets of an IPv6 address, and without the dots that end a full name.
fn bare(host: &str) -> &str {
    let inner = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    inner.trim_end_matches('.')
}

/// The address that is written, in any of the spellings that resolvers understand.
fn literal(host: &str) -> Option<IpAddr> {
    let bare = bare(host);
    bare.parse().ok().or_else(|| old_ipv4(bare).map(IpAddr::V4))
}

/// An IPv4 address as `inet_aton` reads it: one to four numbers, each decimal, octal or hexadecimal, the last of which
/// fills what is left. `127.1`, `0x7f.0.0.1`, `017700000001` and `2130706433` are all 127.0.0.1.
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

/// What kind of name it is, where no registry can have it. Names are checked although what they resolve to is: behind a
/// proxy somebody else resolves them.
fn forbidden_name(host: &str) -> Option<&'static str> {
    let name = bare(host).to_ascii_lowercase();
    let last = name.rsplit('.').next().unwrap_or_default();
    // `[fe80::1%eth0]`, `1.2.3.4.5`, `0x7f.1`: nobody knows who takes them for an address.
    if host.starts_with('[') || last.starts_with(|c: char| c.is_ascii_digit()) && is_number(last) {
        return Some("no address that can be checked");
    }
    match name.as_str() {
        "" => Some("no name"),
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

/// The IPv4 address inside an IPv6 one, which is where packets would go: mapped, compatible, translated (SIIT, NAT64,
/// also with its local prefix), and tunnelled (6to4, Teredo).
fn unwrapped(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else { return address };
    let v4 = |high: u16, low: u16| IpAddr::V4(Ipv4Addr::from((u32::from(high) << 16) | u32::from(low)));
    match v6.segments() {
        // `::` and `::1` are addresses of IPv6.
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => address,
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] | [0, 0, 0, 0, 0xffff, 0, high, low] => v4(high, low),
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x64, 0xff9b, 1, _, _, _, high, low] => v4(high, low),
        [0x2002, high, low, ..] => v4(high, low),
        [0x2001, 0, _, _, _, _, high, low] => v4(!high, !low),
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
        IpAddr::V6(v6) if v6.is_unicast_link_local() => Some("a link-local address"),
        address if METADATA.contains(&address) => Some("a metadata service"),
        // All of AWS's services on the machine: metadata, names, time, the identities of pods.
        IpAddr::V6(v6) if v6.segments().starts_with(&[0xfd00, 0xec2]) => Some("a metadata service"),
        _ => None,
    }
}

/// Metadata services outside the link-local range: of Alibaba, Azure, Oracle, and Google on IPv6.
const METADATA: [IpAddr; 4] = [
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)),
];

/// What kind of address it is, where it may be reached by a name, and not as it is written.
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
            "https://[fec0::1]/",
            "https://100.64.0.1/",
            "https://198.18.0.1/",
            "https://240.0.0.1/",
            "ftp://registry.example/",
            // Spellings of addresses.
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
    fn names_are_exempt_at_their_port() {
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
            // Another spelling of what is named is another name.
            ("http://127.1:5000/", false),
        ] {
            assert_eq!(check(&guard, uri), expected, "{uri}");
        }
    }

    #[test]
    fn what_names_resolve_to() {
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
    fn old_spellings_are_read_as_resolvers_read_them() {
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
    fn reads_hosts_and_ports() {
        for text in ["a", "a.example:5000", "127.0.0.1", "[::1]:5000", "[::1]", "::1"] {
            assert!(text.parse::<HostPort>().is_ok(), "{text}");
        }
        for text in ["", ":5000", "a:b", "a:", "http://a", "a/b", "u@a", "a:99999"] {
            assert!(text.parse::<HostPort>().is_err(), "{text}");
        }
    }
}
