//! AWS credential chain: the sources of the AWS SDKs, in their order.
//!
//! Environment variables; a web identity (a service account token file, exchanged at STS); the container endpoint (ECS,
//! and EKS Pod Identity); the instance metadata service, version 2. The first one that is configured is used.

use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;

use super::sigv4::Keys;
use crate::credentials::{
    CredentialError,
    ambient::{
        call::{Call, Caller, encoded, wrong},
        setting::{Variables, read_file},
    },
};

pub(super) const VARIABLES: [&str; 15] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_ROLE_ARN",
    "AWS_ROLE_SESSION_NAME",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    "AWS_EC2_METADATA_SERVICE_ENDPOINT",
    "AWS_EC2_METADATA_DISABLED",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_ENDPOINT_URL_STS",
];

const CONTAINERS: &str = "http://169.254.170.2";
const METADATA: &str = "http://169.254.169.254";
/// Lifetime of a metadata service token, in seconds: it is used at once.
const METADATA_TOKEN_LIFE: &str = "300";
/// How long keys without an expiration are used.
const LIFE: Duration = Duration::from_secs(3600);
/// How long before their expiration keys are refreshed.
const MARGIN: Duration = Duration::from_secs(300);

/// Resolves AWS keys.
#[derive(Debug)]
pub(super) struct KeySource {
    variables: Variables,
    aws: Caller,
    local: Caller,
}

/// Response of the container endpoint and the metadata service.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    access_key_id: String,
    secret_access_key: String,
    #[serde(alias = "SessionToken")]
    token: Option<String>,
    expiration: Option<String>,
}

/// Response of STS.
#[derive(Deserialize)]
struct AssumeRoleWithWebIdentityResponse {
    #[serde(rename = "AssumeRoleWithWebIdentityResult")]
    result: AssumeRoleResult,
}

#[derive(Deserialize)]
struct AssumeRoleResult {
    #[serde(rename = "Credentials")]
    credentials: Answer,
}

impl KeySource {
    pub(super) fn new(variables: Variables, aws: Caller) -> Result<Self, crate::client::InvalidTransport> {
        let full = variables.get("AWS_CONTAINER_CREDENTIALS_FULL_URI");
        let metadata = variables.get("AWS_EC2_METADATA_SERVICE_ENDPOINT").unwrap_or(METADATA);
        let urls: Vec<_> = [CONTAINERS, metadata].into_iter().chain(full).collect();
        let local = Caller::local(&urls)?;
        Ok(Self { variables, aws, local })
    }

    /// Returns keys and how long they may be used. `region` is the fallback for the STS region.
    pub(super) async fn find(
        &self,
        region: &str,
        now: Timestamp,
    ) -> Result<(Keys, Duration), CredentialError> {
        let variable = |name| self.variables.get(name);
        if let (Some(id), Some(secret)) = (variable("AWS_ACCESS_KEY_ID"), variable("AWS_SECRET_ACCESS_KEY")) {
            let session = variable("AWS_SESSION_TOKEN").map(Into::into);
            return Ok((Keys { id: id.to_owned(), secret: secret.into(), session }, LIFE));
        }
        let answer = if let Some(file) = variable("AWS_WEB_IDENTITY_TOKEN_FILE") {
            self.web_identity(file, region).await?
        } else if let Some(path) = variable("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI") {
            self.container(format!("{CONTAINERS}{path}")).await?
        } else if let Some(uri) = variable("AWS_CONTAINER_CREDENTIALS_FULL_URI") {
            self.container(uri.to_owned()).await?
        } else if variable("AWS_EC2_METADATA_DISABLED").is_some_and(|text| text.eq_ignore_ascii_case("true"))
        {
            return Err(wrong(
                "credentials of AWS",
                "the environment has none, and AWS_EC2_METADATA_DISABLED is true",
            ));
        } else {
            self.machine().await?
        };
        Ok(answer.keys(now))
    }

