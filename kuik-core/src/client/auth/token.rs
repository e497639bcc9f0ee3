//! Bearer token cache: single-flight fetches, refreshed shortly before expiry.
//!
//! Implements the token authentication of the distribution project, with its OAuth 2 variant for identity tokens.

use std::{num::NonZeroUsize, sync::Arc, time::Duration};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header::CONTENT_TYPE};
use jiff::Timestamp;
use lru::LruCache;
use parking_lot::Mutex;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use tokio::time::Instant;

use super::challenge::Challenge;
use crate::client::{
    api::status,
    transport::{
        body,
        sender::{HttpSender, RegistryRequest, same_origin},
    },
};
use crate::{
    content::{SourceError, SourceErrorKind},
    credentials::{Credential, Secret},
};

/// The maximum number of cached tokens.
const MAX_TOKENS: NonZeroUsize = NonZeroUsize::new(4096).expect("not zero");
/// The largest response of a token endpoint.
const MAX_TOKEN_BODY: usize = 256 * 1024;
/// The lifetime of a token without `expires_in`: the value of the specification.
const DEFAULT_LIFETIME: Duration = Duration::from_secs(60);
/// The longest lifetime that is accepted.
const MAX_LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// A request for a token: its endpoint and scope.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct TokenRequest {
    /// The registry's base URL.
    pub(crate) registry: String,
    realm: String,
    service: Option<String>,
    scope: String,
}

impl TokenRequest {
    /// Builds the request of a bearer challenge. If the challenge has no scope, the scope is a pull from the
    /// repository.
    pub(crate) fn new(challenge: &Challenge, registry: &str, repository: &str) -> Option<Self> {
        let realm = challenge.parameter("realm").filter(|realm| !realm.is_empty())?;
        let scope = challenge.parameter("scope").filter(|scope| !scope.is_empty());
        Some(Self {
            registry: registry.to_owned(),
            realm: realm.to_owned(),
            service: challenge.parameter("service").map(str::to_owned),
            scope: scope.map_or_else(|| format!("repository:{repository}:pull"), str::to_owned),
        })
    }

    /// Returns service and scopes as a query, each value percent-encoded.
    fn query(&self) -> String {
        let mut query = String::new();
        if let Some(service) = &self.service {
            append(&mut query, "service", service);
        }
        for scope in self.scope.split_whitespace() {
            append(&mut query, "scope", scope);
        }
        query
    }
}

type Key = (TokenRequest, Option<Credential>);

/// The token cache.
#[derive(Debug)]
pub(crate) struct Tokens {
    slots: Mutex<LruCache<Key, Arc<Slot>>>,
}

/// The token of one key. Its lock is held during the fetch, so that concurrent requests wait for one fetch.
type Slot = tokio::sync::Mutex<State>;

#[derive(Debug, Default)]
struct State {
    token: Option<Token>,
    /// The last failure, for requests that were already waiting when it happened.
    failed: Option<(Instant, SourceError)>,
}

/// A token, and when it must be refreshed.
#[derive(Debug, Clone)]
pub(crate) struct Token {
    secret: Secret,
    until: Instant,
    /// Whether it was fetched for this request.
    pub(crate) fresh: bool,
}

impl Token {
    pub(crate) fn secret(&self) -> &Secret {
        &self.secret
    }
}

impl Default for Tokens {
    fn default() -> Self {
        Self { slots: Mutex::new(LruCache::new(MAX_TOKENS)) }
    }
}

impl Tokens {
    /// Returns the token for `token_request` with `credential`, cached or new. `parent` is the registry request that needs
    /// it; `refused` is a token that the registry has just refused.
    ///
    /// # Errors
    /// Returns `Unauthorized` or `Denied` if the endpoint refuses the credential, otherwise the error of the request.
    pub(crate) async fn get(
        &self,
        sender: &HttpSender,
        parent: &RegistryRequest,
        token_request: &TokenRequest,
        credential: Option<&Credential>,
        refused: Option<&Secret>,
    ) -> Result<Token, SourceError> {
        let started = Instant::now();
        let slot = self.slot((token_request.clone(), credential.cloned()));
        let mut state = slot.lock().await;
        if let Some(token) = &state.token
            && token.until > Instant::now()
            && refused != Some(&token.secret)
        {
            return Ok(Token { fresh: false, ..token.clone() });
        }
        if let Some((at, error)) = &state.failed
            && *at >= started
        {
            return Err(error.clone());
        }
        match fetch(sender, parent, token_request, credential).await {
            Ok(token) => {
                *state = State { token: Some(token.clone()), failed: None };
                Ok(token)
            }
            Err(error) => {
                *state = State { token: None, failed: Some((Instant::now(), error.clone())) };
                Err(error)
            }
        }
    }

