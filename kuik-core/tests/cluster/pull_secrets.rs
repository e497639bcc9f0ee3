//! Pull secret credential tests with a real API server.

#![cfg(feature = "controller")]

use crate::support::{Writes, cluster, create, eventually};
use k8s_openapi::api::core::v1::Secret;
use kube_client::{
    Api,
    api::{Patch, PatchParams, PostParams},
};
use kube_runtime::watcher;
use kuik_core::{
    controller::{Informer, PullSecrets},
    crd::Repository,
    credentials::{Credential, CredentialProvider as _},
    reference::RepositoryName,
};
use serde_json::{Value, json};

fn secret(namespace: &str, name: &str, user: &str) -> Value {
    let config = json!({ "auths": { "quay.io": { "username": user, "password": "hunter2" } } });
    json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "namespace": namespace, "name": name },
            "type": "kubernetes.io/dockerconfigjson", "stringData": { ".dockerconfigjson": config.to_string() } })
}

#[tokio::test]
#[ignore = "needs parts built from Go: make built"]
async fn candidates_cover_all_named_secrets_and_cost_no_request() {
    let (mut server, client) = cluster().await;
    create(&client, secret("shop", "hand", "by-hand")).await;
    create(&client, secret("bank", "pod", "of-pods")).await;
    create(&client, json!({ "apiVersion": "v1", "kind": "Secret", "type": "Opaque",
        "metadata": { "namespace": "bank", "name": "garbage" }, "stringData": { ".dockerconfigjson": "hunter2" } }))
    .await;
    let repository: Repository = serde_json::from_value(json!({
        "apiVersion": "kuik.enix.io/v1alpha1", "kind": "Repository", "metadata": { "name": "quay.io-a-b" },
        "spec": { "name": "quay.io/a/b", "pullSecretNames": ["hand"], "pullSecretsNamespace": "shop" }
    }))
    .unwrap();
    let repositories: Api<Repository> = Api::all(client.clone());
    repositories.create(&PostParams::default(), &repository).await.unwrap();
    let named = json!({ "status": { "pullSecrets": [
        { "namespace": "bank", "name": "garbage" }, { "namespace": "bank", "name": "pod" },
        { "namespace": "bank", "name": "later" } ] } });
    repositories.patch_status("quay.io-a-b", &PatchParams::default(), &Patch::Merge(named)).await.unwrap();

    let writes = Writes::default();
    let (informer, watch) =
        Informer::<Repository>::new(Api::all(writes.of(&client)), watcher::Config::default());
    let (secrets, keep) = PullSecrets::new(writes.of(&client), informer.clone());
    let tasks = [tokio::spawn(watch), tokio::spawn(keep)];
    informer.store().wait_until_ready().await.unwrap();
    let users = async |repository: &str| {
        let repository: RepositoryName = repository.parse().unwrap();
        let candidates = secrets.candidates(&repository).await.unwrap();
        let user = |credential| match credential {
            Credential::Basic { username, .. } => username,
            other => panic!("{other:?}"),
        };
        candidates.into_iter().map(user).collect::<Vec<_>>()
    };
    assert_eq!(users("quay.io/a/b").await, ["by-hand", "of-pods"]);
    // No Repository object: pulled anonymously.
    assert!(users("quay.io/public/app").await.is_empty());

    // A secret created later and a changed one are picked up within a minute.
    create(&client, secret("bank", "later", "late")).await;
    let change = secret("bank", "pod", "changed")["stringData"].clone();
    let change = Patch::Merge(json!({ "stringData": change }));
    let api: Api<Secret> = Api::namespaced(client.clone(), "bank");
    api.patch("pod", &PatchParams::default(), &change).await.unwrap();
    eventually("the new secrets are known", async || {
        (users("quay.io/a/b").await == ["by-hand", "changed", "late"]).then_some(())
    })
    .await;

    // Candidates come from memory, without the API server.
    server.stop().await.unwrap();
    assert_eq!(users("quay.io/a/b").await, ["by-hand", "changed", "late"]);
    assert!(users("quay.io/public/app").await.is_empty());
    assert!(writes.list().is_empty());
    tasks.iter().for_each(tokio::task::JoinHandle::abort);
}
