//! Authentication of a [`ScriptedRegistry`](super::ScriptedRegistry): anonymous, Basic or Bearer tokens.

use std::collections::BTreeSet;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use http::{HeaderMap, StatusCode, header::AUTHORIZATION};

use super::reply::Reply;

/// Authentication scheme.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub enum Access {
    /// Anonymous access.
    #[default]
    Open,
    /// Basic authentication with this user and password.
    Basic {
        /// The user.
        username: String,
        /// The password.
        password: String,
    },
    /// Bearer tokens, issued by the registry's own endpoint `/token`.
    Bearer {
        /// User and password that get a token; `None` issues tokens to anonymous clients.
        account: Option<(String, String)>,
        /// The `expires_in` of a token in seconds, if any.
        expires_in: Option<f64>,
        /// The response field with the token: `token` or `access_token`.
        field: &'static str,
    },
}

impl Access {
    /// Tokens for anonymous clients, without an explicit lifetime.
    #[must_use]
    pub fn anonymous_tokens() -> Self {
        Self::Bearer { account: None, expires_in: None, field: "token" }
    }
}

/// The authentication scheme and the valid tokens.
#[derive(Debug, Default)]
pub(super) struct Authenticator {
    pub(super) access: Access,
    /// Overrides the value of `WWW-Authenticate`.
    pub(super) challenge: Option<String>,
    tokens: BTreeSet<String>,
    issued: usize,
}

impl Authenticator {
    pub(super) fn new(access: Access) -> Self {
        Self { access, ..Self::default() }
    }

    /// Revokes every issued token.
    pub(super) fn revoke(&mut self) {
        self.tokens.clear();
    }

    /// Returns the refusal of a request, or `None` if it is authorized.
    pub(super) fn refuses(&self, headers: &HeaderMap, host: &str, path: &str) -> Option<Reply> {
        let sent = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let (passes, challenge) = match &self.access {
            Access::Open => (true, String::new()),
            Access::Basic { username, password } => {
                (sent == basic(username, password), r#"Basic realm="testkit""#.to_owned())
            }
            Access::Bearer { .. } => {
                let passes = sent.strip_prefix("Bearer ").is_some_and(|token| self.tokens.contains(token));
                let repository = repository_of(path);
                let challenge = format!(
                    "Bearer realm=\"http://{host}/token\",service=\"testkit\",scope=\"repository:{repository}:pull\""
                );
                (passes, challenge)
            }
        };
        if passes {
            return None;
        }
        let challenge = self.challenge.clone().unwrap_or(challenge);
        let refusal = Reply::error(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", "authentication required");
        Some(refusal.with("www-authenticate", &challenge))
    }

    /// Returns the response of the token endpoint.
    pub(super) fn token(&mut self, headers: &HeaderMap, body: &str) -> Reply {
        let Access::Bearer { account, expires_in, field } = &self.access else {
            return Reply::error(StatusCode::NOT_FOUND, "UNSUPPORTED", "there is no token endpoint");
        };
        let sent = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let allowed = account.as_ref().is_none_or(|(username, password)| {
            sent == basic(username, password) || body.contains(&format!("refresh_token={password}"))
        });
        if !allowed {
            return Reply::error(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", "wrong user or password");
        }
        self.issued += 1;
        let token = format!("token-{}", self.issued);
        let mut answer = serde_json::Map::new();
        answer.insert((*field).to_owned(), token.clone().into());
        answer.extend(expires_in.map(|seconds| ("expires_in".to_owned(), seconds.into())));
        self.tokens.insert(token);
        Reply::json(&serde_json::Value::Object(answer))
    }
}

fn basic(username: &str, password: &str) -> String {
    format!("Basic {}", BASE64_STANDARD.encode(format!("{username}:{password}")))
}

/// Returns the repository in an API path: the part between `/v2/` and the last two components.
fn repository_of(path: &str) -> &str {
    let rest = path.strip_prefix("/v2/").unwrap_or_default();
    rest.rsplitn(3, '/').nth(2).unwrap_or_default()
}
