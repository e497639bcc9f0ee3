//! References as they go through the proxy: `registry:5000/app` is `localhost:7439/registry__5000/app` there.
//!
//! Invariant: what is encoded decodes to what it was made from, and is itself a valid reference. A port's colon
//! becomes a double underscore, which no host's name has by the grammar. What would be taken for that without being
//! it is written out (`foo__5000/bar` as `docker.io/foo__5000/bar`) or refused. Only the proxy's own prefix is ever
//! taken off.

use std::{borrow::Cow, fmt};

use super::{
    error::ReferenceError,
    grammar::{self, MAX_PATH_BYTES},
    name::{InvalidName, RepositoryName},
    parse::{DOCKER_HUB, ImageReference},
};

/// What a registry's port is written behind, in place of its colon.
const PORT_SIGN: &str = "__";

/// The host and port under which every node reaches its proxy: `localhost:7439`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ProxyAuthority(Box<str>);

/// Which ways of writing a registry's port [`decode_path`] understands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum PortForms {
    /// `registry__5000`, as [`encode`] writes it.
    #[default]
    DoubleUnderscore,
    /// Also `registry-5000`, as kuik 1.x wrote it, for pods that it rewrote.
    ///
    /// This is a guess: the organisation `team-42` of Docker Hub and the host `mirror-2` are taken for the port 42 of
    /// the host `team` and the port 2 of `mirror`. Only where such pods still run is it the better guess.
    OrDash,
}

/// Why an image cannot go through the proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum CannotEncode {
    /// The brackets and colons of an IPv6 host cannot stand in a path.
    #[error("its registry is an IPv6 address, which cannot be part of a path")]
    Ipv6Host,
    /// A path has no upper-case letters.
    #[error("its registry's name has an upper-case letter, which cannot be part of a path")]
    UpperCaseHost,
    /// The registry's name looks like that of another one with its port encoded.
    #[error("its registry's name ends in '__' and digits, as another one's encoded port does")]
    AmbiguousHost,
    /// With its registry, the path would pass the limit.
    #[error("with its registry its path would have {0} bytes, and {MAX_PATH_BYTES} are allowed")]
    TooLong(usize),
    /// It names the proxy as the registry that it is to be fetched from.
    #[error("it names the proxy itself as its registry")]
    OwnRegistry,
    /// It has the proxy's prefix, and what follows is no reference.
    #[error("what follows the proxy's prefix is not a reference")]
    NotAReference(#[source] ReferenceError),
}

/// What a pod gets in place of `image` for it to be pulled through `proxy`.
///
/// That is the image as written behind the proxy's name, with its registry's port encoded. An image that has the
/// proxy's prefix already stays as it is.
///
/// ```
/// use kuik_core::reference::{ImageReference, ProxyAuthority, encode};
///
/// let encoded = |image| encode(&ImageReference::parse(image).unwrap(), &ProxyAuthority::localhost(7439)).unwrap();
/// assert_eq!(encoded("nginx"), "localhost:7439/nginx");
/// assert_eq!(encoded("registry:5000/app:1"), "localhost:7439/registry__5000/app:1");
/// assert_eq!(encoded("localhost:7439/nginx"), "localhost:7439/nginx");
/// ```
///
/// # Errors
/// Where a path cannot hold the registry's name, or not all of it; see [`CannotEncode`].
pub fn encode(image: &ImageReference<'_>, proxy: &ProxyAuthority) -> Result<String, CannotEncode> {
    let text = image.as_written();
    if let Some(original) = decode(text, proxy) {
        let original = ImageReference::parse(&original).map_err(CannotEncode::NotAReference)?;
        return if original.registry() == proxy.as_str() {
            Err(CannotEncode::OwnRegistry)
        } else {
            Ok(text.to_owned())
        };
    }
    let [host, sign, port] = match image.host {
        Some(host) => encode_registry(host)?,
        None if split_port(text, PORT_SIGN).is_some() => [DOCKER_HUB, "", ""],
        None => ["", "", ""],
    };
    let slash = if host.is_empty() { "" } else { "/" };
    let encoded = [proxy.as_str(), "/", host, sign, port, slash, image.behind_host()].concat();
    let around_path = proxy.as_str().len() + 1 + image.suffix_len();
    match encoded.len() - around_path {
        length if length > MAX_PATH_BYTES => Err(CannotEncode::TooLong(length)),
        _ => Ok(encoded),
    }
}

