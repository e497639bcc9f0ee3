//! TLS settings: certificate and private key files.

use std::{fs::File, io, path::Path};

use kuik_proxy::serve::Tls;

use super::{ConfigFile, Problems};

/// Unvalidated TLS settings.
#[derive(Debug, Default, clap::Args)]
pub struct RawTls {
    /// PEM file with the TLS server certificate and its chain, reloaded when it changes; requires --tls-private-key-file
    #[arg(long, env = "KUIK_TLS_CERT_FILE", hide_env_values = true, value_name = "FILE")]
    pub(super) tls_cert_file: Option<String>,
    /// PEM file with the private key of the certificate, reloaded when it changes
    #[arg(long, env = "KUIK_TLS_PRIVATE_KEY_FILE", hide_env_values = true, value_name = "FILE")]
    pub(super) tls_private_key_file: Option<String>,
}

pub(super) const CERTIFICATE: &str = "tls-cert-file";
pub(super) const KEY: &str = "tls-private-key-file";

fn readable(file: &str) -> io::Result<()> {
    File::open(file)
        .map(drop)
        .map_err(|error| io::Error::new(error.kind(), format!("cannot read {file}: {error}")))
}

impl RawTls {
    /// Returns these values, with unset ones taken from the file.
    pub(super) fn merge_file(self, file: &ConfigFile) -> Self {
        Self {
            tls_cert_file: file.one(CERTIFICATE, self.tls_cert_file),
            tls_private_key_file: file.one(KEY, self.tls_private_key_file),
        }
    }

    /// Returns `None` if TLS is disabled, or if a problem was added.
    pub(super) fn read(self, problems: &mut Problems) -> Option<Tls> {
        let given = |file: Option<String>| file.filter(|file| !file.is_empty());
        let (certificate, key) = (given(self.tls_cert_file), given(self.tls_private_key_file));
        let readable = [(CERTIFICATE, &certificate), (KEY, &key)].map(|(name, file)| match file {
            Some(file) => problems.check(name, readable(file)).is_some(),
            None => true,
        });
        match (certificate, key) {
            (None, None) => None,
            (Some(_), Some(_)) if readable != [true; 2] => None,
            (Some(certificate), Some(key)) => {
                problems.check(CERTIFICATE, Tls::open(Path::new(&certificate), Path::new(&key)))
            }
            (Some(_), None) => {
                problems.add(KEY, format_args!("required with {CERTIFICATE}"));
                None
            }
            (None, Some(_)) => {
                problems.add(CERTIFICATE, format_args!("required with {KEY}"));
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_files_or_none() {
        let missing = Some("/does/not/exist.pem".to_owned());
        let empty = Some(String::new());
        for (tls_cert_file, tls_private_key_file, named) in [
            (None, None, None),
            (empty.clone(), empty, None),
            (missing.clone(), None, Some(KEY)),
            (None, missing.clone(), Some(CERTIFICATE)),
            (missing.clone(), missing, Some(CERTIFICATE)),
        ] {
            let mut problems = Problems::default();
            let read = RawTls { tls_cert_file, tls_private_key_file }.read(&mut problems);
            assert!(read.is_none());
            let report = problems.into_result(Some(())).err().map(|problems| problems.to_string());
            assert_eq!(report.is_some(), named.is_some(), "{report:?}");
            assert!(
                named.is_none_or(|key| report.is_some_and(|report| report.contains(&format!("  {key}: "))))
            );
        }
    }

    #[test]
    fn each_file_answers_for_itself() {
        let raw = |certificate: &str, key: &str| RawTls {
            tls_cert_file: Some(certificate.to_owned()).filter(|file| !file.is_empty()),
            tls_private_key_file: Some(key.to_owned()).filter(|file| !file.is_empty()),
        };
        for (certificate, key, expected) in [
            (
                "/absent/cert",
                "/absent/key",
                ["tls-cert-file: cannot read", "tls-private-key-file: cannot read"],
            ),
            ("Cargo.toml", "/absent/key", ["tls-private-key-file: cannot read", "/absent/key"]),
            (
                "/absent/cert",
                "",
                ["tls-cert-file: cannot read", "tls-private-key-file: required with tls-cert-file"],
            ),
            ("Cargo.toml", "Cargo.toml", ["tls-cert-file: ", "are not a certificate"]),
        ] {
            let mut problems = Problems::default();
            assert!(raw(certificate, key).read(&mut problems).is_none());
            let report = problems.into_result(Some(())).unwrap_err().to_string();
            for part in expected {
                assert!(report.contains(part), "{part}:\n{report}");
            }
        }
    }
}
