//! Registry authentication: finds the credential that a repository accepts, and caches it.
//!
//! A request is sent with the credential that was accepted last, or without one. If the registry refuses, every
//! candidate is tried once, in order, an anonymous token last. The first that is accepted is cached for the repository;
//! refused ones are not tried again for a while. A registry that always refuses therefore gets a bounded number of
//! requests, and no account is locked out.
//!
//! 401 means that the credential is invalid: it is dropped from the cache. 403 means that it is valid but not
//! authorized for this request: it stays, because it may be authorized for the next one, and the other candidates are
//! tried, since one may be its successor (AWS ECR answers 403 to an expired password).

pub(super) mod challenge;
pub(super) mod token;

use std::{num::NonZeroUsize, sync::Arc, time::Duration};

use http::{HeaderValue, StatusCode, header::WWW_AUTHENTICATE};
use lru::LruCache;
use parking_lot::{Mutex, MutexGuard};
use tokio::time::{Instant, timeout_at};

use super::{
    auth::{
        challenge::Challenge,
        token::{Token, TokenRequest, Tokens},
    },
    transport::{
        body,
        sender::{Answer, HttpSender, RegistryRequest},
    },
};
use crate::{
    content::{SourceError, SourceErrorKind},
    credentials::{Credential, CredentialProvider, Secret},
    reference::RepositoryName,
};

/// The number of repositories whose authentication is cached.
const MAX_REMEMBERED: NonZeroUsize = NonZeroUsize::new(4096).expect("not zero");
/// The number of methods tried for one request.
const MAX_METHODS: usize = 8;
/// How long a refused method is not retried.
const REFUSED_FOR: Duration = Duration::from_secs(10);

/// Finds and caches the authentication method of each repository.
#[derive(Debug)]
pub(super) struct Authenticator {
    credentials: Arc<dyn CredentialProvider>,
    tokens: Tokens,
    remembered: Mutex<LruCache<AuthScope, Known>>,
}

/// Cached state of a scope.
#[derive(Debug, Default)]
struct Known {
    accepted: Option<AuthMethod>,
    refused: Vec<Refused>,
}

/// A method that was refused.
#[derive(Debug)]
struct Refused {
    method: AuthMethod,
    /// Whether it was denied (403), not unauthorized (401).
    denied: bool,
    until: Instant,
}

/// A repository at an upstream: the unit for which authentication is cached.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct AuthScope {
    /// The upstream's base URL.
    pub(super) registry: String,
    /// The repository's path at the upstream.
    pub(super) path: String,
    /// The name under which credentials are looked up.
    pub(super) credentials_of: RepositoryName,
}

/// How a request is authenticated.
#[derive(Debug, Clone, PartialEq, Eq)]
enum AuthMethod {
    /// HTTP Basic: user and password with every request.
    Basic { username: String, password: Secret },
    /// A bearer token from the configuration.
    Fixed(Secret),
    /// A bearer token from the token endpoint of the registry.
    Bearer { token_request: TokenRequest, credential: Option<Credential> },
}

/// Rate-limit account of unauthenticated requests: public repositories and probes for the challenge.
const ANONYMOUS: &str = "-";

impl AuthMethod {
    /// Returns the account that rate limits apply to.
    fn account(&self) -> Arc<str> {
        match self {
            Self::Basic { username, .. }
            | Self::Bearer { credential: Some(Credential::Basic { username, .. }), .. } => {
                username.as_str().into()
            }
            Self::Bearer { credential: None, .. } => Arc::default(),
            // The account name of a token is unknown.
            Self::Fixed(_) | Self::Bearer { .. } => "token".into(),
        }
    }
}

impl Authenticator {
    pub(super) fn new(credentials: Arc<dyn CredentialProvider>) -> Self {
        Self { credentials, tokens: Tokens::default(), remembered: Mutex::new(LruCache::new(MAX_REMEMBERED)) }
    }

