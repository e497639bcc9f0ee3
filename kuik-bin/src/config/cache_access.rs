//! Access to the cache registry: certificate authorities and credentials. Used by the proxies and the controllers.

use std::path::Path;

use kuik_core::{client::CertificateAuthorities, credentials::CredentialFile};

use super::{ConfigFile, Problems, value::read_file};

/// Unvalidated access to the cache registry.
#[derive(Debug, Default, clap::Args)]
pub struct RawCacheAccess {
    /// PEM file of the certificate authorities to trust for an https cache registry, instead of the system's; reloaded
    /// when it changes
    #[arg(long, env = "KUIK_REGISTRY_CERTIFICATE_AUTHORITY", hide_env_values = true, value_name = "FILE")]
    pub(super) registry_certificate_authority: Option<String>,
    /// File with the credentials for the cache registry: a docker config, or one line with a token; read again when the
    /// registry refuses them
    #[arg(long, env = "KUIK_REGISTRY_CREDENTIALS_FILE", hide_env_values = true, value_name = "FILE")]
    pub(super) registry_credentials_file: Option<String>,
}

/// Access to the cache registry.
#[derive(Debug, Default)]
pub struct CacheAccess {
    /// Certificate authorities to trust instead of the system's.
    pub roots: Vec<CertificateAuthorities>,
    /// Files of these certificate authorities.
    pub root_files: Vec<String>,
    /// Credentials, if it requires any.
    pub credentials: Option<CredentialFile>,
}

pub(super) const AUTHORITY: &str = "registry-certificate-authority";
pub(super) const CREDENTIALS: &str = "registry-credentials-file";

impl RawCacheAccess {
    /// Keys of these settings in the configuration file.
    pub(super) const KEYS: [&str; 2] = [AUTHORITY, CREDENTIALS];

    /// Returns these values, with unset ones taken from the file.
    pub(super) fn merge_file(self, file: &ConfigFile) -> Self {
        Self {
            registry_certificate_authority: file.one(AUTHORITY, self.registry_certificate_authority),
            registry_credentials_file: file.one(CREDENTIALS, self.registry_credentials_file),
        }
    }

    pub(super) fn read(self, problems: &mut Problems) -> CacheAccess {
        let given = |file: Option<String>| file.filter(|file| !file.is_empty());
        let root_files: Vec<_> = given(self.registry_certificate_authority).into_iter().collect();
        let mut root = |file: &String| {
            let pem = problems.check(AUTHORITY, read_file(file))?;
            problems.check(AUTHORITY, CertificateAuthorities::from_pem(file, &pem))
        };
        let roots = root_files.iter().filter_map(&mut root).collect();
        let credentials = given(self.registry_credentials_file)
            .and_then(|file| problems.check(CREDENTIALS, CredentialFile::open(Path::new(&file))));
        CacheAccess { roots, root_files, credentials }
    }
}
