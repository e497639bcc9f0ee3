//! AWS Elastic Container Registry credentials from the role of the machine or pod.
//!
//! Keys come from the AWS credential chain ([`keys`]). With them, `GetAuthorizationToken` in the registry's region
//! returns a user and password, valid for twelve hours and for every registry that the role may pull from.

mod keys;
mod sigv4;

use std::time::Duration;

use async_trait::async_trait;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use http::{Method, Uri};
use jiff::Timestamp;
use serde::Deserialize;

use self::{
    keys::KeySource,
    sigv4::{Keys, Scope, sign},
};
use super::{
    call::{Call, Caller, wrong},
    setting::Variables,
};
use crate::{
    client::{InvalidTransport, RegistryTransport},
    credentials::{Credential, CredentialError, CredentialProvider, Secret, expiring::Expiring},
    reference::RepositoryName,
};

/// Overrides the endpoint of the ECR API.
const ENDPOINT: &str = "AWS_ENDPOINT_URL_ECR";

/// The identity of this machine or pod at AWS, for `ACCOUNT.dkr.ecr.REGION.amazonaws.com` and other partitions.
#[derive(Debug)]
pub struct EcrIdentity {
    endpoint: Option<String>,
    source: KeySource,
    aws: Caller,
    keys: Expiring<(), Keys>,
    /// Users and passwords by API endpoint.
    tokens: Expiring<String, Credential>,
}

/// An ECR registry, parsed from its host name.
#[derive(Debug, PartialEq, Eq)]
struct Registry<'a> {
    region: &'a str,
    fips: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    authorization_data: Vec<Authorization>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Authorization {
    authorization_token: String,
    /// Unix timestamp.
    #[serde(default)]
    expires_at: f64,
}

impl EcrIdentity {
    /// Creates the provider from environment variables. `aws` carries requests to AWS services; metadata services have
    /// a transport of their own.
    ///
    /// # Errors
    /// Fails if TLS cannot be set up.
    pub fn new(
        aws: impl RegistryTransport,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, InvalidTransport> {
        let aws = Caller::new(aws);
        let endpoint = variable(ENDPOINT).filter(|endpoint| !endpoint.is_empty());
        let source = KeySource::new(Variables::read(&keys::VARIABLES, variable), aws.clone())?;
        Ok(Self { endpoint, source, aws, keys: Expiring::default(), tokens: Expiring::default() })
    }

    async fn token(&self, region: &str, url: &str) -> Result<(Credential, Duration), CredentialError> {
        let now = Timestamp::now();
        let keys = self.keys.get((), self.source.find(region, now)).await?;
        let what = format!("the token of ECR at {url}");
        let call = self.aws.json::<Answer>(signed(&what, &keys, region, url, now)?);
        let answer = call.await?;
        let first = answer.authorization_data.first();
        let found = first.and_then(|data| Some((data.credential()?, data.life(now))));
        found.ok_or_else(|| wrong(&what, "the response has no valid token"))
    }
}

/// Builds a signed `GetAuthorizationToken` call.
fn signed(what: &str, keys: &Keys, region: &str, url: &str, at: Timestamp) -> Result<Call, CredentialError> {
    let mut call = Call::get(what, format!("{url}/"))
        .with("content-type", "application/x-amz-json-1.1")?
        .with("x-amz-target", "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken")?;
    call.method = Method::POST;
    call.body = "{}".into();
    let uri: Uri = call.uri.parse().map_err(|_| wrong(what, "its address is not a URL"))?;
    let scope = Scope { region, service: "ecr", at };
    sign(keys, &scope, &call.method, &uri, &mut call.headers, &call.body)
        .ok_or_else(|| wrong(what, "the keys have a character that is invalid in a header"))?;
    Ok(call)
}

impl Authorization {
    /// Decodes user and password, which are encoded as for Basic authentication.
    fn credential(&self) -> Option<Credential> {
        let decoded = String::from_utf8(BASE64_STANDARD.decode(&self.authorization_token).ok()?).ok()?;
        let (user, password) = decoded.split_once(':')?;
        (!password.is_empty()).then(|| Credential::basic(user, Secret::from(password)))
    }

