//! Hosts with a port, as configurations name them.

use std::{net::Ipv6Addr, str::FromStr};

use http::Uri;

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

impl InvalidHostPort {
    pub(super) fn of(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl HostPort {
    /// Returns whether this is the host of `uri`, at its port.
    pub(crate) fn covers(&self, uri: &Uri) -> bool {
        let host = uri.host().map(bare).unwrap_or_default();
        self.host.eq_ignore_ascii_case(host) && self.port.is_none_or(|port| port == port_of(uri))
    }
}

impl FromStr for HostPort {
    type Err = InvalidHostPort;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || InvalidHostPort(text.to_owned());
        // A bare IPv6 address is a host; `http::uri::Authority` parses all other forms.
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

/// Returns the port of `uri`, explicit or default.
pub(crate) fn port_of(uri: &Uri) -> u16 {
    uri.port_u16().unwrap_or(if uri.scheme_str() == Some("http") { 80 } else { 443 })
}

/// Returns the host without the brackets of an IPv6 address and without trailing dots.
pub(super) fn bare(host: &str) -> &str {
    let inner = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    inner.trim_end_matches('.')
}
