//! Identities of a process in each cloud: the endpoints that hand out temporary credentials.
//!
//! Each responds only to requests as its documentation describes them, with the header, the token or the parameters that
//! keep other processes out.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};

use super::{
    FIRST_TOKEN, SECOND_TOKEN,
    provider::{Asked, Kind, Reply, State},
};

pub(crate) const ROLE: &str = "arn:aws:iam::123456789012:role/kuik";
pub(crate) const ACCOUNT: &str = "kuikimages";
pub(crate) const CLIENT: &str = "11111111-2222-3333-4444-555555555555";
pub(crate) const TENANT: &str = "66666666-7777-8888-9999-000000000000";
pub(crate) const MSI_SECRET: &str = "the-secret-of-the-identity-endpoint";
const IMDS_SESSION: &str = "a-session-of-the-metadata-service";

/// The response to a request for credentials; `None` for any other request.
pub(crate) fn answer(state: &State, asked: &Asked) -> Option<Reply> {
    let path = asked.path.as_str();
    let header = |name: &str| text(&asked.headers, name);
    let parameter = |name: &str| asked.parameter(name);
    let form = || super::provider::parameters(&String::from_utf8_lossy(&asked.body));
    let granted = match (state.kind, &asked.method, path) {
        (Kind::S3, &Method::POST, "/sts") => {
            let token = parameter("WebIdentityToken").unwrap_or_default();
            let right = parameter("Action").as_deref() == Some("AssumeRoleWithWebIdentity")
                && parameter("Version").as_deref() == Some("2011-06-15")
                && parameter("RoleArn").as_deref() == Some(ROLE);
            (right && shown(state, &token)).then(|| assumed(state))
        }
        (Kind::S3, &Method::PUT, "/imds/latest/api/token") => {
            let asked = !header("x-aws-ec2-metadata-token-ttl-seconds").is_empty();
            asked.then(|| Reply::text(StatusCode::OK, IMDS_SESSION))
        }
        (Kind::S3, &Method::GET, path) if path.starts_with("/imds/latest/meta-data/") => {
            (header("x-aws-ec2-metadata-token") == IMDS_SESSION).then(|| {
                if path.ends_with('/') { Reply::text(StatusCode::OK, "kuik") } else { session(state) }
            })
        }
        (Kind::S3, &Method::GET, "/pod") => {
            shown(state, header("authorization").trim_start_matches("Bearer ")).then(|| session(state))
        }
        (Kind::Google, &Method::GET, "/computeMetadata/v1/instance/service-accounts/default/token") => {
            (header("metadata-flavor") == "Google").then(|| bearer(state))
        }
        (Kind::Azure, &Method::GET, "/msi") => {
            let right = header("x-identity-header") == MSI_SECRET
                && header("metadata") == "true"
                && parameter("resource").as_deref() == Some("https://storage.azure.com");
            right.then(|| bearer(state))
        }
        (Kind::Azure, &Method::POST, path) if path == format!("/{TENANT}/oauth2/v2.0/token") => {
            let form = form();
            let says = |name: &str, value: &str| form.iter().any(|(key, said)| key == name && said == value);
            let token = form.iter().find(|(key, _)| key == "client_assertion");
            let right = says("client_id", CLIENT)
                && says("scope", "https://storage.azure.com/.default")
                && says("grant_type", "client_credentials");
            (right && token.is_some_and(|(_, token)| shown(state, token))).then(|| bearer(state))
        }
        _ => return None,
    };
    Some(granted.unwrap_or_else(|| Reply::text(StatusCode::FORBIDDEN, "that is not how this is asked")))
}

/// Whether a request shows credentials that were handed out here.
pub(crate) fn opens(state: &State, headers: &HeaderMap) -> bool {
    let (authorization, token) = (text(headers, "authorization"), text(headers, "x-amz-security-token"));
    (1..=state.handed_out.load(Ordering::SeqCst)).any(|number| match state.kind {
        Kind::S3 => {
            authorization.starts_with(&format!("AWS4-HMAC-SHA256 Credential=ID{number}/"))
                && token == format!("SESSION{number}")
        }
        Kind::Google | Kind::Azure => authorization == format!("Bearer BEARER{number}"),
    })
}

/// Whether a token is one of the workload's; it is remembered.
fn shown(state: &State, token: &str) -> bool {
    let right = [FIRST_TOKEN, SECOND_TOKEN].contains(&token);
    let mut tokens = state.tokens.lock().unwrap();
    if right && tokens.last().map(String::as_str) != Some(token) {
        tokens.push(token.to_owned());
    }
    right
}

fn next(state: &State) -> u64 {
    state.handed_out.fetch_add(1, Ordering::SeqCst) + 1
}

fn assumed(state: &State) -> Reply {
    let (number, end) = (next(state), state.end());
    Reply::text(
        StatusCode::OK,
        &format!(
            "<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult><Credentials>\
             <AccessKeyId>ID{number}</AccessKeyId><SecretAccessKey>SECRET</SecretAccessKey>\
             <SessionToken>SESSION{number}</SessionToken><Expiration>{end}</Expiration>\
             </Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"
        ),
    )
}

fn session(state: &State) -> Reply {
    let (number, end) = (next(state), state.end());
    json(&serde_json::json!({
        "AccessKeyId": format!("ID{number}"), "SecretAccessKey": "SECRET", "Token": format!("SESSION{number}"),
        "Expiration": end.to_string(),
    }))
}

fn bearer(state: &State) -> Reply {
    let (number, end) = (next(state), state.end());
    let seconds = state.valid_for.lock().unwrap().as_secs();
    json(&serde_json::json!({
        "access_token": format!("BEARER{number}"), "token_type": "Bearer", "expires_in": seconds,
        "expires_on": end.as_second().to_string(),
    }))
}

fn json(value: &serde_json::Value) -> Reply {
    Reply::new(StatusCode::OK, Bytes::from(value.to_string())).with("content-type", "application/json")
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}
