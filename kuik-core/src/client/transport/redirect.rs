//! Redirect targets: `Location` resolved against the URL that sent it (RFC 3986, section 5.2).

use http::{StatusCode, Uri};

/// Returns whether the status is a redirect that keeps the method. (`303` turns a POST into a GET; only token endpoints
/// receive a POST, and they do not send it.)
pub(crate) fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// Resolves `location` against `base`; `None` if it is invalid.
pub(crate) fn target(base: &Uri, location: &[u8]) -> Option<Uri> {
    let location = std::str::from_utf8(location).ok()?.trim();
    let location = location.split('#').next().unwrap_or_default();
    let (scheme, authority) = (base.scheme_str()?, base.authority()?);
    let absolute = if location.is_empty() {
        return None;
    } else if has_scheme(location) {
        location.to_owned()
    } else if location.starts_with("//") {
        format!("{scheme}:{location}")
    } else if location.starts_with('/') {
        format!("{scheme}://{authority}{location}")
    } else if location.starts_with('?') {
        format!("{scheme}://{authority}{}{location}", base.path())
    } else {
        let folder = base.path().rsplit_once('/').map_or("", |(folder, _)| folder);
        format!("{scheme}://{authority}{folder}/{location}")
    };
    let target: Uri = absolute.parse().ok()?;
    // User info in a URL is a credential chosen by the server: it is never sent.
    let plain = target.authority().is_some_and(|authority| !authority.as_str().contains('@'));
    plain.then_some(target)
}

fn has_scheme(location: &str) -> bool {
    location.split_once(':').is_some_and(|(scheme, _)| {
        scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn location_is_resolved_against_base() {
        let base: Uri = "https://r.example:5000/v2/app/blobs/x?y=z".parse().unwrap();
        for (location, expected) in [
            ("https://cdn.example/b?sig=1#part", Some("https://cdn.example/b?sig=1")),
            ("//cdn.example/b", Some("https://cdn.example/b")),
            ("/b?c", Some("https://r.example:5000/b?c")),
            ("other", Some("https://r.example:5000/v2/app/blobs/other")),
            ("?q", Some("https://r.example:5000/v2/app/blobs/x?q")),
            ("HTTPS://cdn.example/b", Some("https://cdn.example/b")),
            ("https://user:pw@cdn.example/b", None),
            ("", None),
            ("#x", None),
            ("https://", None),
            ("\u{7f}", None),
        ] {
            let found = target(&base, location.as_bytes()).map(|uri| uri.to_string());
            assert_eq!(found.as_deref(), expected, "{location}");
        }
        assert_eq!(target(&base, b"\xff"), None);
    }
}
