//! Tests of the Kubernetes test harness: a real API server with our resources and injected faults.

#![cfg(feature = "controller")]

use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use kube_client::{Api, api::PostParams};
use kube_core::CustomResourceExt as _;
use kuik_core::crd::{CachedImage, CachedImageSpec, CustomResourceDefinition, Repository};
use kuik_testkit::real::ApiServer;

#[tokio::test]
#[ignore = "needs parts built from Go: make built"]
async fn api_server_keeps_custom_resources_across_a_kill() {
    let mut server = ApiServer::start().await.unwrap();
    let client = server.admin().client().await.unwrap();
    let post = PostParams::default();
    let named = |name: &str| serde_json::json!({"metadata": {"name": name}});
    let namespace: Namespace = serde_json::from_value(named("shop")).unwrap();
    Api::all(client.clone()).create(&post, &namespace).await.unwrap();
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    for definition in [CachedImage::crd(), Repository::crd()] {
        definitions.create(&post, &definition).await.unwrap();
    }
    let wait = ["wait", "--for=condition=Established", "crd", "--all", "--timeout=30s", "--output=name"];
    assert_eq!(server.admin().kubectl(wait).await.unwrap().lines().count(), 2);

    let spec =
        CachedImageSpec { source_image: "docker.io/library/nginx:1.25".to_owned(), ..Default::default() };
    let images: Api<CachedImage> = Api::all(client.clone());
    images.create(&post, &CachedImage::new("docker.io-library-nginx-1.25", spec)).await.unwrap();
    server.stop().await.unwrap();
    images.get("docker.io-library-nginx-1.25").await.unwrap_err();
    server.resume().await.unwrap();
    images.get("docker.io-library-nginx-1.25").await.unwrap();
    server.stop_store().await.unwrap();
    let refused =
        tokio::time::timeout(std::time::Duration::from_secs(1), images.list(&Default::default())).await;
    assert!(!matches!(refused, Ok(Ok(_))), "without its store it has no objects");
    server.resume_store().await.unwrap();
    images.get("docker.io-library-nginx-1.25").await.unwrap();
}

#[tokio::test]
#[ignore = "needs parts built from Go: make built"]
async fn users_and_service_accounts_have_only_granted_permissions() {
    let server = ApiServer::start().await.unwrap();
    let accounts: Api<ServiceAccount> = Api::namespaced(server.admin().client().await.unwrap(), "default");
    let account = serde_json::from_value(serde_json::json!({"metadata": {"name": "reader"}})).unwrap();
    accounts.create(&PostParams::default(), &account).await.unwrap();
    server
        .admin()
        .apply(
            "
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: reads-namespaces}
rules: [{apiGroups: [''], resources: [namespaces], verbs: [get, list]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: reads-namespaces}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: reads-namespaces}
subjects:
- {kind: ServiceAccount, namespace: default, name: reader}
- {kind: User, apiGroup: rbac.authorization.k8s.io, name: jane}
- {kind: Group, apiGroup: rbac.authorization.k8s.io, name: readers}
",
        )
        .await
        .unwrap();

    let reader = server.service_account("default", "reader").await.unwrap();
    let jane = server.user("jane", None).unwrap();
    let in_group = server.user("joe", Some("readers")).unwrap();
    for user in [&reader, &jane, &in_group] {
        let client = user.client().await.unwrap();
        Api::<Namespace>::all(client.clone()).list(&Default::default()).await.unwrap();
        let refused = Api::<ServiceAccount>::all(client).list(&Default::default()).await.unwrap_err();
        assert!(refused.to_string().contains("forbidden"), "{refused}");
    }
    let stranger = server.user("stranger", None).unwrap().client().await.unwrap();
    Api::<Namespace>::all(stranger).list(&Default::default()).await.unwrap_err();
}
