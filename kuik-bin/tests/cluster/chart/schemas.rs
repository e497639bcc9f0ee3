//! The schemas that kubeconform judges objects by, made of what an API server says of its own release: with every field
//! named, so that one that is not known is found.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use kuik_testkit::real::{InstallSource, KubeUser, run};
use serde_json::{Map, Value, json};
use tempfile::TempDir;

use super::FOREIGN;

/// Reference to a definition.
const DEFINITIONS: &str = "#/definitions/";

/// The schemas of one release, as files.
pub(super) struct Schemas(TempDir);

impl Schemas {
    /// Those of the API server that `admin` is at.
    pub(super) async fn of(admin: &KubeUser) -> Self {
        let told = admin.kubectl(["get", "--raw", "/openapi/v2"]).await.unwrap();
        let mut told: Value = serde_json::from_str(&told).unwrap();
        let Value::Object(mut definitions) = told["definitions"].take() else {
            panic!("there are no definitions")
        };
        for (name, definition) in &mut definitions {
            match name.rsplit('.').next().unwrap() {
                // Texts or numbers; and schemas themselves, which are anything.
                "IntOrString" | "Quantity" | "JSONSchemaProps" => *definition = json!({}),
                _ => close(definition),
            }
        }
        let folder = tempfile::tempdir().unwrap();
        for (name, definition) in &definitions {
            let kinds = definition["x-kubernetes-group-version-kind"].as_array().into_iter().flatten();
            for kind in kinds {
                let schema = json!({"$ref": format!("{DEFINITIONS}{name}"), "definitions": reachable(&definitions, name)});
                fs::write(file(folder.path(), kind), schema.to_string()).unwrap();
            }
        }
        Self(folder)
    }

    /// Has kubeconform judge the objects in a file.
    pub(super) async fn judge(&self, objects: &Path) -> Result<String, String> {
        let schemas =
            format!("{}/{{{{ .ResourceKind }}}}{{{{ .KindSuffix }}}}.json", self.0.path().display());
        let skipped = FOREIGN.join(",");
        let objects = objects.display().to_string();
        let arguments = ["-strict", "-summary", "-skip", &skipped, "-schema-location", &schemas, &objects];
        run("kubeconform", InstallSource::BuiltFromGo, arguments).await.map_err(|error| error.to_string())
    }
}

/// Returns kubeconform's file name of a kind: `deployment-apps-v1.json`.
fn file(folder: &Path, kind: &Value) -> PathBuf {
    let text = |key: &str| kind[key].as_str().unwrap_or_default().to_lowercase();
    let group = text("group");
    let parts = [text("kind"), group.split('.').next().unwrap().to_owned(), text("version")];
    let parts: Vec<_> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    folder.join(format!("{}.json", parts.join("-")))
}

/// No other fields than those that are named.
fn close(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            if fields.contains_key("properties")
                && !fields.contains_key("x-kubernetes-preserve-unknown-fields")
            {
                fields.entry("additionalProperties").or_insert(json!(false));
            }
            fields.values_mut().for_each(close);
        }
        Value::Array(items) => items.iter_mut().for_each(close),
        _ => {}
    }
}

/// A definition, and those that it refers to.
fn reachable(definitions: &Map<String, Value>, name: &str) -> Map<String, Value> {
    let (mut found, mut open) = (Map::new(), BTreeSet::from([name.to_owned()]));
    while let Some(name) = open.pop_first() {
        if found.contains_key(&name) {
            continue;
        }
        references(&definitions[&name], &mut open);
        found.insert(name.clone(), definitions[&name].clone());
    }
    found
}

fn references(schema: &Value, into: &mut BTreeSet<String>) {
    match schema {
        Value::Object(fields) => {
            into.extend(
                fields
                    .get("$ref")
                    .and_then(Value::as_str)
                    .and_then(|it| it.strip_prefix(DEFINITIONS))
                    .map(str::to_owned),
            );
            fields.values().for_each(|field| references(field, into));
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, into)),
        _ => {}
    }
}
