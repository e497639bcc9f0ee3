//! Buckets of Amazon, Google and Azure, opened with the identity that each cloud gives to its processes, over the protocol
//! of each.
//!
//! A test cannot use a real provider, and no emulator implements all of it. A scripted provider speaks the protocols
//! (`provider`, `xml`, `azure`), hands out credentials as each cloud does (`identity`), and grants access with those
//! alone. Signatures are checked by a real S3 server (`object_storage_s3.rs`). Credentials come from the
//! environment of a process: the test runs itself as a second process that uses the bucket.

#![cfg(feature = "object-storage")]

mod azure;
mod identity;
mod provider;
mod xml;

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures::TryStreamExt as _;
use kuik_core::{
    content::{ByteRange, ContentSource as _, ContentStore as _, Digest, RegistryStore, Verifier},
    reference::RepositoryName,
};
use kuik_proxy::store::{BucketOptions, ObjectStorage, Provider};
use kuik_testkit::store_conformance;

use self::provider::{BUCKET, Cloud, Kind};

/// Tells the second process where the provider is, and which one.
const CHILD: &str = "KUIK_CLOUD_CHILD";
/// And what to do there.
const CHILD_TASK: &str = "KUIK_CLOUD_TASK";
const EVERYTHING: &str = "everything";
const A_BLOB: &str = "a blob";
/// A blob, and another one with the second token of a workload, which comes in place of the first.
const TOKEN_CHANGES: &str = "the token changes";

const FIRST_TOKEN: &str = "the-first-token-of-this-workload";
const SECOND_TOKEN: &str = "the-second-token-of-this-workload";

/// Not a test: what the second process does.
#[tokio::test]
async fn child() {
    let (Ok(at), Ok(task)) = (std::env::var(CHILD), std::env::var(CHILD_TASK)) else { return };
    let (scheme, endpoint) = at.split_once(' ').unwrap();
    let (provider, token_file) = match scheme {
        "s3" => (Provider::S3, "AWS_WEB_IDENTITY_TOKEN_FILE"),
        "gs" => (Provider::Google, ""),
        _ => (Provider::Azure, "AZURE_FEDERATED_TOKEN_FILE"),
    };
    let mut options = BucketOptions::new(provider, BUCKET);
    options.prefix = "registry/root".to_owned();
    options.endpoint = Some(endpoint.to_owned());
    options.timeout = Duration::from_secs(10);
    let store = ObjectStorage::open(&options, &std::env::temp_dir()).unwrap();
    store.check_writable().await.unwrap_or_else(|error| panic!("{}", error.chain()));
    round_trip(&store, 1000).await;
    if task == TOKEN_CHANGES {
        fs::write(std::env::var(token_file).unwrap(), SECOND_TOKEN).unwrap();
        round_trip(&store, 1001).await;
    }
    if task == EVERYTHING {
        round_trip(&store, 20_000_003).await;
        let store: Arc<dyn RegistryStore> = Arc::new(store);
        for behavior in store_conformance::BEHAVIORS {
            behavior.check(store.clone()).await.unwrap_or_else(|violation| panic!("{violation}"));
        }
    }
}

/// A blob goes in, and comes out whole and from its end.
async fn round_trip(store: &ObjectStorage, size: u32) {
    let content: Bytes = (0..size).map(|n| (n % 251) as u8).collect();
    let (app, digest) = (RepositoryName::local("app").unwrap(), Digest::sha256(&content));
    let mut verifier = Verifier::new(&digest).unwrap();
    verifier.update(&content);
    let mut writer = store.write_blob().await.unwrap();
    writer.append(std::slice::from_ref(&content)).await.unwrap();
    let published = writer.publish(verifier.finish().unwrap(), std::slice::from_ref(&app)).await;
    published.unwrap_or_else(|error| panic!("{}", error.chain()));
    for (range, expected) in [
        (ByteRange::Full, content.clone()),
        (ByteRange::Suffix { length: 7 }, content.slice(content.len() - 7..)),
    ] {
        let blob = store.blob(&app, &digest, range).await.unwrap_or_else(|error| panic!("{}", error.chain()));
        let read: Vec<Bytes> = blob.content.body.try_collect().await.unwrap();
        assert!(read.concat() == expected, "{range:?}");
    }
}

/// Runs the second process with only these variables in its environment.
async fn run(cloud: &Cloud, task: &str, environment: &[(&str, String)]) -> Result<(), String> {
    let home = tempfile::tempdir().unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy().to_ascii_uppercase();
        if ["AWS_", "AZURE_", "GOOGLE_", "GCE_", "IDENTITY_", "KUIK_"].iter().any(|of| text.starts_with(of)) {
            command.env_remove(&name);
        }
    }
    command.args(["--exact", "cloud::child", "--nocapture"]).env("HOME", home.path()).stdin(Stdio::null());
    command.env(CHILD, format!("{} {}", cloud.scheme(), cloud.url(""))).env(CHILD_TASK, task);
    command.envs(environment.iter().map(|(name, value)| (name, value)));
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    let said =
        [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned()).concat();
    if output.status.success() { Ok(()) } else { Err(said) }
}

