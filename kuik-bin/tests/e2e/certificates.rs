//! The webhook's certificate from cert-manager, as far as that is a contract: a Certificate that the chart makes, a Secret that
//! is mounted, and an authority in the webhook's configuration. This plays cert-manager's part, and changes all of it.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use rcgen::{CertificateParams, KeyPair};
use serde_json::{Value, json};

use super::{
    NAMESPACE, Scenario, Upstream, apply, json as get, kubectl,
    promise::{start_again, start_and_keep},
    until,
};

const SECRET: &str = "kube-image-keeper-webhook-certificate";
const KINDS: [(&str, &str); 2] = [("certificates", "Certificate"), ("issuers", "Issuer")];

/// The definition of a kind of cert-manager's, which takes everything.
fn definition((plural, kind): (&str, &str)) -> Value {
    let schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.cert-manager.io")},
        "spec": {
            "group": "cert-manager.io",
            "scope": "Namespaced",
            "names": {"plural": plural, "kind": kind},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}],
        },
    })
}

/// Writes a new certificate into the Secret, as its own authority, as a self-signed issuer's is; returns it.
async fn issue() -> String {
    let name = format!("kube-image-keeper-webhook.{NAMESPACE}.svc");
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new([name]).unwrap().self_signed(&key).unwrap().pem();
    let secret = json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "kubernetes.io/tls",
        "metadata": {"name": SECRET, "namespace": NAMESPACE},
        "stringData": {"tls.crt": certificate, "tls.key": key.serialize_pem(), "ca.crt": certificate},
    });
    apply(&[secret]).await.unwrap();
    certificate
}

/// Has API servers trust this authority alone, once there is a configuration that asks for it.
async fn inject(authority: &str) {
    let selector = "--selector=app.kubernetes.io/name=kube-image-keeper";
    let bundle = STANDARD.encode(authority);
    until("the configuration is there and trusts it", || async {
        let found = get(&["mutatingwebhookconfigurations", selector]).await?;
        let metadata = &found["items"][0]["metadata"];
        let asked = metadata["annotations"]["cert-manager.io/inject-ca-from"].as_str().unwrap_or_default();
        if asked != format!("{NAMESPACE}/{SECRET}") {
            return Err(found.to_string());
        }
        let set = |number| {
            let path = format!("/webhooks/{number}/clientConfig/caBundle");
            json!({"op": "add", "path": path, "value": bundle})
        };
        let patch = json!([set(0), set(1)]).to_string();
        let name = metadata["name"].as_str().unwrap();
        let words = ["patch", "mutatingwebhookconfiguration", name, "--type=json", "--patch", &patch];
        kubectl(&words).await
    })
    .await;
}

#[tokio::test]
async fn a_certificate_of_cert_manager_s_is_mounted_and_may_change() {
    let mut scenario = Scenario::without_kuik("certificates").await;
    scenario.uninstall().await;
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
    apply(&[&KINDS.map(definition)[..], &[namespace]].concat()).await.unwrap();
    let first = issue().await;
    let values = ["controllers.webhook.createCertificateIssuer=true"];
    tokio::join!(scenario.install(&values), inject(&first));
    let made = get(&["certificates.cert-manager.io", SECRET, "--namespace", NAMESPACE]).await.unwrap();
    assert_eq!(made["spec"]["secretName"], SECRET);
    let upstream = Upstream::open(&scenario.place).await;
    let name = start_and_keep(&scenario, &upstream, "certificates").await;

    let second = issue().await;
    inject(&second).await;
    // A kubelet looks at a pod that changes, and at others within a minute or two.
    let pods = ["annotate", "pods", "--all", "--namespace", NAMESPACE, "e2e.test/certificate=second"];
    kubectl(&pods).await.unwrap();
    scenario.webhook_answers().await;
    start_again(&scenario, &name, "certificates").await;

    scenario.uninstall().await;
    kubectl(&["delete", "secret", SECRET, "--namespace", NAMESPACE]).await.unwrap();
    for (plural, _) in KINDS {
        kubectl(&["delete", "customresourcedefinition", &format!("{plural}.cert-manager.io")]).await.unwrap();
    }
}
