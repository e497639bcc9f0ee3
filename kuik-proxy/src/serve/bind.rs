//! Listen addresses: `HOST:PORT` in the notation of Kubernetes.
//!
//! `localhost` is both loopback addresses, because clients use the first one their resolver returns; an empty host is
//! every address.

use std::{
    fmt, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    str::FromStr,
};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;

/// Maximum number of connections waiting to be accepted: a starting node opens hundreds at once.
const BACKLOG: i32 = 1024;

/// An address to listen on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BindAddress {
    host: Host,
    port: u16,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Host {
    Loopback,
    Any,
    Ip(IpAddr),
}

/// Error for an invalid listen address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "invalid listen address {text:?}: expected HOST:PORT, with HOST an IP address (IPv6 in brackets), localhost, or empty for all"
)]
pub struct InvalidBindAddress {
    text: String,
}

/// Error for an address that cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}")]
pub struct BindError {
    address: SocketAddr,
    source: io::Error,
}

impl BindAddress {
    /// Both loopback addresses.
    #[must_use]
    pub const fn localhost(port: u16) -> Self {
        Self { host: Host::Loopback, port }
    }

    /// Every address.
    #[must_use]
    pub const fn any(port: u16) -> Self {
        Self { host: Host::Any, port }
    }

    /// The port; 0 is any free port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Binds and listens. If a name has several addresses, they get the same port; on a machine without IPv6, only
    /// the IPv4 address is used. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// Fails if an address is in use, or does not belong to this machine.
    pub fn listen(&self) -> Result<Vec<TcpListener>, BindError> {
        let (v4, v6) = match self.host {
            Host::Ip(ip) => return Ok(vec![listen(SocketAddr::new(ip, self.port))?]),
            Host::Loopback => (Ipv4Addr::LOCALHOST, Ipv6Addr::LOCALHOST),
            Host::Any => (Ipv4Addr::UNSPECIFIED, Ipv6Addr::UNSPECIFIED),
        };
        let first = listen(SocketAddr::new(v4.into(), self.port))?;
        let port = first.local_addr().map_or(self.port, |bound| bound.port());
        let second = listen(SocketAddr::new(v6.into(), port));
        match second {
            Ok(second) => Ok(vec![first, second]),
            Err(error) if has_no_ipv6(&error.source) => Ok(vec![first]),
            Err(error) => Err(error),
        }
    }
}

fn has_no_ipv6(error: &io::Error) -> bool {
    const EAFNOSUPPORT: i32 = 97;
    error.kind() == io::ErrorKind::AddrNotAvailable || error.raw_os_error() == Some(EAFNOSUPPORT)
}

fn listen(address: SocketAddr) -> Result<TcpListener, BindError> {
    let listen = || {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        if address.is_ipv6() {
            // The IPv4 listener of the pair serves IPv4.
            socket.set_only_v6(true)?;
        }
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        TcpListener::from_std(socket.into())
    };
    listen().map_err(|source| BindError { address, source })
}

impl FromStr for BindAddress {
    type Err = InvalidBindAddress;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidBindAddress { text: text.to_owned() };
        let (host, port) = text.rsplit_once(':').ok_or_else(invalid)?;
        if port.is_empty() || !port.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(invalid());
        }
        let port = port.parse().map_err(|_| invalid())?;
        let host = match host {
            "" => Host::Any,
            "localhost" => Host::Loopback,
            bracketed if bracketed.starts_with('[') => {
                let inner = bracketed.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
                Host::Ip(IpAddr::V6(inner.and_then(|inner| inner.parse().ok()).ok_or_else(invalid)?))
            }
            plain => Host::Ip(IpAddr::V4(plain.parse().map_err(|_| invalid())?)),
        };
        Ok(Self { host, port })
    }
}

impl fmt::Display for BindAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host {
            Host::Any => write!(f, ":{}", self.port),
            Host::Loopback => write!(f, "localhost:{}", self.port),
            Host::Ip(ip) => write!(f, "{}", SocketAddr::new(ip, self.port)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn valid_addresses_are_parsed_and_others_refused() {
        for text in ["localhost:7439", ":8082", "127.0.0.1:0", "[::1]:7439", "0.0.0.0:80"] {
            assert_eq!(text.parse::<BindAddress>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "7439",
            "localhost",
            "localhost:",
            "localhost:+1",
            "host:80",
            "::1:80",
            "[::1:80",
            "1.2.3.4:70000",
        ] {
            assert!(text.parse::<BindAddress>().is_err(), "{text}");
        }
    }

    #[tokio::test]
    async fn port_in_use_is_an_error_with_the_address() {
        let first = BindAddress::localhost(0).listen().unwrap();
        let taken = first[0].local_addr().unwrap();
        let error = taken.to_string().parse::<BindAddress>().unwrap().listen().unwrap_err();
        assert!(error.to_string().contains(&taken.to_string()));
    }
}
