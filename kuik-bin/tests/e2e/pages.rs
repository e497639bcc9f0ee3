//! Commands of the user's pages that need a node, as they are written there. All others are run by `tests/documentation.rs`.

use std::{fs, path::Path};

use kuik_testkit::real::{run_within, skopeo};
use serde_json::Value;

use super::{
    Image, Scenario, Upstream,
    expiry::expire,
    pod::{image_of, rewritten},
    promise::kept,
    wait::PATIENCE,
};

/// The block of a page that has `words` in it and is shown as text.
fn block(page: &str, words: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(page);
    let text = fs::read_to_string(path).unwrap();
    let mut blocks = text.split("```text\n").skip(1).map(|rest| rest.split("```").next().unwrap().to_owned());
    blocks.find(|block| block.contains(words)).unwrap_or_else(|| panic!("{page} has no {words}"))
}

/// Returns the output of a block's commands in `folder`. The first one forwards a port for the others, which wait for it.
async fn run_block(folder: &Path, block: &str) -> String {
    let (forward, rest) = block.split_once("&\n").unwrap();
    let wait = "until curl --silent --output /dev/null http://localhost:5000/healthz; do sleep 0.1; done";
    let script = format!(
        "set -euo pipefail; cd {folder:?}; {forward}>/dev/null & forward=$!; trap 'kill $forward' EXIT; {wait}\n{rest}"
    );
    run_within(PATIENCE, "bash", "bash", ["-c", &script]).await.unwrap()
}

#[tokio::test]
async fn garbage_is_collected_on_request() {
    let mut scenario = Scenario::begin("pages-garbage").await;
    // An expired image is garbage at once, and stays until it is collected on request.
    let settings = [("KUIK_GC_GRACE", "0s"), ("KUIK_GC_INTERVAL", "never")].into_iter().enumerate();
    let settings = settings.flat_map(|(number, (name, value))| {
        let variable = format!("registry.env[{number}]");
        [format!("{variable}.name={name}"), format!("{variable}.value={value}")]
    });
    let settings: Vec<_> = settings.collect();
    scenario.install(&settings.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let upstream = Upstream::open(&scenario.place).await;
    let image = Image::marked(&scenario.place.busybox, "garbage");
    let name = upstream.push(&image, "pages-garbage/app:1").await;
    scenario.start(&scenario.pod("garbage", &name)).await;
    kept(&name).await;
    scenario.delete("garbage").await;
    expire(&name).await;

    let printed =
        run_block(scenario.place.busybox.parent().unwrap(), &block("garbage-collection.md", "/gc")).await;
    let answers = serde_json::Deserializer::from_str(&printed).into_iter::<Value>();
    let answers: Vec<_> = answers.map(Result::unwrap).collect();
    let [dry, done] = &answers[..] else { panic!("{printed}") };
    assert_eq!((&dry["dryRun"], &done["dryRun"]), (&true.into(), &false.into()), "{printed}");
    // A manifest, a configuration and a layer.
    let listed = dry["garbage"].as_array().unwrap().len();
    assert!(listed >= 3 && done["removed"] == listed, "{printed}");
}

/// Docker Hub is unreachable here: the image comes from the imported archive.
#[tokio::test]
async fn imported_image_starts_without_any_reachable_registry() {
    let scenario = Scenario::begin("pages-carried").await;
    let folder = tempfile::tempdir().unwrap();
    let image = Image::marked(&scenario.place.busybox, "carried");
    let archive = format!("oci-archive:{}/nginx.tar", folder.path().display());
    skopeo(["copy", "--quiet", &image.reference(), &archive]).await.unwrap();
    run_block(folder.path(), &block("restricted-networks.md", "oci-archive:nginx.tar")).await;
    let name = "docker.io/library/nginx:1.25";
    let pod = scenario.start(&scenario.pod("carried", "nginx:1.25")).await;
    assert_eq!(image_of(&pod, "main"), rewritten(name).replace("docker.io/library/", ""));
    assert_eq!(scenario.mark("carried", "main").await, "carried");
    kept(name).await;
    scenario.delete("carried").await;
    scenario.place.forget("nginx").await;
}
