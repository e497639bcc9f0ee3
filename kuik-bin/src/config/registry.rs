//! The configuration of `kuik-registry`: its flags, and what they mean once they are valid.

use std::path::Path;

use kuik_proxy::{
    access::{AccessPolicy, TokenFile},
    push::RegistryOptions,
    server::BindAddress,
};

use super::{
    ConfigFile, InvalidConfig, Problems,
    gc::{GcConfig, RawGc},
    location::RawLocation,
    origins::{OriginsConfig, RawOrigins},
    process::{ProcessConfig, RawProcess},
    pushes::RawPushes,
    quota::{QuotaConfig, RawQuota},
    scrub::{RawScrub, ScrubConfig},
    storage::{RawStorage, Storage},
    value::switch,
};

/// What `kuik-registry` is told, before anybody has looked at it. Every value is a text, so that all mistakes are
/// reported at once.
#[derive(Debug, Default, clap::Args)]
pub struct RawRegistry {
    #[command(flatten)]
    process: RawProcess,
    #[command(flatten)]
    storage: RawStorage,
    /// Fetch what is missing from the registry that its repository is named after (docker.io/library/nginx), and
    /// keep it: true or false [default: false]
    #[arg(long, env = "KUIK_PULL_THROUGH", hide_env_values = true, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pull_through: Option<String>,
    /// A file with the token that pushes and deletes need, read again when it changes. Without one, both are refused
    #[arg(long, env = "KUIK_TOKEN_FILE", hide_env_values = true, value_name = "FILE")]
    token_file: Option<String>,
    /// Reading needs the token too: true or false [default: false]
    #[arg(long, env = "KUIK_PROTECT_READS", hide_env_values = true, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    protect_reads: Option<String>,
    /// Without a token file, everybody may push and delete: true or false [default: false]
    #[arg(long, env = "KUIK_ALLOW_ANONYMOUS_PUSH", hide_env_values = true, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    allow_anonymous_push: Option<String>,
    #[command(flatten)]
    pushes: RawPushes,
    #[command(flatten)]
    quota: RawQuota,
    #[command(flatten)]
    scrub: RawScrub,
    #[command(flatten)]
    gc: RawGc,
    #[command(flatten)]
    origins: RawOrigins,
}

/// A valid configuration of `kuik-registry`.
#[derive(Debug)]
pub struct RegistryConfig {
    /// Where to listen (:5000 unless said otherwise), and how to stop.
    pub process: ProcessConfig,
    /// Where content is kept.
    pub storage: Storage,
    /// Other registries, where what is missing is fetched from them.
    pub pull_through: Option<OriginsConfig>,
    /// Who may do what.
    pub access: AccessPolicy,
    /// How pushes are taken.
    pub options: RegistryOptions,
    /// How much is kept.
    pub quota: QuotaConfig,
    /// How what is stored is verified, where it is.
    pub scrub: Option<ScrubConfig>,
    /// How garbage is collected.
    pub gc: GcConfig,
}

const PULL_THROUGH: &str = "pull-through";
const TOKEN_FILE: &str = "token-file";
const PROTECT_READS: &str = "protect-reads";
const ANONYMOUS_PUSH: &str = "allow-anonymous-push";
const KEYS: [&str; 4] = [PULL_THROUGH, TOKEN_FILE, PROTECT_READS, ANONYMOUS_PUSH];

impl RawRegistry {
    /// The valid configuration.
    ///
    /// # Errors
    /// Everything that is wrong, together.
    pub fn validate(self) -> Result<RegistryConfig, InvalidConfig> {
        let mut problems = Problems::default();
        let groups: [&[&str]; 9] = [
            &RawProcess::KEYS,
            &RawLocation::KEYS,
            &RawStorage::KEYS,
            &KEYS,
            &RawPushes::KEYS,
            &RawGc::KEYS,
            &RawOrigins::KEYS,
            &RawQuota::KEYS,
            &RawScrub::KEYS,
        ];
        let file = self.process.file(&groups, &mut problems);
        let config = self.over(&file).read(&mut problems);
        problems.into_result(config)
    }

    /// What was given here, and for the rest what the file says.
    fn over(self, file: &ConfigFile) -> Self {
        Self {
            process: self.process.over(file),
            storage: self.storage.over(file),
            pull_through: file.one(PULL_THROUGH, self.pull_through),
            token_file: file.one(TOKEN_FILE, self.token_file),
            protect_reads: file.one(PROTECT_READS, self.protect_reads),
            allow_anonymous_push: file.one(ANONYMOUS_PUSH, self.allow_anonymous_push),
            pushes: self.pushes.over(file),
            quota: self.quota.over(file),
            scrub: self.scrub.over(file),
            gc: self.gc.over(file),
            origins: self.origins.over(file),
        }
    }

