//! Authentication of the registry client: Basic and Bearer, token cache and renewal, order of credentials, number of
//! requests.
#![cfg(feature = "client")]

use crate::support::{client, limited, named, read, tag};
use futures::future::join_all;
use http::{StatusCode, header::AUTHORIZATION};
use kuik_core::{
    client::{HostLimits, RegistryClient, Timeouts},
    content::{ByteRange, ContentSource, Freshness, SourceError, SourceErrorKind},
    credentials::{Anonymous, Credential, CredentialError, CredentialProvider, DockerConfig},
    reference::RepositoryName,
};
use kuik_testkit::{Access, Behavior, Rule, SampleImage, ScriptedRegistry, Target};

async fn guarded(access: Access) -> ScriptedRegistry {
    let registry = ScriptedRegistry::start().await.unwrap();
    registry.add_image("app", "latest", &SampleImage::small(1));
    registry.set_access(access);
    registry
}

fn with(registry: &ScriptedRegistry, credentials: impl CredentialProvider) -> RegistryClient {
    client(named(registry), credentials, Timeouts::default())
}

async fn get(client: &RegistryClient, registry: &ScriptedRegistry) -> Result<(), SourceError> {
    let app = registry.repository("app").unwrap();
    client.manifest(&app, &tag("latest"), Freshness::Cached).await.map(drop)
}

fn basic() -> Access {
    Access::Basic { username: "user".to_owned(), password: "sesame".to_owned() }
}

fn tokens(expires_in: Option<f64>) -> Access {
    Access::Bearer { account: Some(("user".to_owned(), "sesame".to_owned())), expires_in, field: "token" }
}

fn right() -> Credential {
    Credential::basic("user", "sesame")
}

fn wrong() -> Credential {
    Credential::basic("user", "hunter2")
}

#[tokio::test]
async fn basic_challenge_is_cached_after_first_request() {
    let registry = guarded(basic()).await;
    let client = with(&registry, vec![right()]);
    for _ in 0..3 {
        get(&client, &registry).await.unwrap();
    }
    let statuses: Vec<_> = registry.log().iter().map(|entry| entry.status.unwrap().as_u16()).collect();
    assert_eq!(statuses, [401, 200, 200, 200]);
}

#[tokio::test]
async fn refusal_leaves_its_connection_reusable() {
    let registry = guarded(basic()).await;
    // Long enough that it does not arrive together with the headers.
    registry.script(Rule::on(Target::Manifest).times(1).does(Behavior::Answer {
        status: StatusCode::UNAUTHORIZED,
        headers: http::HeaderMap::from_iter([(
            http::header::WWW_AUTHENTICATE,
            "Basic realm=x".parse().unwrap(),
        )]),
        body: vec![b' '; 60_000].into(),
    }));
    get(&with(&registry, vec![right()]), &registry).await.unwrap();
    assert_eq!((registry.log().len(), registry.connections()), (2, 1));
}

#[tokio::test]
async fn token_is_fetched_once_for_many_requests() {
    let registry = guarded(Access::anonymous_tokens()).await;
    let client = with(&registry, Anonymous);
    let answers = join_all((0..10).map(|_| get(&client, &registry))).await;
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    get(&client, &registry).await.unwrap();
    assert_eq!(registry.count(Target::Token), 1);
    let asked = registry.log().into_iter().find(|entry| entry.target == Target::Token).unwrap();
    assert_eq!(asked.query, "service=testkit&scope=repository%3Aapp%3Apull");
    assert_eq!(asked.header(AUTHORIZATION), "");
}

#[tokio::test]
async fn failing_token_endpoint_gets_one_request_from_all_waiters() {
    let registry = guarded(Access::anonymous_tokens()).await;
    registry.script(Rule::on(Target::Token).does(Behavior::status(StatusCode::SERVICE_UNAVAILABLE)));
    // All ten are refused first, so that all ten wait for a token together.
    let gate = kuik_testkit::Gate::new();
    registry.script(Rule::on(Target::Manifest).does(Behavior::DelayHeaders(gate.clone())));
    // No retries: they would be another ten requests.
    let client = limited(named(&registry), Anonymous, Timeouts::default(), HostLimits::none());
    let asking: Vec<_> = (0..10)
        .map(|_| {
            let (client, app) = (client.clone(), registry.repository("app").unwrap());
            tokio::spawn(
                async move { client.manifest(&app, &tag("latest"), Freshness::Cached).await.map(drop) },
            )
        })
        .collect();
    registry.wait_for(|log| log.len() == 10).await;
    gate.open();
    for answer in join_all(asking).await {
        assert_eq!(answer.unwrap().unwrap_err().kind(), SourceErrorKind::Unavailable);
    }
    assert!(registry.count(Target::Token) < 10, "{}", registry.count(Target::Token));
}

