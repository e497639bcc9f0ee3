//! Earlier rewritings of an image: for a proxy on another port, or by kuik 1.x.
//!
//! An image alone proves nothing: `localhost:5000/app` can be a registry of the node. The original proves it, which is in
//! an annotation of the pod: encoding the original gives exactly this image.

use crate::reference::{ImageReference, ProxyAuthority, encode};

/// Returns true if `image` is what kuik made of `original`, for a proxy on any port of localhost.
///
/// kuik 1.x wrote the port of a registry after a dash.
///
/// ```
/// use kuik_core::rewrite::is_rewriting_of;
///
/// assert!(is_rewriting_of("localhost:7440/nginx", "nginx"));
/// assert!(is_rewriting_of("localhost:7439/registry__5000/app:1", "registry:5000/app:1"));
/// assert!(is_rewriting_of("localhost:7439/registry-5000/app:1", "registry:5000/app:1"));
/// assert!(!is_rewriting_of("localhost:5000/nginx:2", "nginx"));
/// ```
#[must_use]
pub fn is_rewriting_of(image: &str, original: &str) -> bool {
    let Some((proxy, path)) = split_proxy(image) else { return false };
    let Ok(reference) = ImageReference::parse(original) else { return false };
    // An image that names this proxy is encoded as itself.
    if original != image && encode(&reference, &proxy).is_ok_and(|encoded| encoded == image) {
        return true;
    }
    reference.registry().contains(':') && path == original.replacen(':', "-", 1)
}

/// Splits an image into a proxy on localhost and the path after it.
fn split_proxy(image: &str) -> Option<(ProxyAuthority, &str)> {
    let (port, path) = image.strip_prefix("localhost:")?.split_once('/')?;
    let number = port.parse::<u16>().ok().filter(|number| number.to_string() == port)?;
    Some((ProxyAuthority::localhost(number), path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rewriting_is_recognized_by_its_original_at_any_port() {
        for (image, original) in [
            ("localhost:7439/nginx", "nginx"),
            ("localhost:1/quay.io/a/b:1", "quay.io/a/b:1"),
            ("localhost:7440/registry__5000/app", "registry:5000/app"),
            ("localhost:7440/registry-5000/app", "registry:5000/app"),
            ("localhost:7440/docker.io/team__42/app", "team__42/app"),
        ] {
            assert!(is_rewriting_of(image, original), "{image} {original}");
        }
    }

    #[test]
    fn other_images_are_not_rewritings() {
        for (image, original) in [
            ("localhost:5000/nginx:2", "nginx:1"),
            ("localhost:5000/nginx", ""),
            ("localhost:5000/nginx", "%%"),
            ("localhost/nginx", "nginx"),
            ("localhost:05000/nginx", "nginx"),
            ("localhost:70000/nginx", "nginx"),
            ("127.0.0.1:7440/nginx", "nginx"),
            ("localhost:7440/team-42/app", "team/42/app"),
            // The image itself, as its own original.
            ("localhost:5000/nginx", "localhost:5000/nginx"),
        ] {
            assert!(!is_rewriting_of(image, original), "{image} {original}");
        }
    }
}