    fn slot(&self, key: Key) -> Arc<Slot> {
        let mut slots = self.slots.lock();
        Arc::clone(slots.get_or_insert(key, Arc::default))
    }
}

async fn fetch(
    sender: &HttpSender,
    parent: &RegistryRequest,
    token_request: &TokenRequest,
    credential: Option<&Credential>,
) -> Result<Token, SourceError> {
    let (request, authorization) = build_request(parent, token_request, credential)?;
    let answer = sender.send(&request, authorization.as_ref()).await?;
    let (parts, body) = answer.response.into_parts();
    let time = sender.timeouts.stall.min(request.deadline.saturating_duration_since(Instant::now()));
    if parts.status != StatusCode::OK {
        let text = body::read_some(body, status::MAX_ERROR_BODY, time).await;
        let failure = status::failure(&request.what, parts.status, &parts.headers, &text, Timestamp::now());
        return Err(refused(failure));
    }
    let body = body::read(&request.what, body, MAX_TOKEN_BODY, time).await?;
    let answer: TokenAnswer = serde_json::from_slice(&body).map_err(|_| {
        // The parser's error might quote a token.
        request.error(SourceErrorKind::InvalidContent, "invalid response from the token endpoint")
    })?;
    let lifetime = answer.used_for(Timestamp::now());
    match answer.token() {
        Some(token) => Ok(Token { secret: token.into(), until: Instant::now() + lifetime, fresh: true }),
        None => Err(request.error(SourceErrorKind::InvalidContent, "the response has no valid token")),
    }
}

/// Maps a failure of the token endpoint: a 404 or an unsupported request does not concern the image; it means that this
/// credential gets no token.
fn refused(failure: SourceError) -> SourceError {
    match failure.kind() {
        SourceErrorKind::NotFound | SourceErrorKind::Unsupported => {
            SourceError::new(SourceErrorKind::Unauthorized, failure.to_string())
        }
        _ => failure,
    }
}

/// Builds the request to the token endpoint, and its `Authorization` header.
fn build_request(
    parent: &RegistryRequest,
    token_request: &TokenRequest,
    credential: Option<&Credential>,
) -> Result<(RegistryRequest, Option<HeaderValue>), SourceError> {
    let endpoint = token_request.realm.split(['?', '#']).next().unwrap_or_default();
    let what = format!("{} (token from {endpoint})", parent.what);
    let separator = if token_request.realm.contains('?') { '&' } else { '?' };
    let mut query = token_request.query();
    let mut request = RegistryRequest {
        what,
        method: Method::GET,
        uri: Uri::default(),
        headers: HeaderMap::new(),
        body: Bytes::new(),
        is_pull: false,
        account: parent.account.clone(),
        context: None,
        deadline: parent.deadline,
        over_http: false,
    };
    let mut authorization = None;
    let mut url = token_request.realm.clone();
    match credential {
        Some(Credential::IdentityToken(token)) => {
            append(&mut query, "grant_type", "refresh_token");
            append(&mut query, "refresh_token", token.expose());
            append(&mut query, "client_id", "kuik");
            request.method = Method::POST;
            request.body = query.into();
            request
                .headers
                .insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        }
        Some(Credential::Basic { username, password }) => {
            append(&mut query, "account", username);
            url = format!("{url}{separator}{query}");
            authorization = basic(username, password);
        }
        _ => url = format!("{url}{separator}{query}"),
    }
    request.uri = url.parse().map_err(|_| {
        request.error(SourceErrorKind::InvalidContent, "the realm of the challenge is not a URL")
    })?;
    // A registry that is allowed plain HTTP may have its token endpoint on the same origin over plain HTTP. Any other
    // realm receives a credential, so it has to be configured.
    request.over_http = same_origin(&parent.uri, &request.uri);
    Ok((request, authorization))
}

