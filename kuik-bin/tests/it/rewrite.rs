//! Golden tests of `kuik rewrite`, on the manifests next to this file.
//!
//! `rewrite/NAME.in.EXT` is a manifest, `NAME.out.EXT` the rewritten one, `NAME.err` the report. They are compared byte for
//! byte.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/rewrite")
}

fn kuik(arguments: &[&str], input: &[u8]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_kuik"))
        .arg("rewrite")
        .args(arguments)
        .current_dir(folder())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    // One that refuses its command line never reads its input.
    let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    output
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs on standard input, and must fail with nothing on standard output. Returns what it says.
fn refused(arguments: &[&str], input: &[u8], code: i32) -> String {
    let output = kuik(arguments, input);
    assert_eq!(output.status.code(), Some(code), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), "");
    text(&output.stderr)
}

fn accepted(arguments: &[&str], input: &[u8]) -> (String, String) {
    let output = kuik(arguments, input);
    assert!(output.status.success(), "{}", text(&output.stderr));
    (text(&output.stdout), text(&output.stderr))
}

fn pod(container: &str) -> String {
    format!("kind: Pod\nmetadata: {{name: p}}\nspec: {{containers: [{{name: c, {container}}}]}}\n")
}

#[test]
fn every_manifest_becomes_its_golden_one_and_then_stays_as_it_is() {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let Some((stem, extension)) = name.split_once(".in.") else { continue };
        let golden = |name: String| fs::read_to_string(folder().join(name)).unwrap();
        let expected = golden(format!("{stem}.out.{extension}"));

        let (output, said) = accepted(&["-f", &name], b"");
        assert_eq!(output, expected, "{name}");
        assert_eq!(said, golden(format!("{stem}.err")), "{name}");

        let (again, said) = accepted(&["-f", "-"], output.as_bytes());
        assert_eq!(again, output, "{name}");
        assert!(!said.contains(" -> "), "{said}");
        names.push(name);
    }
    assert!(names.len() >= 10, "{names:?}");
}

#[test]
fn only_images_change() {
    let before = fs::read_to_string(folder().join("kinds.in.yaml")).unwrap();
    let after = fs::read_to_string(folder().join("kinds.out.yaml")).unwrap();
    let undone = after
        .replace("localhost:7439/", "")
        .replace("registry.example.com__5000", "registry.example.com:5000");
    assert_eq!(undone, before);
}

#[test]
fn a_policy_of_always_is_kept_unless_told_otherwise() {
    let always = pod("image: nginx, imagePullPolicy: Always");
    for flags in [
        &["-f", "-"][..],
        &["-f", "-", "--ignore-pull-policy-always=true"],
        &["-f", "-", "--ignore-pull-policy-always"],
    ] {
        let (output, said) = accepted(flags, always.as_bytes());
        assert_eq!(output, always);
        assert_eq!(said, "Pod/-/p, container c: nginx kept: pull policy is Always\n");
    }
    for flags in [
        &["-f", "-", "--ignore-pull-policy-always=false"][..],
        &["-f", "-", "--ignore-pull-policy-always", "false"],
    ] {
        let (output, _) = accepted(flags, always.as_bytes());
        assert_eq!(output, pod("image: localhost:7439/nginx, imagePullPolicy: Always"));
    }
}

#[test]
fn patterns_and_port_are_obeyed() {
    let manifest = pod("image: nginx:1");
    let (output, _) = accepted(&["-f", "-", "--port", "5000"], manifest.as_bytes());
    assert_eq!(output, pod("image: localhost:5000/nginx:1"));
    let (output, said) =
        accepted(&["-f", "-", "--ignore-images", "quay", "--ignore-images", "^nginx"], manifest.as_bytes());
    assert_eq!(output, manifest);
    assert!(said.contains("^nginx"), "{said}");
    let (output, said) = accepted(&["-f", "-", "--accept-images", "^quay"], manifest.as_bytes());
    assert_eq!(output, manifest);
    assert!(said.ends_with("kept: no accept pattern matches\n"), "{said}");
    let (output, _) =
        accepted(&["-f", "-", "--accept-images", "^quay", "--accept-images", "nginx"], manifest.as_bytes());
    assert_ne!(output, manifest);
}

/// Returns a Deployment in `namespace` whose pods have this metadata and these fields.
fn deployment(namespace: &str, metadata: &str, spec: &str) -> String {
    format!(
        "kind: Deployment\nmetadata: {{name: d, {namespace}}}\nspec: {{template: {{metadata: {{{metadata}}}, \
         spec: {{{spec} containers: [{{name: c, image: 'nginx:1'}}]}}}}}}\n"
    )
}

