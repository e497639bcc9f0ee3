//! Retention under faults: clocks that jump and differ, a bucket and a disk that refuse a document, images that do not
//! exist, and a cache of a version without the API. Nothing in use is evicted, and every document arrives in the end.

use std::{fs, path::Path};

use kuik_core::retention::RETENTION_PATH;
use kuik_testkit::{
    SampleImage, ScriptedRegistry,
    real::{ApiServer, S3Server, free_address},
};
use serde_json::Value;

use crate::support::{
    Clock, Kuik, Nginx, Remote, api_server, blob_data, eventually, get, head, is_cached, name_of_app, object,
    pod, proxied,
};

/// Room for three images of a mebibyte, and no fourth one.
const LIMIT: &str = "3800Ki";

/// The images that pods use, and those that are pulled besides.
const USED: [&str; 2] = ["used-1", "used-2"];
const OTHERS: [&str; 4] = ["other-1", "other-2", "other-3", "other-4"];

/// Two images that pods use, four others, and an image that no registry has.
struct Setup {
    upstream: ScriptedRegistry,
    server: ApiServer,
    folder: tempfile::TempDir,
    cluster: String,
}

fn image(tag: &str) -> SampleImage {
    let seed = tag.bytes().fold(0, |seed, byte| seed * 31 + u64::from(byte)) % 100_000;
    SampleImage::builder().seed(seed).platform("linux", "amd64").layer(1 << 20).build()
}

impl Setup {
    async fn start() -> Self {
        let (upstream, server) = (ScriptedRegistry::start().await.unwrap(), api_server().await);
        for tag in USED.iter().chain(&OTHERS) {
            upstream.add_image("team/app", tag, &image(tag));
        }
        let namespace = object(server.admin(), &["namespace", "kube-system"]).await.unwrap();
        let cluster = namespace["metadata"]["uid"].as_str().unwrap().to_owned();
        Self { upstream, server, folder: tempfile::tempdir().unwrap(), cluster }
    }

    fn data(&self) -> std::path::PathBuf {
        self.folder.path().join("data")
    }

    /// The cache, at an address and with a clock.
    async fn cache(&self, clock: &Clock, address: &str) -> Kuik {
        let host = self.upstream.host();
        let flags =
            ["--pull-through", "--insecure-registries", &host, "--allow-anonymous-push", "--max-size", LIMIT];
        Kuik::registry_by(clock, address, &self.data(), &flags).await
    }

    async fn controllers(&self, cache: &str) -> Kuik {
        let user = self.server.user("controllers", None).unwrap();
        Kuik::controllers(&user, cache, &["--registry-token-secret=", "--verify-interval=1s"]).await
    }

    /// Starts the pods that use images, and one whose image does not exist.
    async fn start_pods(&self) {
        for tag in USED.into_iter().chain(["missing"]) {
            let image = format!("{}/team/app:{tag}", self.upstream.host());
            self.server.admin().apply(&pod(tag, &image).to_string()).await.unwrap();
        }
    }

    /// Waits until the status of each image in use says that it is cached, and that of the missing one why not.
    async fn settled(&self) {
        let (admin, name) = (self.server.admin(), |tag| name_of_app(&self.upstream.host(), tag));
        for tag in USED {
            eventually("the image is cached", async || is_cached(admin, &name(tag)).await).await;
        }
        eventually("the status of the missing image says why", async || {
            let image = object(admin, &["cachedimages", &name("missing")]).await;
            let status = image.map(|mut image| image["status"].take()).unwrap_or_default();
            status["phase"] == "ErrImagePull"
                && status["conditions"][0]["message"].as_str().is_some_and(|text| text.contains("404"))
        })
        .await;
    }

    fn target(&self) -> String {
        format!("{RETENTION_PATH}{}", self.cluster)
    }

    /// Returns the states of the tags that the cache knows for the cluster.
    async fn states(&self, cache: &Kuik, tags: &[&str]) -> Vec<String> {
        let document = get(cache.address(), &self.target()).await;
        let document: Value = serde_json::from_slice(&document.body).unwrap_or_default();
        let images = &document["repositories"][proxied(&self.upstream.host(), "team/app")];
        tags.iter().map(|tag| images[tag]["state"].as_str().unwrap_or_default().to_owned()).collect()
    }

    /// Waits until the cache knows that pods use the images.
    async fn reported(&self, cache: &Kuik) {
        let tags = [USED[0], USED[1], "missing"];
        eventually("the images in use are reported", async || {
            self.states(cache, &tags).await == ["inUse"; 3]
        })
        .await;
    }

