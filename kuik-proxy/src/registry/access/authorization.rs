//! Parser of the `Authorization` header: RFC 7617 (`Basic`) and RFC 6750 (`Bearer`).

use std::fmt;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderMap, header};

/// The token issued to anonymous clients; it grants read access only.
pub(super) const READS_ONLY: &str = "reads-only";

/// A secret sent by a client.
pub(super) struct Sent {
    pub(super) secret: String,
    readable: bool,
}

/// Credential presented by a client.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Presented<'a> {
    Nothing,
    /// The anonymous read-only token.
    ReadsOnly,
    /// A token, or a password.
    Secret(&'a str),
    /// A header that holds neither.
    Other,
}

impl<'a> Presented<'a> {
    pub(super) fn of(sent: Option<&'a Sent>) -> Self {
        match sent {
            None => Self::Nothing,
            Some(sent) if !sent.readable => Self::Other,
            // Some clients without credentials send `Basic` with an empty user and password.
            Some(sent) if sent.secret.is_empty() => Self::Nothing,
            Some(sent) if sent.secret == READS_ONLY => Self::ReadsOnly,
            Some(sent) => Self::Secret(&sent.secret),
        }
    }

    pub(super) fn secret(self) -> Option<&'a str> {
        match self {
            Self::Secret(secret) => Some(secret),
            _ => None,
        }
    }
}

impl fmt::Debug for Presented<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nothing => "Nothing",
            Self::ReadsOnly => "ReadsOnly",
            Self::Secret(_) => "Secret(…)",
            Self::Other => "Other",
        })
    }
}

/// Returns the secret of a request; `None` if it has no such header.
pub(super) fn read(headers: &HeaderMap) -> Option<Sent> {
    let value = headers.get(header::AUTHORIZATION)?;
    Some(match value.to_str().ok().and_then(secret) {
        Some(secret) => Sent { secret, readable: true },
        None => Sent { secret: String::new(), readable: false },
    })
}

fn secret(value: &str) -> Option<String> {
    let (scheme, rest) = value.trim().split_once(' ')?;
    let rest = rest.trim();
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(rest.to_owned());
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(STANDARD.decode(rest).ok()?).ok()?;
    let (_, password) = decoded.split_once(':')?;
    Some(password.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn presented(value: &str) -> String {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, value.parse().unwrap());
        let sent = read(&headers);
        match Presented::of(sent.as_ref()) {
            Presented::Secret(secret) => format!("secret {secret}"),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn basic_and_bearer_headers_are_parsed() {
        assert_eq!(Presented::of(read(&HeaderMap::new()).as_ref()), Presented::Nothing);
        for (value, expected) in [
            ("Bearer abc", "secret abc"),
            ("bearer  abc ", "secret abc"),
            (&format!("Basic {}", STANDARD.encode("any:a:b")), "secret a:b"),
            (&format!("BASIC {}", STANDARD.encode(":abc")), "secret abc"),
            (&format!("Basic {}", STANDARD.encode(":")), "Nothing"),
            ("Bearer reads-only", "ReadsOnly"),
            ("Basic !", "Other"),
            (&format!("Basic {}", STANDARD.encode("no colon")), "Other"),
            ("Digest abc", "Other"),
            ("abc", "Other"),
            ("", "Other"),
        ] {
            assert_eq!(presented(value), expected, "{value}");
        }
    }
}