#[tokio::test]
async fn token_is_renewed_before_it_expires() {
    let registry = guarded(tokens(Some(0.000_001))).await;
    let client = with(&registry, vec![right()]);
    get(&client, &registry).await.unwrap();
    // It expires at once, so it is not reused.
    get(&client, &registry).await.unwrap();
    assert_eq!(registry.count(Target::Token), 2);
    let refused =
        registry.log().iter().filter(|entry| entry.status == Some(StatusCode::UNAUTHORIZED)).count();
    assert_eq!(refused, 1, "only the first request, which had no token");
}

#[tokio::test]
async fn revoked_token_is_replaced() {
    let registry = guarded(tokens(Some(3600.0))).await;
    let client = with(&registry, vec![right()]);
    get(&client, &registry).await.unwrap();
    registry.revoke_tokens();
    get(&client, &registry).await.unwrap();
    assert_eq!(registry.count(Target::Token), 2);
}

#[tokio::test]
async fn both_token_fields_and_unusual_challenges_work() {
    let registry = guarded(Access::Bearer { account: None, expires_in: None, field: "access_token" }).await;
    let url = registry.url();
    for challenge in [
        format!("bearer REALM={url}/token"),
        format!("Negotiate, Bearer  realm = \"{url}/token\" , service=x"),
        format!("Basic realm=\"x\", Bearer realm=\"{url}/token?a=b\",scope=repository:app:pull,push"),
    ] {
        registry.set_challenge(challenge.clone());
        get(&with(&registry, Anonymous), &registry)
            .await
            .unwrap_or_else(|error| panic!("{challenge}: {error}"));
    }
    assert!(
        registry
            .log()
            .iter()
            .any(|entry| entry.query.starts_with("a=b&scope=repository%3Aapp%3Apull%2Cpush"))
    );
}

#[tokio::test]
async fn credentials_are_tried_in_order_and_the_accepted_one_is_cached() {
    for access in [basic(), tokens(None)] {
        let registry = guarded(access.clone()).await;
        let client = with(&registry, vec![wrong(), right()]);
        get(&client, &registry).await.unwrap();
        let before = registry.log().len();
        get(&client, &registry).await.unwrap();
        assert_eq!(registry.log().len(), before + 1, "{access:?}");
    }
}

#[tokio::test]
async fn stale_credentials_do_not_block_a_public_repository() {
    let registry = guarded(Access::anonymous_tokens()).await;
    registry.script(
        Rule::on(Target::Token).path("token").times(1).does(Behavior::status(StatusCode::UNAUTHORIZED)),
    );
    get(&with(&registry, vec![wrong()]), &registry).await.unwrap();
}