    /// Pulls more through the cache than fits, until something was evicted: what pods use is still there.
    async fn fill(&self, cache: &Kuik) {
        let before = evictions(cache).await;
        eventually("something is evicted", async || {
            self.pull_others(cache).await;
            evictions(cache).await > before
        })
        .await;
        self.assert_used(cache);
    }

    /// Pulls more through the cache than fits: what pods use is still there.
    async fn pull_others(&self, cache: &Kuik) {
        for tag in OTHERS {
            let mut remote = Remote::new(cache.address(), &proxied(&self.upstream.host(), "team/app"));
            remote.pull(&image(tag)).await.unwrap();
        }
        self.assert_used(cache);
    }

    fn assert_used(&self, cache: &Kuik) {
        for tag in USED {
            assert!(has(&self.data(), &image(tag)), "{tag} is in use:\n{}", cache.log());
        }
    }
}

/// How many images a cache has evicted.
async fn evictions(cache: &Kuik) -> u64 {
    let metrics = String::from_utf8(get(cache.address(), "/metrics").await.body).unwrap();
    let counted = "kube_image_keeper_registry_quota_evicted_images_total";
    let lines = metrics.lines().filter(|line| line.starts_with(counted));
    lines.map(|line| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap()).sum()
}

/// Whether a data directory has every blob of an image.
fn has(data: &Path, image: &SampleImage) -> bool {
    image.blobs().keys().all(|digest| blob_data(data, digest).exists())
}

#[tokio::test]
#[ignore = "needs parts built from Go: make built"]
async fn clocks_that_jump_and_differ_evict_nothing_in_use() {
    let setup = Setup::start().await;
    let (clock, address) = (Clock::at("+0"), free_address().await.unwrap().to_string());
    let cache = setup.cache(&clock, &address).await;
    let controllers = setup.controllers(&address).await;
    setup.start_pods().await;
    setup.settled().await;
    setup.reported(&cache).await;
    setup.fill(&cache).await;

    // While it runs, its clock jumps forward by more than a document counts, and back.
    for offset in ["+400d", "+0"] {
        clock.move_to(offset);
        setup.fill(&cache).await;
    }
    // It jumps back behind the times of all files: they count as just written, so nothing is evicted, and pulls are passed
    // through.
    clock.move_to("-400d");
    for _ in 0..3 {
        setup.pull_others(&cache).await;
    }
    clock.move_to("+0");
    setup.fill(&cache).await;

    // It is started with a wrong clock, and its document is more than a year old, or from the future. It finds out what
    // is in use from the document alone, and asks for another one.
    controllers.kill().await;
    let mut cache = cache;
    for offset in ["+400d", "+0"] {
        cache.kill().await;
        clock.move_to(offset);
        cache = setup.cache(&clock, &address).await;
        setup.fill(&cache).await;
        assert_eq!(head(cache.address(), &setup.target()).await.status, 404, "{offset}: its date is wrong");
        let controllers = setup.controllers(&address).await;
        eventually("the document is sent again", async || {
            head(cache.address(), &setup.target()).await.status == 200
        })
        .await;
        setup.reported(&cache).await;
        setup.fill(&cache).await;
        controllers.kill().await;
    }
}

#[tokio::test]
#[ignore = "needs parts built from Go: make built"]
async fn disk_that_refuses_the_document_delays_it_and_the_earlier_one_stays_in_force() {
    let setup = Setup::start().await;
    let (clock, address) = (Clock::at("+0"), free_address().await.unwrap().to_string());
    let cache = setup.cache(&clock, &address).await;
    let controllers = setup.controllers(&address).await;
    setup.start_pods().await;
    setup.settled().await;
    setup.reported(&cache).await;

    // A directory is in the place of the file, so that the file cannot be replaced.
    let entry = setup.data().join(".kuik/notes/kuik/_notes").join(format!("retention.{}", setup.cluster));
    fs::remove_file(&entry).unwrap();
    fs::create_dir_all(entry.join("in the way")).unwrap();
    let another = format!("{}/team/app:other-1", setup.upstream.host());
    setup.server.admin().apply(&pod("another", &another).to_string()).await.unwrap();
    controllers.logs("cannot report the images of the cluster to the cache, retrying").await;
    setup.fill(&cache).await;

    fs::remove_dir_all(&entry).unwrap();
    eventually("the new document arrives", async || {
        setup.states(&cache, &["used-1", "used-2", "other-1"]).await == ["inUse"; 3]
    })
    .await;
}

/// The servers of an nginx that passes everything on to `target`, except what `refuses` says.
fn between(address: std::net::SocketAddr, target: &str, refuses: &str) -> String {
    format!(
        "server {{ listen {address}; client_max_body_size 0; {refuses}\nlocation / {{ proxy_pass http://{target}; \
         proxy_set_header Host $http_host; proxy_http_version 1.1; proxy_request_buffering off; }} }}"
    )
}

