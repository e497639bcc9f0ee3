//! Start of the rendered containers: each program runs with exactly the arguments, environment and probes that the chart
//! renders for a values file, and every probe passes.
//!
//! The test runs in its own network namespace, so that the rendered ports are free, and a probe without a host reaches an
//! address that is not the loopback address, as that of a pod. Programs find the API server as in a pod, with a token of the
//! rendered service account, which has the rendered roles. Mounted folders and the storage are those of the test.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use kuik_testkit::real::ApiServer;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    process::{Child, Command},
    time::{Instant, sleep, timeout},
};

use super::{migration::parse, template, values_1_14};

/// Set in the network namespace of the test.
const ISOLATED: &str = "KUIK_TEST_ISOLATED";

/// Folder in which programs find the token of their service account; /run is empty in the mount namespace.
const ACCOUNT: &str = "/run/secrets/kubernetes.io/serviceaccount";

/// Address of every pod.
const POD: &str = "10.1.0.7";

/// Time limit for a probe to pass, and for a program to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs the calling test again in new network and mount namespaces, unless it runs there: then returns `false`.
async fn runs_isolated(test: &str) -> bool {
    if std::env::var_os(ISOLATED).is_some() {
        return false;
    }
    let script = format!(
        "ip link set lo up && ip address add {POD}/32 dev lo && mount -t tmpfs run /run && exec \"$0\" \"$@\""
    );
    let this = std::env::current_exe().unwrap();
    let mut command = Command::new("unshare");
    command.args(["--net", "--mount"]);
    if !rustix::process::geteuid().is_root() {
        command.arg("--map-root-user");
    }
    command.args(["--", "sh", "-c", &script]).arg(this);
    command.args(["--exact", test, "--include-ignored", "--nocapture"]).env(ISOLATED, "1").kill_on_drop(true);
    let status = command.status().await.unwrap();
    assert!(status.success(), "failed in its network namespace: {status}");
    true
}

/// A container as the chart renders it, with what distinguishes it from others.
#[derive(Debug, Clone, PartialEq)]
struct Container {
    spec: Value,
    component: String,
    account: String,
}

impl Container {
    fn texts(&self, key: &str) -> Vec<String> {
        let list = self.spec[key].as_array().into_iter().flatten();
        list.map(|text| text.as_str().unwrap().to_owned()).collect()
    }

    fn mounts(&self) -> Vec<String> {
        let mounts = self.spec["volumeMounts"].as_array().into_iter().flatten();
        mounts.map(|mount| mount["mountPath"].as_str().unwrap().to_owned()).collect()
    }

    /// Whether it runs until it is stopped.
    fn serves(&self) -> bool {
        self.spec.get("ports").is_some()
    }

    /// Key of all that decides how it starts; images and quotas do not.
    fn identity(&self) -> String {
        let keys =
            ["command", "args", "env", "readinessProbe", "livenessProbe", "startupProbe", "volumeMounts"];
        keys.map(|key| self.spec[key].to_string()).concat()
    }
}

/// The containers of our programs, and of Docker's registry, in a rendering.
fn containers(objects: &[Value]) -> Vec<Container> {
    let mut found = Vec::new();
    for object in objects {
        let templates = [&object["spec"]["template"], &object["spec"]["jobTemplate"]["spec"]["template"]];
        for pod in templates.map(|template| &template["spec"]) {
            let lists = [&pod["initContainers"], &pod["containers"]].map(Value::as_array);
            for spec in lists.into_iter().flatten().flatten() {
                let first = spec["command"][0].as_str().unwrap_or_default();
                let is_registry = matches!(spec["name"].as_str(), Some("registry" | "collect-garbage"));
                if first.starts_with("/kuik") || is_registry {
                    let component = object["metadata"]["labels"]["app.kubernetes.io/component"].as_str();
                    found.push(Container {
                        spec: spec.clone(),
                        component: component.unwrap().to_owned(),
                        account: pod["serviceAccountName"].as_str().unwrap().to_owned(),
                    });
                }
            }
        }
    }
    found
}

/// Files with sample contents in place of the volumes of a pod.
struct Volumes {
    folder: tempfile::TempDir,
    authority: String,
    key: String,
}