    /// `None` only where a problem was added.
    fn read(self, problems: &mut Problems) -> Option<RegistryConfig> {
        let storage = self.storage.read(problems);
        let pull_through = switch(PULL_THROUGH, self.pull_through.as_deref(), false, problems);
        let origins = self.origins.read(problems);
        let gc = self.gc.read(problems);

        let mut access = AccessPolicy::default();
        let token_file = self.token_file.filter(|file| !file.is_empty());
        access.token =
            token_file.as_ref().and_then(|file| problems.check(TOKEN_FILE, TokenFile::open(Path::new(file))));
        access.protect_reads = switch(PROTECT_READS, self.protect_reads.as_deref(), false, problems);
        access.allow_anonymous_push =
            switch(ANONYMOUS_PUSH, self.allow_anonymous_push.as_deref(), false, problems);
        if token_file.is_none() && access.protect_reads {
            problems.add(PROTECT_READS, "it needs a token file: without one nobody could read");
        }
        if token_file.is_some() && access.allow_anonymous_push {
            problems.add(ANONYMOUS_PUSH, "there is a token file: whoever pushes has to have the token");
        }

        let options = self.pushes.read(problems);
        let (quota, scrub) = (self.quota.read(problems), self.scrub.read(problems));
        let process = self.process.read(BindAddress::any(5000), problems)?;
        let pull_through = pull_through.then_some(origins);
        Some(RegistryConfig { process, storage: storage?, pull_through, access, options, quota, scrub, gc })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use kuik_proxy::push::Sparse;

    use super::*;

    fn text(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    fn storage(url: &str) -> RawStorage {
        let location = RawLocation { storage: text(url), ..RawLocation::default() };
        RawStorage { location, ..RawStorage::default() }
    }

    #[test]
    fn the_defaults_need_a_storage_only_and_let_nobody_push() {
        let raw = RawRegistry { storage: storage("file:///data"), ..RawRegistry::default() };
        let config = raw.validate().unwrap();
        assert_eq!(config.process.bind, [BindAddress::any(5000)]);
        assert!(matches!(config.storage, Storage::Directory(dir) if dir.as_os_str() == "/data"));
        assert!(config.pull_through.is_none() && config.access.token.is_none());
        assert!(!config.access.allow_anonymous_push && config.options.sparse == Sparse::Indexes);
        assert!(config.quota.max_bytes.is_none() && config.scrub.unwrap().rate.get() == 10 << 20);
    }

    #[test]
    fn all_mistakes_are_reported_at_once() {
        let raw = RawRegistry {
            storage: RawStorage {
                location: RawLocation {
                    storage: text("ftp://bucket"),
                    storage_endpoint: text("nowhere"),
                    storage_path_style: text("perhaps"),
                    storage_allow_http: text("perhaps"),
                    storage_timeout: text("soon"),
                    ..RawLocation::default()
                },
                scratch_dir: text("/does/not/exist"),
                storage_redirects: text("sometimes"),
            },
            pull_through: text("maybe"),
            token_file: text("/does/not/exist"),
            allow_anonymous_push: text("true"),
            protect_reads: text("1"),
            pushes: RawPushes { sparse: text("no"), max_uploads: text("-1"), min_upload_rate: text("slow") },
            quota: RawQuota { max_size: text("lots") },
            scrub: RawScrub { scrub_interval: text("often"), scrub_rate: text("0") },
            gc: RawGc {
                gc_interval: text("often"),
                gc_grace: text("-1h"),
                gc_delete_untagged: text("some"),
                gc_notice: text("shortly"),
                upload_idle: text("1"),
            },
            ..RawRegistry::default()
        };
        let report = raw.validate().unwrap_err().to_string();
        let storage = RawLocation::KEYS.iter().filter(|key| **key != "storage-region");
        let storage = storage.chain(&RawStorage::KEYS);
        for key in KEYS
            .iter()
            .chain(storage)
            .chain(&RawPushes::KEYS)
            .chain(&RawQuota::KEYS)
            .chain(&RawScrub::KEYS)
            .chain(&RawGc::KEYS)
        {
            assert!(report.contains(&format!("\n  {key}: ")), "{key} is missing:\n{report}");
        }
    }

    #[test]
    fn a_file_can_say_everything() {
        let dir = tempfile::tempdir().unwrap();
        let (config, token) = (dir.path().join("kuik.yaml"), dir.path().join("token"));
        fs::write(&token, "s3cret").unwrap();
        let lines = format!(
            "storage: file:///data\npullThrough: true\ntokenFile: {}\nprotectReads: true\nmaxUploads: 3\n\
             bindAddress: localhost:0\nrevalidateAfter: never\nsparse: nothing\nminUploadRate: 2Ki\nmaxSize: 10Gi\n\
             scrubInterval: never\ngcInterval: never\ngcDeleteUntagged: true\n",
            token.display()
        );
        fs::write(&config, lines).unwrap();
        let process = RawProcess { config: Some(config), ..RawProcess::default() };
        let config = RawRegistry { process, ..RawRegistry::default() }.validate().unwrap();
        assert!(config.access.token.is_some() && config.access.protect_reads);
        assert!(config.pull_through.is_some() && config.options.sparse == Sparse::Nothing);
        assert_eq!((config.options.max_uploads, config.options.min_upload_rate), (3, 2 << 10));
        assert_eq!(config.quota.max_bytes, Some(10 << 30));
        assert!(config.scrub.is_none());
        assert!(config.gc.interval.is_none() && config.gc.options.delete_untagged);
    }
}
