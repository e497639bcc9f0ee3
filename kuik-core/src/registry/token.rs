//! Bearer tokens: fetched where a challenge says, kept until shortly before they expire, fetched once at a time.
//!
//! Follows the token authentication of the distribution project, with its OAuth 2 variant for identity tokens.

use std::{
    num::NonZeroUsize,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header::CONTENT_TYPE};
use jiff::Timestamp;
use lru::LruCache;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use tokio::time::Instant;

use super::{
    body,
    challenge::Challenge,
    exchange::{Exchange, Question, same_origin},
    status,
};
use crate::{
    content::{SourceError, SourceErrorKind},
    credentials::{Credential, Secret},
};

/// How many tokens are kept.
const MAX_TOKENS: NonZeroUsize = NonZeroUsize::new(4096).expect("not zero");
/// The largest answer of a token endpoint.
const MAX_TOKEN_BODY: usize = 256 * 1024;
/// How long a token lives whose endpoint does not say: the value of the specification.
const DEFAULT_LIFETIME: Duration = Duration::from_secs(60);
/// The longest lifetime that is believed.
const MAX_LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// What a token is for: where to get it, and what it opens.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct TokenRequest {
    /// The registry's base URL.
    pub(super) registry: String,
    realm: String,
    service: Option<String>,
    scope: String,
}

impl TokenRequest {
    /// What a bearer challenge asks for. A registry that names no scope gets the usual one for a pull.
    pub(super) fn new(challenge: &Challenge, registry: &str, repository: &str) -> Option<Self> {
        let realm = challenge.parameter("realm").filter(|realm| !realm.is_empty())?;
        let scope = challenge.parameter("scope").filter(|scope| !scope.is_empty());
        Some(Self {
            registry: registry.to_owned(),
            realm: realm.to_owned(),
            service: challenge.parameter("service").map(str::to_owned),
            scope: scope.map_or_else(|| format!("repository:{repository}:pull"), str::to_owned),
        })
    }

