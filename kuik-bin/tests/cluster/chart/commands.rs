//! Container arguments of the chart: the programs accept the flags and values, and containers of one pod listen on
//! different ports.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::Command,
};

use clap::Parser as _;
use kuik_bin::config::{controller::RawController, proxy::RawProxy, registry::RawRegistry};
use serde_json::Value;

use super::{INSTALLATIONS, every_value, template};

/// Mount paths of the files that programs read at startup.
const MOUNTED: [&str; 2] = ["/etc/kuik", "/var/lib/registry"];

/// A container that runs one of our programs.
#[derive(Debug)]
struct Container {
    program: String,
    arguments: Vec<String>,
    environment: Vec<String>,
    probed: Vec<u64>,
}

#[derive(Debug, clap::Parser)]
#[command(no_binary_name = true)]
struct Told<T: clap::Args> {
    #[command(flatten)]
    raw: T,
}

fn texts(list: &Value) -> Vec<String> {
    list.as_array().into_iter().flatten().map(|text| text.as_str().unwrap().to_owned()).collect()
}

fn container(value: &Value) -> Option<Container> {
    let mut words = texts(&value["command"]).into_iter();
    let program = words.next()?.strip_prefix("/kuik-").map(|name| format!("kuik-{name}"))?;
    let named = value["env"].as_array().into_iter().flatten();
    let probes = ["readinessProbe", "livenessProbe"].map(|probe| value[probe]["httpGet"]["port"].as_u64());
    Some(Container {
        program,
        arguments: words.chain(texts(&value["args"])).collect(),
        environment: named.map(|variable| variable["name"].as_str().unwrap().to_owned()).collect(),
        probed: probes.into_iter().flatten().collect(),
    })
}

/// The containers of our programs, by pod.
fn pods(rendered: &str) -> BTreeMap<String, Vec<Container>> {
    let documents = rendered.split("\n---").filter(|document| document.contains("containers:"));
    let workloads = documents.map(|document| serde_saphyr::from_str::<Value>(document).unwrap());
    let pods = workloads.map(|workload| {
        let spec = &workload["spec"]["template"]["spec"];
        let lists = [&spec["initContainers"], &spec["containers"]].map(Value::as_array);
        let containers = lists.into_iter().flatten().flatten().filter_map(container).collect();
        (workload["metadata"]["name"].as_str().unwrap_or_default().to_owned(), containers)
    });
    pods.filter(|(_, containers): &(_, Vec<_>)| !containers.is_empty()).collect()
}

fn executable(program: &str) -> &'static str {
    match program {
        "kuik-controller" => env!("CARGO_BIN_EXE_kuik-controller"),
        "kuik-proxy" => env!("CARGO_BIN_EXE_kuik-proxy"),
        "kuik-registry" => env!("CARGO_BIN_EXE_kuik-registry"),
        other => panic!("the image has no {other}"),
    }
}

/// Output of `--help` after these arguments, which succeeds only if the program has all of them.
fn help(program: &str, arguments: &[String]) -> String {
    let output = Command::new(executable(program)).args(arguments).arg("--help").output().unwrap();
    let refused = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {refused}");
    String::from_utf8(output.stdout).unwrap()
}

/// Why a program would not start; `files` has what the chart mounts.
fn refusal(container: &Container, files: &Path) -> Option<String> {
    fn told<T: clap::Args>(arguments: &[String]) -> T {
        Told::try_parse_from(arguments).unwrap_or_else(|error| panic!("{arguments:?}: {error}")).raw
    }
    let files = files.to_str().unwrap();
    let mounted =
        |argument: &String| MOUNTED.iter().fold(argument.clone(), |text, path| text.replace(path, files));
    let arguments: Vec<_> = container.arguments.iter().map(mounted).collect();
    let refused = match container.program.as_str() {
        "kuik-controller" => told::<RawController>(&arguments).validate().err(),
        "kuik-proxy" => told::<RawProxy>(&arguments).validate().err(),
        _ => told::<RawRegistry>(&arguments).validate().err(),
    };
    refused.map(|error| error.to_string())
}

/// Ports of all listen addresses of a program, by flag: all its address flags are set, and 0 means none.
fn ports(container: &Container, help: &str) -> BTreeSet<u64> {
    let flags =
        help.split_whitespace().filter(|word| word.starts_with("--") && word.ends_with("bind-address"));
    flags
        .map(|flag| {
            let said = container.arguments.iter().find_map(|argument| argument.strip_prefix(flag));
            let said = said.unwrap_or_else(|| panic!("{} has its default {flag}", container.program));
            said.rsplit(['=', ':']).next().unwrap().parse().unwrap()
        })
        .filter(|port| *port != 0)
        .collect()
}

/// Content of the Secrets, for the values of [`every_value`].
fn files() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(["webhook".to_owned()]).unwrap();
    for (name, content) in [
        ("authorities/root.pem", made.cert.pem()),
        ("authorities/other.pem", made.cert.pem()),
        ("registry-authority/ca.crt", made.cert.pem()),
        ("registry-token/token", "0123456789abcdef0123456789abcdef".to_owned()),
        ("certificate/tls.crt", made.cert.pem()),
        ("certificate/tls.key", made.signing_key.serialize_pem()),
        ("token/token", "0123456789abcdef0123456789abcdef".to_owned()),
    ] {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    folder
}

#[tokio::test]
#[ignore = "needs parts built from Go: make built"]
async fn programs_take_what_the_chart_tells_them() {
    let (files, file) = (files(), every_value());
    let every: (&str, &[&str]) = ("with every value", &["--values", &file]);
    let mut told = BTreeSet::new();
    for (name, values) in INSTALLATIONS.into_iter().chain([every]) {
        let rendered = template("helm-3", values).await.unwrap();
        for (pod, containers) in pods(&rendered) {
            let mut taken = BTreeSet::new();
            for container in containers {
                let Container { program, arguments, environment, probed } = &container;
                let help = help(program, arguments);
                told.insert(program.clone());
                for variable in
                    environment.iter().filter(|name| name.starts_with("KUIK_") || name.starts_with("POD_"))
                {
                    assert!(
                        help.contains(&format!("[env: {variable}]")),
                        "{name}: {program} reads no {variable}"
                    );
                }
                if arguments.first().is_some_and(|first| !first.starts_with("--")) {
                    continue;
                }
                assert_eq!(refusal(&container, files.path()), None, "{name}: {program}");
                let ports = ports(&container, &help);
                for port in probed {
                    assert!(ports.contains(port), "{name}: {program} is probed on {port}, and has {ports:?}");
                }
                for port in ports {
                    assert!(taken.insert(port), "{name}: two programs of {pod} listen on {port}");
                }
            }
        }
    }
    assert_eq!(Vec::from_iter(told), ["kuik-controller", "kuik-proxy", "kuik-registry"]);
}
