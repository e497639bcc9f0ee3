//! Google Container Registry and Artifact Registry credentials from the service account of the machine or pod.
//!
//! The access token comes from the metadata server (Compute Engine, and GKE Workload Identity), or, if
//! `GOOGLE_APPLICATION_CREDENTIALS` names a file of type `external_account`, from Workload Identity Federation: a token
//! file of another identity provider is exchanged at Google's token service (RFC 8693), and the result, if the file has
//! an impersonation URL, for a token of a service account.

use std::time::Duration;

use async_trait::async_trait;
use serde::Deserialize;

use super::{
    call::{Call, Caller, wrong},
    setting::{Variables, read_file},
};
use crate::{
    client::{InvalidTransport, RegistryTransport},
    credentials::{Credential, CredentialError, CredentialProvider, Secret, expiring::Expiring},
    reference::RepositoryName,
};

const CREDENTIALS: &str = "GOOGLE_APPLICATION_CREDENTIALS";
const METADATA_HOST: &str = "GCE_METADATA_HOST";
const SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";
/// The user whose password is an access token.
const USER: &str = "oauth2accesstoken";

/// The identity of this machine or pod at Google, for `gcr.io` and `pkg.dev`.
#[derive(Debug)]
pub struct GoogleIdentity {
    variables: Variables,
    metadata: String,
    google: Caller,
    local: Caller,
    token: Expiring<(), Secret>,
}