    /// Sends the request with the cached or first accepted method. The response may be a refusal: the most informative
    /// one.
    pub(super) async fn send(
        &self,
        sender: &HttpSender,
        request: &RegistryRequest,
        scope: &AuthScope,
    ) -> Result<Answer, SourceError> {
        if let Some(method) = self.recall(scope) {
            match self.send_with(sender, request, &method).await {
                Ok(answer) if answer.redirected || !answer.is_refusal() => return Ok(answer),
                Ok(answer) if answer.status() == StatusCode::FORBIDDEN => {
                    return self.send_as_another(sender, request, scope, &method, answer).await;
                }
                Ok(answer) => body::discard(answer.response.into_body(), sender.timeouts.stall).await,
                Err(error) if is_refusal(&error) => {}
                Err(error) => return Err(error),
            }
            self.refuse(scope, method, false);
        }
        // The rate limit of anonymous requests must not affect authenticated ones: this request only gets the
        // challenge.
        let plain = sender.send(&request.on_behalf_of(ANONYMOUS.into()), None).await?;
        if plain.status() != StatusCode::UNAUTHORIZED || plain.redirected {
            return Ok(plain);
        }
        let challenges = Challenge::parse_all(
            plain.response.headers().get_all(WWW_AUTHENTICATE).iter().map(HeaderValue::as_bytes),
        );
        let (candidates, unreadable) = self.candidates(scope, request.deadline).await;
        let (methods, denied) = self.untried(scope, methods(&challenges, candidates, scope));
        if methods.is_empty() {
            let answer = if denied {
                Err(request.error(SourceErrorKind::Denied, "every credential was denied recently"))
            } else {
                Ok(plain)
            };
            return unreadable.map_or(answer, Err);
        }
        body::discard(plain.response.into_body(), sender.timeouts.stall).await;
        let tried = self.try_all(sender, request, scope, methods).await;
        let refused = match &tried {
            Ok(answer) => answer.is_refusal(),
            Err(error) => is_refusal(error),
        };
        unreadable.filter(|_| refused).map_or(tried, Err)
    }

    /// Returns the cached `Authorization` of the scope, for a request that cannot be replayed, right after one that
    /// can.
    pub(super) async fn authorization(
        &self,
        sender: &HttpSender,
        request: &RegistryRequest,
        scope: &AuthScope,
    ) -> Result<Option<HeaderValue>, SourceError> {
        match self.recall(scope) {
            None => Ok(None),
            Some(method) => Ok(self.header_of(sender, request, &method).await?.0),
        }
    }

    /// Returns the `Authorization` header of a method, and its token if that was fetched.
    async fn header_of(
        &self,
        sender: &HttpSender,
        request: &RegistryRequest,
        method: &AuthMethod,
    ) -> Result<(Option<HeaderValue>, Option<Token>), SourceError> {
        match method {
            AuthMethod::Basic { username, password } => {
                Ok((header(request, token::basic(username, password))?, None))
            }
            AuthMethod::Fixed(secret) => Ok((header(request, token::bearer(secret))?, None)),
            AuthMethod::Bearer { token_request, credential } => {
                let token =
                    self.tokens.get(sender, request, token_request, credential.as_ref(), None).await?;
                Ok((header(request, token::bearer(token.secret()))?, Some(token)))
            }
        }
    }

    /// Tries the other candidates after `method` was denied; if all are denied, the first response is returned.
    async fn send_as_another(
        &self,
        sender: &HttpSender,
        request: &RegistryRequest,
        scope: &AuthScope,
        method: &AuthMethod,
        denied: Answer,
    ) -> Result<Answer, SourceError> {
        let (candidates, _) = self.candidates(scope, request.deadline).await;
        let others = candidates.into_iter().filter_map(|candidate| method.as_another(candidate));
        let others = others.filter(|other| other != method).take(MAX_METHODS).collect();
        let (others, _) = self.untried(scope, others);
        if others.is_empty() {
            return Ok(denied);
        }
        match self.try_all(sender, request, scope, others).await {
            Ok(answer) if !answer.is_refusal() => {
                body::discard(denied.response.into_body(), sender.timeouts.stall).await;
                Ok(answer)
            }
            _ => Ok(denied),
        }
    }

