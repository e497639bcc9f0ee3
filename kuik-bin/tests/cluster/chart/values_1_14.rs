//! Values of kuik 1.14: each is honored, mapped or refused, and the documentation says which. Values files as users publish
//! them render objects that a cluster accepts.

use std::{collections::BTreeMap, fs, path::PathBuf};

use futures::{StreamExt as _, TryStreamExt as _};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{Judge, migration::parse, repository, template};

/// Rewrites the pages that are generated from [`rows`], instead of comparing them.
const WRITE: &str = "KUIK_WRITE_PAGES";

/// One value of kuik 1.14, as `keys.yaml` describes it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    value: String,
    default: Value,
    how: String,
    #[serde(default)]
    note: String,
    #[serde(default)]
    why: String,
    to: Value,
    #[serde(default)]
    given: BTreeMap<String, Value>,
}

fn folder() -> PathBuf {
    repository().join("kuik-bin/tests/cluster/chart/values-1.14")
}

fn yaml<T: serde::de::DeserializeOwned>(path: PathBuf) -> T {
    serde_saphyr::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

fn rows() -> Vec<Row> {
    yaml(folder().join("keys.yaml"))
}

/// Returns the value at a path of keys.
fn at<'a>(values: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(values, |value, key| value.get(key))
}

/// The full values file of kuik 1.14, with the images that the chart asks to remove.
fn full() -> Vec<String> {
    ["defaults.yaml", "images.yaml"]
        .map(|name| format!("--values={}", folder().join(name).display()))
        .to_vec()
}

/// Values files as users publish them, by name: each by itself, and over the full values file.
pub(super) fn files(over_the_full_file: bool) -> Vec<(String, Vec<String>)> {
    let first = if over_the_full_file { full() } else { Vec::new() };
    let mut all = vec![("defaults".to_owned(), first.clone())];
    let mut paths: Vec<_> =
        fs::read_dir(folder().join("variations")).unwrap().map(|it| it.unwrap().path()).collect();
    paths.sort();
    for path in paths {
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        all.push((name, [first.clone(), vec![format!("--values={}", path.display())]].concat()));
    }
    assert!(all.len() > 25);
    all
}

/// Renders, or returns the message of the refusal.
async fn outcome(values: &[String]) -> Result<String, String> {
    let values: Vec<_> = values.iter().map(String::as_str).collect();
    template("helm-3", &values).await.map_err(|error| error.to_string())
}

#[test]
fn every_value_of_1_14_has_a_row() {
    fn leaves(path: &str, value: &Value, rows: &BTreeMap<&str, &Row>, found: &mut Vec<String>) {
        match value {
            Value::Object(fields) if !rows.contains_key(path) => {
                for (key, value) in fields {
                    let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                    leaves(&path, value, rows, found);
                }
            }
            _ => {
                let row = rows.get(path).unwrap_or_else(|| panic!("keys.yaml has no {path}"));
                assert_eq!(row.default, *value, "{path}");
                assert_ne!(row.to, *value, "{path}");
                found.push(path.to_owned());
            }
        }
    }
    let defaults: Value = yaml(folder().join("defaults.yaml"));
    let rows = rows();
    let by_value = rows.iter().map(|row| (row.value.as_str(), row)).collect();
    let mut found = Vec::new();
    leaves("", &defaults, &by_value, &mut found);
    assert_eq!((found.len(), rows.len()), (154, 154));
}

/// Sets a value to another than its default, over the full values file. A value that changes nothing is ignored.
async fn set(row: &Row) -> Result<(), String> {
    let assignment = |(key, value): (&String, &Value)| format!("--set-json={key}={value}");
    let refused = row.how == "refused";
    // The refusal of a whole block names the keys that are set.
    let mut values = if refused && !row.given.is_empty() { Vec::new() } else { full() };
    values.extend(row.given.iter().map(assignment));
    let before = outcome(&values).await;
    values.push(assignment((&row.value, &row.to)));
    let after = outcome(&values).await;
    match (&before, &after) {
        _ if before == after => Err(format!("{} changes nothing", row.value)),
        (Ok(_), Ok(_)) if !refused => Ok(()),
        (_, Err(said)) if refused => {
            let block = row.value.split('.').next().unwrap();
            let block = if block == "proxy" { "proxy.kubeApiRateLimits" } else { block };
            let hint = format!("remove {block}");
            said.contains(&hint).then_some(()).ok_or_else(|| format!("{}: no hint: {said}", row.value))
        }
        _ => Err(format!("{} is not {}: {before:?}, then {after:?}", row.value, row.how)),
    }
}