    fn life(&self, now: Timestamp) -> Duration {
        let now = Duration::try_from(now.as_duration()).unwrap_or_default();
        let end = Duration::try_from_secs_f64(self.expires_at).unwrap_or_default();
        end.saturating_sub(now).mul_f64(0.9)
    }
}

impl<'a> Registry<'a> {
    /// Parses `ACCOUNT.dkr.ecr[-fips].REGION.amazonaws.com`, with the domain of any partition. `None` if it is not an
    /// AWS registry, which must not receive an AWS token.
    fn named(host: &'a str) -> Option<Self> {
        let (account, rest) = host.split_once(".dkr.ecr")?;
        let (fips, rest) = match rest.strip_prefix("-fips") {
            Some(rest) => (true, rest),
            None => (false, rest),
        };
        let (region, partition) = rest.strip_prefix('.')?.split_once('.')?;
        let is_account = account.len() == 12 && account.bytes().all(|byte| byte.is_ascii_digit());
        let is_region = !region.is_empty()
            && region.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        (is_account && is_region && partition == suffix(region)).then_some(Self { region, fips })
    }

    fn api(&self) -> String {
        let Self { region, fips } = self;
        match fips {
            true => format!("https://ecr-fips.{region}.{}", suffix(region)),
            false => format!("https://api.ecr.{region}.{}", suffix(region)),
        }
    }
}

/// Returns the domain of services in a region.
fn suffix(region: &str) -> &'static str {
    if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" }
}

#[async_trait]
impl CredentialProvider for EcrIdentity {
    async fn candidates(&self, repository: &RepositoryName) -> Result<Vec<Credential>, CredentialError> {
        let Some(registry) = Registry::named(repository.registry()) else { return Ok(Vec::new()) };
        let url = self.endpoint.clone().unwrap_or_else(|| registry.api());
        let url = url.trim_end_matches('/').to_owned();
        let fetch = self.token(registry.region, &url);
        // One endpoint may serve several regions.
        let key = format!("{} {url}", registry.region);
        Ok(vec![self.tokens.get(key, fetch).await?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ecr_registries_are_recognized_by_host() {
        for (host, region, api) in [
            (
                "012345678901.dkr.ecr.eu-west-1.amazonaws.com",
                "eu-west-1",
                "https://api.ecr.eu-west-1.amazonaws.com",
            ),
            (
                "012345678901.dkr.ecr-fips.us-gov-west-1.amazonaws.com",
                "us-gov-west-1",
                "https://ecr-fips.us-gov-west-1.amazonaws.com",
            ),
            (
                "012345678901.dkr.ecr.cn-north-1.amazonaws.com.cn",
                "cn-north-1",
                "https://api.ecr.cn-north-1.amazonaws.com.cn",
            ),
        ] {
            let registry = Registry::named(host).unwrap();
            assert_eq!((registry.region, registry.api().as_str()), (region, api), "{host}");
        }
        for host in [
            "public.ecr.aws",
            "12345.dkr.ecr.eu-west-1.amazonaws.com",
            "012345678901.dkr.ecr.eu-west-1.amazonaws.com.example",
            "012345678901.dkr.ecr.eu-west-1.amazonaws.com.cn",
            "012345678901.dkr.ecr.eu-west-1.example",
            "012345678901.dkr.ecr..amazonaws.com",
            "012345678901.dkr.ecr.eu/x.amazonaws.com",
            "012345678901.dkr.ecrx.eu-west-1.amazonaws.com",
        ] {
            assert_eq!(Registry::named(host), None, "{host}");
        }
    }

    #[test]
    fn token_decodes_to_user_and_password() {
        let data = |token: &str| Authorization { authorization_token: token.to_owned(), expires_at: 1000.0 };
        assert_eq!(data("QVdTOmh1bnRlcjI=").credential(), Some(Credential::basic("AWS", "hunter2")));
        for token in ["", "QVdT", "QVdTOg==", "!"] {
            assert_eq!(data(token).credential(), None, "{token}");
        }
        let at = |second| Timestamp::from_second(second).unwrap();
        assert_eq!(data("").life(at(900)), Duration::from_secs(90));
        assert_eq!(data("").life(at(2000)), Duration::ZERO);
    }
}
