//! Who may pull and who may push: a tower layer in front of a registry.
//!
//! There is one token, in a file; whoever shows it may do everything. It is shown as `Bearer`, or as the password of
//! `Basic` with any user name. Invariants: nothing is changed without it, unless that was allowed by name; it is
//! compared in constant time; a new token in the file holds within a second, and the old one no longer.
//!
//! Clients of registries learn how to sign in from the answer to `/v2/`, and most send nothing that was not asked
//! for there. So where there is a token, `/v2/` asks for one, and [`TOKEN_PATH`] hands out what clients then bring:
//! the token to whoever has it, and a token that opens reads alone to everybody, where reads are open.

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

use self::authorization::Shown;
pub use self::token::{TokenFile, UnusableToken};
use crate::server::OverTls;
use crate::service::ProxyBody;

/// Where clients exchange what they have for a token.
pub const TOKEN_PATH: &str = "/v2/token";

/// Who may do what.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct AccessPolicy {
    /// Whoever shows this token may do everything.
    pub token: Option<TokenFile>,
    /// Whether reading needs the token too. Without a token, nobody can read then.
    pub protect_reads: bool,
    /// Whether everybody may push and delete where there is no token.
    pub allow_anonymous_push: bool,
}

/// What the client of a request is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Decision {
    /// The request goes on.
    Allow,
    /// To show the token, or to show another one.
    Authenticate,
    /// That this is not to be had here, whoever asks.
    Deny,
    /// A token that opens everything.
    GrantAll,
    /// A token that opens reads.
    GrantReads,
}

/// What a request wants.
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
            (&Method::GET | &Method::HEAD, _) => Self::Read,
            _ => Self::Write,
        }
    }
}

impl AccessPolicy {
    /// Decides about a request.
    fn decide(&self, wanted: Wanted, shown: Shown<'_>) -> Decision {
        let Some(token) = &self.token else {
            return match wanted {
                Wanted::Write if self.allow_anonymous_push => Decision::Allow,
                Wanted::Read | Wanted::SignIn if !self.protect_reads => Decision::Allow,
                Wanted::Read | Wanted::SignIn | Wanted::Write | Wanted::Token => Decision::Deny,
            };
        };
        let holds = shown.secret().is_some_and(|secret| token.matches(secret));
        // Somebody who shows nothing is told apart from somebody who shows the wrong thing: a mistyped password is
        // not to look like a success.
        let anonymous = matches!(shown, Shown::Nothing | Shown::ReadsOnly) && !self.protect_reads;
        match wanted {
            Wanted::Token if holds => Decision::GrantAll,
            Wanted::Token if anonymous => Decision::GrantReads,
            Wanted::SignIn if shown == Shown::Nothing => Decision::Authenticate,
            Wanted::Read if !self.protect_reads => Decision::Allow,
            Wanted::SignIn | Wanted::Read | Wanted::Write if holds => Decision::Allow,
            Wanted::SignIn if anonymous => Decision::Allow,
            _ => Decision::Authenticate,
        }
    }
}

/// Puts an [`AccessPolicy`] in front of a registry.
#[derive(Debug, Clone)]
pub struct AccessLayer {
    policy: Arc<AccessPolicy>,
}

/// In the extensions of a `HEAD`: whoever sends it may push.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MayPush;

/// A registry behind an [`AccessPolicy`].
#[derive(Debug, Clone)]
pub struct AccessService<S> {
    policy: Arc<AccessPolicy>,
    inner: S,
}

impl AccessLayer {
    /// A layer that enforces `policy`.
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
        let shown = authorization::read(request.headers());
        let wanted = Wanted::of(request.method(), request.uri().path());
        let head = request.method() == Method::HEAD;
        let decide = |wanted| self.policy.decide(wanted, Shown::of(shown.as_ref()));
        let answer = match decide(wanted) {
            Decision::Allow => {
                if head && decide(Wanted::Write) == Decision::Allow {
                    request.extensions_mut().insert(MayPush);
                }
                // What was for us is nobody else's: behind us there may be a client of other registries.
                request.headers_mut().remove(header::AUTHORIZATION);
                return Either::Left(self.inner.call(request));
            }
            Decision::Authenticate => {
                let over_tls = request.extensions().get::<OverTls>().is_some();
                challenge::authenticate(&origin(request.headers(), over_tls), wanted, head)
            }
            Decision::Deny => challenge::deny(wanted, head),
            Decision::GrantAll => challenge::grant(shown.as_ref().map_or("", |shown| &shown.secret), head),
            Decision::GrantReads => challenge::grant(authorization::READS_ONLY, head),
        };
        Either::Right(ready(Ok(answer)))
    }
}

/// Under which URL the client reaches us: as it says itself, or as a proxy in front says for it. Only its own
/// answer depends on it.
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
    fn without_a_token_reads_are_open_and_writes_are_not() {
        use Decision::{Allow, Deny};
        let (mut policy, _dir) = policy(None);
        for (wanted, expected) in
            [(Wanted::SignIn, Allow), (Wanted::Read, Allow), (Wanted::Write, Deny), (Wanted::Token, Deny)]
        {
            assert_eq!(policy.decide(wanted, Shown::Nothing), expected, "{wanted:?}");
            assert_eq!(policy.decide(wanted, Shown::Secret("guess")), expected, "{wanted:?}");
        }
        policy.allow_anonymous_push = true;
        assert_eq!(policy.decide(Wanted::Write, Shown::Nothing), Allow);
        policy.protect_reads = true;
        assert_eq!(policy.decide(Wanted::Read, Shown::Nothing), Deny);
    }

    #[test]
    fn a_token_opens_writes() {
        use Decision::{Allow, Authenticate, GrantAll, GrantReads};
        let (mut policy, _dir) = policy(Some("right\n"));
        // Anonymous push is for registries without a token.
        policy.allow_anonymous_push = true;
        let shown =
            [Shown::Nothing, Shown::ReadsOnly, Shown::Secret("wrong"), Shown::Secret("right"), Shown::Other];
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
            assert_eq!(shown.map(|shown| policy.decide(wanted, shown)), open, "{wanted:?}");
            policy.protect_reads = true;
            assert_eq!(shown.map(|shown| policy.decide(wanted, shown)), protected, "{wanted:?}, protected");
        }
    }

    #[test]
    fn what_changes_something_is_a_write() {
        for method in ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "FOO"] {
            for path in ["/v2/", "/v2/a/manifests/1", TOKEN_PATH] {
                assert_eq!(Wanted::of(&method.parse().unwrap(), path), Wanted::Write, "{method} {path}");
            }
        }
    }

    #[test]
    fn the_realm_is_where_the_client_is() {
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
    fn debug_prints_no_token() {
        let (policy, _dir) = policy(Some("s3cret"));
        assert!(!format!("{:?}", AccessLayer::new(policy)).contains("s3cret"));
    }
}