impl Volumes {
    fn new() -> Self {
        let made = rcgen::generate_simple_self_signed(["kuik.test".to_owned()]).unwrap();
        let volumes = Self {
            folder: tempfile::tempdir().unwrap(),
            authority: made.cert.pem(),
            key: made.signing_key.serialize_pem(),
        };
        fs::create_dir(volumes.folder.path().join("bin")).unwrap();
        volumes
    }

    /// Folder in place of a mounted one.
    fn place(&self, mount: &str) -> PathBuf {
        let place = self.folder.path().join(mount.trim_start_matches('/').replace('/', "-"));
        fs::create_dir_all(&place).unwrap();
        place
    }

    /// Replaces mounted folders in a text, and creates the file that it names there.
    fn replace(&self, text: &str, mounts: &[String]) -> String {
        for mount in mounts.iter().filter(|mount| *mount != "/tmp") {
            let Some(start) = text.find(mount.as_str()) else { continue };
            let place = self.place(mount);
            let rest = &text[start + mount.len()..];
            if let Some(name) = rest.strip_prefix('/').filter(|name| is_file(name)) {
                fs::write(place.join(name), self.content(name)).unwrap();
            }
            return text.replace(mount.as_str(), place.to_str().unwrap());
        }
        text.to_owned()
    }

    fn content(&self, name: &str) -> String {
        match name {
            "token" => "0123456789abcdef0123456789abcdef".to_owned(),
            "tls.key" => self.key.clone(),
            "credentials.json" => service_account(),
            _ => self.authority.clone(),
        }
    }
}

/// Whether this is the name of a file, not a part of a script.
fn is_file(name: &str) -> bool {
    let simple = name.chars().all(|c| c.is_ascii_alphanumeric() || ".-_".contains(c));
    simple && (name.contains('.') || name == "token")
}

/// A key of a Google service account.
fn service_account() -> String {
    let made = std::process::Command::new("openssl").args(["genrsa", "2048"]).output().unwrap();
    let key = String::from_utf8(made.stdout).unwrap();
    assert!(key.contains("PRIVATE KEY"), "openssl makes no key");
    json!({"type": "service_account", "project_id": "p", "private_key_id": "k", "private_key": key,
        "client_email": "kuik@p.iam.gserviceaccount.com", "token_uri": "http://127.0.0.1:1/token"})
    .to_string()
}

/// Value of an environment variable; `None` for an optional one that is not set.
fn value(variable: &Value) -> Option<String> {
    if let Some(value) = variable["value"].as_str() {
        return Some(value.to_owned());
    }
    let source = &variable["valueFrom"];
    if let Some(field) = source["fieldRef"]["fieldPath"].as_str() {
        return Some(if field == "metadata.namespace" { "kuik-system" } else { "pod" }.to_owned());
    }
    match source["secretKeyRef"]["key"].as_str() {
        Some("accountname") => Some("account".to_owned()),
        // Base64, as the keys of Azure.
        Some(_) => Some("c2FtcGxlLWtleQ==".to_owned()),
        None => None,
    }
}

/// Storage of the cache in a run.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Storage {
    /// As rendered; a bucket does not respond.
    Rendered,
    /// A folder instead of a bucket.
    Folder,
}

/// The program of a container, in place of the one in its image.
fn program(container: &Container) -> PathBuf {
    let command = container.texts("command");
    let path = match command.first().map(String::as_str) {
        Some("/kuik-controller") => env!("CARGO_BIN_EXE_kuik-controller"),
        Some("/kuik-proxy") => env!("CARGO_BIN_EXE_kuik-proxy"),
        Some("/kuik-registry") => env!("CARGO_BIN_EXE_kuik-registry"),
        Some("sh") => "sh",
        None => "docker-registry",
        Some(other) => panic!("the image has no {other}"),
    };
    path.into()
}