#[test]
fn pods_are_selected_as_by_the_webhook() {
    let rewrites = |flags: &[&str], manifest: &str| {
        let (output, said) = accepted(&[&["-f", "-"], flags].concat(), manifest.as_bytes());
        assert_eq!(output == manifest, said.contains(" kept: "), "{said}");
        said
    };
    for (namespace, metadata, spec, flags, reason) in [
        ("namespace: kube-system", "", "", &[][..], "namespace is ignored"),
        ("namespace: monitoring", "", "", &["--ignore-namespaces=a,monitoring"], "namespace is ignored"),
        ("", "", "", &["-n", "kube-system"], "namespace is ignored"),
        ("namespace: shop", "", "", &["-n", "kube-system"], ""),
        (
            "",
            "labels: {kube-image-keeper.enix.io/image-caching-policy: ignore}",
            "",
            &[],
            "pod opted out by label",
        ),
        ("", "annotations: {kuik.enix.io/rewrite-images: 'false'}", "", &[], "pod opted out by annotation"),
        ("", "annotations: {kuik.enix.io/rewrite-images: 'true'}", "", &[], ""),
        // Of the Deployment, and not of its pods.
        ("annotations: {kuik.enix.io/rewrite-images: 'false'}", "", "", &[], ""),
        ("", "annotations: {kubernetes.io/config.mirror: x}", "", &[], "pod is a mirror of a static pod"),
        ("", "", "priorityClassName: system-node-critical,", &[], "the node may need this pod"),
        ("", "", "priorityClassName: system-node-critical,", &["--ignore-node-critical-pods=false"], ""),
        ("", "", "hostNetwork: true, tolerations: [{operator: Exists}],", &[], "the node may need this pod"),
        ("", "", "os: {name: windows},", &[], "Windows"),
        ("", "", "nodeSelector: {type: virtual-kubelet},", &[], "virtual node"),
    ] {
        let said = rewrites(flags, &deployment(namespace, metadata, spec));
        assert!(said.contains(reason) && said.contains(" kept: ") != reason.is_empty(), "{reason}: {said}");
    }
}

#[test]
fn loopback_registries_are_kept_unless_named() {
    let manifest = pod("image: 'localhost:5001/app:1'");
    let (output, said) = accepted(&["-f", "-"], manifest.as_bytes());
    assert_eq!(output, manifest);
    assert!(said.contains("loopback"), "{said}");
    let named = ["-f", "-", "--insecure-registries", "http://localhost:5001"];
    let (output, _) = accepted(&named, manifest.as_bytes());
    assert!(output.contains("localhost:7439/localhost__5001/app:1"), "{output}");
}

#[test]
fn pod_of_a_backup_is_rewritten_for_the_present_port() {
    let backup = |port: u16| {
        format!(
            "kind: Pod\nmetadata: {{annotations: {{original-image-c: 'nginx:1'}}}}\n\
             spec: {{containers: [{{name: c, image: 'localhost:{port}/nginx:1'}}]}}\n"
        )
    };
    let (output, said) = accepted(&["-f", "-"], backup(7440).as_bytes());
    // The text may be quoted in another way.
    assert_eq!(output.replace('\'', ""), backup(7439).replace('\'', ""), "{said}");
}

#[test]
fn several_files_are_printed_in_their_order() {
    let (output, said) = accepted(
        &["-f", "no-line-end.in.yaml", "-f", "-", "-f", "empty.in.yaml"],
        pod("image: a:1").as_bytes(),
    );
    let first = fs::read_to_string(folder().join("no-line-end.out.yaml")).unwrap();
    assert_eq!(output, format!("{first}\n---\n{}---\n", pod("image: localhost:7439/a:1")));
    assert_eq!(said.lines().count(), 2);
}

#[test]
fn bad_manifests_are_named_with_line_and_column_and_nothing_is_printed() {
    let bad = format!("{}---\nkind: Pod\nspec: {{containers: [\nx: y\n", pod("image: nginx:1"));
    let said = refused(&["-f", "-", "-f", "kinds.in.yaml"], bad.as_bytes(), 1);
    assert!(said.starts_with("kuik: standard input:7:"), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(refused(&["-f", "-"], b"a: *nope\n", 1).starts_with("kuik: standard input:1:4: "));
    assert_eq!(refused(&["-f", "-"], b"a: b\n\xff\n", 1), "kuik: standard input:2:1: not UTF-8 text\n");
    let said = refused(&["-f", "absent.yaml", "-f", "../rewrite", "-f", "kinds.in.yaml"], b"", 1);
    assert!(said.contains("kuik: absent.yaml: ") && said.contains("\n../rewrite: "), "{said}");
}

#[test]
fn bombs_are_refused() {
    let mut bomb = "a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n".to_owned();
    for level in 1..30 {
        let aliases = vec![format!("*a{}", level - 1); 9].join(", ");
        bomb.push_str(&format!("a{level}: &a{level} [{aliases}]\n"));
    }
    let said = refused(&["-f", "-"], bomb.as_bytes(), 1);
    assert!(said.contains("aliases expand to too much content"), "{said}");
    for deep in ["[".repeat(50_000), "- ".repeat(50_000), "{\"a\":".repeat(50_000)] {
        refused(&["-f", "-"], deep.as_bytes(), 1);
    }
    refused(&["-f", "-"], b"kind: &k {a: *k}\n", 1);
}

#[test]
fn input_is_bounded() {
    let comment = b"# a comment that has no meaning, but that takes up a lot of space...\n";
    let endless = comment.repeat((64 << 20) / comment.len() + 1);
    let said = refused(&["-f", "-"], &endless, 1);
    assert!(said.contains("64 MiB"), "{said}");
}

#[test]
fn a_wrong_command_line_is_refused() {
    refused(&[], b"", 2);
    refused(&["-f"], b"", 2);
    refused(&["-f", "-", "--port", "0"], b"", 2);
    refused(&["-f", "-", "--port", "65536"], b"", 2);
    refused(&["-f", "-", "--ignore-pull-policy-always=perhaps"], b"", 2);
    refused(&["-f", "-", "-f", "-"], b"", 2);
    let said = refused(
        &["-f", "-", "--ignore-images", "a(b", "--accept-images", "[z-a]", "--accept-images", "ok"],
        b"",
        2,
    );
    assert!(said.contains("a(b") && said.contains("[z-a]"), "{said}");
}
