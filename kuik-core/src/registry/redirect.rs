//! Where a redirect leads: `Location` resolved against the address that sent it (RFC 3986, section 5.2).

use http::{StatusCode, Uri};

/// Whether the status asks to go elsewhere with the same method. (`303` changes a POST into a GET, and we post to
/// token endpoints alone, which do not do that.)
pub(super) fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// The address that `location` means, seen from `base`; `None` where it means none.
pub(super) fn target(base: &Uri, location: &[u8]) -> Option<Uri> {
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
    // User info in a URL is a credential that somebody else chose: it is not for us to send.
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
    fn resolves_locations() {
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
