//! `tools/image`: the same inputs make the same image, with a bill of materials, and nothing in it but what runs.

use std::{
    fs,
    io::Read as _,
    path::{Path, PathBuf},
    process::Command,
};

use kuik_testkit::real::{DockerRegistry, RegistryOptions, skopeo};
use serde_json::Value;

/// A small program in place of ours, in a folder of `folder`.
fn binaries(folder: &Path) -> PathBuf {
    let binaries = folder.join("binaries");
    fs::create_dir(&binaries).unwrap();
    fs::copy("/bin/true", binaries.join("kuik")).unwrap();
    binaries
}

/// Makes the image of small programs, so that this tests the tool and not the compiler; returns what it printed.
fn make(binaries: &Path, output: &Path) -> String {
    let repository = PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned();
    let made = Command::new(repository.join("tools/image"))
        .args(["--binaries".as_ref(), binaries.as_os_str(), "--output".as_ref(), output.as_os_str()])
        .env("SOURCE_DATE_EPOCH", "1700000000")
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    String::from_utf8(made.stdout).unwrap().trim().to_owned()
}

fn json(layout: &Path, digest: &Value) -> Value {
    let name = digest.as_str().unwrap().replace(':', "/");
    serde_json::from_slice(&fs::read(layout.join("blobs").join(name)).unwrap()).unwrap()
}

#[tokio::test]
async fn the_same_inputs_make_the_same_image() {
    let folder = tempfile::tempdir().unwrap();
    let binaries = binaries(folder.path());
    let (one, two) = (folder.path().join("one"), folder.path().join("two"));
    let digest = make(&binaries, &one);
    assert_eq!(digest, make(&binaries, &two));
    let names = |layout: &Path| {
        let blobs = fs::read_dir(layout.join("blobs/sha256")).unwrap();
        let mut names: Vec<_> = blobs.map(|blob| blob.unwrap().file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(names(&one), names(&two), "the bill of materials included");
    fs::copy("/bin/false", binaries.join("kuik")).unwrap();
    assert_ne!(digest, make(&binaries, &two));

    let reference = format!("oci:{}:kuik", one.display());
    let config: Value =
        serde_json::from_str(&skopeo(["inspect", "--config", &reference]).await.unwrap()).unwrap();
    assert_eq!(config["config"]["User"], "65532:65532");
    assert_eq!(config["created"], "2023-11-14T22:13:20Z");

    let top: Value = serde_json::from_slice(&fs::read(one.join("index.json")).unwrap()).unwrap();
    assert_eq!(top["manifests"][0]["digest"], digest.as_str());
    let image = json(&one, &top["manifests"][0]["digest"])["manifests"][0].clone();
    let programs = json(&one, &image["digest"])["layers"][1]["digest"].clone();
    let layer = fs::File::open(one.join("blobs").join(programs.as_str().unwrap().replace(':', "/"))).unwrap();
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(layer));
    let (mut links, mut files) = (Vec::new(), Vec::new());
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = entry.path().unwrap().display().to_string();
        if let Some(target) = entry.link_name().unwrap() {
            links.push((path, target.display().to_string()));
        } else if entry.header().entry_type().is_file() {
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            let mode = entry.header().mode().unwrap() & 0o777;
            files.push((path, mode, content == fs::read("/bin/true").unwrap()));
        }
    }
    links.sort();
    // The program as it was given, which every user may run.
    assert_eq!(files, [("./kuik".to_owned(), 0o755, true)]);
    let programs = ["controller", "proxy", "registry", "webhook"];
    assert_eq!(links, programs.map(|name| (format!("./kuik-{name}"), "kuik".to_owned())));
    let referrer = json(&one, &top["manifests"][1]["digest"]);
    assert_eq!(referrer["subject"]["digest"], image["digest"]);
    let materials = json(&one, &referrer["layers"][0]["digest"]);
    let packages = materials["packages"].as_array().unwrap();
    let named = |name: &str| packages.iter().any(|package| package["name"] == name);
    assert!(named("kuik-bin") && named("rustls") && packages.len() > 100, "{} packages", packages.len());
}

/// As it is written for people; but the program is there already, and their registry is one of ours, without TLS.
#[tokio::test]
async fn the_commands_of_the_page_make_it_and_push_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let page = fs::read_to_string(root.join("docs/installation.md")).unwrap();
    let (_, rest) = page.split_once("## The image\n").unwrap();
    let commands = rest.split_once("```text\n").unwrap().1.split_once("```").unwrap().0;

    let folder = tempfile::tempdir().unwrap();
    let binaries = binaries(folder.path());
    let registry = DockerRegistry::start(&RegistryOptions::default()).await.unwrap();
    let image = folder.path().join("image").display().to_string();
    let tool = format!("tools/image --binaries {}", binaries.display());
    let mut script = commands.to_owned();
    for (written, ours) in [
        ("tools/image", &*tool),
        ("target/image", &image),
        ("skopeo copy", "skopeo copy --dest-tls-verify=false"),
        ("registry.example", &registry.host()),
    ] {
        assert!(script.contains(written), "{script}");
        script = script.replace(written, ours);
    }
    let ran = Command::new("sh").args(["-euc", &script]).current_dir(root).output().unwrap();
    assert!(ran.status.success(), "{script}: {}", String::from_utf8_lossy(&ran.stderr));

    let pushed = format!("docker://{}/kuik:0.1.0", registry.host());
    let config = skopeo(["inspect", "--config", "--tls-verify=false", &pushed]).await.unwrap();
    let config: Value = serde_json::from_str(&config).unwrap();
    assert_eq!(config["config"]["Entrypoint"], serde_json::json!(["/kuik"]));
}
