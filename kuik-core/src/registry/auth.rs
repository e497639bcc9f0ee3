//! Authentication: which credential opens a repository, found once and remembered.
//!
//! A question is asked as it was answered last time, or without any credential. Where the registry refuses, every
//! candidate is tried once, in order, anonymous tokens last; the first that is accepted is remembered for the
//! repository, and those that were refused are not tried again for a while. A registry that refuses for ever therefore
//! gets a bounded number of requests, and nobody's account is locked.
//!
//! 401 says that a credential is no good: it is forgotten. 403 says that it is known and not allowed this: it stays,
//! because it may be allowed the next thing, and the other candidates are tried, one of which may be its successor (the
//! registry of AWS answers 403 to a password that has expired).

use std::{
    num::NonZeroUsize,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use http::{HeaderValue, StatusCode, header::WWW_AUTHENTICATE};
use lru::LruCache;
use tokio::time::{Instant, timeout_at};

use super::{
    body,
    challenge::Challenge,
    exchange::{Answer, Exchange, Question},
    token::{self, Token, TokenRequest, Tokens},
};
use crate::{
    content::{SourceError, SourceErrorKind},
    credentials::{Credential, CredentialProvider, Secret},
    reference::RepositoryName,
};

/// For how many repositories it is remembered what opens them.
const MAX_REMEMBERED: NonZeroUsize = NonZeroUsize::new(4096).expect("not zero");
/// How many ways are tried for one question.
const MAX_WAYS: usize = 8;
/// For how long a way that was refused is not tried again.
const REFUSED: Duration = Duration::from_secs(10);

/// Finds and remembers what opens repositories.
#[derive(Debug)]
pub(super) struct Authenticator {
    credentials: Arc<dyn CredentialProvider>,
    tokens: Tokens,
    remembered: Mutex<LruCache<Door, Known>>,
}

/// What is known of a door.
#[derive(Debug, Default)]
struct Known {
    opens: Option<Way>,
    refused: Vec<Refused>,
}

/// A way that was refused.
#[derive(Debug)]
struct Refused {
    way: Way,
    /// Whether it was known and not allowed (403), not unknown (401).
    denied: bool,
    until: Instant,
}

/// A repository at an upstream.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Door {
    /// The upstream's base URL.
    pub(super) registry: String,
    /// The repository's path there.
    pub(super) path: String,
    /// The name under which credentials are looked up.
    pub(super) credentials_of: RepositoryName,
}

/// A way to authorize a request.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Way {
    /// User and password, with every request.
    Basic { username: String, password: Secret },
    /// A token that was configured.
    Fixed(Secret),
    /// A token from the endpoint that the registry names.
    Bearer { request: TokenRequest, credential: Option<Credential> },
}

/// In whose name it is asked what opens a door. Where it stands open, that is how everything is asked.
const STRANGER: &str = "-";

impl Way {
    /// In whose name it asks, as far as limits are concerned.
    fn account(&self) -> Arc<str> {
        match self {
            Self::Basic { username, .. }
            | Self::Bearer { credential: Some(Credential::Basic { username, .. }), .. } => {
                username.as_str().into()
            }
            Self::Bearer { credential: None, .. } => Arc::default(),
            // Somebody, whose name nobody says.
            Self::Fixed(_) | Self::Bearer { .. } => "token".into(),
        }
    }
}

impl Authenticator {
    pub(super) fn new(credentials: Arc<dyn CredentialProvider>) -> Self {
        Self { credentials, tokens: Tokens::default(), remembered: Mutex::new(LruCache::new(MAX_REMEMBERED)) }
    }

