//! Configuration of `kuik-registry`: its flags and their validated form.

use std::path::Path;

use kuik_proxy::{
    registry::{
        access::{AccessPolicy, TokenFile},
        push::RegistryOptions,
    },
    serve::BindAddress,
    stack::MaintenanceOptions,
};

use super::{
    ConfigFile, InvalidConfig, Problems,
    location::RawLocation,
    maintenance::RawMaintenance,
    origins::{OriginsConfig, RawOrigins},
    process::{ProcessConfig, RawProcess},
    pushes::RawPushes,
    storage::{RawStorage, Storage},
    value::switch,
};

/// Unvalidated configuration of `kuik-registry`. Every value is a string, so that all mistakes are reported together.
#[derive(Debug, Default, clap::Args)]
pub struct RawRegistry {
    #[command(flatten)]
    process: RawProcess,
    #[command(flatten)]
    storage: RawStorage,
    /// Act as a pull-through cache: repositories are named after upstream registries (docker.io/library/nginx), and missing
    /// content is fetched from there [default: false]
    #[arg(long, env = "KUIK_PULL_THROUGH", hide_env_values = true, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pull_through: Option<String>,
    /// File with the token that pushes and deletes require, reloaded when it changes; without it, both are refused
    #[arg(long, env = "KUIK_TOKEN_FILE", hide_env_values = true, value_name = "FILE")]
    token_file: Option<String>,
    /// Require the token for reads too [default: false]
    #[arg(long, env = "KUIK_PROTECT_READS", hide_env_values = true, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    protect_reads: Option<String>,
    /// Allow pushes and deletes without authentication; cannot be combined with --token-file [default: false]
    #[arg(long, env = "KUIK_ALLOW_ANONYMOUS_PUSH", hide_env_values = true, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    allow_anonymous_push: Option<String>,
    #[command(flatten)]
    pushes: RawPushes,
    #[command(flatten)]
    maintenance: RawMaintenance,
    #[command(flatten)]
    origins: RawOrigins,
}

/// A valid configuration of `kuik-registry`.
#[derive(Debug)]
pub struct RegistryConfig {
    /// Listen address (`:5000` by default), shutdown and logs.
    pub process: ProcessConfig,
    /// Storage of the content.
    pub storage: Storage,
    /// Upstream registries, if missing content is fetched from them.
    pub pull_through: Option<OriginsConfig>,
    /// Access control.
    pub access: AccessPolicy,
    /// Push options.
    pub options: RegistryOptions,
    /// Size limit, retention, scrubbing and garbage collection.
    pub maintenance: MaintenanceOptions,
}

const PULL_THROUGH: &str = "pull-through";
const TOKEN_FILE: &str = "token-file";
const PROTECT_READS: &str = "protect-reads";
const ANONYMOUS_PUSH: &str = "allow-anonymous-push";
const KEYS: [&str; 4] = [PULL_THROUGH, TOKEN_FILE, PROTECT_READS, ANONYMOUS_PUSH];

impl RawRegistry {
    /// Validates the configuration.
    ///
    /// # Errors
    /// Returns an error that lists every invalid setting.
    pub fn validate(self) -> Result<RegistryConfig, InvalidConfig> {
        let mut problems = Problems::default();
        let groups: [&[&str]; 6] = [
            &RawProcess::KEYS,
            &RawLocation::KEYS,
            &RawStorage::KEYS,
            &KEYS,
            &RawPushes::KEYS,
            &RawOrigins::KEYS,
        ];
        let groups = [&groups[..], &RawMaintenance::GROUPS].concat();
        let file = self.process.file(&groups, &mut problems);
        let config = self.merge_file(&file).read(&mut problems);
        problems.into_result(config)
    }

    /// Returns these values, with unset ones taken from the file.
    fn merge_file(self, file: &ConfigFile) -> Self {
        Self {
            process: self.process.merge_file(file),
            storage: self.storage.merge_file(file),
            pull_through: file.one(PULL_THROUGH, self.pull_through),
            token_file: file.one(TOKEN_FILE, self.token_file),
            protect_reads: file.one(PROTECT_READS, self.protect_reads),
            allow_anonymous_push: file.one(ANONYMOUS_PUSH, self.allow_anonymous_push),
            pushes: self.pushes.merge_file(file),
            maintenance: self.maintenance.merge_file(file),
            origins: self.origins.merge_file(file),
        }
    }

