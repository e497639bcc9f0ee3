//! The registry client authenticates: Basic and Bearer, tokens kept and renewed, credentials tried in order, and no
//! request too many.
#![cfg(all(feature = "registry", feature = "testkit"))]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test may fail")]

mod registry_common;

use futures::future::join_all;
use http::{StatusCode, header::AUTHORIZATION};
use kuik_core::{
    content::{ByteRange, ContentSource, Freshness, SourceError, SourceErrorKind},
    credentials::{Anonymous, Credential, CredentialError, CredentialProvider, DockerConfig},
    reference::RepositoryName,
    registry::{HostLimits, RegistryClient, Timeouts},
    testkit::{Access, Behaviour, Rule, SampleImage, ScriptedRegistry, Target},
};
use registry_common::{client, limited, named, read, tag};

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
async fn basic_is_asked_for_once_and_then_remembered() {
    let registry = guarded(basic()).await;
    let client = with(&registry, vec![right()]);
    for _ in 0..3 {
        get(&client, &registry).await.unwrap();
    }
    let statuses: Vec<_> = registry.log().iter().map(|entry| entry.status.unwrap().as_u16()).collect();
    assert_eq!(statuses, [401, 200, 200, 200]);
}

#[tokio::test]
async fn a_refusal_leaves_its_connection_usable() {
    let registry = guarded(basic()).await;
    // Long enough that it does not arrive together with the headers.
    registry.script(Rule::on(Target::Manifest).times(1).does(Behaviour::Answer {
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
async fn a_token_is_fetched_once_for_many_requests() {
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
async fn a_failing_token_endpoint_is_asked_once_by_all_who_wait() {
    let registry = guarded(Access::anonymous_tokens()).await;
    registry.script(Rule::on(Target::Token).does(Behaviour::status(StatusCode::SERVICE_UNAVAILABLE)));
    // All ten are refused first, so that all ten wait for a token together.
    let gate = kuik_core::testkit::Gate::new();
    registry.script(Rule::on(Target::Manifest).does(Behaviour::DelayHeaders(gate.clone())));
    // Nobody asks again after a moment: that would be another round of ten.
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
async fn a_token_is_renewed_before_it_expires() {
    let registry = guarded(tokens(Some(0.000_001))).await;
    let client = with(&registry, vec![right()]);
    get(&client, &registry).await.unwrap();
    // Its life is over at once: it is not even tried again.
    get(&client, &registry).await.unwrap();
    assert_eq!(registry.count(Target::Token), 2);
    let refused =
        registry.log().iter().filter(|entry| entry.status == Some(StatusCode::UNAUTHORIZED)).count();
    assert_eq!(refused, 1, "only the first request, which had no token");
}

#[tokio::test]
async fn a_revoked_token_is_replaced() {
    let registry = guarded(tokens(Some(3600.0))).await;
    let client = with(&registry, vec![right()]);
    get(&client, &registry).await.unwrap();
    registry.revoke_tokens();
    get(&client, &registry).await.unwrap();
    assert_eq!(registry.count(Target::Token), 2);
}

#[tokio::test]
async fn both_names_of_a_token_and_odd_challenges_work() {
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
async fn credentials_are_tried_in_order_and_the_one_that_works_is_remembered() {
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
async fn stale_credentials_do_not_close_a_public_repository() {
    let registry = guarded(Access::anonymous_tokens()).await;
    registry.script(
        Rule::on(Target::Token).path("token").times(1).does(Behaviour::status(StatusCode::UNAUTHORIZED)),
    );
    get(&with(&registry, vec![wrong()]), &registry).await.unwrap();
}

#[tokio::test]
async fn an_identity_token_is_exchanged() {
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
async fn a_registry_that_refuses_for_ever_gets_a_bounded_number_of_requests() {
    for access in [basic(), tokens(None), Access::anonymous_tokens()] {
        let registry = guarded(access).await;
        let url = registry.url();
        // The challenge asks for a token, the token is given, and never accepted.
        registry.script(Rule::on(Target::Manifest).does(Behaviour::Answer {
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

/// What it has can be replaced.
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
async fn a_refused_credential_is_not_tried_again_at_once_and_its_successor_is() {
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
        assert_eq!(registry.log().len(), before + 1, "one anonymous question: {access:?}");
        credentials.to(vec![wrong(), right()]);
        get(&client, &registry).await.unwrap();
    }
}

#[tokio::test]
async fn who_is_denied_one_thing_is_asked_as_for_the_next() {
    let registry = guarded(basic()).await;
    let client = with(&registry, vec![right(), wrong()]);
    get(&client, &registry).await.unwrap();
    registry.script(Rule::on(Target::Manifest).times(1).does(Behaviour::status(StatusCode::FORBIDDEN)));
    let error = get(&client, &registry).await.unwrap_err();
    assert_eq!(error.kind(), SourceErrorKind::Denied, "nobody else is allowed it: {error}");
    let before = registry.log().len();
    get(&client, &registry).await.unwrap();
    assert_eq!(registry.log().len(), before + 1, "what opens the repository is remembered still");
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
        registry.script(Rule::on(Target::Manifest).times(1).does(Behaviour::status(StatusCode::FORBIDDEN)));
        get(&client, &registry).await.unwrap();
        let before = registry.log().len();
        get(&client, &registry).await.unwrap();
        assert_eq!(registry.log().len(), before + 1, "{access:?}");
    }
}

#[tokio::test]
async fn a_403_for_all_is_told_apart_from_a_401() {
    let registry = guarded(basic()).await;
    let client = with(&registry, vec![right()]);
    // The door asks for a password, and whoever has it is not allowed in.
    registry.script(Rule::on(Target::Manifest).times(1).does(Behaviour::Normal));
    registry.script(Rule::on(Target::Manifest).times(1).does(Behaviour::status(StatusCode::FORBIDDEN)));
    let error = get(&client, &registry).await.unwrap_err();
    assert_eq!(error.kind(), SourceErrorKind::Denied, "{error}");
    let error = get(&client, &registry).await.unwrap_err();
    assert_eq!(error.kind(), SourceErrorKind::Denied, "it is remembered: {error}");
}

#[tokio::test]
async fn no_way_in_is_unauthorized() {
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
async fn a_realm_is_guarded_like_an_upstream() {
    let registry = guarded(Access::anonymous_tokens()).await;
    for realm in ["http://169.254.169.254/token", "https://127.0.0.1:1/token", "http://localhost:1/token"] {
        registry.set_challenge(format!("Bearer realm=\"{realm}\""));
        let error = get(&with(&registry, Anonymous), &registry).await.unwrap_err();
        assert_eq!(error.kind(), SourceErrorKind::Forbidden, "{realm}: {}", error.chain());
    }
}

#[tokio::test]
async fn a_token_endpoint_that_talks_too_much_or_nonsense_is_refused() {
    let registry = guarded(Access::anonymous_tokens()).await;
    for behaviour in [
        Behaviour::TooManyBytes { extra: 1 << 20, chunked: true },
        Behaviour::TooManyBytes { extra: 1 << 20, chunked: false },
        Behaviour::WrongBytes,
        Behaviour::Answer {
            status: StatusCode::OK,
            headers: http::HeaderMap::new(),
            body: bytes::Bytes::from_static(br#"{"token": ""}"#),
        },
    ] {
        registry.clear_script();
        registry.script(Rule::on(Target::Token).does(behaviour));
        let error = get(&with(&registry, Anonymous), &registry).await.unwrap_err();
        assert_eq!(error.kind(), SourceErrorKind::InvalidContent, "{error}");
    }
}

#[derive(Debug)]
struct Unreadable;

#[async_trait::async_trait]
impl CredentialProvider for Unreadable {
    async fn candidates(&self, _: &RepositoryName) -> Result<Vec<Credential>, CredentialError> {
        Err(CredentialError::new("the secret store is away", None))
    }
}

#[tokio::test]
async fn credentials_that_cannot_be_read_close_only_what_is_private() {
    let public = guarded(Access::anonymous_tokens()).await;
    get(&with(&public, Unreadable), &public).await.unwrap();
    for access in [basic(), tokens(None)] {
        let private = guarded(access).await;
        let error = get(&with(&private, Unreadable), &private).await.unwrap_err();
        assert_eq!(error.kind(), SourceErrorKind::Unauthorized);
        assert!(error.chain().contains("the secret store is away"), "{}", error.chain());
    }
}

#[tokio::test]
async fn blobs_use_the_token_too() {
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
async fn a_limit_of_those_without_account_is_none_of_whoever_has_one() {
    let registry = guarded(Access::anonymous_tokens()).await;
    registry.add_image("private", "latest", &SampleImage::small(2));
    let auths = serde_json::json!({ "auths": {
        (format!("{}/private", registry.host())): { "username": "user", "password": "sesame" },
    } });
    let config = DockerConfig::parse("config.json", auths.to_string().as_bytes()).unwrap();
    let client = limited(named(&registry), config, Timeouts::default(), HostLimits::default());
    let at = |name: &str| Rule::on(Target::Manifest).path(format!("/{name}/")).times(1);
    // The way in is asked for, and then somebody without account is told to wait.
    registry.script(at("app").does(Behaviour::Normal));
    registry.script(at("app").does(Behaviour::Answer {
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
    assert_eq!(registry.log().len(), asked, "nobody without account asks before its time");
}
