//! A client that takes this for the mirror of this: containerd, where it is told of one mirror for all registries, asks it
//! for `localhost:7439/docker.io/…` as well, with `?ns=localhost:7439`. Such a parameter says nothing, and is left out.
//!
//! Names of this machine are the same to it where their ports are: the configuration may say `127.0.0.1:7439`, and the
//! image `localhost:7439`.

use std::{borrow::Cow, net::IpAddr};

use http::{HeaderMap, header};

/// `query` without an `ns` that names the host that the request was sent to, on this machine.
pub(super) fn without<'a>(query: &'a str, headers: &HeaderMap) -> Cow<'a, str> {
    let port_asked = || port_here(headers.get(header::HOST)?.to_str().ok()?);
    let names_this = |parameter: &&str| {
        let named = parameter.strip_prefix("ns=").map(|name| name.replace("%3A", ":").replace("%3a", ":"));
        named.as_deref().and_then(port_here).is_some_and(|port| port_asked() == Some(port))
    };
    if !query.split('&').any(|parameter| names_this(&parameter)) {
        return Cow::Borrowed(query);
    }
    let others: Vec<_> = query.split('&').filter(|parameter| !names_this(parameter)).collect();
    Cow::Owned(others.join("&"))
}

/// The port of an authority that is this machine's own.
fn port_here(authority: &str) -> Option<u16> {
    let (host, port) = authority.rsplit_once(':')?;
    let literal = host.trim_start_matches('[').trim_end_matches(']');
    let here = host.eq_ignore_ascii_case("localhost")
        || literal.parse().is_ok_and(|address: IpAddr| address.is_loopback());
    port.parse().ok().filter(|_| here)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn only_what_names_this_very_host_is_left_out() {
        for (host, query, expected) in [
            ("127.0.0.1:7439", "ns=localhost%3A7439", ""),
            ("127.0.0.1:7439", "ns=localhost:7439", ""),
            ("localhost:7439", "ns=LOCALHOST%3a7439&n=1", "n=1"),
            ("[::1]:7439", "n=1&ns=localhost%3A7439&last=a%3A", "n=1&last=a%3A"),
            ("localhost:7439", "ns=%5B::1%5D:7439", "ns=%5B::1%5D:7439"),
            ("localhost:7439", "ns=localhost%3A5000", "ns=localhost%3A5000"),
            ("localhost:7439", "ns=registry.example%3A7439", "ns=registry.example%3A7439"),
            ("registry.example:7439", "ns=localhost%3A7439", "ns=localhost%3A7439"),
            ("localhost", "ns=localhost", "ns=localhost"),
            ("localhost:7439", "ns=docker.io", "ns=docker.io"),
            ("localhost:7439", "ns=&n", "ns=&n"),
        ] {
            let headers = HeaderMap::from_iter([(header::HOST, HeaderValue::from_static(host))]);
            assert_eq!(without(query, &headers), expected, "{host}, asked for {query}");
        }
        assert_eq!(without("ns=localhost%3A7439", &HeaderMap::new()), "ns=localhost%3A7439");
    }
}
