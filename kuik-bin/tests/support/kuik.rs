//! `kuik`, `kuik-registry`, `kuik-proxy`, `kuik-webhook` and `kuik-controller`, the built binaries, in an environment that configures nothing.

use std::{
    ffi::OsStr,
    net::SocketAddr,
    path::Path,
    process::{ExitStatus, Output, Stdio},
    time::Duration,
};

use kuik_testkit::real::KubeUser;
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, ChildStderr, Command},
    sync::watch,
    time::timeout,
};

use super::{Clock, PATIENCE};

/// `kuik`, without what the environment of the tests says to it.
pub(crate) fn kuik<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Command {
    binary(env!("CARGO_BIN_EXE_kuik"), arguments)
}

/// `kuik-registry`, likewise.
pub(crate) fn kuik_registry<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Command {
    binary(env!("CARGO_BIN_EXE_kuik-registry"), arguments)
}

/// `kuik-proxy`, likewise.
pub(crate) fn kuik_proxy<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Command {
    binary(env!("CARGO_BIN_EXE_kuik-proxy"), arguments)
}

/// `kuik-webhook`, likewise.
pub(crate) fn kuik_webhook<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Command {
    binary(env!("CARGO_BIN_EXE_kuik-webhook"), arguments)
}

fn binary<S: AsRef<OsStr>>(path: &str, arguments: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(path);
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy().to_ascii_uppercase();
        if text.starts_with("KUIK_")
            || text.starts_with("AWS_")
            || text.starts_with("OTEL_")
            || text.ends_with("_PROXY")
        {
            command.env_remove(&name);
        }
    }
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.kill_on_drop(true);
    command
}

/// `kuik-controller`, likewise, without the webhook unless its address is given.
fn controller(kubeconfig: &Path, arguments: &[&str]) -> Command {
    let mut command = binary(env!("CARGO_BIN_EXE_kuik-controller"), arguments);
    command.env("KUIK_WEBHOOK_BIND_ADDRESS", "0").env("KUBECONFIG", kubeconfig);
    command.args(["--health-probe-bind-address", "127.0.0.1:0"]);
    command
}

/// The controllers of the namespace `kuik-system`. The registries of tests are on the loopback interface, whose images are
/// kept unless they are named.
fn controllers(user: &KubeUser, cache: &str, arguments: &[&str]) -> Command {
    let all = ["--namespace=kuik-system", "--insecure-registries=127.0.0.1", "--registry-endpoint", cache];
    controller(user.kubeconfig(), &[&all[..], arguments].concat())
}

/// The log line with the address of the admin endpoints.
const ADMIN: &str = "listening for admin requests";

/// A running `kuik serve`, `kuik-registry`, `kuik-proxy`, `kuik-webhook` or `kuik-controller`.
#[derive(Debug)]
pub(crate) struct Kuik {
    child: Child,
    pid: u32,
    address: SocketAddr,
    log: watch::Receiver<String>,
}

impl Kuik {
    /// Serves `data_dir` on a free port of `127.0.0.1`, with these arguments more; waits until it listens.
    pub(crate) async fn serve(data_dir: &Path, arguments: &[&str]) -> Self {
        let mut command = kuik(["serve", "--bind-address", "127.0.0.1:0", "--data-dir"]);
        command.arg(data_dir).args(arguments);
        Self::start(command).await
    }

    /// A registry in `data_dir` on a free port of `127.0.0.1`, with these arguments more.
    pub(crate) async fn registry(data_dir: &Path, arguments: &[&str]) -> Self {
        Self::registry_at("127.0.0.1:0", data_dir, arguments).await
    }

    /// Like the above, at a given address.
    pub(crate) async fn registry_at(address: &str, data_dir: &Path, arguments: &[&str]) -> Self {
        let storage = format!("file://{}", data_dir.display());
        let mut command = kuik_registry(["--bind-address", address, "--storage", &storage]);
        command.args(arguments);
        Self::start(command).await
    }

    /// Like the above, with a clock of its own.
    pub(crate) async fn registry_by(
        clock: &Clock,
        address: &str,
        data_dir: &Path,
        arguments: &[&str],
    ) -> Self {
        let storage = format!("file://{}", data_dir.display());
        let mut command = kuik_registry(["--bind-address", address, "--storage", &storage]);
        command.args(arguments).envs(clock.environment());
        Self::start(command).await
    }

    /// A registry in any storage, with these arguments and environment more.
    pub(crate) async fn registry_in(storage: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut command = kuik_registry(["--bind-address", "127.0.0.1:0", "--storage", storage]);
        command.args(arguments).envs(environment.iter().copied());
        Self::start(command).await
    }

    /// A node's proxy over these replicas of the cache; waits until it knows them.
    pub(crate) async fn proxy(replicas: &[String], arguments: &[&str]) -> Self {
        let endpoints = replicas.join(",");
        let mut command = kuik_proxy(["--bind-address", "127.0.0.1:0", "--metrics-bind-address"]);
        command.args(["127.0.0.1:0", "--registry-endpoint", &endpoints]).args(arguments);
        let proxy = Self::start(command).await;
        proxy.logs("cache replicas changed").await;
        proxy
    }

    /// The same at an address that is known before, with this environment more, started by `launcher` (a program with its
    /// arguments, to which the command is added; none is needed).
    pub(crate) async fn proxy_at(
        address: &str,
        replicas: &[String],
        arguments: &[&str],
        environment: &[(&str, &str)],
        launcher: &[&str],
    ) -> Self {
        let endpoints = replicas.join(",");
        let mut all =
            vec!["--bind-address", address, "--metrics-bind-address", "0", "--registry-endpoint", &endpoints];
        all.extend(arguments);
        let mut command = match launcher {
            [] => kuik_proxy(all),
            [program, first @ ..] => {
                let path = env!("CARGO_BIN_EXE_kuik-proxy");
                let mut command = binary(program, first.iter().copied().chain([path]));
                command.args(all);
                command
            }
        };
        command.envs(environment.iter().copied());
        let proxy = Self::start(command).await;
        proxy.logs("cache replicas changed").await;
        proxy
    }

