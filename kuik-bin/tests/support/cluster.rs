//! Test cluster consisting of an API server: kuik's resources, exactly the permissions of `docs/rbac.yaml`, and webhook
//! configurations.

use std::{collections::BTreeMap, time::Duration};

use kuik_testkit::real::{ApiServer, KubeUser};
use serde_json::{Value, json};

use super::output;

/// The roles of the document, and that of the cache bound to its user.
const ROLES: &str = concat!(
    include_str!("../../../docs/rbac.yaml"),
    "
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: kuik-puller}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: kuik-puller}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: puller}]
"
);

/// The roles of the controllers, bound to the user USER.
const CONTROLLERS: &str = "
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: kuik-USER}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: kuik-controllers}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: USER}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: kuik-USER, namespace: kuik-system}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: kuik-controllers}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: USER}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: kuik-USER, namespace: default}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: kuik-controllers}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: USER}]
";

const NAMESPACES: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: kuik-system}
---
apiVersion: v1
kind: Namespace
metadata: {name: shop}
";

/// An API server with our resources, and the namespaces that are needed.
pub(crate) async fn api_server() -> ApiServer {
    api_server_with(ApiServer::start().await.unwrap()).await
}

/// Like the above, for an API server that is already running.
pub(crate) async fn api_server_with(server: ApiServer) -> ApiServer {
    let admin = server.admin();
    let crds = output(&["crds"]).await;
    admin.apply(std::str::from_utf8(&crds.stdout).unwrap()).await.unwrap();
    admin.apply(NAMESPACES).await.unwrap();
    admin.apply(ROLES).await.unwrap();
    admin.apply(&CONTROLLERS.replace("USER", "controllers")).await.unwrap();
    admin.kubectl(["wait", "--for=condition=Established", "crd", "--all", "--timeout=30s"]).await.unwrap();
    server
}

/// A user of this name, who may do what the controllers may.
pub(crate) async fn controllers_user(server: &ApiServer, name: &str) -> KubeUser {
    server.admin().apply(&CONTROLLERS.replace("USER", name)).await.unwrap();
    server.user(name, None).unwrap()
}

/// How often a user wrote, by what it did and how it was answered.
pub(crate) fn writes(server: &ApiServer, user: &str) -> BTreeMap<String, usize> {
    let mut writes = BTreeMap::new();
    for write in server.writes().unwrap().into_iter().filter(|write| write.user == user) {
        *writes.entry(format!("{} {} {}", write.verb, write.resource, write.status)).or_default() += 1;
    }
    writes
}

/// How often that was, without the Lease.
pub(crate) fn but_for_the_lease(writes: &BTreeMap<String, usize>) -> usize {
    writes.iter().filter(|(key, _)| !key.contains(" leases ")).map(|(_, count)| count).sum()
}

/// Returns the writes of a user, once it has written only the Lease for `quiet`.
pub(crate) async fn writes_in_the_end(
    server: &ApiServer,
    user: &str,
    quiet: Duration,
) -> BTreeMap<String, usize> {
    let mut before = writes(server, user);
    loop {
        tokio::time::sleep(quiet).await;
        let now = writes(server, user);
        if but_for_the_lease(&now) == but_for_the_lease(&before) {
            return now;
        }
        before = now;
    }
}

/// Returns an object, if it exists.
pub(crate) async fn object(user: &KubeUser, arguments: &[&str]) -> Option<Value> {
    let all = [&["get", "--output=json", "--ignore-not-found"], arguments].concat();
    let text = user.kubectl(all).await.unwrap();
    (!text.trim().is_empty()).then(|| serde_json::from_str(&text).unwrap())
}

/// A pod of the namespace `shop` as people write one.
pub(crate) fn pod(name: &str, image: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": name, "namespace": "shop" },
        "spec": { "containers": [{ "name": "web", "image": image }] },
    })
}

/// Whether there is a CachedImage `name` that says that its image is in the cache.
pub(crate) async fn is_cached(user: &KubeUser, name: &str) -> bool {
    object(user, &["cachedimages", name])
        .await
        .is_some_and(|image| image["status"]["phase"] == "Ready" && image["status"]["isCached"] == true)
}

/// The CachedImage of `team/app:TAG` in a registry.
pub(crate) fn name_of_app(host: &str, tag: &str) -> String {
    format!("{}-team-app-{tag}", host.replace(':', "-"))
}

/// An API server that asks a webhook at `port` of this machine: its Service is the name of another host.
pub(crate) fn webhook_configuration(name: &str, service: &str, port: u16) -> String {
    let named = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": service, "namespace": "kuik-system" },
        "spec": { "type": "ExternalName", "externalName": "localhost", "ports": [{ "port": port, "protocol": "TCP" }] },
    });
    let client = |path: &str| json!({ "service": { "name": service, "namespace": "kuik-system", "path": path, "port": port } });
    let rule = |group: &str, version: &str, resources: &[&str]| {
        json!([{
            "apiGroups": [group], "apiVersions": [version], "resources": resources, "operations": ["CREATE", "UPDATE"],
        }])
    };
    let webhooks = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration",
        "metadata": { "name": name },
        "webhooks": [
            {
                "name": "mpod.kb.io", "clientConfig": client("/mutate-core-v1-pod"), "failurePolicy": "Ignore",
                "reinvocationPolicy": "IfNeeded", "sideEffects": "None", "admissionReviewVersions": ["v1"],
                "rules": rule("", "v1", &["pods", "pods/ephemeralcontainers"]),
            },
            {
                "name": "mcachedimage.kb.io", "failurePolicy": "Fail", "sideEffects": "None",
                "clientConfig": client("/mutate-kuik-enix-io-v1alpha1-cachedimage"), "admissionReviewVersions": ["v1"],
                "rules": rule("kuik.enix.io", "v1alpha1", &["cachedimages"]),
            },
        ],
    });
    format!("{named}\n---\n{webhooks}\n")
}