    /// Asks the question with what opens the door. The answer may still be a refusal: the most telling one.
    pub(super) async fn ask(
        &self,
        exchange: &Exchange,
        question: &Question,
        door: &Door,
    ) -> Result<Answer, SourceError> {
        if let Some(way) = self.recall(door) {
            match self.go(exchange, question, &way).await {
                Ok(answer) if answer.elsewhere || !answer.is_refusal() => return Ok(answer),
                Ok(answer) if answer.status() == StatusCode::FORBIDDEN => {
                    return self.ask_as_another(exchange, question, door, &way, answer).await;
                }
                Ok(answer) => body::discard(answer.response.into_body(), exchange.timeouts.stall).await,
                Err(error) if is_refusal(&error) => {}
                Err(error) => return Err(error),
            }
            self.refuse(door, way, false);
        }
        // A limit of those who have no account is none of whoever has one: this only asks for the way in.
        let plain = exchange.send(&question.asked_as(STRANGER.into()), None).await?;
        if plain.status() != StatusCode::UNAUTHORIZED || plain.elsewhere {
            return Ok(plain);
        }
        let challenges = Challenge::parse_all(
            plain.response.headers().get_all(WWW_AUTHENTICATE).iter().map(HeaderValue::as_bytes),
        );
        let (candidates, unreadable) = self.candidates(door, question.deadline).await;
        let (ways, denied) = self.not_refused(door, ways(&challenges, candidates, door));
        if ways.is_empty() {
            let answer = if denied {
                Err(question.error(SourceErrorKind::Denied, "every credential was denied it a moment ago"))
            } else {
                Ok(plain)
            };
            return unreadable.map_or(answer, Err);
        }
        body::discard(plain.response.into_body(), exchange.timeouts.stall).await;
        let tried = self.try_all(exchange, question, door, ways).await;
        let refused = match &tried {
            Ok(answer) => answer.is_refusal(),
            Err(error) => is_refusal(error),
        };
        unreadable.filter(|_| refused).map_or(tried, Err)
    }

    /// What opens the door, as it was opened last: for a request that cannot be sent twice, right after one that can.
    pub(super) async fn authorization(
        &self,
        exchange: &Exchange,
        question: &Question,
        door: &Door,
    ) -> Result<Option<HeaderValue>, SourceError> {
        match self.recall(door) {
            None => Ok(None),
            Some(way) => Ok(self.opened_by(exchange, question, &way).await?.0),
        }
    }

    /// The header that goes a way, and the token in it, where that is one that was fetched.
    async fn opened_by(
        &self,
        exchange: &Exchange,
        question: &Question,
        way: &Way,
    ) -> Result<(Option<HeaderValue>, Option<Token>), SourceError> {
        match way {
            Way::Basic { username, password } => {
                Ok((header(question, token::basic(username, password))?, None))
            }
            Way::Fixed(secret) => Ok((header(question, token::bearer(secret))?, None)),
            Way::Bearer { request, credential } => {
                let token = self.tokens.get(exchange, question, request, credential.as_ref(), None).await?;
                Ok((header(question, token::bearer(token.secret()))?, Some(token)))
            }
        }
    }

    /// Asks as the other candidates, after `way` was denied it; where nobody is allowed it, that answer stands.
    async fn ask_as_another(
        &self,
        exchange: &Exchange,
        question: &Question,
        door: &Door,
        way: &Way,
        denied: Answer,
    ) -> Result<Answer, SourceError> {
        let (candidates, _) = self.candidates(door, question.deadline).await;
        let others = candidates.into_iter().filter_map(|candidate| way.as_another(candidate));
        let others = others.filter(|other| other != way).take(MAX_WAYS).collect();
        let (others, _) = self.not_refused(door, others);
        if others.is_empty() {
            return Ok(denied);
        }
        match self.try_all(exchange, question, door, others).await {
            Ok(answer) if !answer.is_refusal() => {
                body::discard(denied.response.into_body(), exchange.timeouts.stall).await;
                Ok(answer)
            }
            _ => Ok(denied),
        }
    }