fn command(container: &Container, storage: Storage, volumes: &Volumes, api: &Api) -> Command {
    let mounts = container.mounts();
    let mut command = Command::new(program(container));
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap());
    command.env("KUBERNETES_SERVICE_HOST", &api.host).env("KUBERNETES_SERVICE_PORT", &api.port);
    command.env("TMPDIR", volumes.place("tmp")).env("OTEL_TRACES_EXPORTER", "none");
    for variable in container.spec["env"].as_array().into_iter().flatten() {
        if let Some(value) = value(variable) {
            command.env(variable["name"].as_str().unwrap(), volumes.replace(&value, &mounts));
        }
    }
    if program(container) == Path::new("docker-registry") {
        let config = volumes.place("etc").join("config.yml");
        fs::write(&config, "version: 0.1\nstorage: {filesystem: {rootdirectory: /var/lib/registry}}\nhttp: {addr: ':5000'}\n")
            .unwrap();
        command.arg("serve").arg(config);
    }
    let words = [
        container.texts("command").split_off(1.min(container.texts("command").len())),
        container.texts("args"),
    ];
    for word in words.concat() {
        match word.strip_prefix("--storage=") {
            Some(url) if storage == Storage::Folder && !url.starts_with("file:") => {
                command.arg(format!("--storage=file://{}", volumes.place("storage").display()));
            }
            _ if storage == Storage::Folder && word.starts_with("--storage-") => {}
            _ => {
                let word = volumes.replace(&word, &mounts);
                command.arg(
                    word.replace("/dev/termination-log", volumes.place("end").join("log").to_str().unwrap()),
                );
            }
        }
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

/// A program with what it writes.
struct Running {
    child: Child,
    log: tokio::task::JoinHandle<String>,
}

impl Running {
    fn start(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let mut stderr = child.stderr.take().unwrap();
        let log = tokio::spawn(async move {
            let mut log = Vec::new();
            let _ = stderr.read_to_end(&mut log).await;
            String::from_utf8_lossy(&log).into_owned()
        });
        Self { child, log }
    }

    async fn ended(&mut self) -> Option<ExitStatus> {
        timeout(PATIENCE, self.child.wait()).await.ok().map(Result::unwrap)
    }

    async fn stop(mut self) -> String {
        let _ = self.child.kill().await;
        self.log.await.unwrap()
    }
}

/// The response to a probe: a status, or why there is none.
async fn probe(address: &str, path: &str) -> Result<u16, String> {
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nUser-Agent: kube-probe\r\nConnection: close\r\n\r\n"
    );
    let exchange = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut response = Vec::new();
        stream.read_to_end(&mut response).await?;
        Ok::<_, std::io::Error>(String::from_utf8_lossy(&response).into_owned())
    };
    let response = timeout(Duration::from_secs(5), exchange).await.map_err(|_| "no response".to_owned())?;
    let response = response.map_err(|error| error.to_string())?;
    let status = response.split(' ').nth(1).and_then(|status| status.parse().ok());
    status.ok_or_else(|| format!("no status in {response:?}"))
}

/// Address and path of a probe, as the kubelet finds them.
fn target(container: &Container, probe: &Value) -> (String, String) {
    let get = &probe["httpGet"];
    assert!(
        get.is_object() && get.get("scheme").is_none_or(|it| it == "HTTP"),
        "a probe of another kind: {probe}"
    );
    let port = match &get["port"] {
        Value::String(name) => {
            let ports = container.spec["ports"].as_array().unwrap();
            ports.iter().find(|port| port["name"] == *name).unwrap()["containerPort"].clone()
        }
        port => port.clone(),
    };
    let host = get["host"].as_str().unwrap_or(POD);
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    (format!("{host}:{port}"), get["path"].as_str().unwrap_or("/").to_owned())
}

/// Starts a container and waits until these probes pass; a program that exits fails.
async fn serves(name: &str, container: &Container, run: Command, probes: &[&str]) {
    let mut running = Running::start(run);
    for kind in probes {
        let Some(spec) = container.spec.get(*kind) else { continue };
        let (address, path) = target(container, spec);
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = running.child.try_wait().unwrap() {
                panic!("{name}: {} ended, {status}:\n{}", container.component, running.stop().await);
            }
            let seen = probe(&address, &path).await;
            if seen.as_ref().is_ok_and(|status| (200..400).contains(status)) {
                break;
            }
            if Instant::now() > deadline {
                let log = running.stop().await;
                panic!("{name}: {kind} of {} at {address}{path}: {seen:?}\n{log}", container.component);
            }
            sleep(Duration::from_millis(20)).await;
        }
    }
    // Another program needs its ports.
    running.stop().await;
}

async fn succeeds(name: &str, container: &Container, command: Command) {
    let mut running = Running::start(command);
    let status = running.ended().await;
    assert!(
        status.is_some_and(|it| it.success()),
        "{name}: {:?}:\n{}",
        container.spec["name"],
        running.stop().await
    );
}