#[tokio::test]
async fn identity_token_is_exchanged() {
    let registry = guarded(tokens(None)).await;
    let config = format!(r#"{{"auths": {{"{}": {{"identitytoken": "sesame"}}}}}}"#, registry.host());
    let client = with(&registry, DockerConfig::parse("config.json", config.as_bytes()).unwrap());
    get(&client, &registry).await.unwrap();
    let log = registry.log();
    let asked = log.iter().find(|entry| entry.target == Target::Token).unwrap();
    assert_eq!(asked.method, http::Method::POST);
    assert!(asked.body.contains("grant_type=refresh%5Ftoken&refresh_token=sesame"), "{}", asked.body);
    assert_eq!(asked.query, "");
}

#[tokio::test]
async fn registry_that_always_refuses_gets_a_bounded_number_of_requests() {
    for access in [basic(), tokens(None), Access::anonymous_tokens()] {
        let registry = guarded(access).await;
        let url = registry.url();
        // The challenge asks for a token, the token is given, and never accepted.
        registry.script(Rule::on(Target::Manifest).does(Behavior::Answer {
            status: StatusCode::UNAUTHORIZED,
            headers: http::HeaderMap::from_iter([(
                http::header::WWW_AUTHENTICATE,
                format!("Bearer realm=\"{url}/token\", Basic realm=x").parse().unwrap(),
            )]),
            body: bytes::Bytes::new(),
        }));
        let client = with(&registry, vec![wrong(), right(), wrong()]);
        for _ in 0..2 {
            let error = get(&client, &registry).await.unwrap_err();
            assert_eq!(error.kind(), SourceErrorKind::Unauthorized);
            let all = format!("{error:?} {} {client:?}", error.chain());
            assert!(!all.contains("hunter2") && !all.contains("sesame"), "{all}");
        }
        assert!(registry.log().len() <= 2 * 12, "{}", registry.log().len());
    }
}

/// A provider whose credentials can be replaced.
#[derive(Debug, Clone, Default)]
struct Changing(std::sync::Arc<std::sync::Mutex<Vec<Credential>>>);

impl Changing {
    fn to(&self, credentials: Vec<Credential>) {
        *self.0.lock().unwrap() = credentials;
    }
}

#[async_trait::async_trait]
impl CredentialProvider for Changing {
    async fn candidates(&self, _: &RepositoryName) -> Result<Vec<Credential>, CredentialError> {
        Ok(self.0.lock().unwrap().clone())
    }
}

#[tokio::test]
async fn refused_credential_is_not_retried_but_its_successor_is() {
    for access in [basic(), tokens(None)] {
        let registry = guarded(access.clone()).await;
        let credentials = Changing::default();
        credentials.to(vec![wrong()]);
        let client = with(&registry, credentials.clone());
        let error = get(&client, &registry).await.unwrap_err();
        assert_eq!(error.kind(), SourceErrorKind::Unauthorized);
        let before = registry.log().len();
        let error = get(&client, &registry).await.unwrap_err();
        assert_eq!(error.kind(), SourceErrorKind::Unauthorized);
        assert_eq!(registry.log().len(), before + 1, "one anonymous request: {access:?}");
        credentials.to(vec![wrong(), right()]);
        get(&client, &registry).await.unwrap();
    }
}

#[tokio::test]
async fn denied_credential_stays_cached_for_the_next_request() {
    let registry = guarded(basic()).await;
    let client = with(&registry, vec![right(), wrong()]);
    get(&client, &registry).await.unwrap();
    registry.script(Rule::on(Target::Manifest).times(1).does(Behavior::status(StatusCode::FORBIDDEN)));
    let error = get(&client, &registry).await.unwrap_err();
    assert_eq!(error.kind(), SourceErrorKind::Denied, "no other credential is authorized: {error}");
    let before = registry.log().len();
    get(&client, &registry).await.unwrap();
    assert_eq!(registry.log().len(), before + 1, "the credential is still cached");
}

#[tokio::test]
async fn a_password_that_expires_with_a_403_is_replaced_by_its_successor() {
    for access in [basic(), tokens(None)] {
        let registry = guarded(access.clone()).await;
        let credentials = Changing::default();
        credentials.to(vec![right()]);
        let client = with(&registry, credentials.clone());
        get(&client, &registry).await.unwrap();
        let (username, password) = ("user".to_owned(), "next".to_owned());
        credentials.to(vec![Credential::basic("user", "next")]);
        registry.set_access(match access {
            Access::Bearer { field, .. } => {
                Access::Bearer { account: Some((username, password)), expires_in: None, field }
            }
            _ => Access::Basic { username, password },
        });
        registry.script(Rule::on(Target::Manifest).times(1).does(Behavior::status(StatusCode::FORBIDDEN)));
        get(&client, &registry).await.unwrap();
        let before = registry.log().len();
        get(&client, &registry).await.unwrap();
        assert_eq!(registry.log().len(), before + 1, "{access:?}");
    }
}

#[tokio::test]
async fn denied_is_distinguished_from_unauthorized() {
    let registry = guarded(basic()).await;
    let client = with(&registry, vec![right()]);
    // The challenge is 401; a valid credential gets 403.
    registry.script(Rule::on(Target::Manifest).times(1).does(Behavior::Normal));
    registry.script(Rule::on(Target::Manifest).times(1).does(Behavior::status(StatusCode::FORBIDDEN)));
    let error = get(&client, &registry).await.unwrap_err();
    assert_eq!(error.kind(), SourceErrorKind::Denied, "{error}");
    let error = get(&client, &registry).await.unwrap_err();
    assert_eq!(error.kind(), SourceErrorKind::Denied, "it is cached: {error}");
}

#[tokio::test]
async fn unusable_challenge_is_unauthorized() {
    for challenge in ["", "Negotiate", "Bearer", "Bearer realm=\"\"", "Bearer realm=\"http://[\"", "=,\"\\"] {
        let registry = guarded(tokens(None)).await;
        registry.set_challenge(challenge);
        let error = get(&with(&registry, vec![right()]), &registry).await.unwrap_err();
        let expected = if challenge.contains("http") {
            SourceErrorKind::InvalidContent
        } else {
            SourceErrorKind::Unauthorized
        };
        assert_eq!(error.kind(), expected, "{challenge}: {error}");
    }
    let registry = guarded(basic()).await;
    let error = get(&with(&registry, Anonymous), &registry).await.unwrap_err();
    assert_eq!(error.kind(), SourceErrorKind::Unauthorized);
    assert!(error.to_string().ends_with("UNAUTHORIZED: authentication required"), "{error}");
}

#[tokio::test]
async fn realm_is_guarded_like_an_upstream() {
    let registry = guarded(Access::anonymous_tokens()).await;
    for realm in ["http://169.254.169.254/token", "https://127.0.0.1:1/token", "http://localhost:1/token"] {
        registry.set_challenge(format!("Bearer realm=\"{realm}\""));
        let error = get(&with(&registry, Anonymous), &registry).await.unwrap_err();
        assert_eq!(error.kind(), SourceErrorKind::Forbidden, "{realm}: {}", error.chain());
    }
}

#[tokio::test]
async fn oversized_or_invalid_token_response_is_rejected() {
    let registry = guarded(Access::anonymous_tokens()).await;
    for behavior in [
        Behavior::TooManyBytes { extra: 1 << 20, chunked: true },
        Behavior::TooManyBytes { extra: 1 << 20, chunked: false },
        Behavior::WrongBytes,
        Behavior::Answer {
            status: StatusCode::OK,
            headers: http::HeaderMap::new(),
            body: bytes::Bytes::from_static(br#"{"token": ""}"#),
        },
    ] {
        registry.clear_script();
        registry.script(Rule::on(Target::Token).does(behavior));
        let error = get(&with(&registry, Anonymous), &registry).await.unwrap_err();
        assert_eq!(error.kind(), SourceErrorKind::InvalidContent, "{error}");
    }
}

#[derive(Debug)]
struct Unreadable;

#[async_trait::async_trait]
impl CredentialProvider for Unreadable {
    async fn candidates(&self, _: &RepositoryName) -> Result<Vec<Credential>, CredentialError> {
        Err(CredentialError::new("the secret store is unavailable", None))
    }
}

#[tokio::test]
async fn unreadable_credentials_affect_only_private_repositories() {
    let public = guarded(Access::anonymous_tokens()).await;
    get(&with(&public, Unreadable), &public).await.unwrap();
    for access in [basic(), tokens(None)] {
        let private = guarded(access).await;
        let error = get(&with(&private, Unreadable), &private).await.unwrap_err();
        assert_eq!(error.kind(), SourceErrorKind::Unauthorized);
        assert!(error.chain().contains("the secret store is unavailable"), "{}", error.chain());
    }
}

#[tokio::test]
async fn blob_requests_reuse_the_token() {
    let registry = guarded(tokens(None)).await;
    let (client, app) = (with(&registry, vec![right()]), registry.repository("app").unwrap());
    get(&client, &registry).await.unwrap();
    let image = SampleImage::small(1);
    for (digest, bytes) in image.blobs() {
        let blob = client.blob(&app, digest, ByteRange::Full).await.unwrap().content;
        assert_eq!(read(blob).await.unwrap(), *bytes);
    }
    assert_eq!(registry.count(Target::Token), 1);
}

#[tokio::test]
async fn anonymous_rate_limit_does_not_affect_authenticated_requests() {
    let registry = guarded(Access::anonymous_tokens()).await;
    registry.add_image("private", "latest", &SampleImage::small(2));
    let auths = serde_json::json!({ "auths": {
        (format!("{}/private", registry.host())): { "username": "user", "password": "sesame" },
    } });
    let config = DockerConfig::parse("config.json", auths.to_string().as_bytes()).unwrap();
    let client = limited(named(&registry), config, Timeouts::default(), HostLimits::default());
    let at = |name: &str| Rule::on(Target::Manifest).path(format!("/{name}/")).times(1);
    // The challenge is fetched, then an anonymous request gets a 429.
    registry.script(at("app").does(Behavior::Normal));
    registry.script(at("app").does(Behavior::Answer {
        status: StatusCode::TOO_MANY_REQUESTS,
        headers: http::HeaderMap::from_iter([(http::header::RETRY_AFTER, "600".parse().unwrap())]),
        body: Default::default(),
    }));
    let refused = get(&client, &registry).await.unwrap_err();
    assert_eq!(refused.kind(), SourceErrorKind::RateLimited);
    let private = registry.repository("private").unwrap();
    client.manifest(&private, &tag("latest"), Freshness::Cached).await.unwrap();
    registry.add_image("other", "latest", &SampleImage::small(3));
    let other = registry.repository("other").unwrap();
    let again = async || {
        let refused = client.manifest(&other, &tag("latest"), Freshness::Cached).await.unwrap_err();
        assert_eq!(refused.kind(), SourceErrorKind::RateLimited);
        assert_eq!(get(&client, &registry).await.unwrap_err().kind(), SourceErrorKind::RateLimited);
    };
    again().await;
    let asked = registry.log().len();
    again().await;
    assert_eq!(registry.log().len(), asked, "no anonymous request during the pause");
}