#[tokio::test]
#[ignore = "needs parts built from Go: make built"]
async fn bucket_that_refuses_the_document_delays_it_and_the_earlier_one_stays_in_force() {
    let setup = Setup::start().await;
    let minio = S3Server::start().await.unwrap();
    let bucket = minio.bucket("cache");
    let (front, switch) = (free_address().await.unwrap(), setup.folder.path().join("refuse"));
    // While the file exists, the bucket accepts everything but documents.
    let refuses = format!(
        "set $refused \"\"; if (-f {}) {{ set $refused on; }}\nif ($request_uri ~ \"/retention\\.\") \
         {{ set $refused \"$refused document\"; }}\nif ($request_method = PUT) {{ set $refused \"$refused write\"; }}\n\
         if ($refused = \"on document write\") {{ return 403; }}",
        switch.display()
    );
    let _nginx = Nginx::start(front, &between(front, &minio.host(), &refuses)).await;
    let (endpoint, host) = (format!("http://{front}"), setup.upstream.host());
    let storage = format!("s3://{}/{}", bucket.name(), bucket.prefix());
    let flags = [
        "--storage-endpoint",
        &endpoint,
        "--storage-allow-http",
        "--pull-through",
        "--insecure-registries",
        &host,
        "--allow-anonymous-push",
    ];
    let keys = [("AWS_ACCESS_KEY_ID", bucket.access_key()), ("AWS_SECRET_ACCESS_KEY", bucket.secret_key())];
    let cache = Kuik::registry_in(&storage, &flags, &keys).await;
    let controllers = setup.controllers(&cache.host()).await;
    setup.start_pods().await;
    setup.settled().await;
    setup.reported(&cache).await;

    fs::write(&switch, "").unwrap();
    let another = format!("{host}/team/app:other-1");
    setup.server.admin().apply(&pod("another", &another).to_string()).await.unwrap();
    controllers.logs("cannot report the images of the cluster to the cache, retrying").await;
    // The image is kept anyway, and what is known is still known.
    eventually("the image is cached", async || {
        is_cached(setup.server.admin(), &name_of_app(&host, "other-1")).await
    })
    .await;
    let tags = ["used-1", "used-2", "other-1"];
    assert_eq!(setup.states(&cache, &tags).await, ["inUse", "inUse", ""]);
    assert_eq!(head(cache.address(), &setup.target()).await.status, 200);

    fs::remove_file(&switch).unwrap();
    eventually("the new document arrives", async || setup.states(&cache, &tags).await == ["inUse"; 3]).await;
    assert!(!controllers.log().contains("does not support retention documents"));
}

/// A registry of ours that answers 404 to everything of `/kuik/`, as before there was such an API.
#[tokio::test]
#[ignore = "needs parts built from Go: make built"]
async fn cache_of_a_version_without_the_api_is_reported_once_and_works() {
    let setup = Setup::start().await;
    let cache = setup.cache(&Clock::at("+0"), "127.0.0.1:0").await;
    let front = free_address().await.unwrap();
    let old = between(front, &cache.host(), "location /kuik/ { return 404; }");
    let _nginx = Nginx::start(front, &old).await;
    let controllers = setup.controllers(&front.to_string()).await;
    setup.start_pods().await;
    setup.settled().await;
    let reports = || controllers.log().matches("does not support retention documents").count();
    eventually("it is reported", async || reports() == 1).await;

    // Everything else works: another image is cached, and an image that has expired goes.
    let (admin, host) = (setup.server.admin(), setup.upstream.host());
    admin.apply(&pod("another", &format!("{host}/team/app:other-1")).to_string()).await.unwrap();
    let name = name_of_app(&host, "other-1");
    eventually("the image is cached", async || is_cached(admin, &name).await).await;
    admin
        .kubectl(["delete", "pod", "another", "--namespace=shop", "--grace-period=0", "--force"])
        .await
        .unwrap();
    eventually("it is unused", async || {
        object(admin, &["cachedimages", &name]).await.unwrap()["spec"]["expiresAt"].is_string()
    })
    .await;
    let past = r#"{"spec": {"expiresAt": "2020-01-01T00:00:00Z"}}"#;
    admin.kubectl(["patch", "cachedimage", &name, "--type=merge", "--patch", past]).await.unwrap();
    eventually("it has expired", async || object(admin, &["cachedimages", &name]).await.is_none()).await;
    for tag in USED {
        assert!(is_cached(admin, &name_of_app(&host, tag)).await, "{tag}");
    }
    assert_eq!(reports(), 1, "{}", controllers.log());
}
