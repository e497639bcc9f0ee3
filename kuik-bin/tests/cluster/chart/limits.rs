//! Size limits of the cache: every storage has one that the registry keeps to, and the notes say which.

use kuik_testkit::real::{InstallSource, run};
use serde_json::Value;

use super::{chart, template};

const IN_A_BUCKET: &str = "--set=registry.persistence.s3.bucket=b";
const ON_A_VOLUME: &str = "--set=registry.persistence.enabled=true";

/// The size limit of kuik-registry, that of its `emptyDir`, and what the notes say about it.
async fn limits(values: &[&str]) -> (Option<String>, Option<String>, String) {
    let rendered = template("helm-3", values).await.unwrap();
    let documents = rendered.split("\n---").filter(|document| document.contains("\nkind: StatefulSet"));
    let pods: Vec<Value> = documents.map(|document| serde_saphyr::from_str(document).unwrap()).collect();
    let pod = &pods[0]["spec"]["template"]["spec"];
    let arguments = pod["containers"][0]["args"].as_array().into_iter().flatten();
    let limit = arguments.filter_map(|it| it.as_str()?.strip_prefix("--max-size=")).next().map(str::to_owned);
    let volume = pod["volumes"].as_array().unwrap().iter().find(|volume| volume["name"] == "data");
    let size = volume.and_then(|volume| volume["emptyDir"]["sizeLimit"].as_str().map(str::to_owned));

    let chart = chart();
    let mut arguments = vec!["install", "kube-image-keeper", &chart, "--dry-run=client"];
    arguments.extend(values);
    let said = run("helm-4", InstallSource::BuiltFromGo, arguments).await.unwrap();
    let notes = said.split_once("NOTES:\n").unwrap().1;
    let line = notes.lines().find(|line| line.contains("size limit")).unwrap_or_default().to_owned();
    (limit, size, line)
}

#[tokio::test]
#[ignore = "needs parts built from Go: make built"]
async fn every_storage_has_a_size_limit_that_can_be_changed_and_unset() {
    let empty = "registry.persistence.emptyDirSizeLimit";
    let bucket = "registry.persistence.bucketMaxSize";
    // An emptyDir is larger than what is kept in it: kubelet evicts a pod that exceeds it.
    for (values, limit, size, said) in [
        (&[][..], Some("18432Mi"), Some("20Gi"), empty),
        (&["--set=registry.persistence.emptyDirSizeLimit=1Gi"], Some("921Mi"), Some("1Gi"), empty),
        (&["--set=registry.persistence.emptyDirSizeLimit="], None, None, "has no size limit"),
        (&["--set=registry.maxSize=10Gi"], Some("10Gi"), Some("20Gi"), "10Gi: registry.maxSize"),
        (&["--set=registry.maxSize=50Gi"], Some("50Gi"), Some("56889Mi"), "50Gi: registry.maxSize"),
        (&["--set=registry.maxSize=1.5Ti"], Some("1.5Ti"), None, "1.5Ti: registry.maxSize"),
        (&["--set=registry.kind=distribution"], None, Some("20Gi"), "has no size limit"),
        (&[ON_A_VOLUME], Some("18432Mi"), None, "90 % of registry.persistence.size"),
        (&[ON_A_VOLUME, "--set=registry.persistence.size=21474836480"], Some("18432Mi"), None, "18432Mi"),
        (&[IN_A_BUCKET], Some("500Gi"), None, bucket),
        (&[IN_A_BUCKET, "--set=registry.maxSize=2Ti"], Some("2Ti"), None, "2Ti: registry.maxSize"),
        (&[IN_A_BUCKET, "--set=registry.persistence.bucketMaxSize="], None, None, "has no size limit"),
        (&[IN_A_BUCKET, "--set=registry.persistence.bucketMaxSize=null"], None, None, "has no size limit"),
    ] {
        let (is, of, line) = limits(values).await;
        assert_eq!((is.as_deref(), of.as_deref()), (limit, size), "{values:?}");
        assert!(line.contains(said), "{values:?}: {line}");
    }
}
