//! Azure Container Registry credentials from a managed or workload identity.
//!
//! A Microsoft Entra token comes from the metadata service, or, if `AZURE_FEDERATED_TOKEN_FILE` is set, from an
//! exchange of the pod's service account token. The registry exchanges it for a refresh token of its own
//! (`/oauth2/exchange`), which is the password of a fixed user.

use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Deserializer};

use super::{
    call::{Call, Caller, encoded, wrong},
    setting::{Variables, read_file},
};
use crate::{
    client::{InvalidTransport, RegistryTransport},
    credentials::{Credential, CredentialError, CredentialProvider, Secret, expiring::Expiring},
    reference::RepositoryName,
};

const TOKEN_FILE: &str = "AZURE_FEDERATED_TOKEN_FILE";
const CLIENT: &str = "AZURE_CLIENT_ID";
const TENANT: &str = "AZURE_TENANT_ID";
const AUTHORITY: &str = "AZURE_AUTHORITY_HOST";
const METADATA: &str = "AZURE_POD_IDENTITY_AUTHORITY_HOST";
const AUDIENCE: &str = "https://containerregistry.azure.net";
/// The user whose password is a refresh token of the registry.
const USER: &str = "00000000-0000-0000-0000-000000000000";
/// How long a refresh token is used: registries issue them for three hours.
const REFRESH_LIFE: Duration = Duration::from_secs(2 * 3600);

/// The identity of this machine or pod at Azure, for `azurecr.io` and the registries of other Microsoft clouds.
#[derive(Debug)]
pub struct AzureIdentity {
    variables: Variables,
    metadata: String,
    azure: Caller,
    local: Caller,
    entra: Expiring<(), Secret>,
    /// Refresh tokens by registry.
    refresh: Expiring<String, Secret>,
}

#[derive(Deserialize)]
struct Token {
    access_token: String,
    #[serde(default, deserialize_with = "seconds")]
    expires_in: u64,
}

#[derive(Deserialize)]
struct Refresh {
    refresh_token: String,
}

impl AzureIdentity {
    /// Creates the provider from environment variables. `azure` carries requests to Entra and to registries; the
    /// metadata service has a transport of its own.
    ///
    /// # Errors
    /// Fails if TLS cannot be set up.
    pub fn new(
        azure: impl RegistryTransport,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, InvalidTransport> {
        let variables = Variables::read(&[TOKEN_FILE, CLIENT, TENANT, AUTHORITY, METADATA], variable);
        let metadata =
            variables.get(METADATA).unwrap_or("http://169.254.169.254").trim_end_matches('/').to_owned();
        let local = Caller::local(&[metadata.as_str()])?;
        Ok(Self {
            variables,
            metadata,
            azure: Caller::new(azure),
            local,
            entra: Expiring::default(),
            refresh: Expiring::default(),
        })
    }

    async fn entra_token(&self) -> Result<(Secret, Duration), CredentialError> {
        let token = match self.variables.get(TOKEN_FILE) {
            Some(file) => self.federated(file).await?,
            None => self.managed().await?,
        };
        Ok((token.access_token.into(), Duration::from_secs(token.expires_in).mul_f64(0.9)))
    }

    async fn managed(&self) -> Result<Token, CredentialError> {
        let mut fields = vec![("api-version", "2018-02-01"), ("resource", AUDIENCE)];
        // Selects the identity if the machine has several.
        fields.extend(self.variables.get(CLIENT).map(|client| ("client_id", client)));
        let what = format!("the token of Azure's metadata service at {}", self.metadata);
        let url = format!("{}/metadata/identity/oauth2/token?{}", self.metadata, encoded(&fields));
        self.local.json(Call::get(what, url).with("metadata", "true")?).await
    }

    async fn federated(&self, file: &str) -> Result<Token, CredentialError> {
        let authority = self.variables.get(AUTHORITY).unwrap_or("https://login.microsoftonline.com");
        let what = format!("the workload identity at {authority}");
        let needed =
            |name| self.variables.get(name).ok_or_else(|| wrong(&what, format_args!("{name} is not set")));
        let (client, tenant) = (needed(CLIENT)?, needed(TENANT)?);
        if !authority.starts_with("https://") {
            return Err(wrong(&what, format_args!("{AUTHORITY} is not https")));
        }
        let assertion = read_file(&what, file)?;
        let url = format!("{}/{tenant}/oauth2/v2.0/token", authority.trim_end_matches('/'));
        let scope = format!("{AUDIENCE}/.default");
        let fields = [
            ("grant_type", "client_credentials"),
            ("client_id", client),
            ("scope", &scope),
            ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
            ("client_assertion", assertion.expose()),
        ];
        self.azure.json(Call::form(what, url, &fields)).await
    }

    async fn exchange(&self, registry: &str) -> Result<(Secret, Duration), CredentialError> {
        let token = self.entra.get((), self.entra_token()).await?;
        let mut fields = vec![("grant_type", "access_token"), ("service", registry)];
        fields.extend(self.variables.get(TENANT).map(|tenant| ("tenant", tenant)));
        fields.push(("access_token", token.expose()));
        let what = format!("the exchange of a token at {registry}");
        let call = Call::form(what, format!("https://{registry}/oauth2/exchange"), &fields);
        let answer: Refresh = self.azure.json(call).await?;
        Ok((answer.refresh_token.into(), REFRESH_LIFE))
    }
}

/// Deserializes a number or its text: the metadata service sends text.
fn seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Seconds {
        Number(u64),
        Text(String),
    }
    match Seconds::deserialize(deserializer)? {
        Seconds::Number(number) => Ok(number),
        Seconds::Text(text) => text.parse().map_err(serde::de::Error::custom),
    }
}

/// Returns whether the registry belongs to Microsoft and may receive an Entra token.
fn is_azure(registry: &str) -> bool {
    [".azurecr.io", ".azurecr.cn", ".azurecr.us", ".azurecr.de"].iter().any(|end| registry.ends_with(end))
}

#[async_trait]
impl CredentialProvider for AzureIdentity {
    async fn candidates(&self, repository: &RepositoryName) -> Result<Vec<Credential>, CredentialError> {
        let registry = repository.registry();
        if !is_azure(registry) {
            return Ok(Vec::new());
        }
        let token = self.refresh.get(registry.to_owned(), self.exchange(registry)).await?;
        Ok(vec![Credential::basic(USER, token)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn azure_registries_are_recognized_by_host() {
        for registry in ["team.azurecr.io", "team.azurecr.cn"] {
            assert!(is_azure(registry), "{registry}");
        }
        for registry in ["azurecr.io", "team.azurecr.io.example", "teamazurecr.io", "team.azurecr.io:5000"] {
            assert!(!is_azure(registry), "{registry}");
        }
    }

    #[test]
    fn seconds_are_parsed_from_number_or_text() {
        let token = |text: &str| serde_json::from_str::<Token>(text).map(|token| token.expires_in).ok();
        assert_eq!(token(r#"{"access_token":"t","expires_in":"86399"}"#), Some(86399));
        assert_eq!(token(r#"{"access_token":"t","expires_in":3599}"#), Some(3599));
        assert_eq!(token(r#"{"access_token":"t","expires_in":"soon"}"#), None);
    }
}
