//! Commands of the user's pages that need a node, as they are written there. All others are run by `tests/documentation.rs`.

use std::{fs, path::Path};

use kuik_core::testkit::real::{run_within, skopeo};
use serde_json::Value;

use super::{
    Image, Scenario,
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

/// What the commands of a block print in `folder`. The first one forwards a port for the others, which a person at a
/// terminal waits for.
async fn run_block(folder: &Path, block: &str) -> String {
    let (forward, rest) = block.split_once("&\n").unwrap();
    let wait = "until curl --silent --output /dev/null http://localhost:5000/healthz; do sleep 0.1; done";
    let script = format!(
        "set -euo pipefail; cd {folder:?}; {forward}>/dev/null & forward=$!; trap 'kill $forward' EXIT; {wait}\n{rest}"
    );
    run_within(PATIENCE, "bash", "bash", ["-c", &script]).await.unwrap()
}

#[tokio::test]
async fn garbage_is_collected_when_somebody_asks() {
    let scenario = Scenario::begin("pages-garbage").await;
    let printed =
        run_block(scenario.place.busybox.parent().unwrap(), &block("garbage-collection.md", "/gc")).await;
    let answers = serde_json::Deserializer::from_str(&printed).into_iter::<Value>();
    let dry: Vec<_> = answers.map(|answer| answer.unwrap()["dryRun"].as_bool()).collect();
    assert_eq!(dry, [Some(true), Some(false)], "{printed}");
}

/// Nobody here reaches Docker Hub: the image comes from the archive that was carried in.
#[tokio::test]
async fn an_image_that_was_carried_in_starts_where_no_registry_is_reached() {
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