async fn start(name: &str, container: &Container, api: &Api) {
    let volumes = Volumes::new();
    let build = |storage| command(container, storage, &volumes, api);
    if !container.serves() {
        return succeeds(name, container, build(Storage::Rendered)).await;
    }
    let bucket =
        container.texts("args").iter().any(|it| it.starts_with("--storage=") && !it.contains("=file:"));
    if bucket {
        // Not ready without its bucket, and alive.
        serves(name, container, build(Storage::Rendered), &["livenessProbe"]).await;
    }
    serves(name, container, build(Storage::Folder), &["startupProbe", "readinessProbe", "livenessProbe"])
        .await;
}

/// Kinds of the objects that programs need in a cluster.
const KINDS: [&str; 6] = [
    "ServiceAccount",
    "ClusterRole",
    "ClusterRoleBinding",
    "Role",
    "RoleBinding",
    "MutatingWebhookConfiguration",
];

/// The API server, as pods find it.
struct Api {
    server: ApiServer,
    host: String,
    port: String,
}

impl Api {
    async fn start(definitions: &str) -> Self {
        let server = ApiServer::start().await.unwrap();
        let url = server.url();
        let (host, port) = url.strip_prefix("https://").unwrap().rsplit_once(':').unwrap();
        let (host, port) = (host.to_owned(), port.to_owned());
        server.admin().kubectl(["create", "namespace", "kuik-system"]).await.unwrap();
        server.admin().apply(definitions).await.unwrap();
        fs::create_dir_all(ACCOUNT).unwrap();
        fs::write(Path::new(ACCOUNT).join("ca.crt"), server.certificate_authority()).unwrap();
        fs::write(Path::new(ACCOUNT).join("namespace"), "kuik-system").unwrap();
        Self { server, host, port }
    }

    /// Creates the objects of a rendering that its programs need.
    async fn prepare(&self, objects: &[Value]) {
        let needed = objects.iter().filter(|object| KINDS.iter().any(|kind| object["kind"] == *kind));
        let list = json!({"apiVersion": "v1", "kind": "List", "items": needed.collect::<Vec<_>>()});
        self.server.admin().apply(&list.to_string()).await.unwrap();
    }

    /// Mounts a token of a service account, which a user may have created.
    async fn log_in(&self, account: &str) {
        let admin = self.server.admin();
        let object = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": account, "namespace": "kuik-system"}});
        if admin.kubectl(["get", "serviceaccount", account, "--namespace=kuik-system"]).await.is_err() {
            admin.apply(&object.to_string()).await.unwrap();
        }
        let user = self.server.service_account("kuik-system", account).await.unwrap();
        let config = fs::read_to_string(user.kubeconfig()).unwrap();
        let (_, rest) = config.split_once("token: \"").unwrap();
        let token = rest.split('"').next().unwrap();
        fs::write(Path::new(ACCOUNT).join("token"), token).unwrap();
    }
}

/// Starts each container of these values files once.
async fn all_start(over_the_full_file: bool) {
    let definitions = Path::new(&super::chart()).join("files/crds.yaml");
    let api = Api::start(&fs::read_to_string(definitions).unwrap()).await;
    let mut seen: BTreeMap<String, String> = BTreeMap::new();
    for (name, values) in values_1_14::files(over_the_full_file) {
        let values: Vec<_> = values.iter().map(String::as_str).collect();
        let objects =
            parse(&template("helm-3", &values).await.unwrap_or_else(|error| panic!("{name}: {error}")));
        let mut prepared = false;
        let containers = containers(&objects);
        assert!(containers.len() >= 3, "{name}: {}", containers.len());
        for container in containers {
            if seen.insert(container.identity(), name.clone()).is_none() {
                if !prepared {
                    api.prepare(&objects).await;
                    prepared = true;
                }
                api.log_in(&container.account).await;
                start(&name, &container, &api).await;
            }
        }
    }
    assert!(seen.len() > 20, "{seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs parts built from Go: make built"]
async fn every_container_of_every_values_file_starts() {
    if !runs_isolated("chart::started::every_container_of_every_values_file_starts").await {
        all_start(false).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs parts built from Go: make built"]
async fn every_container_over_all_defaults_of_1_14_starts() {
    if !runs_isolated("chart::started::every_container_over_all_defaults_of_1_14_starts").await {
        all_start(true).await;
    }
}