/// Returns the value of `Authorization` for a user and a password.
pub(crate) fn basic(username: &str, password: &Secret) -> Option<HeaderValue> {
    let encoded = BASE64_STANDARD.encode(format!("{username}:{}", password.expose()));
    sensitive(&format!("Basic {encoded}"))
}

/// Returns the value of `Authorization` for a token; `None` if the token is invalid in a header.
pub(crate) fn bearer(token: &Secret) -> Option<HeaderValue> {
    sensitive(&format!("Bearer {}", token.expose()))
}

fn sensitive(value: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(value).ok()?;
    value.set_sensitive(true);
    Some(value)
}

fn append(query: &mut String, name: &str, value: &str) {
    if !query.is_empty() {
        query.push('&');
    }
    query.push_str(name);
    query.push('=');
    query.extend(utf8_percent_encode(value, NON_ALPHANUMERIC));
}

#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<f64>,
    issued_at: Option<String>,
}

impl TokenAnswer {
    fn token(&self) -> Option<&str> {
        let tokens = [&self.token, &self.access_token];
        let mut usable = tokens
            .into_iter()
            .flatten()
            .filter(|token| !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic()));
        usable.next().map(String::as_str)
    }

    /// Returns how long from `now` the token is used: until a tenth of its lifetime remains, so that it does not expire
    /// in transit.
    fn used_for(&self, now: Timestamp) -> Duration {
        let lifetime = self
            .expires_in
            .filter(|&seconds| seconds > 0.0)
            .map(|seconds| Duration::try_from_secs_f64(seconds).unwrap_or(MAX_LIFETIME))
            .map_or(DEFAULT_LIFETIME, |lifetime| lifetime.min(MAX_LIFETIME));
        let age = self
            .issued_at
            .as_ref()
            .and_then(|at| at.parse::<Timestamp>().ok())
            .and_then(|at| Duration::try_from(now.duration_since(at)).ok())
            .unwrap_or_default();
        // An age beyond the lifetime shows clock skew, not an expired token.
        let left = if age < lifetime { lifetime - age } else { lifetime };
        left.mul_f64(0.9)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn used_for(json: &str) -> u64 {
        let answer: TokenAnswer = serde_json::from_str(json).unwrap();
        answer.used_for("2026-01-01T00:01:00Z".parse().unwrap()).as_secs()
    }

    #[test]
    fn token_is_used_for_nine_tenths_of_its_lifetime() {
        assert_eq!(used_for("{}"), 54);
        assert_eq!(used_for(r#"{"expires_in": 300}"#), 270);
        assert_eq!(used_for(r#"{"expires_in": 300, "issued_at": "2026-01-01T00:00:00Z"}"#), 216);
        assert_eq!(used_for(r#"{"expires_in": 30, "issued_at": "2025-01-01T00:00:00Z"}"#), 27);
        assert_eq!(used_for(r#"{"expires_in": 300, "issued_at": "2027-01-01T00:00:00Z"}"#), 270);
        assert_eq!(used_for(r#"{"expires_in": 300, "issued_at": "yesterday"}"#), 270);
        assert_eq!(used_for(r#"{"expires_in": -5}"#), 54);
        assert_eq!(used_for(r#"{"expires_in": 1e300}"#), MAX_LIFETIME.mul_f64(0.9).as_secs());
    }

    #[test]
    fn token_is_read_from_either_field() {
        let token =
            |json: &str| serde_json::from_str::<TokenAnswer>(json).unwrap().token().map(str::to_owned);
        assert_eq!(token(r#"{"token": "a", "access_token": "b"}"#).as_deref(), Some("a"));
        assert_eq!(token(r#"{"token": "", "access_token": "b"}"#).as_deref(), Some("b"));
        assert_eq!(token(r#"{"access_token": "b"}"#).as_deref(), Some("b"));
        assert_eq!(token(r#"{"token": "a\r\nx-evil: 1"}"#), None);
        assert_eq!(token("{}"), None);
    }

    #[test]
    fn token_query_is_percent_encoded() {
        let challenge = Challenge::parse_all([
            br#"Bearer realm="https://a/t",service="r&x",scope="one:pull two:pull""#.as_slice(),
        ]);
        let token_request = TokenRequest::new(&challenge[0], "https://r", "app").unwrap();
        assert_eq!(token_request.query(), "service=r%26x&scope=one%3Apull&scope=two%3Apull");
    }
}