#[tokio::test]
#[ignore = "needs parts built from Go: make built"]
async fn no_value_of_1_14_is_ignored() {
    let rows = rows();
    let ignored: Vec<_> = futures::stream::iter(&rows)
        .map(set)
        .buffer_unordered(2)
        .filter_map(|result| async { result.err() })
        .collect()
        .await;
    assert!(ignored.is_empty(), "{}", ignored.join("\n"));
}

#[tokio::test]
#[ignore = "needs parts built from Go: make built"]
async fn values_for_dockers_registry_are_named_on_kuik_registry() {
    let unused = async |values: &[String]| -> Option<String> {
        let objects = parse(&outcome(values).await.unwrap());
        let registry = objects.into_iter().find(|it| it["kind"] == "StatefulSet").unwrap();
        registry["metadata"]["annotations"]["kuik.enix.io/unused-values"].as_str().map(str::to_owned)
    };
    // The template repeats the defaults of values.yaml.
    assert_eq!(unused(&[]).await, None);
    let mut checked = 0;
    for row in rows().iter().filter(|row| row.given.contains_key("registry.kind")) {
        // Values of one block are named together.
        let value = row.value.split(".resources.").next().unwrap().split(".image.").next().unwrap();
        let block = row.value[value.len()..].trim_start_matches('.').split('.').next().unwrap();
        let value = if block.is_empty() { value.to_owned() } else { format!("{value}.{block}") };
        let said = unused(&[format!("--set-json={}={}", row.value, row.to)]).await;
        assert_eq!(said.as_ref(), Some(&value), "{}", row.value);
        checked += 1;
    }
    assert!(checked > 15);
}

/// Default of a value in this chart.
fn here(chart: &Value, row: &Row) -> Option<Value> {
    at(chart, &row.value).cloned()
}

fn chart_values() -> Value {
    yaml(repository().join("kuik-bin/chart/kube-image-keeper/values.yaml"))
}

#[test]
fn every_other_default_has_a_reason() {
    let chart = chart_values();
    for row in rows() {
        let same = here(&chart, &row).as_ref() == Some(&row.default);
        assert_eq!(same, row.why.is_empty(), "{}: {:?}", row.value, here(&chart, &row));
    }
}

/// A value in a cell of a table.
fn cell(value: Option<&Value>) -> String {
    let text = match value {
        None => return "–".to_owned(),
        Some(Value::String(text)) if !text.is_empty() => text.clone(),
        Some(value) => value.to_string(),
    };
    let short: String = text.chars().take(40).collect();
    // Without a part of a word.
    let whole = short.trim_end_matches(char::is_alphanumeric);
    let short = if short.len() < text.len() { format!("{whole}…") } else { short };
    format!("`{}`", short.replace('|', "\\|"))
}

fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| format!("{}{}", first.to_uppercase(), letters.as_str()))
}

/// The page of all values.
fn page(rows: &[Row], chart: &Value) -> String {
    let mut page = "# Values of kuik 1.14\n\n\
        Generated from `kuik-bin/tests/cluster/chart/values-1.14/keys.yaml` by `make values`. A test sets each value to another \
        than its default, and fails if nothing changes.\n\n\
        - **honored**: the value has the meaning that it has in 1.14.\n\
        - **mapped**: another setting of this version does what the value did.\n\
        - **refused**: `helm upgrade` fails with a message that says what to do, and changes nothing.\n\n\
        `null` removes a default, as in every chart. [The migration page](migration.md#other-defaults) lists the defaults that \
        differ, with reasons.\n\n\
        | value | default in 1.14 | default here | treatment | remark |\n|---|---|---|---|---|\n"
        .to_owned();
    for row in rows {
        let (theirs, ours) = (cell(Some(&row.default)), cell(here(chart, row).as_ref()));
        page += &format!("| `{}` | {theirs} | {ours} | {} | {} |\n", row.value, row.how, sentence(&row.note));
    }
    page
}