    /// Tries the methods in order up to the first that is accepted; otherwise returns the first refusal, the most
    /// informative.
    async fn try_all(
        &self,
        sender: &HttpSender,
        request: &RegistryRequest,
        scope: &AuthScope,
        methods: Vec<AuthMethod>,
    ) -> Result<Answer, SourceError> {
        let mut first_refusal: Option<Result<Answer, SourceError>> = None;
        for method in methods {
            let tried = match self.send_with(sender, request, &method).await {
                Ok(answer) if !answer.is_refusal() => {
                    self.remember(scope, method);
                    return Ok(answer);
                }
                Err(error) if !is_refusal(&error) => {
                    // Cache the method although it is not known to be accepted, so that requests wait for its rate
                    // limit.
                    if error.kind() == SourceErrorKind::RateLimited {
                        self.remember(scope, method);
                    }
                    return Err(error);
                }
                refusal => refusal,
            };
            let denied = match &tried {
                Ok(answer) => answer.status() == StatusCode::FORBIDDEN,
                Err(error) => error.kind() == SourceErrorKind::Denied,
            };
            self.refuse(scope, method, denied);
            if first_refusal.is_none() {
                first_refusal = Some(tried);
            } else if let Ok(answer) = tried {
                body::discard(answer.response.into_body(), sender.timeouts.stall).await;
            }
        }
        first_refusal.unwrap_or_else(|| {
            Err(request.error(SourceErrorKind::Unauthorized, "no credential was accepted"))
        })
    }

    /// Sends the request with one method. A cached token that is refused is replaced once.
    async fn send_with(
        &self,
        sender: &HttpSender,
        request: &RegistryRequest,
        method: &AuthMethod,
    ) -> Result<Answer, SourceError> {
        let request = &request.on_behalf_of(method.account());
        let (authorization, token) = self.header_of(sender, request, method).await?;
        let answer = sender.send(request, authorization.as_ref()).await?;
        let (AuthMethod::Bearer { token_request, credential }, Some(token)) = (method, token) else {
            return Ok(answer);
        };
        if answer.status() != StatusCode::UNAUTHORIZED || token.fresh || answer.redirected {
            return Ok(answer);
        }
        body::discard(answer.response.into_body(), sender.timeouts.stall).await;
        let refused = Some(token.secret());
        let token = self.tokens.get(sender, request, token_request, credential.as_ref(), refused).await?;
        sender.send(request, header(request, token::bearer(token.secret()))?.as_ref()).await
    }

    /// Returns the candidates, or the error if they cannot be read. Public images need none, so it is an error only if
    /// the registry then refuses.
    async fn candidates(
        &self,
        scope: &AuthScope,
        deadline: Instant,
    ) -> (Vec<Credential>, Option<SourceError>) {
        let attempted = || format!("credentials for {}", scope.credentials_of);
        let unreadable = match timeout_at(deadline, self.credentials.candidates(&scope.credentials_of)).await
        {
            Ok(Ok(candidates)) => return (candidates, None),
            Ok(Err(error)) => {
                tracing::warn!(repository = %scope.credentials_of, %error, "failed to read credentials");
                SourceError::caused_by(SourceErrorKind::Unauthorized, attempted(), error)
            }
            Err(_) => {
                tracing::warn!(repository = %scope.credentials_of, "timed out reading credentials");
                SourceError::new(SourceErrorKind::TimedOut, attempted())
            }
        };
        (Vec::new(), Some(unreadable))
    }

    fn scopes(&self) -> MutexGuard<'_, LruCache<AuthScope, Known>> {
        self.remembered.lock()
    }

    fn recall(&self, scope: &AuthScope) -> Option<AuthMethod> {
        self.scopes().get(scope).and_then(|known| known.accepted.clone())
    }

    fn remember(&self, scope: &AuthScope, method: AuthMethod) {
        self.scopes().get_or_insert_mut(scope.clone(), Known::default).accepted = Some(method);
    }

    /// Records that a method was refused, for a while, and drops it from the cache.
    fn refuse(&self, scope: &AuthScope, method: AuthMethod, denied: bool) {
        let now = Instant::now();
        let mut scopes = self.scopes();
        let known = scopes.get_or_insert_mut(scope.clone(), Known::default);
        if known.accepted.as_ref() == Some(&method) {
            known.accepted = None;
        }
        known.refused.retain(|refused| refused.until > now && refused.method != method);
        if known.refused.len() <= 2 * MAX_METHODS {
            known.refused.push(Refused { method, denied, until: now + REFUSED_FOR });
        }
    }

    /// Returns the methods that were not refused recently, and whether one of the others was denied.
    fn untried(&self, scope: &AuthScope, methods: Vec<AuthMethod>) -> (Vec<AuthMethod>, bool) {
        let now = Instant::now();
        let mut scopes = self.scopes();
        let Some(known) = scopes.get(scope) else { return (methods, false) };
        let recently = |method: &AuthMethod| {
            known.refused.iter().find(|refused| refused.method == *method && refused.until > now)
        };
        let denied = methods.iter().filter_map(recently).any(|refused| refused.denied);
        (methods.iter().filter(|method| recently(method).is_none()).cloned().collect(), denied)
    }
}

