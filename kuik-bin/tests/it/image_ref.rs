//! `kuik image-ref`, as a user runs it.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Command, Stdio},
};

use serde_json::{Value, json};

fn kuik() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kuik"));
    command.arg("image-ref").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn answers(arguments: &[&str]) -> Vec<Value> {
    let output = kuik().args(arguments).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
    String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn arguments_are_answered_in_their_order() {
    let digest = format!("sha256:{}", "0123456789abcdef".repeat(4));
    let by_digest = format!("registry:5000/app@{digest}");
    let answers = answers(&["nginx", &by_digest, "[::1]:5000/app:1", "--port", "8082", "Nginx"]);
    assert_eq!(
        answers,
        [
            json!({
                "input": "nginx", "valid": true, "registry": "docker.io", "repository": "library/nginx",
                "tag": null, "digest": null, "normalized": "docker.io/library/nginx:latest",
                "familiar": "nginx", "proxied": "localhost:8082/nginx",
            }),
            json!({
                "input": by_digest, "valid": true, "registry": "registry:5000", "repository": "app",
                "tag": null, "digest": digest, "normalized": by_digest, "familiar": by_digest,
                "proxied": format!("localhost:8082/registry__5000/app@{digest}"),
            }),
            json!({
                "input": "[::1]:5000/app:1", "valid": true, "registry": "[::1]:5000", "repository": "app",
                "tag": "1", "digest": null, "normalized": "[::1]:5000/app:1", "familiar": "[::1]:5000/app:1",
                "proxied": null,
            }),
            json!({
                "input": "Nginx", "valid": false,
                "error": "'N' at byte 0 is an upper-case letter, in a repository's path: it has lower-case letters and \
                          digits, with '.', '_', '__' or dashes between them, in parts divided by '/'",
            }),
        ]
    );
}

#[test]
fn lines_are_answered_while_the_input_is_open() {
    let mut child = kuik().stdin(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap()).lines();
    for (image, familiar) in [("docker.io/library/a\n", "a"), ("docker.io/b/c\r\n", "b/c")] {
        input.write_all(image.as_bytes()).unwrap();
        let answer: Value = serde_json::from_str(&output.next().unwrap().unwrap()).unwrap();
        assert_eq!(answer["familiar"], familiar);
    }
    drop(input);
    assert!(output.next().is_none());
    assert!(child.wait().unwrap().success());
}

#[test]
fn closed_output_is_not_a_failure() {
    let mut child = kuik().stdin(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    // More than any buffer on the way holds; writing fails where kuik has left already.
    let _ = child.stdin.take().unwrap().write_all("nginx\n".repeat(100_000).as_bytes());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}

#[test]
fn a_port_that_is_none_is_refused() {
    let output = kuik().args(["nginx", "--port", "0"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
}
