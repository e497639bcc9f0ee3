//! AWS Signature Version 4 request signing.
//!
//! Implements "Create a signed AWS API request" for requests whose path and query need no further encoding, as ours.
//! Every header of the request is signed.

use http::{HeaderMap, HeaderValue, Method, Uri};
use jiff::Timestamp;
use ring::{digest, hmac};

use crate::credentials::Secret;

const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// AWS access keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Keys {
    pub(super) id: String,
    pub(super) secret: Secret,
    /// The token of temporary keys.
    pub(super) session: Option<Secret>,
}

/// Scope of a signature.
pub(super) struct Scope<'a> {
    pub(super) region: &'a str,
    pub(super) service: &'a str,
    pub(super) at: Timestamp,
}

/// Adds `host`, `x-amz-date`, `x-amz-security-token` and `authorization` to the request headers. `None` if a value is
/// invalid in a header.
pub(super) fn sign(
    keys: &Keys,
    scope: &Scope<'_>,
    method: &Method,
    uri: &Uri,
    headers: &mut HeaderMap,
    body: &[u8],
) -> Option<()> {
    let at = scope.at.strftime("%Y%m%dT%H%M%SZ").to_string();
    let date = at.get(..8)?;
    headers.insert("host", HeaderValue::from_str(uri.authority()?.as_str()).ok()?);
    headers.insert("x-amz-date", HeaderValue::from_str(&at).ok()?);
    if let Some(session) = &keys.session {
        headers.insert("x-amz-security-token", sensitive(session.expose())?);
    }
    let (signed, canonical) = canonical(method, uri, headers, body)?;
    let within = format!("{date}/{}/{}/aws4_request", scope.region, scope.service);
    let hashed = hex(digest::digest(&digest::SHA256, canonical.as_bytes()).as_ref());
    let to_sign = format!("{ALGORITHM}\n{at}\n{within}\n{hashed}");
    let secret: Vec<u8> = format!("AWS4{}", keys.secret.expose()).into_bytes();
    let steps = [date, scope.region, scope.service, "aws4_request", &to_sign];
    let signature = hex(steps.into_iter().fold(secret, |key: Vec<u8>, text| mac(&key, text)).as_slice());
    let authorization =
        format!("{ALGORITHM} Credential={}/{within}, SignedHeaders={signed}, Signature={signature}", keys.id);
    headers.insert("authorization", sensitive(&authorization)?);
    Some(())
}

/// Returns the names of the signed headers, and the canonical request.
fn canonical(method: &Method, uri: &Uri, headers: &HeaderMap, body: &[u8]) -> Option<(String, String)> {
    let mut lines: Vec<(&str, String)> = Vec::new();
    for name in headers.keys() {
        let values: Vec<_> =
            headers.get_all(name).iter().map(HeaderValue::to_str).collect::<Result<_, _>>().ok()?;
        let values = values.iter().map(|value| value.split_whitespace().collect::<Vec<_>>().join(" "));
        lines.push((name.as_str(), values.collect::<Vec<_>>().join(",")));
    }
    lines.sort();
    let signed = lines.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(";");
    let lines: String = lines.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
    let body = hex(digest::digest(&digest::SHA256, body).as_ref());
    let (path, query) = (uri.path(), uri.query().unwrap_or_default());
    Some((signed.clone(), format!("{method}\n{path}\n{query}\n{lines}\n{signed}\n{body}")))
}

fn mac(key: &[u8], text: &str) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes()).as_ref().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn sensitive(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the signature of a request from AWS's published test suite ("aws-sig-v4-test-suite").
    fn signature(
        method: &str,
        uri: &str,
        headers: &[(&'static str, &str)],
        body: &str,
        session: Option<&str>,
    ) -> String {
        let keys = Keys {
            id: "AKIDEXAMPLE".to_owned(),
            secret: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".into(),
            session: session.map(Secret::from),
        };
        let at = "2015-08-30T12:36:00Z".parse().unwrap();
        let scope = Scope { region: "us-east-1", service: "service", at };
        let mut all: HeaderMap =
            headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        sign(&keys, &scope, &method.parse().unwrap(), &uri.parse().unwrap(), &mut all, body.as_bytes())
            .unwrap();
        assert!(all["authorization"].is_sensitive());
        let authorization = all["authorization"].to_str().unwrap();
        authorization.rsplit_once("Signature=").unwrap().1.to_owned()
    }

    #[test]
    fn signatures_match_the_published_vectors() {
        let example = "https://example.amazonaws.com/";
        let session = "AQoDYXdzEPT//////////wEXAMPLEtc764bNrC9SAPBSM22wDOk4x4HIZ8j4FZTwdQWLWsKWHGBuFqwAeMicRXmxfpSPfIeoIYRqTflfKD8YUuwthAx7mSEI/qkPpKPi/kMcGdQrmGdeehM4IC1NtBmUpp2wUE8phUZampKsburEDy0KPkyQDYwT7WZ0wq5VSXDvp75YU9HFvlRd8Tx6q6fE8YQcHNVXAkiY9q6d+xo0rKwT38xVqr7ZD0u0iPPkUL64lIZbqBAz+scqKmlzm8FDrypNC9Yjc8fPOLn9FX9KSYvKTr4rvx3iSIlTJabIQwj2ICCR/oLxBA==";
        for (name, found, expected) in [
            (
                "get-vanilla",
                signature("GET", example, &[], "", None),
                "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
            ),
            (
                "get-vanilla-query-order-key-case",
                signature("GET", "https://example.amazonaws.com/?Param1=value1&Param2=value2", &[], "", None),
                "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
            ),
            (
                "get-header-value-trim",
                signature(
                    "GET",
                    example,
                    &[("my-header1", " value1"), ("my-header2", " \"a   b   c\"")],
                    "",
                    None,
                ),
                "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736",
            ),
            (
                "post-vanilla",
                signature("POST", example, &[], "", None),
                "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b",
            ),
            (
                "post-sts-header-before",
                signature("POST", example, &[], "", Some(session)),
                "85d96828115b5dc0cfc3bd16ad9e210dd772bbebba041836c64533a82be05ead",
            ),
            (
                "post-x-www-form-urlencoded",
                signature(
                    "POST",
                    example,
                    &[("content-type", "application/x-www-form-urlencoded")],
                    "Param1=value1",
                    None,
                ),
                "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a",
            ),
        ] {
            assert_eq!(found, expected, "{name}");
        }
    }
}