impl AuthMethod {
    /// Returns the same method with another credential.
    fn as_another(&self, credential: Credential) -> Option<Self> {
        match (credential, self) {
            (Credential::RegistryToken(token), _) => Some(Self::Fixed(token)),
            (credential, Self::Bearer { token_request, .. }) => {
                Some(Self::Bearer { token_request: token_request.clone(), credential: Some(credential) })
            }
            (Credential::Basic { username, password }, Self::Basic { .. }) => {
                Some(Self::Basic { username, password })
            }
            _ => None,
        }
    }
}

/// Returns every method that the challenges allow, in the order of the candidates. Bearer is preferred to Basic.
fn methods(challenges: &[Challenge], candidates: Vec<Credential>, scope: &AuthScope) -> Vec<AuthMethod> {
    let bearer = challenges
        .iter()
        .filter(|challenge| challenge.is("bearer"))
        .find_map(|challenge| TokenRequest::new(challenge, &scope.registry, &scope.path));
    let basic = challenges.iter().any(|challenge| challenge.is("basic"));
    let mut methods: Vec<AuthMethod> = candidates
        .into_iter()
        .filter_map(|candidate| match (candidate, &bearer) {
            (Credential::RegistryToken(token), _) => Some(AuthMethod::Fixed(token)),
            (credential, Some(token_request)) => Some(AuthMethod::Bearer {
                token_request: token_request.clone(),
                credential: Some(credential),
            }),
            (Credential::Basic { username, password }, None) if basic => {
                Some(AuthMethod::Basic { username, password })
            }
            _ => None,
        })
        .take(MAX_METHODS)
        .collect();
    methods.extend(bearer.map(|token_request| AuthMethod::Bearer { token_request, credential: None }));
    methods
}

fn is_refusal(error: &SourceError) -> bool {
    matches!(error.kind(), SourceErrorKind::Unauthorized | SourceErrorKind::Denied)
}

fn header(request: &RegistryRequest, value: Option<HeaderValue>) -> Result<Option<HeaderValue>, SourceError> {
    match value {
        Some(value) => Ok(Some(value)),
        None => Err(request.error(
            SourceErrorKind::Unauthorized,
            "the credential has a character that is invalid in a header",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope() -> AuthScope {
        AuthScope {
            registry: "https://r.example".to_owned(),
            path: "app".to_owned(),
            credentials_of: RepositoryName::new("r.example", "app").unwrap(),
        }
    }

    fn methods_of(header: &str, candidates: Vec<Credential>) -> Vec<&'static str> {
        let challenges = Challenge::parse_all([header.as_bytes()]);
        methods(&challenges, candidates, &scope())
            .iter()
            .map(|method| match method {
                AuthMethod::Basic { .. } => "basic",
                AuthMethod::Fixed(_) => "fixed",
                AuthMethod::Bearer { credential: Some(_), .. } => "bearer",
                AuthMethod::Bearer { credential: None, .. } => "anonymous",
            })
            .collect()
    }

    #[test]
    fn methods_follow_challenges_and_candidate_order() {
        let basic = || Credential::basic("u", "p");
        let fixed = || Credential::RegistryToken("t".into());
        let identity = || Credential::IdentityToken("i".into());
        let both = r#"Basic realm="r", Bearer realm="https://a/t""#;
        assert_eq!(methods_of(both, vec![basic(), fixed()]), ["bearer", "fixed", "anonymous"]);
        assert_eq!(methods_of(both, vec![]), ["anonymous"]);
        assert_eq!(methods_of("Basic realm=r", vec![identity(), basic()]), ["basic"]);
        assert_eq!(methods_of("Bearer service=x", vec![basic()]), Vec::<&str>::new());
        assert_eq!(methods_of("Negotiate", vec![basic()]), Vec::<&str>::new());
        assert_eq!(methods_of(both, vec![basic(); 100]).len(), MAX_METHODS + 1);
    }
}