/// The image that `image` was made from by [`encode`], as it was written; `None` where it has not `proxy`'s prefix.
///
/// The answer is a reference where `image` came from [`encode`]; else it may be anything, so parse it.
#[must_use]
pub fn decode<'a>(image: &'a str, proxy: &ProxyAuthority) -> Option<Cow<'a, str>> {
    let encoded = image.strip_prefix(proxy.as_str())?.strip_prefix('/')?;
    Some(match split_port(encoded, PORT_SIGN) {
        Some([host, port, rest]) => Cow::Owned([host, ":", port, "/", rest].concat()),
        None => Cow::Borrowed(encoded),
    })
}

/// The repository that a path of the proxy's URLs names: `nginx`, `docker.io/library/nginx`, `registry__5000/app`.
///
/// ```
/// use kuik_core::reference::{PortForms, decode_path};
///
/// let name = |path| decode_path(path, PortForms::DoubleUnderscore).unwrap().to_string();
/// assert_eq!(name("nginx"), "docker.io/library/nginx");
/// assert_eq!(name("registry__5000/app"), "registry:5000/app");
/// ```
///
/// # Errors
/// Where it names none by the grammar.
pub fn decode_path(path: &str, ports: PortForms) -> Result<RepositoryName, InvalidName> {
    grammar::path_alone(path.as_bytes())
        .map_err(|error| InvalidName::new(path, "path in the proxy", error))?;
    let with_port = split_port(path, PORT_SIGN).or_else(|| match ports {
        PortForms::OrDash => split_port(path, "-").filter(|[_, port, _]| port.parse::<u16>().is_ok()),
        PortForms::DoubleUnderscore => None,
    });
    if let Some([host, port, rest]) = with_port {
        return RepositoryName::new(&[host, ":", port].concat(), rest);
    }
    match path.split_once('/') {
        Some((host, rest)) if grammar::is_registry(host.as_bytes()) => RepositoryName::new(host, rest),
        _ => RepositoryName::new(DOCKER_HUB, path),
    }
}

impl RepositoryName {
    /// The name as one path, as it stands in the proxy's URLs and in the cache's storage: `docker.io/library/nginx`,
    /// `registry__5000/app`. [`decode_path`] gives the name back.
    ///
    /// # Errors
    /// Where a path cannot hold the registry's name, or not all of it; see [`CannotEncode`].
    pub fn encoded(&self) -> Result<String, CannotEncode> {
        if self.registry().is_empty() {
            return Ok(self.path().to_owned());
        }
        let [host, sign, port] = encode_registry(self.registry())?;
        let encoded = [host, sign, port, "/", self.path()].concat();
        if encoded.len() > MAX_PATH_BYTES { Err(CannotEncode::TooLong(encoded.len())) } else { Ok(encoded) }
    }
}

impl ProxyAuthority {
    /// The proxy that listens on `port` of every node.
    #[must_use]
    pub fn localhost(port: u16) -> Self {
        Self(format!("localhost:{port}").into())
    }

    /// As it stands in front of an image: `localhost:7439`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ProxyAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A registry as the first part of a path: its host and, behind the sign for it, its port.
fn encode_registry(registry: &str) -> Result<[&str; 3], CannotEncode> {
    if registry.starts_with('[') {
        Err(CannotEncode::Ipv6Host)
    } else if registry.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Err(CannotEncode::UpperCaseHost)
    } else if split_host_port(registry, PORT_SIGN).is_some() {
        Err(CannotEncode::AmbiguousHost)
    } else {
        Ok(registry.split_once(':').map_or([registry, "", ""], |(host, port)| [host, PORT_SIGN, port]))
    }
}

/// The host and the port of a text's first part, where it has the form of both with `sign` between, and the rest.
fn split_port<'a>(text: &'a str, sign: &str) -> Option<[&'a str; 3]> {
    let (first, rest) = text.split_once('/')?;
    let [host, port] = split_host_port(first, sign)?;
    Some([host, port, rest])
}

fn split_host_port<'a>(part: &'a str, sign: &str) -> Option<[&'a str; 2]> {
    let (host, port) = part.rsplit_once(sign)?;
    let is_port = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    (is_port && grammar::is_host_in_path(host.as_bytes())).then_some([host, port])
}
