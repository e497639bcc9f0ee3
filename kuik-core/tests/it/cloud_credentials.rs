//! Cloud credential providers, each against an endpoint that implements the cloud's protocol over TCP, including its
//! refusals.
#![cfg(all(feature = "ecr", feature = "google", feature = "azure"))]

use std::fs;

use crate::mock_cloud::{Cloud, Reply, environment, form, signed_for};
use kuik_core::{
    credentials::{
        AzureIdentity, Credential, CredentialError, CredentialProvider, EcrIdentity, GoogleIdentity,
    },
    reference::RepositoryName,
};

const ECR: &str = "012345678901.dkr.ecr.eu-west-1.amazonaws.com";
const PASSWORD: &str = r#"{"authorizationData":[{"authorizationToken":"QVdTOmh1bnRlcjI=","expiresAt":4102444800.5,"proxyEndpoint":"x"}]}"#;

async fn ask(provider: &impl CredentialProvider, registry: &str) -> Result<Vec<Credential>, CredentialError> {
    provider.candidates(&RepositoryName::new(registry, "team/app").unwrap()).await
}

/// `GetAuthorizationToken`, for requests signed with these keys.
fn ecr_api(request: &crate::mock_cloud::Asked, secret: &str, session: Option<&str>) -> Reply {
    assert_eq!((request.method.as_str(), request.host()), ("POST", "api.ecr.eu-west-1.amazonaws.com"));
    assert_eq!(request.header("x-amz-target"), "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken");
    assert_eq!(request.header("content-type"), "application/x-amz-json-1.1");
    assert_eq!(request.header("x-amz-security-token"), session.unwrap_or_default());
    assert_eq!(request.body, "{}");
    if !signed_for(request, secret, "eu-west-1", "ecr") {
        return Reply(400, r#"{"__type":"InvalidSignatureException","message":"hunter2"}"#.to_owned());
    }
    Reply::ok(PASSWORD)
}

#[tokio::test]
async fn ecr_with_the_keys_of_the_environment() {
    let cloud = Cloud::start(|request| ecr_api(request, "sesame", Some("session"))).await;
    let variables = [
        ("AWS_ACCESS_KEY_ID", "AKID"),
        ("AWS_SECRET_ACCESS_KEY", "sesame"),
        ("AWS_SESSION_TOKEN", "session"),
    ];
    let identity = EcrIdentity::new(cloud.transport(), environment(&variables)).unwrap();
    assert!(ask(&identity, "docker.io").await.unwrap().is_empty());
    assert!(cloud.log().is_empty(), "no request for other registries");
    for _ in 0..3 {
        assert_eq!(ask(&identity, ECR).await.unwrap(), [Credential::basic("AWS", "hunter2")]);
    }
    assert_eq!(cloud.log().len(), 1, "a password is used until shortly before it expires");
    assert!(!format!("{identity:?}").contains("sesame"));

    let variables =
        [("AWS_ACCESS_KEY_ID", "AKID"), ("AWS_SECRET_ACCESS_KEY", "wrong"), ("AWS_SESSION_TOKEN", "session")];
    let identity = EcrIdentity::new(cloud.transport(), environment(&variables)).unwrap();
    let error = ask(&identity, ECR).await.unwrap_err();
    assert!(error.to_string().ends_with("400 Bad Request (InvalidSignatureException)"), "{error}");
    let asked = cloud.log().len();
    assert!(ask(&identity, ECR).await.is_err());
    assert_eq!(cloud.log().len(), asked, "a failure is not repeated at once");
    assert!(!format!("{error:?} {identity:?}").contains("hunter2"));
}

#[tokio::test]
async fn ecr_with_the_web_identity_of_a_pod() {
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    fs::write(&token, "header.claims.signature\n").unwrap();
    let cloud = Cloud::start(|request| {
        if request.host() != "sts.eu-central-1.amazonaws.com" {
            return ecr_api(request, "sts-secret", Some("sts-session"));
        }
        let fields = form(&request.body);
        let expected = [
            ("Action", "AssumeRoleWithWebIdentity"),
            ("RoleArn", "arn:aws:iam::1:role/puller"),
            ("RoleSessionName", "kuik"),
            ("Version", "2011-06-15"),
            ("WebIdentityToken", "header.claims.signature"),
        ];
        assert_eq!(fields, expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
        assert_eq!(request.header("authorization"), "");
        Reply::ok(
            r#"<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
                <AssumeRoleWithWebIdentityResult>
                  <SubjectFromWebIdentityToken>system:serviceaccount:kuik:proxy</SubjectFromWebIdentityToken>
                  <AssumedRoleUser><Arn>arn:aws:sts::1:assumed-role/puller/kuik</Arn></AssumedRoleUser>
                  <Credentials>
                    <AccessKeyId>ASIA</AccessKeyId>
                    <SecretAccessKey>sts-secret</SecretAccessKey>
                    <SessionToken>sts-session</SessionToken>
                    <Expiration>2100-01-01T00:00:00Z</Expiration>
                  </Credentials>
                </AssumeRoleWithWebIdentityResult>
                <ResponseMetadata><RequestId>1</RequestId></ResponseMetadata>
              </AssumeRoleWithWebIdentityResponse>"#,
        )
    })
    .await;
    let path = token.display().to_string();
    let variables = [
        ("AWS_WEB_IDENTITY_TOKEN_FILE", path.as_str()),
        ("AWS_ROLE_ARN", "arn:aws:iam::1:role/puller"),
        ("AWS_REGION", "eu-central-1"),
    ];
    let identity = EcrIdentity::new(cloud.transport(), environment(&variables)).unwrap();
    assert_eq!(ask(&identity, ECR).await.unwrap(), [Credential::basic("AWS", "hunter2")]);
}

#[tokio::test]
async fn ecr_with_the_role_of_a_container_or_a_machine() {
    let keys = r#"{"AccessKeyId":"ASIA","SecretAccessKey":"role-secret","Token":"role-session","Expiration":"2100-01-01T00:00:00Z","Code":"Success"}"#;
    let cloud = Cloud::start(move |request| match (request.method.as_str(), request.path.as_str()) {
        ("GET", "/v1/credentials") if request.header("authorization") == "pod-token" => Reply::ok(keys),
        // The second version of the metadata service: nothing without a token of its own.
        ("PUT", "/latest/api/token") if request.header("x-aws-ec2-metadata-token-ttl-seconds") == "300" => {
            Reply::ok("metadata-token")
        }
        ("GET", path) if path.starts_with("/latest/") => {
            match (request.header("x-aws-ec2-metadata-token"), path) {
                ("metadata-token", "/latest/meta-data/iam/security-credentials/") => Reply::ok("puller role"),
                ("metadata-token", "/latest/meta-data/iam/security-credentials/puller%20role") => {
                    Reply::ok(keys)
                }
                _ => Reply(401, String::new()),
            }
        }
        ("POST", _) => ecr_api(request, "role-secret", Some("role-session")),
        _ => Reply(404, String::new()),
    })
    .await;
    let (full, url) = (format!("{}/v1/credentials", cloud.url()), cloud.url());
    for variables in [
        vec![
            ("AWS_CONTAINER_CREDENTIALS_FULL_URI", full.as_str()),
            ("AWS_CONTAINER_AUTHORIZATION_TOKEN", "pod-token"),
        ],
        vec![("AWS_EC2_METADATA_SERVICE_ENDPOINT", url.as_str())],
    ] {
        let identity = EcrIdentity::new(cloud.transport(), environment(&variables)).unwrap();
        assert_eq!(
            ask(&identity, ECR).await.unwrap(),
            [Credential::basic("AWS", "hunter2")],
            "{variables:?}"
        );
    }
    let disabled = [("AWS_EC2_METADATA_DISABLED", "true")];
    let identity = EcrIdentity::new(cloud.transport(), environment(&disabled)).unwrap();
    let error = ask(&identity, ECR).await.unwrap_err().to_string();
    assert!(error.contains("AWS_EC2_METADATA_DISABLED"), "{error}");
}

#[tokio::test]
async fn google_with_its_metadata_server() {
    let cloud = Cloud::start(|request| {
        assert_eq!(request.path, "/computeMetadata/v1/instance/service-accounts/default/token");
        assert_eq!(request.query, "scopes=https://www.googleapis.com/auth/cloud-platform");
        match request.header("metadata-flavor") {
            "Google" => Reply::ok(r#"{"access_token":"hunter2","expires_in":3599,"token_type":"Bearer"}"#),
            _ => Reply(403, String::new()),
        }
    })
    .await;
    let host = cloud.url().trim_start_matches("http://").to_owned();
    let identity =
        GoogleIdentity::new(cloud.transport(), environment(&[("GCE_METADATA_HOST", &host)])).unwrap();
    for registry in ["europe-docker.pkg.dev", "gcr.io", "eu.gcr.io"] {
        assert_eq!(
            ask(&identity, registry).await.unwrap(),
            [Credential::basic("oauth2accesstoken", "hunter2")]
        );
    }
    assert!(ask(&identity, "gcr.io.example").await.unwrap().is_empty());
    assert_eq!(cloud.log().len(), 1);
}

#[tokio::test]
async fn google_with_workload_identity_federation() {
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token.json");
    fs::write(&token, r#"{"jwt":"subject"}"#).unwrap();
    let file = folder.path().join("credentials.json");
    let url = "https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/puller@p.iam.gserviceaccount.com:generateAccessToken";
    let config = serde_json::json!({
        "type": "external_account",
        "audience": "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/k",
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "token_url": "https://sts.googleapis.com/v1/token",
        "service_account_impersonation_url": url,
        "credential_source": {"file": token, "format": {"type": "json", "subject_token_field_name": "jwt"}},
    });
    fs::write(&file, config.to_string()).unwrap();
    let cloud = Cloud::start(|request| match request.host() {
        "sts.googleapis.com" => {
            let fields = form(&request.body);
            assert_eq!(fields["grant_type"], "urn:ietf:params:oauth:grant-type:token-exchange");
            assert_eq!(fields["requested_token_type"], "urn:ietf:params:oauth:token-type:access_token");
            assert_eq!(fields["subject_token_type"], "urn:ietf:params:oauth:token-type:jwt");
            assert!(fields["audience"].ends_with("/workloadIdentityPools/p/providers/k"));
            match fields["subject_token"].as_str() {
                "subject" => Reply::ok(r#"{"access_token":"federated","expires_in":3600}"#),
                _ => Reply(400, r#"{"error":"invalid_grant","error_description":"hunter2"}"#.to_owned()),
            }
        }
        "iamcredentials.googleapis.com" => {
            assert_eq!(request.header("authorization"), "Bearer federated");
            assert_eq!(request.body, r#"{"scope":["https://www.googleapis.com/auth/cloud-platform"]}"#);
            assert!(request.path.ends_with("puller@p.iam.gserviceaccount.com:generateAccessToken"));
            Reply::ok(r#"{"accessToken":"impersonated","expireTime":"2100-01-01T00:00:00Z"}"#)
        }
        other => panic!("{other} is asked"),
    })
    .await;
    let path = file.display().to_string();
    let variables = [("GOOGLE_APPLICATION_CREDENTIALS", path.as_str())];
    let identity = GoogleIdentity::new(cloud.transport(), environment(&variables)).unwrap();
    assert_eq!(
        ask(&identity, "gcr.io").await.unwrap(),
        [Credential::basic("oauth2accesstoken", "impersonated")]
    );

    fs::write(&token, r#"{"jwt":"another"}"#).unwrap();
    let identity = GoogleIdentity::new(cloud.transport(), environment(&variables)).unwrap();
    let error = ask(&identity, "gcr.io").await.unwrap_err().to_string();
    assert!(error.ends_with("400 Bad Request (invalid_grant)"), "{error}");
    fs::write(&file, r#"{"type":"service_account","private_key":"hunter2"}"#).unwrap();
    let identity = GoogleIdentity::new(cloud.transport(), environment(&variables)).unwrap();
    let error = ask(&identity, "gcr.io").await.unwrap_err().to_string();
    assert!(error.contains("not of type external_account") && !error.contains("hunter2"), "{error}");
}

/// The token exchange at the registry, for this Entra token.
fn exchange(request: &crate::mock_cloud::Asked, token: &str, tenant: Option<&str>) -> Reply {
    assert_eq!((request.host(), request.path.as_str()), ("team.azurecr.io", "/oauth2/exchange"));
    let fields = form(&request.body);
    assert_eq!(
        (fields["grant_type"].as_str(), fields["service"].as_str()),
        ("access_token", "team.azurecr.io")
    );
    assert_eq!(fields.get("tenant").map(String::as_str), tenant);
    match fields["access_token"] == token {
        true => Reply::ok(r#"{"refresh_token":"hunter2"}"#),
        false => Reply(401, r#"{"errors":[{"code":"UNAUTHORIZED","message":"hunter2"}]}"#.to_owned()),
    }
}

const AZURE: &str = "00000000-0000-0000-0000-000000000000";

#[tokio::test]
async fn azure_with_the_identity_of_the_machine() {
    let cloud = Cloud::start(|request| {
        if request.path != "/metadata/identity/oauth2/token" {
            return exchange(request, "entra", None);
        }
        assert_eq!(request.header("metadata"), "true");
        let fields = form(&request.query);
        assert_eq!(fields["api-version"], "2018-02-01");
        assert_eq!(fields["resource"], "https://containerregistry.azure.net");
        assert_eq!(fields["client_id"], "identity-2");
        Reply::ok(r#"{"access_token":"entra","expires_in":"86399","token_type":"Bearer"}"#)
    })
    .await;
    let url = cloud.url();
    let variables = [("AZURE_POD_IDENTITY_AUTHORITY_HOST", url.as_str()), ("AZURE_CLIENT_ID", "identity-2")];
    let identity = AzureIdentity::new(cloud.transport(), environment(&variables)).unwrap();
    for _ in 0..2 {
        assert_eq!(ask(&identity, "team.azurecr.io").await.unwrap(), [Credential::basic(AZURE, "hunter2")]);
    }
    assert!(ask(&identity, "team.azurecr.io.example").await.unwrap().is_empty());
    assert_eq!(cloud.log().len(), 2, "one token, one exchange");
}

#[tokio::test]
async fn azure_with_the_workload_identity_of_a_pod() {
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    fs::write(&token, "assertion").unwrap();
    let cloud = Cloud::start(|request| {
        if request.host() != "login.microsoftonline.com" {
            return exchange(request, "entra", Some("tenant"));
        }
        assert_eq!(request.path, "/tenant/oauth2/v2.0/token");
        let fields = form(&request.body);
        assert_eq!(fields["grant_type"], "client_credentials");
        assert_eq!(fields["scope"], "https://containerregistry.azure.net/.default");
        assert_eq!(fields["client_id"], "client");
        assert_eq!(fields["client_assertion_type"], "urn:ietf:params:oauth:client-assertion-type:jwt-bearer");
        match fields["client_assertion"].as_str() {
            "assertion" => Reply::ok(r#"{"access_token":"entra","expires_in":3599,"token_type":"Bearer"}"#),
            _ => Reply(401, r#"{"error":"invalid_client","error_description":"hunter2"}"#.to_owned()),
        }
    })
    .await;
    let path = token.display().to_string();
    let variables = [
        ("AZURE_FEDERATED_TOKEN_FILE", path.as_str()),
        ("AZURE_CLIENT_ID", "client"),
        ("AZURE_TENANT_ID", "tenant"),
    ];
    let identity = AzureIdentity::new(cloud.transport(), environment(&variables)).unwrap();
    assert_eq!(ask(&identity, "team.azurecr.io").await.unwrap(), [Credential::basic(AZURE, "hunter2")]);
    fs::write(&token, "expired").unwrap();
    let identity = AzureIdentity::new(cloud.transport(), environment(&variables)).unwrap();
    let error = ask(&identity, "team.azurecr.io").await.unwrap_err();
    assert!(error.to_string().ends_with("401 Unauthorized (invalid_client)"), "{error}");
    let identity = AzureIdentity::new(cloud.transport(), environment(&variables[..2])).unwrap();
    let error = ask(&identity, "team.azurecr.io").await.unwrap_err().to_string();
    assert!(error.contains("AZURE_TENANT_ID is not set"), "{error}");
}

#[tokio::test]
async fn redirecting_or_oversized_endpoint_is_rejected() {
    let cloud = Cloud::start(|request| match request.query.as_str() {
        query if query.contains("flood") => Reply::ok(&"x".repeat(1 << 20)),
        _ => Reply(302, String::new()),
    })
    .await;
    let url = cloud.url();
    for (client, expected) in [("redirect", "302 Found"), ("flood", "incomplete or too large")] {
        let variables = [("AZURE_POD_IDENTITY_AUTHORITY_HOST", url.as_str()), ("AZURE_CLIENT_ID", client)];
        let identity = AzureIdentity::new(cloud.transport(), environment(&variables)).unwrap();
        let error = ask(&identity, "team.azurecr.io").await.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    assert_eq!(cloud.log().len(), 2);
}