/// The table of other defaults.
fn differences(rows: &[Row], chart: &Value) -> String {
    let mut table = "| value | kuik 1.14 | this version | reason |\n|---|---|---|---|\n".to_owned();
    for row in rows.iter().filter(|row| !row.why.is_empty()) {
        let (theirs, ours) = (cell(Some(&row.default)), cell(here(chart, row).as_ref()));
        table += &format!("| `{}` | {theirs} | {ours} | {} |\n", row.value, row.why);
    }
    table
}

const BEGIN: &str = "<!-- generated by make values: other defaults -->\n";
const END: &str = "<!-- end -->\n";

#[test]
fn pages_say_what_becomes_of_each_value() {
    let (rows, chart) = (rows(), chart_values());
    let (all, migration) = ("docs/values-1.14.md", "docs/migration.md");
    let [all, migration] = [all, migration].map(|name| repository().join(name));
    let text = fs::read_to_string(&migration).unwrap();
    let (before, rest) = text.split_once(BEGIN).unwrap();
    let (_, after) = rest.split_once(END).unwrap();
    let wanted = [
        (all, page(&rows, &chart)),
        (migration, [before, BEGIN, &differences(&rows, &chart), END, after].concat()),
    ];
    for (path, wanted) in wanted {
        if std::env::var_os(WRITE).is_some() {
            fs::write(&path, &wanted).unwrap();
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), wanted, "make values writes {} again", path.display());
    }
}

async fn judged(over_the_full_file: bool) {
    let judge = Judge::start().await;
    futures::stream::iter(files(over_the_full_file))
        .map(Ok::<_, ()>)
        .try_for_each_concurrent(2, async |(name, values)| {
            let values: Vec<_> = values.iter().map(String::as_str).collect();
            judge.accepts(&name, &values).await;
            Ok(())
        })
        .await
        .unwrap();
}

#[tokio::test]
#[ignore = "needs parts built from Go: make built"]
async fn values_files_as_users_publish_them_render_valid_objects() {
    judged(false).await;
}

#[tokio::test]
#[ignore = "needs parts built from Go: make built"]
async fn values_files_over_all_defaults_of_1_14_render_valid_objects() {
    judged(true).await;
}

/// The first pod template of a component, and what its values set.
async fn pod(values: &[&str], component: &str) -> Value {
    let values: Vec<_> = values.iter().map(|&value| value.to_owned()).collect();
    let objects = parse(&outcome(&values).await.unwrap());
    let found = objects.into_iter().find(|object| {
        object["spec"]["template"]["spec"]["containers"].is_array()
            && object["metadata"]["labels"]["app.kubernetes.io/component"] == component
    });
    found.unwrap()["spec"]["template"]["spec"].clone()
}

#[tokio::test]
#[ignore = "needs parts built from Go: make built"]
async fn empty_security_contexts_are_none_and_openshift_assigns_users() {
    let openshift = "--api-versions=security.openshift.io/v1";
    let empty = "--set-json=registry.podSecurityContext={}";
    let volume = "--set=registry.persistence.enabled=true";
    let user = |pod: &Value| pod["securityContext"]["runAsUser"].clone();
    assert_eq!(user(&pod(&[], "registry").await), 65532);
    assert_eq!(pod(&[empty], "registry").await["securityContext"], Value::Object(Map::new()));
    // kuik-registry is no root user, and a new volume belongs to root.
    let on_a_volume = pod(&[empty, volume], "registry").await;
    assert_eq!(on_a_volume["securityContext"], serde_json::json!({"fsGroup": 65532}));
    for values in [&[openshift, volume][..], &[openshift, volume, empty]] {
        for component in ["registry", "proxy", "controllers"] {
            let context = pod(values, component).await["securityContext"].clone();
            for assigned in ["runAsUser", "runAsGroup", "fsGroup"] {
                assert!(context.get(assigned).is_none(), "{values:?}: {component}: {context}");
            }
        }
    }
    let none = "--set-json=proxy.securityContext={}";
    assert_eq!(pod(&[none], "proxy").await["containers"][0]["securityContext"], Value::Object(Map::new()));
}