    /// Returns `None` only if a problem was added.
    fn read(self, problems: &mut Problems) -> Option<RegistryConfig> {
        let storage = self.storage.read(problems);
        let pull_through = switch(PULL_THROUGH, self.pull_through.as_deref(), false, problems);
        let origins = self.origins.read(problems);

        let mut access = AccessPolicy::default();
        let token_file = self.token_file.filter(|file| !file.is_empty());
        access.token =
            token_file.as_ref().and_then(|file| problems.check(TOKEN_FILE, TokenFile::open(Path::new(file))));
        access.protect_reads = switch(PROTECT_READS, self.protect_reads.as_deref(), false, problems);
        access.allow_anonymous_push =
            switch(ANONYMOUS_PUSH, self.allow_anonymous_push.as_deref(), false, problems);
        if token_file.is_none() && access.protect_reads {
            problems.add(
                PROTECT_READS,
                format_args!("requires {TOKEN_FILE}: without a token, all reads would be refused"),
            );
        }
        if token_file.is_some() && access.allow_anonymous_push {
            problems.add(
                ANONYMOUS_PUSH,
                format_args!(
                    "cannot be combined with {TOKEN_FILE}: with a token file, pushes require the token"
                ),
            );
        }

        let options = self.pushes.read(problems);
        let maintenance = self.maintenance.read(pull_through, problems);
        let process = self.process.read(BindAddress::any(5000), problems)?;
        let pull_through = pull_through.then_some(origins);
        Some(RegistryConfig { process, storage: storage?, pull_through, access, options, maintenance })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use kuik_proxy::registry::push::Sparse;

    use super::*;

    fn text(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    fn storage(url: &str) -> RawStorage {
        let location = RawLocation { storage: text(url), ..RawLocation::default() };
        RawStorage { location, ..RawStorage::default() }
    }

    #[test]
    fn registry_requires_only_a_storage_and_refuses_pushes_by_default() {
        let raw = RawRegistry { storage: storage("file:///data"), ..RawRegistry::default() };
        let config = raw.validate().unwrap();
        assert_eq!(config.process.bind, [BindAddress::any(5000)]);
        assert!(matches!(config.storage, Storage::Directory(dir) if dir.as_os_str() == "/data"));
        assert!(config.pull_through.is_none() && config.access.token.is_none());
        assert!(!config.access.allow_anonymous_push && config.options.sparse == Sparse::Indexes);
        assert!(
            config.maintenance.max_bytes.is_none()
                && config.maintenance.scrub.unwrap().rate.get() == 10 << 20
        );
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
            maintenance: RawMaintenance::invalid(),
            ..RawRegistry::default()
        };
        let report = raw.validate().unwrap_err().to_string();
        let storage = RawLocation::KEYS.iter().filter(|key| **key != "storage-region");
        let storage = storage.chain(&RawStorage::KEYS);
        for key in KEYS
            .iter()
            .chain(storage)
            .chain(&RawPushes::KEYS)
            .chain(RawMaintenance::GROUPS.into_iter().flatten())
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
             unmanagedExpiry: never\nretentionLapse: 48h\nscrubInterval: never\ngcInterval: never\ngcDeleteUntagged: true\n",
            token.display()
        );
        fs::write(&config, lines).unwrap();
        let process = RawProcess { config: Some(config), ..RawProcess::default() };
        let config = RawRegistry { process, ..RawRegistry::default() }.validate().unwrap();
        assert!(config.access.token.is_some() && config.access.protect_reads);
        assert!(config.pull_through.is_some() && config.options.sparse == Sparse::Nothing);
        assert_eq!((config.options.max_uploads, config.options.min_upload_rate), (3, 2 << 10));
        assert_eq!(config.maintenance.max_bytes, Some(10 << 30));
        assert!(config.maintenance.scrub.is_none() && config.maintenance.unmanaged.is_none());
        assert_eq!(config.maintenance.retention_lapse.0.as_secs(), 48 * 3600);
        assert!(config.maintenance.gc.interval.is_none() && config.maintenance.gc.options.delete_untagged);
    }
}