    /// A webhook with these arguments and environment; waits until it has a certificate and listens.
    pub(crate) async fn webhook(arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut command = kuik_webhook(arguments);
        command.envs(environment.iter().copied());
        Self::start(command).await
    }

    /// A registry that allows anonymous pushes and fetches missing content from the registry at `source`, without TLS.
    pub(crate) async fn open_cache(address: &str, data_dir: &Path, source: &str) -> Self {
        let flags = ["--pull-through", "--insecure-registries", source, "--allow-anonymous-push"];
        Self::registry_at(address, data_dir, &flags).await
    }

    /// The controllers of the namespace `kuik-system` as this user, over the cache at `cache`, with these arguments more.
    pub(crate) async fn controllers(user: &KubeUser, cache: &str, arguments: &[&str]) -> Self {
        Self::start_saying(controllers(user, cache, arguments), ADMIN).await
    }

    /// Like the above, with a clock of its own.
    pub(crate) async fn controllers_by(
        clock: &Clock,
        user: &KubeUser,
        cache: &str,
        arguments: &[&str],
    ) -> Self {
        let mut command = controllers(user, cache, arguments);
        command.envs(clock.environment());
        Self::start_saying(command, ADMIN).await
    }

    /// The controllers with these arguments, without the webhook unless its address is given; the process address is that of
    /// the admin endpoints.
    pub(crate) async fn controller(kubeconfig: &Path, arguments: &[&str]) -> Self {
        Self::start_saying(controller(kubeconfig, arguments), ADMIN).await
    }

    /// Runs a command of this module; waits until it serves.
    pub(crate) async fn start(command: Command) -> Self {
        Self::start_saying(command, " serving ").await
    }

    /// Starts it, and waits until a line with `words` has its address.
    async fn start_saying(mut command: Command, words: &str) -> Self {
        let mut child = command.spawn().unwrap();
        let pid = child.id().unwrap();
        let log = read(child.stderr.take().unwrap());
        shows(&log, |log| address_in(log, words).is_some()).await;
        let said = log.borrow().clone();
        let address = address_in(&said, words).unwrap_or_else(|| panic!("kuik did not start: {said}"));
        Self { child, pid, address, log }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn host(&self) -> String {
        self.address.to_string()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Returns its log so far.
    pub(crate) fn log(&self) -> String {
        self.log.borrow().clone()
    }

    /// Waits until the log has `text` in it.
    pub(crate) async fn logs(&self, text: &str) {
        let seen = shows(&self.log, |log| log.contains(text)).await;
        assert!(seen, "{text:?} is not in the log:\n{}", self.log());
    }

    /// Asks it to stop (SIGTERM).
    pub(crate) fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Pauses it: its kernel accepts connections, and no process answers (SIGSTOP).
    pub(crate) fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// Resumes it (SIGCONT).
    pub(crate) fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.pid.try_into().unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Waits for its end.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        let ended = timeout(PATIENCE, self.child.wait()).await;
        ended.unwrap_or_else(|_| panic!("kuik does not end:\n{}", self.log())).unwrap()
    }

    /// Ends it as a crash would (SIGKILL).
    pub(crate) async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    /// Its anonymous resident memory in bytes.
    pub(crate) fn rss_anon(pid: u32) -> u64 {
        memory(pid, "RssAnon:")
    }

    /// The most that was ever resident of it, in bytes.
    pub(crate) fn peak_rss(pid: u32) -> u64 {
        memory(pid, "VmHWM:")
    }

    /// The processor time that it has used.
    pub(crate) fn cpu(pid: u32) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        // After the name, which may have spaces: the state is field 3, utime and stime are 14 and 15, in ticks of 10 ms.
        let fields: Vec<_> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        let ticks: u64 = fields[11..13].iter().map(|ticks| ticks.parse::<u64>().unwrap()).sum();
        Duration::from_millis(ticks * 10)
    }
}

fn memory(pid: u32, what: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(what)).unwrap();
    line.trim().strip_suffix("kB").unwrap().trim().parse::<u64>().unwrap() * 1024
}

/// Runs `kuik` to its end.
pub(crate) async fn output(arguments: &[&str]) -> Output {
    timeout(PATIENCE, kuik(arguments).output()).await.expect("kuik ends").unwrap()
}

/// Streams the output of a process; the channel closes at its end.
fn read(stderr: ChildStderr) -> watch::Receiver<String> {
    let (sender, receiver) = watch::channel(String::new());
    tokio::spawn(async move {
        let mut lines = BufReader::new(stderr).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            sender.send_modify(|log| {
                log.push_str(&line);
                log.push('\n');
            });
        }
    });
    receiver
}

/// Waits until the log meets `condition`; returns false if the log ends or the time runs out before.
async fn shows(log: &watch::Receiver<String>, condition: impl FnMut(&String) -> bool) -> bool {
    let mut log = log.clone();
    matches!(timeout(PATIENCE, log.wait_for(condition)).await, Ok(Ok(_)))
}

/// The address in the first line of the log with these words.
fn address_in(log: &str, words: &str) -> Option<SocketAddr> {
    let line = log.lines().find(|line| line.contains(words))?;
    line.split_once("address=")?.1.split_whitespace().next()?.parse().ok()
}
