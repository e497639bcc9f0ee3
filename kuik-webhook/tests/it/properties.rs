//! Properties of patches: for any pod, the patch applies, and changes only images, kuik's label and kuik's annotations.
#![cfg(feature = "admission")]

use crate::support::Webhook;
use proptest::prelude::*;
use serde_json::{Value, json};

fn image() -> impl Strategy<Value = Value> {
    let references = prop_oneof![
        Just("nginx"),
        Just("nginx:1.25"),
        Just("registry:5000/app:1"),
        Just("localhost:7439/redis:7"),
        Just("ignored:1"),
        Just("[::1]:5000/x"),
        Just("Not An Image"),
        Just(""),
        Just("quay.io/a/b:2"),
    ];
    prop_oneof![
        8 => references.prop_map(Value::from),
        1 => any_json(),
    ]
}

/// Any small JSON value, mostly without the shape of a pod.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        "[a-z~/]{0,6}".prop_map(Value::from),
    ];
    leaf.prop_recursive(2, 8, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map("[a-z~/]{1,4}", inner, 0..3).prop_map(|map| json!(map)),
        ]
    })
}

fn container() -> impl Strategy<Value = Value> {
    let policy =
        prop_oneof![Just(json!("Always")), Just(json!("IfNotPresent")), Just(json!("Never")), any_json()];
    ("[a-z]{1,3}|[a-z~/ ]{50}", image(), policy, any::<bool>()).prop_map(|(name, image, policy, sidecar)| {
        let mut container =
            json!({ "name": name, "image": image, "imagePullPolicy": policy, "env": [{ "a": 1 }] });
        if sidecar {
            container["restartPolicy"] = json!("Always");
        }
        container
    })
}

fn list(item: impl Strategy<Value = Value> + 'static) -> impl Strategy<Value = Value> {
    prop_oneof![
        8 => prop::collection::vec(prop_oneof![8 => item.boxed(), 1 => any_json().boxed()], 0..4).prop_map(Value::from),
        1 => any_json(),
    ]
}

fn strings() -> impl Strategy<Value = Value> {
    let keys = prop_oneof![
        Just("kuik.enix.io/managed".to_owned()),
        Just("kuik.enix.io/rewrite-images".to_owned()),
        "original-(init-)?image-[a-z]{1,3}",
        "[a-z~/]{1,5}",
    ];
    let values = prop_oneof![Just("true".to_owned()), Just("false".to_owned()), "[a-z]{0,4}"];
    prop_oneof![
        6 => prop::collection::btree_map(keys, values, 0..5).prop_map(|map| json!(map)),
        1 => Just(Value::Null),
        1 => any_json(),
    ]
}

fn pod() -> impl Strategy<Value = Value> {
    let volume = ("[a-z]{1,3}", image())
        .prop_map(|(name, image)| json!({ "name": name, "image": { "reference": image }, "other": 1 }));
    let spec = (list(container()), list(container()), list(container()), list(volume)).prop_map(
        |(containers, init, ephemeral, volumes)| {
            json!({
                "containers": containers, "initContainers": init, "ephemeralContainers": ephemeral,
                "volumes": volumes, "unknown": { "images": ["x"] },
            })
        },
    );
    let absent = |value: Value| if value.is_null() { None } else { Some(value) };
    (spec, strings(), strings(), any::<bool>()).prop_map(move |(spec, labels, annotations, other)| {
        let mut pod = json!({ "metadata": { "name": "x" }, "spec": spec, "status": { "phase": "Pending" } });
        let fields = [("labels", labels), ("annotations", annotations)];
        for (field, value) in fields {
            if other || absent(value.clone()).is_some() {
                pod["metadata"][field] = value;
            }
        }
        pod
    })
}

/// Returns the pod without the parts that kuik can change: images, its label and its annotations.
fn rest(pod: &Value) -> Value {
    let mut pod = pod.clone();
    for field in ["containers", "initContainers", "ephemeralContainers", "volumes"] {
        let items = pod["spec"].get_mut(field).and_then(Value::as_array_mut);
        for item in items.into_iter().flatten().filter_map(Value::as_object_mut) {
            match item.get_mut("image") {
                Some(Value::Object(image)) if image.get("reference").is_some_and(Value::is_string) => {
                    image.insert("reference".to_owned(), Value::Null);
                }
                Some(image) if image.is_string() => *image = Value::Null,
                _ => {}
            }
        }
    }
    for field in ["labels", "annotations"] {
        let own = |key: &str| key.starts_with("kuik.enix.io/") || key.starts_with("original-i");
        if let Some(map) = pod["metadata"].get_mut(field) {
            if let Some(entries) = map.as_object_mut() {
                entries.retain(|key, _| !own(key));
            }
            if map.is_null() || map.as_object().is_some_and(serde_json::Map::is_empty) {
                pod["metadata"].as_object_mut().unwrap().remove(field);
            }
        }
    }
    pod
}

/// Returns the images of a pod by JSON pointer.
fn images(pod: &Value) -> Vec<(String, String)> {
    let found = kuik_webhook::pod::walk(&pod["spec"], "/spec");
    found.images.into_iter().map(|image| (image.pointer, image.image.to_owned())).collect()
}

proptest! {
    #[test]
    fn patch_changes_only_images_and_kuik_metadata(old in pod(), new in pod(), what in 0..3) {
        let webhook = Webhook::default();
        let request = match what {
            0 => json!({ "operation": "CREATE", "object": new }),
            1 => json!({ "operation": "UPDATE", "object": new, "oldObject": old }),
            _ => json!({ "operation": "UPDATE", "subResource": "ephemeralcontainers", "object": new, "oldObject": old }),
        };
        let made = webhook.pod(request).applied_to(&new);
        prop_assert_eq!(rest(&made), rest(&new));
        let known: Vec<_> = images(&old).into_iter().map(|(_, image)| image).collect();
        for ((place, before), (_, after)) in images(&new).into_iter().zip(images(&made)) {
            if before != after {
                prop_assert!(after.starts_with("localhost:7439/"), "{} {}", place, after);
                prop_assert!(what != 2 || place.starts_with("/spec/ephemeralContainers"), "{}", place);
                prop_assert!(what != 1 || !place.contains("volumes"), "{} of {:?}", place, known);
            }
        }
        if what == 2 {
            prop_assert_eq!(&made["metadata"], &new["metadata"]);
        }
        // Idempotent: reinvocation changes nothing.
        if what == 0 {
            prop_assert_eq!(webhook.create(&made), made);
        }
    }
}
