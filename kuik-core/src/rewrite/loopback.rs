//! Registries on a node's own loopback interface: which hosts mean it, and the exceptions.
//!
//! `localhost:5000/app` names a registry of the node. The proxy runs elsewhere, in a network of its own, so it cannot
//! reach that registry, and its SSRF guard refuses the address.

use std::net::{Ipv4Addr, Ipv6Addr};

/// Registries, as `HOST` or `HOST:PORT`, that are exempt although they are loopback registries.
#[derive(Debug, Clone, Default)]
pub(super) struct LoopbackExemptions(Vec<String>);

impl LoopbackExemptions {
    pub(super) fn new<R: Into<String>>(registries: impl IntoIterator<Item = R>) -> Self {
        let normalized = |registry: R| {
            let registry: String = registry.into();
            let address = registry.parse::<Ipv6Addr>();
            address.map_or_else(|_| registry.to_ascii_lowercase(), |address| format!("[{address}]"))
        };
        Self(registries.into_iter().map(normalized).collect())
    }

    /// Returns whether `registry` is named: exactly, or by its host alone.
    fn contain(&self, registry: &str) -> bool {
        let registry = registry.to_ascii_lowercase();
        self.0.iter().any(|named| *named == registry || *named == host_of(&registry))
    }

    /// Returns whether `registry` is a loopback registry that is not exempt.
    pub(super) fn forbid(&self, registry: &str) -> bool {
        is_loopback(registry) && !self.contain(registry)
    }
}

/// Returns whether a registry (`HOST[:PORT]`) is on the loopback interface of the machine that pulls.
fn is_loopback(registry: &str) -> bool {
    let host = host_of(registry);
    if let Some(address) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        let loopback = |address: Ipv6Addr| {
            address.is_loopback() || address.to_ipv4_mapped().is_some_and(|address| address.is_loopback())
        };
        return address.parse().is_ok_and(loopback);
    }
    if let Ok(address) = host.parse::<Ipv4Addr>() {
        return address.is_loopback();
    }
    let name = host.to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost") || name == "localhost.localdomain"
}

/// Returns the host without its port; an IPv6 address keeps its brackets.
fn host_of(registry: &str) -> &str {
    match registry.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => registry,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_registries_are_recognized_in_every_form() {
        for registry in [
            "localhost",
            "localhost:32000",
            "LocalHost:5000",
            "registry.localhost:5000",
            "localhost.localdomain:5000",
            "127.0.0.1:5000",
            "127.1.2.3",
            "[::1]:5000",
            "[::1]",
            "[0:0:0:0:0:0:0:1]:5000",
            "[::ffff:127.0.0.1]:5000",
        ] {
            assert!(is_loopback(registry), "{registry}");
        }
        for registry in
            ["docker.io", "registry:5000", "localhost.example:5000", "10.0.0.1:5000", "[2001:db8::1]:5000"]
        {
            assert!(!is_loopback(registry), "{registry}");
        }
    }

    #[test]
    fn named_registries_are_exempt_with_their_port_or_for_all() {
        let exempt = LoopbackExemptions::new(["LOCALHOST:5001", "127.0.0.1", "::1"]);
        for registry in ["localhost:5001", "127.0.0.1:5000", "127.0.0.1", "[::1]:5000"] {
            assert!(!exempt.forbid(registry), "{registry}");
        }
        for registry in ["localhost:5000", "localhost", "127.0.0.2:5000"] {
            assert!(exempt.forbid(registry), "{registry}");
        }
    }
}
