//! Custom resource tests: objects written by kuik 1.14, and the schemas.
#![cfg(feature = "crd")]

use std::{collections::BTreeSet, fs, path::Path};

use kuik_core::{
    crd::{self, CachedImage, CachedImagePhase, CustomResourceDefinition, Repository, RepositoryPhase},
    reference::ImageReference,
};
use regex::Regex;
use serde_json::{Value, json};

fn written_by_1_14(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/crd").join(name);
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

fn definition(kind: &str) -> CustomResourceDefinition {
    crd::definitions().into_iter().find(|definition| definition.spec.names.kind == kind).unwrap()
}

fn schema(kind: &str) -> Value {
    let definition = serde_json::to_value(definition(kind)).unwrap();
    definition.pointer("/spec/versions/0/schema/openAPIV3Schema").unwrap().clone()
}

/// Asserts that `whole` contains all of `part`; a field may have become explicit.
fn contains(whole: &Value, part: &Value, at: &str) {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => {
            for (key, value) in part.iter().filter(|(_, value)| !value.is_null()) {
                let kept = whole.get(key).unwrap_or_else(|| panic!("{at}/{key} is lost"));
                contains(kept, value, &format!("{at}/{key}"));
            }
        }
        _ => assert_eq!(whole, part, "{at}"),
    }
}

#[test]
fn cached_images_of_1_14_round_trip() {
    for name in ["cached-image-ready.json", "cached-image-expiring.json", "cached-image-new.json"] {
        let written = written_by_1_14(name);
        let read: CachedImage = serde_json::from_value(written.clone()).unwrap();
        contains(&serde_json::to_value(&read).unwrap(), &written, name);
    }
    let ready: CachedImage = serde_json::from_value(written_by_1_14("cached-image-ready.json")).unwrap();
    let status = ready.status.unwrap();
    assert_eq!(status.phase, Some(CachedImagePhase::Ready));
    assert_eq!(status.used_by.unwrap().count, 2);
    assert!(status.last_sync.is_some());
    let image = ImageReference::parse(&ready.spec.source_image).unwrap();
    assert_eq!(ready.metadata.name, Some(crd::cached_image_name(&image)));
    let label = ready.metadata.labels.unwrap().remove(crd::REPOSITORY_LABEL);
    assert_eq!(label, Some(crd::repository_label(&image.repository())));
}

#[test]
fn repositories_of_1_14_round_trip() {
    let written = written_by_1_14("repository.json");
    let read: Repository = serde_json::from_value(written.clone()).unwrap();
    contains(&serde_json::to_value(&read).unwrap(), &written, "repository");
    assert_eq!(read.spec.update_interval.unwrap().duration().unwrap().as_secs(), 5400);
    assert_eq!(read.status.unwrap().phase, Some(RepositoryPhase::Ready));
}

#[test]
fn unknown_phase_does_not_prevent_decoding() {
    let mut written = written_by_1_14("cached-image-ready.json");
    for phase in [json!("Sleeping"), json!(""), json!(null), json!(7)] {
        *written.pointer_mut("/status/phase").unwrap() = phase;
        let read: CachedImage = serde_json::from_value(written.clone()).unwrap();
        assert_eq!(read.status.unwrap().phase, None);
    }
}

#[test]
fn printer_columns_match_kuik_1_14() {
    let columns_of = |kind, is_wide: bool| {
        let version = definition(kind).spec.versions.remove(0);
        let columns = version.additional_printer_columns.unwrap_or_default().into_iter();
        let columns = columns.filter(|column| (column.priority.unwrap_or(0) > 0) == is_wide);
        columns.map(|column| (column.name, column.json_path)).collect::<Vec<_>>()
    };
    let columns = |kind| columns_of(kind, false);
    let expected = |columns: &[(&str, &str)]| {
        columns.iter().map(|(name, path)| ((*name).to_owned(), (*path).to_owned())).collect::<Vec<_>>()
    };
    let images = [
        ("Status", ".status.phase"),
        ("Cached", ".status.isCached"),
        ("Retain", ".spec.retain"),
        ("Expires at", ".spec.expiresAt"),
        ("Pods count", ".status.usedBy.count"),
        ("Age", ".metadata.creationTimestamp"),
    ];
    assert_eq!(columns("CachedImage"), expected(&images));
    let wide = [
        ("Size", ".status.size"),
        ("Progress", ".status.progress.percent"),
        ("Reason", ".status.conditions[?(@.type=='Ready')].reason"),
    ];
    assert_eq!(columns_of("CachedImage", true), expected(&wide));
    let repositories =
        [("Status", ".status.phase"), ("Images", ".status.images"), ("Age", ".metadata.creationTimestamp")];
    assert_eq!(columns("Repository"), expected(&repositories));
}

#[test]
fn schema_pattern_accepts_all_valid_references() {
    let image = schema("CachedImage").pointer("/properties/spec/properties/sourceImage").unwrap().clone();
    let pattern = Regex::new(image["pattern"].as_str().unwrap()).unwrap();
    let longest = usize::try_from(image["maxLength"].as_u64().unwrap()).unwrap();
    let table = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/reference/valid.txt");
    let references: Vec<String> = fs::read_to_string(table)
        .unwrap()
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .filter(|word| ImageReference::parse(word).is_ok())
        .map(str::to_owned)
        .collect();
    assert!(references.len() > 50, "{}", references.len());
    for reference in references {
        assert!(pattern.is_match(&reference) && reference.len() <= longest, "{reference}");
    }
    for text in ["", "nginx latest", "nginx\n", "nginx:1\u{e9}", "https://nginx?x", "a b"] {
        assert!(!pattern.is_match(text), "{text}");
    }
}

/// Keywords allowed in a structural schema node of Kubernetes 1.20 that are used here.
const KEYWORDS: [&str; 13] = [
    "type",
    "description",
    "title",
    "properties",
    "required",
    "items",
    "nullable",
    "format",
    "enum",
    "minLength",
    "maxLength",
    "pattern",
    "additionalProperties",
];

fn check_node(node: &Value, at: &str) {
    let node = node.as_object().unwrap_or_else(|| panic!("{at} is no schema"));
    let unknown: BTreeSet<_> = node.keys().filter(|key| !KEYWORDS.contains(&key.as_str())).collect();
    assert_eq!(unknown, BTreeSet::new(), "{at}");
    let kind = node.get("type").and_then(Value::as_str).unwrap_or_else(|| panic!("{at} has no type"));
    let documented = node.contains_key("description") || at.is_empty() || at.ends_with("[]");
    assert!(documented, "{at} has no description");
    match kind {
        "object" => {
            for (name, child) in node.get("properties").and_then(Value::as_object).into_iter().flatten() {
                check_node(child, &format!("{at}.{name}"));
            }
        }
        "array" => check_node(&node["items"], &format!("{at}[]")),
        _ => assert!(!node.contains_key("properties") && !node.contains_key("items"), "{at}"),
    }
}

#[test]
fn schemas_are_structural_and_fully_documented() {
    for kind in ["CachedImage", "Repository"] {
        check_node(&schema(kind), "");
    }
}