    async fn web_identity(&self, file: &str, region: &str) -> Result<Answer, CredentialError> {
        let region = ["AWS_REGION", "AWS_DEFAULT_REGION"]
            .iter()
            .find_map(|name| self.variables.get(name))
            .unwrap_or(region);
        let default = format!("https://sts.{region}.{}", super::suffix(region));
        let endpoint = self.variables.get("AWS_ENDPOINT_URL_STS").unwrap_or(&default).trim_end_matches('/');
        let what = format!("the role of the web identity at {endpoint}");
        let role =
            self.variables.get("AWS_ROLE_ARN").ok_or_else(|| wrong(&what, "AWS_ROLE_ARN is not set"))?;
        let session = self.variables.get("AWS_ROLE_SESSION_NAME").unwrap_or("kuik");
        let token = read_file(&what, file)?;
        let fields = [
            ("Action", "AssumeRoleWithWebIdentity"),
            ("Version", "2011-06-15"),
            ("RoleArn", role),
            ("RoleSessionName", session),
            ("WebIdentityToken", token.expose()),
        ];
        let body = self.aws.bytes(Call::form(&what, format!("{endpoint}/"), &fields)).await?;
        // The parser's error might quote a key.
        let answer = std::str::from_utf8(&body)
            .ok()
            .and_then(|text| quick_xml::de::from_str::<AssumeRoleWithWebIdentityResponse>(text).ok());
        let answer = answer.ok_or_else(|| wrong(&what, "unexpected response format"))?;
        Ok(answer.result.credentials)
    }

    async fn container(&self, uri: String) -> Result<Answer, CredentialError> {
        let what =
            format!("the credentials of the container at {}", uri.split('?').next().unwrap_or_default());
        let token = match self.variables.get("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE") {
            Some(file) => Some(read_file(&what, file)?),
            None => self.variables.get("AWS_CONTAINER_AUTHORIZATION_TOKEN").map(Into::into),
        };
        let mut call = Call::get(what, uri);
        if let Some(token) = token {
            call = call.with("authorization", token.expose())?;
        }
        self.local.json(call).await
    }

    async fn machine(&self) -> Result<Answer, CredentialError> {
        let base =
            self.variables.get("AWS_EC2_METADATA_SERVICE_ENDPOINT").unwrap_or(METADATA).trim_end_matches('/');
        let what = format!("the role of the machine at {base}");
        let mut call = Call::get(&what, format!("{base}/latest/api/token"))
            .with("x-aws-ec2-metadata-token-ttl-seconds", METADATA_TOKEN_LIFE)?;
        call.method = http::Method::PUT;
        let token = self.text(call).await?;
        let roles = format!("{base}/latest/meta-data/iam/security-credentials/");
        let ask = |url: String| Call::get(&what, url).with("x-aws-ec2-metadata-token", token.trim());
        let role = self.text(ask(roles.clone())?).await?;
        let role = role.lines().next().map(str::trim).filter(|role| !role.is_empty());
        let role = role.ok_or_else(|| wrong(&what, "the machine has no role"))?;
        let encoded = encoded(&[("", role)]);
        self.local.json(ask(format!("{roles}{}", encoded.trim_start_matches('=')))?).await
    }

    async fn text(&self, call: Call) -> Result<String, CredentialError> {
        let what = call.what.clone();
        let body = self.local.bytes(call).await?;
        String::from_utf8(body.to_vec()).map_err(|_| wrong(&what, "the response is not text"))
    }
}

impl Answer {
    fn keys(self, now: Timestamp) -> (Keys, Duration) {
        let end = self.expiration.and_then(|end| end.parse::<Timestamp>().ok());
        let left = end.map(|end| Duration::try_from(end.duration_since(now)).unwrap_or_default());
        let keys = Keys {
            id: self.access_key_id,
            secret: self.secret_access_key.into(),
            session: self.token.filter(|token| !token.is_empty()).map(Into::into),
        };
        (keys, left.map_or(LIFE, |left| left.saturating_sub(MARGIN)))
    }
}
