//! Admission review as sent by an API server, and the webhook that answers it.

use kuik_core::{
    reference::ProxyAuthority,
    rewrite::{Rewriter, StandardPolicy},
};
use kuik_webhook::admission::{AdmissionOptions, AdmissionService};
use serde_json::{Value, json};

/// The webhook for a proxy at port 7439.
pub(crate) fn service() -> AdmissionService {
    let rewriter = Rewriter::new(ProxyAuthority::localhost(7439), StandardPolicy::new());
    AdmissionService::new(AdmissionOptions::new(rewriter).with_ignored_namespaces(["kuik-system"]))
}

/// A review of a new pod with three containers, about 9 KB.
pub(crate) fn of_three_containers() -> String {
    let images = [
        "nginx:1.25",
        "registry.example.org:5000/team/app@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        "quay.io/prometheus/exporter:v2",
    ];
    let containers: Vec<_> = images.iter().enumerate().map(|(n, image)| container(n, image)).collect();
    let owned = |n: usize| {
        let fields = json!({
            "f:args": {}, "f:env": { ".": {}, "k:{\"name\":\"POD_NAME\"}": { ".": {}, "f:name": {}, "f:valueFrom": {} } },
            "f:image": {}, "f:imagePullPolicy": {}, "f:livenessProbe": { "f:httpGet": { "f:path": {}, "f:port": {} } },
            "f:name": {}, "f:resources": { "f:limits": { "f:memory": {} }, "f:requests": { "f:cpu": {}, "f:memory": {} } },
        });
        (format!("k:{{\"name\":\"c{n}\"}}"), fields)
    };
    let fields: serde_json::Map<String, Value> = (0..images.len()).map(owned).collect();
    let object = json!({
        "kind": "Pod", "apiVersion": "v1",
        "metadata": {
            "generateName": "web-5c9b8bd9f6-", "namespace": "shop", "creationTimestamp": null,
            "labels": { "app": "web", "pod-template-hash": "5c9b8bd9f6", "version": "v12" },
            "annotations": { "prometheus.io/scrape": "true", "checksum/config": "0f5e3d2c1b" },
            "ownerReferences": [{
                "apiVersion": "apps/v1", "kind": "CacheReplicas", "name": "web-5c9b8bd9f6", "controller": true,
                "uid": "0a9de7dd-56a1-4ac9-8d30-a3be7b1b0e7d", "blockOwnerDeletion": true,
            }],
            "managedFields": [{
                "manager": "kube-controller-manager", "operation": "Update", "apiVersion": "v1",
                "time": "2026-11-25T03:00:00Z", "fieldsType": "FieldsV1",
                "fieldsV1": { "f:metadata": { "f:labels": { ".": {}, "f:app": {} } }, "f:spec": { "f:containers": fields } },
            }],
        },
        "spec": {
            "volumes": [
                { "name": "config", "configMap": { "name": "web", "defaultMode": 420 } },
                { "name": "kube-api-access-x7x2p", "projected": { "defaultMode": 420, "sources": [
                    { "serviceAccountToken": { "expirationSeconds": 3607, "path": "token" } },
                    { "configMap": { "name": "kube-root-ca.crt", "items": [{ "key": "ca.crt", "path": "ca.crt" }] } },
                ] } },
            ],
            "containers": containers, "restartPolicy": "Always", "terminationGracePeriodSeconds": 30,
            "dnsPolicy": "ClusterFirst", "serviceAccountName": "web", "securityContext": { "runAsNonRoot": true },
            "schedulerName": "default-scheduler", "priority": 0, "enableServiceLinks": true,
            "tolerations": [{ "key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute" }],
        },
        "status": {},
    });
    let review = json!({
        "kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1",
        "request": {
            "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
            "kind": { "group": "", "version": "v1", "kind": "Pod" },
            "resource": { "group": "", "version": "v1", "resource": "pods" },
            "requestKind": { "group": "", "version": "v1", "kind": "Pod" },
            "requestResource": { "group": "", "version": "v1", "resource": "pods" },
            "namespace": "shop", "operation": "CREATE",
            "userInfo": {
                "username": "system:serviceaccount:kube-system:replicaset-controller",
                "groups": ["system:serviceaccounts", "system:serviceaccounts:kube-system", "system:authenticated"],
            },
            "object": object, "oldObject": null, "dryRun": false,
            "options": { "kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1" },
        },
    });
    review.to_string()
}

fn container(n: usize, image: &str) -> Value {
    let env: Vec<_> = (0..8)
        .map(|n| json!({ "name": format!("SETTING_{n}"), "value": "some value of a setting, as they are" }))
        .collect();
    json!({
        "name": format!("c{n}"), "image": image, "args": ["--listen=:8080", "--config=/etc/web/config.yaml"],
        "env": env, "ports": [{ "containerPort": 8080, "name": "http", "protocol": "TCP" }],
        "resources": { "limits": { "memory": "256Mi" }, "requests": { "cpu": "100m", "memory": "128Mi" } },
        "volumeMounts": [
            { "name": "config", "mountPath": "/etc/web" },
            { "name": "kube-api-access-x7x2p", "readOnly": true, "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount" },
        ],
        "livenessProbe": { "httpGet": { "path": "/healthz", "port": 8080, "scheme": "HTTP" }, "timeoutSeconds": 1 },
        "readinessProbe": { "httpGet": { "path": "/readyz", "port": 8080, "scheme": "HTTP" }, "timeoutSeconds": 1 },
        "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
        "imagePullPolicy": "IfNotPresent", "securityContext": { "allowPrivilegeEscalation": false },
    })
}
