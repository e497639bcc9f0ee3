//! Access control for pulls and pushes: a tower layer in front of a registry.
//!
//! There is one token, in a file; it grants full access. Clients send it as `Bearer`, or as the password of `Basic`
//! with any user name. Invariants: no write succeeds without it, unless anonymous push is explicitly allowed; it is
//! compared in constant time; a new token in the file takes effect within a second, and revokes the old one.
//!
//! Registry clients discover authentication from the response to `/v2/`, and most send no credential that was not
//! requested there. So if there is a token, `/v2/` sends a challenge, and [`TOKEN_PATH`] issues what clients then
//! send: the token to clients that present it, and a read-only token to all others if reads are open.

mod authorization;
mod challenge;
mod token;

use std::{
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
};

use futures::future::{Either, Ready, ready};
use http::{HeaderMap, Method, Request, Response, header};

use self::authorization::Presented;
pub use self::token::{TokenFile, UnusableToken};
use crate::serve::OverTls;
use crate::service::ProxyBody;

/// Endpoint at which clients exchange credentials for a token.
pub const TOKEN_PATH: &str = "/v2/token";

/// Prefix of the paths of maintenance endpoints: even reads of them need full access.
const MAINTENANCE_PATHS: &str = "/kuik/";

/// Access rules of a registry.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct AccessPolicy {
    /// The token that grants full access.
    pub token: Option<TokenFile>,
    /// Whether reads need the token too. Without a token, reads are then refused.
    pub protect_reads: bool,
    /// Whether anonymous clients may push and delete if there is no token.
    pub allow_anonymous_push: bool,
}

/// Response to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Decision {
    /// The request proceeds.
    Allow,
    /// Challenge for the token, or for another one.
    Authenticate,
    /// Refuse, whatever the credential.
    Deny,
    /// Issue a token with full access.
    GrantAll,
    /// Issue a read-only token.
    GrantReads,
}

/// Kind of access that a request needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    SignIn,
    Token,
    Read,
    Write,
}

impl Wanted {
    fn of(method: &Method, path: &str) -> Self {
        match (method, path) {
            (&Method::GET | &Method::HEAD, TOKEN_PATH) => Self::Token,
            (&Method::GET | &Method::HEAD, "/v2" | "/v2/") => Self::SignIn,
            // Retention documents tell what runs in a cluster.
            (_, path) if path.starts_with(MAINTENANCE_PATHS) => Self::Write,
            (&Method::GET | &Method::HEAD, _) => Self::Read,
            _ => Self::Write,
        }
    }
}

impl AccessPolicy {
    /// Decides about a request.
    fn decide(&self, wanted: Wanted, presented: Presented<'_>) -> Decision {
        let Some(token) = &self.token else {
            return match wanted {
                Wanted::Write if self.allow_anonymous_push => Decision::Allow,
                Wanted::Read | Wanted::SignIn if !self.protect_reads => Decision::Allow,
                Wanted::Read | Wanted::SignIn | Wanted::Write | Wanted::Token => Decision::Deny,
            };
        };
        let is_valid = presented.secret().is_some_and(|secret| token.matches(secret));
        // A missing credential is distinguished from a wrong one: a mistyped password must not look like a success.
        let anonymous = matches!(presented, Presented::Nothing | Presented::ReadsOnly) && !self.protect_reads;
        match wanted {
            Wanted::Token if is_valid => Decision::GrantAll,
            Wanted::Token if anonymous => Decision::GrantReads,
            Wanted::SignIn if presented == Presented::Nothing => Decision::Authenticate,
            Wanted::Read if !self.protect_reads => Decision::Allow,
            Wanted::SignIn | Wanted::Read | Wanted::Write if is_valid => Decision::Allow,
            Wanted::SignIn if anonymous => Decision::Allow,
            _ => Decision::Authenticate,
        }
    }
}

/// Layer that enforces an [`AccessPolicy`] in front of a registry.
#[derive(Debug, Clone)]
pub struct AccessLayer {
    policy: Arc<AccessPolicy>,
}

/// Extension of a `HEAD` request whose client may push.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MayPush;

/// A registry behind an [`AccessPolicy`].
#[derive(Debug, Clone)]
pub struct AccessService<S> {
    policy: Arc<AccessPolicy>,
    inner: S,
}

impl AccessLayer {
    /// Returns a layer that enforces `policy`.
    #[must_use]
    pub fn new(policy: AccessPolicy) -> Self {
        Self { policy: Arc::new(policy) }
    }
}

impl<S> tower::Layer<S> for AccessLayer {
    type Service = AccessService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        AccessService { policy: self.policy.clone(), inner }
    }
}

