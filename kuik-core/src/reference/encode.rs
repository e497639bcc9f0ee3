//! Proxy encoding of references: `registry:5000/app` becomes `localhost:7439/registry__5000/app`.
//!
//! Invariant: an encoded reference decodes to its original, and is itself a valid reference. A port's colon becomes a
//! double underscore, which is in no host name by the grammar. An ambiguous name is written in full (`foo__5000/bar` as
//! `docker.io/foo__5000/bar`) or refused. Only the proxy's own prefix is ever removed.

use std::{borrow::Cow, fmt};

use super::{
    error::ReferenceError,
    grammar::{self, MAX_PATH_BYTES},
    name::{InvalidName, RepositoryName},
    normalized::DOCKER_HUB,
    parse::ImageReference,
};

/// Separator of host and port in a path, in place of the colon.
const PORT_SIGN: &str = "__";

/// Host and port of the proxy on every node: `localhost:7439`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ProxyAuthority(Box<str>);

/// Encodings of a registry's port that [`decode_path`] accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum PortForms {
    /// `registry__5000`, as [`encode`] writes it.
    #[default]
    DoubleUnderscore,
    /// Also `registry-5000`, as kuik 1.x encoded it, for pods that kuik 1.x rewrote.
    ///
    /// This is ambiguous: the organization `team-42` of Docker Hub and the host `mirror-2` are read as port 42 of host
    /// `team` and port 2 of host `mirror`. Use it only while such pods still run.
    OrDash,
}

/// Error of encoding an image for the proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum CannotEncode {
    /// The brackets and colons of an IPv6 host are not allowed in a path.
    #[error("its registry is an IPv6 address, which is not allowed in a path")]
    Ipv6Host,
    /// Upper-case letters are not allowed in a path.
    #[error("its registry's name has an upper-case letter, which is not allowed in a path")]
    UpperCaseHost,
    /// The registry's name looks like another registry with an encoded port.
    #[error("its registry's name ends in '__' and digits, as another one's encoded port does")]
    AmbiguousHost,
    /// With its registry, the path would exceed the length limit.
    #[error("with its registry its path would have {0} bytes, and {MAX_PATH_BYTES} are allowed")]
    TooLong(usize),
    /// The image names the proxy itself as its registry.
    #[error("it names the proxy itself as its registry")]
    OwnRegistry,
    /// The image has the proxy's prefix, but the rest is not a reference.
    #[error("what follows the proxy's prefix is not a reference")]
    NotAReference(#[source] ReferenceError),
}

/// Encodes `image` so that a pod pulls it through `proxy`.
///
/// The result is the proxy's name followed by the image as written, with its registry's port encoded. An image that
/// already has the proxy's prefix is not changed.
///
/// [`decode`] is the inverse: `decode(encode(image)) == image`, as written. There are two exceptions, and in both the
/// result is still the same image, that is, equal as an [`ImageReference`]:
/// - An image that already has the prefix decodes to its original, without the prefix.
/// - An image of Docker Hub without a registry, whose first path component ends in `__` and digits, decodes to its full
///   name: `team__42/app` is encoded as `localhost:7439/docker.io/team__42/app`, because `localhost:7439/team__42/app`
///   means port 42 of the host `team`.
///
/// ```
/// use kuik_core::reference::{ImageReference, ProxyAuthority, encode};
///
/// let encoded = |image| encode(&ImageReference::parse(image).unwrap(), &ProxyAuthority::localhost(7439)).unwrap();
/// assert_eq!(encoded("nginx"), "localhost:7439/nginx");
/// assert_eq!(encoded("registry:5000/app:1"), "localhost:7439/registry__5000/app:1");
/// assert_eq!(encoded("localhost:7439/nginx"), "localhost:7439/nginx");
/// assert_eq!(encoded("team__42/app"), "localhost:7439/docker.io/team__42/app");
/// ```
///
/// # Errors
/// Returns an error if the registry's name cannot be part of a path, or the path is too long; see [`CannotEncode`].
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

/// Decodes an image that [`encode`] returned, to the original as written; `None` if it lacks the prefix of `proxy`.
///
/// The result is the image that was encoded, as written, with the exceptions listed at [`encode`]. It is a valid
/// reference if `image` came from [`encode`]; otherwise it may be any text, so parse it.
#[must_use]
pub fn decode<'a>(image: &'a str, proxy: &ProxyAuthority) -> Option<Cow<'a, str>> {
    let encoded = image.strip_prefix(proxy.as_str())?.strip_prefix('/')?;
    Some(match split_port(encoded, PORT_SIGN) {
        Some([host, port, rest]) => Cow::Owned([host, ":", port, "/", rest].concat()),
        None => Cow::Borrowed(encoded),
    })
}

/// Decodes a repository path of the proxy's URLs: `nginx`, `docker.io/library/nginx`, `registry__5000/app`.
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
/// Returns an error if the path is not a repository by the grammar.
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
    /// Encodes the name as one path, as in the proxy's URLs and in the cache's storage: `docker.io/library/nginx`,
    /// `registry__5000/app`. [`decode_path`] is the inverse.
    ///
    /// # Errors
    /// Returns an error if the registry's name cannot be part of a path, or the path is too long; see [`CannotEncode`].
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
    /// The proxy on `port` of every node.
    #[must_use]
    pub fn localhost(port: u16) -> Self {
        Self(format!("localhost:{port}").into())
    }

    /// The prefix of an encoded image: `localhost:7439`.
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

/// Encodes a registry as the first part of a path: host, separator and port.
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

/// Splits the first part of a text into host and port at `sign`, if it has that form, and returns both with the rest.
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
