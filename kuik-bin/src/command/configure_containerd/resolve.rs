//! Address of a fallback endpoint, for nodes that do not use the DNS of the cluster.

use std::{
    io,
    net::{SocketAddr, ToSocketAddrs as _},
};

use http::Uri;

/// Returns an `http` URL with the first address of its host in place of the name.
pub(super) fn resolved(url: &str) -> io::Result<String> {
    let uri: Uri = url.parse().map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let address = (host, uri.port_u16().unwrap_or(80)).to_socket_addrs()?.next();
    let none = || io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    address.map(at).ok_or_else(none)
}

/// Returns the URL at an address; one of IPv6 is in brackets.
fn at(address: SocketAddr) -> String {
    format!("http://{address}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_is_replaced_by_its_address() {
        for (url, expected) in [
            ("http://10.96.0.7:5000", "http://10.96.0.7:5000"),
            ("http://[fd00::7]:5000", "http://[fd00::7]:5000"),
            ("http://10.96.0.7", "http://10.96.0.7:80"),
        ] {
            assert_eq!(resolved(url).unwrap(), expected);
        }
        let loopback = resolved("http://localhost:5000").unwrap();
        assert!(["http://127.0.0.1:5000", "http://[::1]:5000"].contains(&loopback.as_str()), "{loopback}");
        assert!(resolved("http://no-such-name.invalid:5000").is_err());
    }
}