    /// Tries every way, up to the first that is accepted; else the first refusal, which is the most telling.
    async fn try_all(
        &self,
        exchange: &Exchange,
        question: &Question,
        door: &Door,
        ways: Vec<Way>,
    ) -> Result<Answer, SourceError> {
        let mut first_refusal: Option<Result<Answer, SourceError>> = None;
        for way in ways {
            let tried = match self.go(exchange, question, &way).await {
                Ok(answer) if !answer.is_refusal() => {
                    self.remember(door, way);
                    return Ok(answer);
                }
                Err(error) if !is_refusal(&error) => {
                    // It is not known to open the door, and it is the one to wait with: nothing is asked meanwhile.
                    if error.kind() == SourceErrorKind::RateLimited {
                        self.remember(door, way);
                    }
                    return Err(error);
                }
                refusal => refusal,
            };
            let denied = match &tried {
                Ok(answer) => answer.status() == StatusCode::FORBIDDEN,
                Err(error) => error.kind() == SourceErrorKind::Denied,
            };
            self.refuse(door, way, denied);
            if first_refusal.is_none() {
                first_refusal = Some(tried);
            } else if let Ok(answer) = tried {
                body::discard(answer.response.into_body(), exchange.timeouts.stall).await;
            }
        }
        first_refusal.unwrap_or_else(|| {
            Err(question.error(SourceErrorKind::Unauthorized, "no credential was accepted"))
        })
    }

    /// Asks the question one way. A kept token that is refused is replaced once.
    async fn go(&self, exchange: &Exchange, question: &Question, way: &Way) -> Result<Answer, SourceError> {
        let question = &question.asked_as(way.account());
        let (authorization, token) = self.opened_by(exchange, question, way).await?;
        let answer = exchange.send(question, authorization.as_ref()).await?;
        let (Way::Bearer { request, credential }, Some(token)) = (way, token) else { return Ok(answer) };
        if answer.status() != StatusCode::UNAUTHORIZED || token.fresh || answer.elsewhere {
            return Ok(answer);
        }
        body::discard(answer.response.into_body(), exchange.timeouts.stall).await;
        let refused = Some(token.secret());
        let token = self.tokens.get(exchange, question, request, credential.as_ref(), refused).await?;
        exchange.send(question, header(question, token::bearer(token.secret()))?.as_ref()).await
    }

    /// The candidates, and why there are none where they cannot be read. Public images need none, so that is an
    /// error only where the registry then refuses.
    async fn candidates(&self, door: &Door, deadline: Instant) -> (Vec<Credential>, Option<SourceError>) {
        let attempted = || format!("credentials for {}", door.credentials_of);
        let unreadable = match timeout_at(deadline, self.credentials.candidates(&door.credentials_of)).await {
            Ok(Ok(candidates)) => return (candidates, None),
            Ok(Err(error)) => {
                tracing::warn!(repository = %door.credentials_of, %error, "credentials cannot be read");
                SourceError::caused_by(SourceErrorKind::Unauthorized, attempted(), error)
            }
            Err(_) => {
                tracing::warn!(repository = %door.credentials_of, "credentials cannot be read in time");
                SourceError::new(SourceErrorKind::TimedOut, attempted())
            }
        };
        (Vec::new(), Some(unreadable))
    }

    fn doors(&self) -> MutexGuard<'_, LruCache<Door, Known>> {
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn recall(&self, door: &Door) -> Option<Way> {
        self.doors().get(door).and_then(|known| known.opens.clone())
    }

    fn remember(&self, door: &Door, way: Way) {
        self.doors().get_or_insert_mut(door.clone(), Known::default).opens = Some(way);
    }

    /// Remembers for a while that a way was refused. One that is no good opens the door no more.
    fn refuse(&self, door: &Door, way: Way, denied: bool) {
        let now = Instant::now();
        let mut doors = self.doors();
        let known = doors.get_or_insert_mut(door.clone(), Known::default);
        if known.opens.as_ref() == Some(&way) {
            known.opens = None;
        }
        known.refused.retain(|refused| refused.until > now && refused.way != way);
        if known.refused.len() <= 2 * MAX_WAYS {
            known.refused.push(Refused { way, denied, until: now + REFUSED });
        }
    }

