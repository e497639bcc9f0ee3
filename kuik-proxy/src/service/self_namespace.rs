//! Removal of the `ns` parameter if it names this proxy itself: containerd with a catch-all mirror requests
//! `localhost:7439/docker.io/…` from it with `?ns=localhost:7439`. Such a parameter carries no information.
//!
//! Names of this machine are equal if their ports are: the configuration may contain `127.0.0.1:7439`, and the image
//! `localhost:7439`.

use std::{borrow::Cow, net::IpAddr};

use http::{HeaderMap, header};

/// Returns `query` without an `ns` that names the request's own host on this machine.
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

/// Returns the port of an authority on this machine.
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
    fn only_a_namespace_of_this_host_is_removed() {
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
            assert_eq!(without(query, &headers), expected, "{host}, query {query}");
        }
        assert_eq!(without("ns=localhost%3A7439", &HeaderMap::new()), "ns=localhost%3A7439");
    }
}