    /// Service and scopes as a query, each value escaped.
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

/// The tokens that are kept.
#[derive(Debug)]
pub(super) struct Tokens {
    slots: Mutex<LruCache<Key, Arc<Slot>>>,
}

/// The token of one key. Its lock is held while the token is fetched, so that all who want it wait for one fetch.
type Slot = tokio::sync::Mutex<State>;

#[derive(Debug, Default)]
struct State {
    token: Option<Token>,
    /// The last failure, for those who were already waiting when it happened.
    failed: Option<(Instant, SourceError)>,
}

/// A token, and until when it is used.
#[derive(Debug, Clone)]
pub(super) struct Token {
    secret: Secret,
    until: Instant,
    /// Whether it was fetched for this very question.
    pub(super) fresh: bool,
}

impl Token {
    pub(super) fn secret(&self) -> &Secret {
        &self.secret
    }
}

impl Default for Tokens {
    fn default() -> Self {
        Self { slots: Mutex::new(LruCache::new(MAX_TOKENS)) }
    }
}

impl Tokens {
    /// The token for `request` under `credential`: a kept one, or a new one. `for_whom` is the question that needs
    /// it; `not` is a token that the registry has just refused.
    ///
    /// # Errors
    /// `Unauthorized` or `Denied` where the endpoint refuses the credential, else why it could not be asked.
    pub(super) async fn get(
        &self,
        exchange: &Exchange,
        for_whom: &Question,
        request: &TokenRequest,
        credential: Option<&Credential>,
        not: Option<&Secret>,
    ) -> Result<Token, SourceError> {
        let asked = Instant::now();
        let slot = self.slot((request.clone(), credential.cloned()));
        let mut state = slot.lock().await;
        if let Some(token) = &state.token
            && token.until > Instant::now()
            && not != Some(&token.secret)
        {
            return Ok(Token { fresh: false, ..token.clone() });
        }
        if let Some((at, error)) = &state.failed
            && *at >= asked
        {
            return Err(error.clone());
        }
        match fetch(exchange, for_whom, request, credential).await {
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
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(slots.get_or_insert(key, Arc::default))
    }
}

async fn fetch(
    exchange: &Exchange,
    for_whom: &Question,
    request: &TokenRequest,
    credential: Option<&Credential>,
) -> Result<Token, SourceError> {
    let (question, authorization) = question(for_whom, request, credential)?;
    let answer = exchange.send(&question, authorization.as_ref()).await?;
    let (parts, body) = answer.response.into_parts();
    let time = exchange.timeouts.stall.min(question.deadline.saturating_duration_since(Instant::now()));
    if parts.status != StatusCode::OK {
        let said = body::read_some(body, status::MAX_ERROR_BODY, time).await;
        let failure = status::failure(&question.what, parts.status, &parts.headers, &said, Timestamp::now());
        return Err(refused(failure));
    }
    let body = body::read(&question.what, body, MAX_TOKEN_BODY, time).await?;
    let answer: TokenAnswer = serde_json::from_slice(&body).map_err(|_| {
        // The parser's words might quote a token.
        question.error(SourceErrorKind::InvalidContent, "the answer is not that of a token endpoint")
    })?;
    let lifetime = answer.used_for(Timestamp::now());
    match answer.token() {
        Some(token) => Ok(Token { secret: token.into(), until: Instant::now() + lifetime, fresh: true }),
        None => {
            Err(question.error(SourceErrorKind::InvalidContent, "there is no usable token in the answer"))
        }
    }
}

/// What a failure of the token endpoint means for the content: that it has no such thing, or does not like the request,
/// says nothing about the image, but that this credential gets no token.
fn refused(failure: SourceError) -> SourceError {
    match failure.kind() {
        SourceErrorKind::NotFound | SourceErrorKind::Unsupported => {
            SourceError::new(SourceErrorKind::Unauthorized, failure.to_string())
        }
        _ => failure,
    }
}

/// The request to the token endpoint, and how it is authorized.
fn question(
    for_whom: &Question,
    request: &TokenRequest,
    credential: Option<&Credential>,
) -> Result<(Question, Option<HeaderValue>), SourceError> {
    let endpoint = request.realm.split(['?', '#']).next().unwrap_or_default();
    let what = format!("{} (token from {endpoint})", for_whom.what);
    let separator = if request.realm.contains('?') { '&' } else { '?' };
    let mut query = request.query();
    let mut question = Question {
        what,
        method: Method::GET,
        uri: Uri::default(),
        headers: HeaderMap::new(),
        body: Bytes::new(),
        is_pull: false,
        account: for_whom.account.clone(),
        context: None,
        deadline: for_whom.deadline,
        over_http: false,
    };
    let mut authorization = None;
    let mut url = request.realm.clone();
    match credential {
        Some(Credential::IdentityToken(token)) => {
            append(&mut query, "grant_type", "refresh_token");
            append(&mut query, "refresh_token", token.expose());
            append(&mut query, "client_id", "kuik");
            question.method = Method::POST;
            question.body = query.into();
            question
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
    question.uri = url.parse().map_err(|_| {
        question.error(SourceErrorKind::InvalidContent, "the realm of the challenge is not a URL")
    })?;
    // A registry that may be spoken to over plain http has its tokens there too. Whatever else it names as its realm
    // gets a credential, so it has to be named.
    question.over_http = same_origin(&for_whom.uri, &question.uri);
    Ok((question, authorization))
}

/// The value of `Authorization` for a user and a password.
pub(super) fn basic(username: &str, password: &Secret) -> Option<HeaderValue> {
    let encoded = BASE64_STANDARD.encode(format!("{username}:{}", password.expose()));
    sensitive(&format!("Basic {encoded}"))
}

/// The value of `Authorization` for a token; `None` where the token cannot stand in a header.
pub(super) fn bearer(token: &Secret) -> Option<HeaderValue> {
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

    /// For how long from `now` on the token is used: until a tenth of its life is left, so that it does not expire
    /// on its way.
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
        // An age beyond the lifetime shows that the clocks differ, not that a dead token was handed out.
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
    fn tokens_are_used_for_nine_tenths_of_their_life() {
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
    fn either_name_of_the_token_will_do() {
        let token =
            |json: &str| serde_json::from_str::<TokenAnswer>(json).unwrap().token().map(str::to_owned);
        assert_eq!(token(r#"{"token": "a", "access_token": "b"}"#).as_deref(), Some("a"));
        assert_eq!(token(r#"{"token": "", "access_token": "b"}"#).as_deref(), Some("b"));
        assert_eq!(token(r#"{"access_token": "b"}"#).as_deref(), Some("b"));
        assert_eq!(token(r#"{"token": "a\r\nx-evil: 1"}"#), None);
        assert_eq!(token("{}"), None);
    }

    #[test]
    fn queries_are_escaped() {
        let challenge = Challenge::parse_all([
            br#"Bearer realm="https://a/t",service="r&x",scope="one:pull two:pull""#.as_slice(),
        ]);
        let request = TokenRequest::new(&challenge[0], "https://r", "app").unwrap();
        assert_eq!(request.query(), "service=r%26x&scope=one%3Apull&scope=two%3Apull");
    }
}