    /// Those of the ways that were not refused lately, and whether one of the others was denied.
    fn not_refused(&self, door: &Door, ways: Vec<Way>) -> (Vec<Way>, bool) {
        let now = Instant::now();
        let mut doors = self.doors();
        let Some(known) = doors.get(door) else { return (ways, false) };
        let lately =
            |way: &Way| known.refused.iter().find(|refused| refused.way == *way && refused.until > now);
        let denied = ways.iter().filter_map(lately).any(|refused| refused.denied);
        (ways.iter().filter(|way| lately(way).is_none()).cloned().collect(), denied)
    }
}

impl Way {
    /// The same way with another credential.
    fn as_another(&self, credential: Credential) -> Option<Self> {
        match (credential, self) {
            (Credential::RegistryToken(token), _) => Some(Self::Fixed(token)),
            (credential, Self::Bearer { request, .. }) => {
                Some(Self::Bearer { request: request.clone(), credential: Some(credential) })
            }
            (Credential::Basic { username, password }, Self::Basic { .. }) => {
                Some(Self::Basic { username, password })
            }
            _ => None,
        }
    }
}

/// Every way that the challenges allow, in the order of the candidates. Bearer is preferred to Basic.
fn ways(challenges: &[Challenge], candidates: Vec<Credential>, door: &Door) -> Vec<Way> {
    let bearer = challenges
        .iter()
        .filter(|challenge| challenge.is("bearer"))
        .find_map(|challenge| TokenRequest::new(challenge, &door.registry, &door.path));
    let basic = challenges.iter().any(|challenge| challenge.is("basic"));
    let mut ways: Vec<Way> = candidates
        .into_iter()
        .filter_map(|candidate| match (candidate, &bearer) {
            (Credential::RegistryToken(token), _) => Some(Way::Fixed(token)),
            (credential, Some(request)) => {
                Some(Way::Bearer { request: request.clone(), credential: Some(credential) })
            }
            (Credential::Basic { username, password }, None) if basic => {
                Some(Way::Basic { username, password })
            }
            _ => None,
        })
        .take(MAX_WAYS)
        .collect();
    ways.extend(bearer.map(|request| Way::Bearer { request, credential: None }));
    ways
}

fn is_refusal(error: &SourceError) -> bool {
    matches!(error.kind(), SourceErrorKind::Unauthorized | SourceErrorKind::Denied)
}

fn header(question: &Question, value: Option<HeaderValue>) -> Result<Option<HeaderValue>, SourceError> {
    match value {
        Some(value) => Ok(Some(value)),
        None => Err(question
            .error(SourceErrorKind::Unauthorized, "the credential has a character that no header can carry")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn door() -> Door {
        Door {
            registry: "https://r.example".to_owned(),
            path: "app".to_owned(),
            credentials_of: RepositoryName::new("r.example", "app").unwrap(),
        }
    }

    fn ways_of(header: &str, candidates: Vec<Credential>) -> Vec<&'static str> {
        let challenges = Challenge::parse_all([header.as_bytes()]);
        ways(&challenges, candidates, &door())
            .iter()
            .map(|way| match way {
                Way::Basic { .. } => "basic",
                Way::Fixed(_) => "fixed",
                Way::Bearer { credential: Some(_), .. } => "bearer",
                Way::Bearer { credential: None, .. } => "anonymous",
            })
            .collect()
    }

    #[test]
    fn ways_follow_the_challenges_and_the_order_of_candidates() {
        let basic = || Credential::basic("u", "p");
        let fixed = || Credential::RegistryToken("t".into());
        let identity = || Credential::IdentityToken("i".into());
        let both = r#"Basic realm="r", Bearer realm="https://a/t""#;
        assert_eq!(ways_of(both, vec![basic(), fixed()]), ["bearer", "fixed", "anonymous"]);
        assert_eq!(ways_of(both, vec![]), ["anonymous"]);
        assert_eq!(ways_of("Basic realm=r", vec![identity(), basic()]), ["basic"]);
        assert_eq!(ways_of("Bearer service=x", vec![basic()]), Vec::<&str>::new());
        assert_eq!(ways_of("Negotiate", vec![basic()]), Vec::<&str>::new());
        assert_eq!(ways_of(both, vec![basic(); 100]).len(), MAX_WAYS + 1);
    }
}