impl<S, B> tower::Service<Request<B>> for AccessService<S>
where
    S: tower::Service<Request<B>, Response = Response<ProxyBody>, Error = Infallible>,
{
    type Response = Response<ProxyBody>;
    type Error = Infallible;
    type Future = Either<S::Future, Ready<Result<Self::Response, Infallible>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let presented = authorization::read(request.headers());
        let wanted = Wanted::of(request.method(), request.uri().path());
        let head = request.method() == Method::HEAD;
        let decide = |wanted| self.policy.decide(wanted, Presented::of(presented.as_ref()));
        let answer = match decide(wanted) {
            Decision::Allow => {
                if head && decide(Wanted::Write) == Decision::Allow {
                    request.extensions_mut().insert(MayPush);
                }
                // The credential is for this registry only: the inner service may be a client of other registries.
                request.headers_mut().remove(header::AUTHORIZATION);
                return Either::Left(self.inner.call(request));
            }
            Decision::Authenticate => {
                let over_tls = request.extensions().get::<OverTls>().is_some();
                challenge::authenticate(&origin(request.headers(), over_tls), wanted, head)
            }
            Decision::Deny => challenge::deny(wanted, head),
            Decision::GrantAll => {
                challenge::grant(presented.as_ref().map_or("", |presented| &presented.secret), head)
            }
            Decision::GrantReads => challenge::grant(authorization::READS_ONLY, head),
        };
        Either::Right(ready(Ok(answer)))
    }
}

/// Returns the URL under which the client reaches this registry, by its own headers or those of a reverse proxy. Only
/// the response to this client depends on it.
fn origin(headers: &HeaderMap, over_tls: bool) -> String {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let scheme = match text("x-forwarded-proto") {
        Some("https") => "https",
        None if over_tls => "https",
        _ => "http",
    };
    let host = text("x-forwarded-host").or_else(|| text("host")).unwrap_or("localhost");
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte);
    let host = if host.bytes().all(plain) { host } else { "localhost" };
    format!("{scheme}://{host}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(token: Option<&str>) -> (AccessPolicy, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let token = token.map(|token| {
            let path = dir.path().join("token");
            std::fs::write(&path, token).unwrap();
            TokenFile::open(&path).unwrap()
        });
        (AccessPolicy { token, ..AccessPolicy::default() }, dir)
    }

    #[test]
    fn without_a_token_reads_are_allowed_and_writes_refused() {
        use Decision::{Allow, Deny};
        let (mut policy, _dir) = policy(None);
        for (wanted, expected) in
            [(Wanted::SignIn, Allow), (Wanted::Read, Allow), (Wanted::Write, Deny), (Wanted::Token, Deny)]
        {
            assert_eq!(policy.decide(wanted, Presented::Nothing), expected, "{wanted:?}");
            assert_eq!(policy.decide(wanted, Presented::Secret("guess")), expected, "{wanted:?}");
        }
        policy.allow_anonymous_push = true;
        assert_eq!(policy.decide(Wanted::Write, Presented::Nothing), Allow);
        policy.protect_reads = true;
        assert_eq!(policy.decide(Wanted::Read, Presented::Nothing), Deny);
    }

    #[test]
    fn token_grants_writes() {
        use Decision::{Allow, Authenticate, GrantAll, GrantReads};
        let (mut policy, _dir) = policy(Some("right\n"));
        // Anonymous push applies to registries without a token.
        policy.allow_anonymous_push = true;
        let presented = [
            Presented::Nothing,
            Presented::ReadsOnly,
            Presented::Secret("wrong"),
            Presented::Secret("right"),
            Presented::Other,
        ];
        for (wanted, open, protected) in [
            (
                Wanted::SignIn,
                [Authenticate, Allow, Authenticate, Allow, Authenticate],
                [Authenticate, Authenticate, Authenticate, Allow, Authenticate],
            ),
            (
                Wanted::Token,
                [GrantReads, GrantReads, Authenticate, GrantAll, Authenticate],
                [Authenticate, Authenticate, Authenticate, GrantAll, Authenticate],
            ),
            (Wanted::Read, [Allow; 5], [Authenticate, Authenticate, Authenticate, Allow, Authenticate]),
            (
                Wanted::Write,
                [Authenticate, Authenticate, Authenticate, Allow, Authenticate],
                [Authenticate, Authenticate, Authenticate, Allow, Authenticate],
            ),
        ] {
            policy.protect_reads = false;
            assert_eq!(presented.map(|presented| policy.decide(wanted, presented)), open, "{wanted:?}");
            policy.protect_reads = true;
            assert_eq!(
                presented.map(|presented| policy.decide(wanted, presented)),
                protected,
                "{wanted:?}, protected"
            );
        }
    }

    #[test]
    fn methods_that_modify_are_writes() {
        for method in ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "FOO"] {
            for path in ["/v2/", "/v2/a/manifests/1", TOKEN_PATH] {
                assert_eq!(Wanted::of(&method.parse().unwrap(), path), Wanted::Write, "{method} {path}");
            }
        }
    }

    #[test]
    fn realm_is_the_url_the_client_uses() {
        let mut headers = HeaderMap::new();
        headers.insert("host", "cache:5000".parse().unwrap());
        assert_eq!(origin(&headers, false), "http://cache:5000");
        assert_eq!(origin(&headers, true), "https://cache:5000");
        headers.insert("x-forwarded-proto", "https".parse().unwrap());
        assert_eq!(origin(&headers, false), "https://cache:5000");
        headers.insert("host", "a\",realm=\"http://b".parse().unwrap());
        assert_eq!(origin(&headers, false), "https://localhost");
    }

    #[test]
    fn debug_output_does_not_contain_the_token() {
        let (policy, _dir) = policy(Some("s3cret"));
        assert!(!format!("{:?}", AccessLayer::new(policy)).contains("s3cret"));
    }
}