#[tokio::test]
#[ignore = "needs parts built from Go: make built"]
async fn every_pod_is_for_linux_and_a_quota_admits_every_container() {
    let docker = "--set=registry.kind=distribution,registry.persistence.enabled=true";
    let mine = "--set=proxy.nodeSelector.pool=a,controllers.nodeSelector.pool=a,registry.nodeSelector.pool=a";
    for (values, containers) in
        [(vec![docker], 9), (vec![docker, mine], 9), (vec!["--set=proxy.mode=both"], 4)]
    {
        let values: Vec<_> = values.into_iter().map(str::to_owned).collect();
        let mut checked = 0;
        for object in parse(&outcome(&values).await.unwrap()) {
            let [workload, job] =
                [&object["spec"]["template"], &object["spec"]["jobTemplate"]["spec"]["template"]];
            let Some(spec) = [workload, job].iter().find_map(|it| it["spec"].as_object()) else { continue };
            assert_eq!(spec["nodeSelector"]["kubernetes.io/os"], "linux", "{}", object["kind"]);
            if values.iter().any(|it| it.contains("pool=a")) {
                assert_eq!(spec["nodeSelector"]["pool"], "a", "{}", object["kind"]);
            }
            let lists = ["initContainers", "containers"].map(|key| spec.get(key).and_then(Value::as_array));
            for container in lists.into_iter().flatten().flatten() {
                for limit in ["requests", "limits"] {
                    for resource in ["cpu", "memory"] {
                        let quantity = &container["resources"][limit][resource];
                        assert!(quantity.is_string(), "{}: no {limit} of {resource}", container["name"]);
                    }
                }
                checked += 1;
            }
        }
        assert_eq!(checked, containers, "{values:?}");
    }
}

#[tokio::test]
#[ignore = "needs parts built from Go: make built"]
async fn cache_gets_the_forward_proxies_and_roles_of_the_accounts_that_pulled() {
    let variable = |name: &str, value: &str| format!("{{\"name\":\"{name}\",\"value\":\"{value}\"}}");
    let proxy = format!("--set-json=proxy.env=[{}]", variable("https_proxy", "http://a.example"));
    let both =
        [variable("HTTPS_PROXY", "http://b.example"), variable("NO_PROXY", ".svc"), variable("OTHER", "x")]
            .join(",");
    let controllers = format!("--set-json=controllers.env=[{both}]");
    let environment = async |values: &[&str]| {
        let registry = pod(values, "registry").await["containers"][0].clone();
        let list = registry["env"].as_array().cloned().unwrap_or_default();
        let text = |it: &Value| it.as_str().unwrap().to_owned();
        list.iter().map(|it| (text(&it["name"]), text(&it["value"]))).collect::<Vec<_>>()
    };
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let inherited = environment(&[&proxy, &controllers]).await;
    assert_eq!(inherited, [pair("https_proxy", "http://a.example"), pair("NO_PROXY", ".svc")]);
    let own = format!("--set-json=registry.env=[{}]", variable("HTTPS_PROXY", "http://c.example"));
    let set = environment(&[&proxy, &controllers, &own]).await;
    assert_eq!(set, [pair("NO_PROXY", ".svc"), pair("HTTPS_PROXY", "http://c.example")]);

    let roles = [
        "--set=serviceAccount.annotations.role=old,serviceAccount.annotations.more=a".to_owned(),
        "--set=registry.serviceAccount.annotations.role=bucket".to_owned(),
    ];
    let objects = parse(&outcome(&roles).await.unwrap());
    let role = |name: &str| {
        let account = |it: &&Value| {
            it["kind"] == "ServiceAccount" && it["metadata"]["name"] == format!("kube-image-keeper-{name}")
        };
        objects.iter().find(account).unwrap()["metadata"]["annotations"].clone()
    };
    assert_eq!(role("registry"), serde_json::json!({"role": "bucket", "more": "a"}));
    assert_eq!(role("proxy"), serde_json::json!({"role": "old", "more": "a"}));
    assert_eq!(role("controllers"), role("proxy"));
}