#[derive(Deserialize)]
struct Token {
    access_token: String,
    #[serde(default)]
    expires_in: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ImpersonatedToken {
    access_token: String,
    expire_time: String,
}

/// A credentials file, limited to the fields of Workload Identity Federation.
#[derive(Deserialize)]
struct External {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    audience: String,
    #[serde(default)]
    subject_token_type: String,
    #[serde(default)]
    token_url: String,
    service_account_impersonation_url: Option<String>,
    credential_source: Option<Source>,
}

#[derive(Deserialize)]
struct Source {
    file: Option<String>,
    format: Option<Format>,
}

#[derive(Deserialize)]
struct Format {
    #[serde(rename = "type")]
    kind: Option<String>,
    subject_token_field_name: Option<String>,
}

impl GoogleIdentity {
    /// Creates the provider from environment variables. `google` carries requests to Google's services; the metadata
    /// server has a transport of its own.
    ///
    /// # Errors
    /// Fails if TLS cannot be set up.
    pub fn new(
        google: impl RegistryTransport,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, InvalidTransport> {
        let variables = Variables::read(&[CREDENTIALS, METADATA_HOST], variable);
        let host = variables.get(METADATA_HOST).unwrap_or("metadata.google.internal");
        let metadata = format!("http://{host}");
        let local = Caller::local(&[metadata.as_str()])?;
        Ok(Self { variables, metadata, google: Caller::new(google), local, token: Expiring::default() })
    }

    async fn fetch(&self) -> Result<(Secret, Duration), CredentialError> {
        match self.variables.get(CREDENTIALS) {
            Some(file) => self.federated(file).await,
            None => self.machine_token().await,
        }
    }

    async fn machine_token(&self) -> Result<(Secret, Duration), CredentialError> {
        let path = "/computeMetadata/v1/instance/service-accounts/default/token";
        let what = format!("the token of Google's metadata server at {}", self.metadata);
        let call = Call::get(&what, format!("{}{path}?scopes={SCOPE}", self.metadata));
        self.local.json::<Token>(call.with("metadata-flavor", "Google")?).await.map(Token::usable)
    }

    async fn federated(&self, file: &str) -> Result<(Secret, Duration), CredentialError> {
        let what = "Google's Workload Identity Federation";
        let content = read_file(what, file)?;
        let config: External = serde_json::from_str(content.expose())
            .map_err(|_| wrong(what, format_args!("{file} is not a credentials file")))?;
        let problem = |problem| wrong(what, format_args!("{file} {problem}"));
        if config.kind != "external_account" {
            return Err(problem("is not of type external_account, the only supported type"));
        }
        let source = config.credential_source.as_ref();
        let from = source.and_then(|source| source.file.as_deref());
        let from =
            from.ok_or_else(|| problem("has no file in its credential_source, the only supported source"))?;
        let subject =
            subject_token(source.and_then(|source| source.format.as_ref()), &read_file(what, from)?)
                .ok_or_else(|| problem("has a source without a token of its format"))?;
        let fields = [
            ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
            ("requested_token_type", "urn:ietf:params:oauth:token-type:access_token"),
            ("audience", &config.audience),
            ("scope", SCOPE),
            ("subject_token_type", &config.subject_token_type),
            ("subject_token", subject.expose()),
        ];
        let token = https(&config.token_url).ok_or_else(|| problem("has a token_url that is not https"))?;
        let call = Call::form(format!("the exchange of a token at {token}"), token, &fields);
        let exchanged = self.google.json::<Token>(call).await?;
        let Some(impersonation) = config.service_account_impersonation_url.as_deref() else {
            return Ok(exchanged.usable());
        };
        let url =
            https(impersonation).ok_or_else(|| problem("has an impersonation URL that is not https"))?;
        let body = serde_json::json!({"scope": [SCOPE]}).to_string();
        let mut call = Call::form(format!("a token of the service account at {url}"), url, &[])
            .with("content-type", "application/json")?
            .with("authorization", &format!("Bearer {}", exchanged.access_token))?;
        call.body = body.into();
        let token = self.google.json::<ImpersonatedToken>(call).await?;
        let end = token.expire_time.parse::<jiff::Timestamp>().ok();
        let left = end.and_then(|end| Duration::try_from(end.duration_since(jiff::Timestamp::now())).ok());
        Ok((token.access_token.into(), left.unwrap_or_default().mul_f64(0.9)))
    }
}

impl Token {
    /// Returns the token and how long it is used: the metadata server has a new one five minutes before the old one
    /// expires.
    fn usable(self) -> (Secret, Duration) {
        (
            self.access_token.into(),
            Duration::from_secs(self.expires_in).saturating_sub(Duration::from_secs(240)),
        )
    }
}

/// Reads the token from a file, which is text or a field of JSON.
fn subject_token(format: Option<&Format>, content: &Secret) -> Option<Secret> {
    match format.and_then(|format| format.kind.as_deref()) {
        None | Some("text") => Some(content.clone()),
        Some("json") => {
            let field = format?.subject_token_field_name.as_deref()?;
            let parsed: serde_json::Value = serde_json::from_str(content.expose()).ok()?;
            parsed.get(field)?.as_str().map(Secret::from)
        }
        Some(_) => None,
    }
}

fn https(url: &str) -> Option<&str> {
    url.starts_with("https://").then_some(url)
}

/// Returns whether the registry belongs to Google and may receive a Google token.
fn is_google(registry: &str) -> bool {
    registry == "gcr.io" || registry.ends_with(".gcr.io") || registry.ends_with(".pkg.dev")
}

#[async_trait]
impl CredentialProvider for GoogleIdentity {
    async fn candidates(&self, repository: &RepositoryName) -> Result<Vec<Credential>, CredentialError> {
        if !is_google(repository.registry()) {
            return Ok(Vec::new());
        }
        let token = self.token.get((), self.fetch()).await?;
        Ok(vec![Credential::basic(USER, token)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn google_registries_are_recognized_by_host() {
        for registry in ["gcr.io", "eu.gcr.io", "europe-docker.pkg.dev", "k8s.gcr.io"] {
            assert!(is_google(registry), "{registry}");
        }
        for registry in ["gcr.io.example", "xgcr.io", "pkg.dev.example", "gcr.io:5000", "docker.io"] {
            assert!(!is_google(registry), "{registry}");
        }
    }

    #[test]
    fn subject_token_is_read_from_text_or_json() {
        let format = |kind: &str, field: Option<&str>| Format {
            kind: Some(kind.to_owned()),
            subject_token_field_name: field.map(str::to_owned),
        };
        let token = |format: Option<Format>, content: &str| {
            subject_token(format.as_ref(), &content.into()).map(|token| token.expose().to_owned())
        };
        assert_eq!(token(None, "t").as_deref(), Some("t"));
        assert_eq!(token(Some(format("json", Some("access"))), r#"{"access":"t"}"#).as_deref(), Some("t"));
        assert_eq!(token(Some(format("json", None)), r#"{"access":"t"}"#), None);
        assert_eq!(token(Some(format("xml", None)), "t"), None);
    }
}
