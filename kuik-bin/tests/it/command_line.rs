//! Exit codes and error messages of the command line, the configuration, and the name that a program is started under.

use std::{path::Path, process::Command};

use crate::support::{Kuik, entries, get, kuik, kuik_proxy, kuik_registry};

#[tokio::test]
async fn the_second_process_on_a_directory_is_refused() {
    let data = tempfile::tempdir().unwrap();
    let first = Kuik::serve(data.path(), &[]).await;
    let path = data.path().to_str().unwrap();
    let arguments = ["serve", "--bind-address", "127.0.0.1:0", "--data-dir", path];
    let second = crate::support::output(&arguments).await;
    let said = String::from_utf8(second.stderr).unwrap();
    assert_eq!(second.status.code(), Some(1), "{said}");
    assert!(said.contains(path) && said.contains(&format!("pid {}", first.pid())), "{said}");
    assert_eq!(get(first.address(), "/readyz").await.status, 200, "the first one is not disturbed");

    first.kill().await;
    Kuik::serve(data.path(), &[]).await;
}

#[tokio::test]
async fn every_mistake_of_a_configuration_is_reported_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("kuik.yaml");
    std::fs::write(&file, "dataDri: /typo\nlogFormat: xml\n").unwrap();
    let output = kuik(["serve", "--bind-address", "nowhere", "--upstream", "docker.io", "--docker-config"])
        .args(["/does/not/exist.json", "--revalidate-after", "soon", "--config"])
        .arg(&file)
        .env("KUIK_SHUTDOWN_TIMEOUT", "-5m")
        .output()
        .await
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(output.stdout.is_empty());
    let expected = [
        "bind-address",
        "data-dir",
        "dataDri",
        "docker-config",
        "log-format",
        "revalidate-after",
        "shutdown-timeout",
        "upstream",
    ];
    for key in expected {
        assert!(said.contains(&format!("\n  {key}: ")), "{key} is not reported:\n{said}");
    }
    assert!(said.contains(&format!("{} mistakes", expected.len())), "{said}");
    assert_eq!(entries(folder.path()), 1, "nothing was made");
}

#[tokio::test]
async fn missing_files_on_the_command_line_are_usage_errors() {
    for arguments in [&["serve", "--data-dirr", "x"][..], &["serf"], &["serve", "--data-dir"]] {
        let output = crate::support::output(arguments).await;
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {output:?}");
        assert!(!output.stderr.is_empty());
    }
}

#[tokio::test]
async fn system_errors_are_failures_that_name_the_cause() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a-file");
    std::fs::write(&file, "").unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (file, data) = (file.to_str().unwrap(), folder.path().join("data"));
    for (bind, data_dir, named) in [("127.0.0.1:0", file, file), (&address, data.to_str().unwrap(), &address)]
    {
        let output = crate::support::output(&["serve", "--bind-address", bind, "--data-dir", data_dir]).await;
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(named), "{said}");
    }
}

#[tokio::test]
async fn mistakes_in_the_configuration_of_a_proxy_are_all_reported() {
    let arguments =
        ["--registry-endpoint", "registry", "--metrics-bind-address", "8080", "--bind-address", "x"];
    let output = kuik_proxy(arguments).output().await.unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.starts_with("kuik-proxy: ") && said.contains("3 mistakes"), "{said}");
}

#[tokio::test]
async fn mistakes_in_the_configuration_of_a_registry_are_all_reported() {
    let output =
        kuik_registry(["--storage", "ftp://bucket", "--max-uploads", "many"]).output().await.unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.contains("\"ftp://bucket\" is not file:///DIR, s3://") && said.contains("max-uploads: "),
        "{said}"
    );
}

#[test]
fn under_the_name_of_another_program_it_is_that_one() {
    let folder = tempfile::tempdir().unwrap();
    for (name, program) in [
        ("kuik", env!("CARGO_BIN_EXE_kuik")),
        ("kuik-controller", env!("CARGO_BIN_EXE_kuik-controller")),
        ("kuik-proxy", env!("CARGO_BIN_EXE_kuik-proxy")),
        ("kuik-registry", env!("CARGO_BIN_EXE_kuik-registry")),
        ("kuik-webhook", env!("CARGO_BIN_EXE_kuik-webhook")),
    ] {
        let link = folder.path().join(name);
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_kuik"), &link).unwrap();
        let help =
            |program: &Path| String::from_utf8(Command::new(program).arg("--help").output().unwrap().stdout);
        let told = help(&link).unwrap();
        assert!(told.contains(&format!("Usage: {name} ")), "{told}");
        assert_eq!(told, help(Path::new(program)).unwrap());
    }
}