async fn works(cloud: &Cloud, task: &str, environment: &[(&str, String)]) {
    let done = run(cloud, task, environment).await;
    done.unwrap_or_else(|said| panic!("{said}\n{:?}", cloud.refused()));
    assert!(cloud.credentials() > 0, "no credential was requested");
}

/// A file with a token that says which workload this is.
fn token_file(folder: &Path, token: &str) -> String {
    let file = folder.join("token");
    fs::write(&file, token).unwrap();
    file.to_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_web_identity_opens_s3_and_its_token_may_change() {
    let (cloud, folder) = (Cloud::start(Kind::S3).await, tempfile::tempdir().unwrap());
    // Each credential has expired when it is handed out: every request needs a new one.
    cloud.hand_out_for(Duration::ZERO);
    let with = |token| {
        [
            ("AWS_WEB_IDENTITY_TOKEN_FILE", token_file(folder.path(), token)),
            ("AWS_ROLE_ARN", identity::ROLE.to_owned()),
            ("AWS_ENDPOINT_URL_STS", cloud.url("/sts")),
        ]
    };
    works(&cloud, TOKEN_CHANGES, &with(FIRST_TOKEN)).await;
    assert_eq!(cloud.tokens(), [FIRST_TOKEN, SECOND_TOKEN], "tokens as they were shown");
    assert!(cloud.credentials() > 2);

    let foreign = "a-token-of-another-workload";
    let said = run(&cloud, A_BLOB, &with(foreign)).await.unwrap_err();
    assert!(said.contains("s3://images"), "it does not say which bucket: {said}");
    assert!(!said.contains(foreign), "a token is shown: {said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_role_of_an_instance_opens_s3() {
    let cloud = Cloud::start(Kind::S3).await;
    works(&cloud, EVERYTHING, &[("AWS_METADATA_ENDPOINT", cloud.url("/imds"))]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_identity_of_a_pod_opens_s3() {
    let (cloud, folder) = (Cloud::start(Kind::S3).await, tempfile::tempdir().unwrap());
    let environment = [
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", cloud.url("/pod")),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", token_file(folder.path(), FIRST_TOKEN)),
    ];
    works(&cloud, A_BLOB, &environment).await;
    assert_eq!(cloud.tokens(), [FIRST_TOKEN]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_account_of_a_machine_opens_google_cloud_storage() {
    let cloud = Cloud::start(Kind::Google).await;
    works(&cloud, EVERYTHING, &[("GCE_METADATA_HOST", cloud.host())]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_managed_identity_opens_azure() {
    let cloud = Cloud::start(Kind::Azure).await;
    let environment = [
        ("AZURE_STORAGE_ACCOUNT_NAME", identity::ACCOUNT.to_owned()),
        ("IDENTITY_ENDPOINT", cloud.url("/msi")),
        ("IDENTITY_HEADER", identity::MSI_SECRET.to_owned()),
    ];
    works(&cloud, EVERYTHING, &environment).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_identity_of_a_workload_opens_azure_and_its_token_may_change() {
    let (cloud, folder) = (Cloud::start(Kind::Azure).await, tempfile::tempdir().unwrap());
    cloud.hand_out_for(Duration::ZERO);
    let environment = [
        ("AZURE_STORAGE_ACCOUNT_NAME", identity::ACCOUNT.to_owned()),
        ("AZURE_FEDERATED_TOKEN_FILE", token_file(folder.path(), FIRST_TOKEN)),
        ("AZURE_CLIENT_ID", identity::CLIENT.to_owned()),
        ("AZURE_TENANT_ID", identity::TENANT.to_owned()),
        ("AZURE_AUTHORITY_HOST", cloud.url("")),
    ];
    works(&cloud, TOKEN_CHANGES, &environment).await;
    assert_eq!(cloud.tokens(), [FIRST_TOKEN, SECOND_TOKEN]);
}

/// A process with keys of another account gets an error that names the bucket and what to check.
#[tokio::test(flavor = "multi_thread")]
async fn process_with_wrong_keys_is_refused() {
    let cloud = Cloud::start(Kind::S3).await;
    let keys = [
        ("AWS_ACCESS_KEY_ID", "another".to_owned()),
        ("AWS_SECRET_ACCESS_KEY", "the-secret-of-another".to_owned()),
    ];
    let said = run(&cloud, A_BLOB, &keys).await.unwrap_err();
    assert!(said.contains("s3://images/registry/root") && said.contains("access is denied"), "{said}");
    assert!(!said.contains("the-secret-of-another"), "{said}");
}