#[tokio::test]
#[ignore = "needs parts built from Go: make built"]
async fn host_network_opens_metrics_on_the_loopback_address_only() {
    let host = "--set=proxy.hostNetwork=true";
    for (values, pulls, metrics, probed) in [
        (vec![], ":8082", ":8080", None),
        (vec![host], "localhost:7439", "localhost:8080", Some("127.0.0.1")),
        (vec![host, "--set=proxy.hostIp=::1"], "localhost:7439", "localhost:8080", Some("::1")),
        (vec![host, "--set=proxy.hostIp=fd00::7"], "[fd00::7]:7439", "[fd00::7]:8080", Some("fd00::7")),
        (vec![host, "--set=proxy.metricsHostIp=0.0.0.0"], "localhost:7439", "0.0.0.0:8080", None),
        (vec![host, "--set=proxy.metricsHostIp=::"], "localhost:7439", "[::]:8080", None),
    ] {
        let container = pod(&values, "proxy").await["containers"][0].clone();
        let arguments = container["args"].as_array().unwrap();
        for argument in [format!("--bind-address={pulls}"), format!("--metrics-bind-address={metrics}")] {
            assert!(
                arguments.contains(&Value::String(argument.clone())),
                "{values:?}: {argument} {arguments:?}"
            );
        }
        for probe in ["readinessProbe", "livenessProbe"] {
            assert_eq!(container[probe]["httpGet"].get("host").and_then(Value::as_str), probed, "{values:?}");
        }
    }
    for (ip, url) in [
        ("127.0.0.1", "http://127.0.0.1:7439"),
        ("::1", "http://[::1]:7439"),
        ("0.0.0.0", "http://127.0.0.1:7439"),
    ] {
        let ip = format!("--set=proxy.mode=both,proxy.hostIp={ip}");
        let arguments = pod(&[&ip], "proxy").await["initContainers"][0]["args"].clone();
        assert!(arguments.to_string().contains(&format!("--endpoint={url}\"")), "{arguments}");
    }
}

#[tokio::test]
#[ignore = "needs parts built from Go: make built"]
async fn quota_for_critical_pods_is_created_on_gke() {
    let quotas = async |values: &[&str]| {
        let values: Vec<_> = values.iter().map(|&it| it.to_owned()).collect();
        let objects = parse(&outcome(&values).await.unwrap());
        objects.iter().filter(|object| object["kind"] == "ResourceQuota").count()
    };
    let (gke, on, off) = (
        "--api-versions=networking.gke.io/v1",
        "--set=priorityClassQuota.create=true",
        "--set=priorityClassQuota.create=false",
    );
    for (values, count) in [(&[][..], 0), (&[gke], 1), (&[on], 1), (&[gke, off], 0)] {
        assert_eq!(quotas(values).await, count, "{values:?}");
    }
}

/// A null removes the default of a block. 1.14 renders only those that it does not look into.
#[tokio::test]
#[ignore = "needs parts built from Go: make built"]
async fn a_null_block_renders_or_is_refused_by_its_name() {
    fn blocks(path: &str, value: &Value, found: &mut Vec<String>) {
        for (key, value) in value.as_object().into_iter().flatten() {
            let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            blocks(&path, value, found);
            found.push(path);
        }
    }
    let mut all = Vec::new();
    blocks("", &yaml(folder().join("defaults.yaml")), &mut all);
    blocks("", &chart_values(), &mut all);
    all.sort();
    all.dedup();
    let failed: Vec<String> = futures::stream::iter(all)
        .map(async |path| {
            let said = outcome(&[format!("--set={path}=null")]).await.err()?;
            let named =
                said.contains("missing property") || said.contains(&path) || said.contains("got null");
            (!named || said.contains("nil pointer")).then(|| format!("{path}: {said}"))
        })
        .buffer_unordered(2)
        .filter_map(|failed| async { failed })
        .collect()
        .await;
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}
