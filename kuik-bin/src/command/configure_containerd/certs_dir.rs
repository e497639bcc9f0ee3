//! containerd's directory of registry hosts (`config_path`), and planned changes to it.
//!
//! Invariant: all changes are planned before the first is made, so that if one file cannot be merged, none is changed. A
//! file is replaced by renaming, and a new directory appears with its file in it: an empty directory would hide `_default`.

use std::{
    ffi::OsStr,
    fs::{self, File, Metadata, Permissions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown},
    path::{Path, PathBuf},
};

use tempfile::NamedTempFile;

use super::hosts_file::{self, Endpoints, Inserted, Made, Unusable};

/// Directory for all registries that have none.
pub(super) const DEFAULT: &str = "_default";

const FILE: &str = "hosts.toml";
/// Maximum file size in bytes.
const MAX_BYTES: u64 = 1 << 20;

/// containerd's directory of registry hosts.
#[derive(Debug, Clone)]
pub(super) struct CertsDir(PathBuf);

/// One change, planned.
#[derive(Debug)]
pub(super) struct Change {
    file: PathBuf,
    step: Step,
}

#[derive(Debug)]
enum Step {
    /// Nothing to change.
    Nothing(&'static str),
    /// Replace the file; keep its owner and mode.
    Replace { content: String, like: Metadata, done: &'static str },
    /// Write the file into an existing directory.
    Create { content: String },
    /// Create the directory with the file in it.
    CreateFolder { content: String },
    /// Delete the file, and the directories created for it if they are empty.
    Delete { made: Made },
}

/// Error of planning or making a change.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(super) enum CertsDirError {
    /// The file cannot be merged.
    #[error("{}: {problem}", .file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// Reason.
        problem: Unusable,
    },
    /// The file is too large, or not UTF-8.
    #[error("{} is not a hosts.toml that containerd can read: it is not UTF-8, or is larger than {MAX_BYTES} bytes", .0.display())]
    NotText(PathBuf),
    /// There are certificates that containerd reads only if there is no `hosts.toml`.
    #[error(
        "{} contains {certificate:?}, which containerd reads only if there is no {FILE} in the directory: write a \
         {FILE} that names it (ca = {certificate:?}, or client), then run this command again", .folder.display()
    )]
    Certificates {
        /// The directory.
        folder: PathBuf,
        /// One of them.
        certificate: String,
    },
    /// A file operation failed.
    #[error("cannot {attempted} {}", .path.display())]
    Io {
        /// The operation.
        attempted: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

impl CertsDir {
    pub(super) fn new(folder: PathBuf) -> Self {
        Self(folder)
    }

    /// Plans the entry for `endpoints` in the file of `registry`, or in [`DEFAULT`].
    pub(super) fn plan_insert(&self, registry: &str, endpoints: &Endpoints) -> Result<Change, CertsDirError> {
        let folder = self.folder_of(registry);
        let file = real(&folder.join(FILE));
        let existing = read(&file)?;
        let made = match (self.0.exists(), folder.exists()) {
            (true, true) => Made::File,
            (true, false) => Made::Folder,
            (false, _) => Made::CertsDir,
        };
        if existing.is_none()
            && let Some(certificate) = certificate_in(&folder)?
        {
            return Err(CertsDirError::Certificates { folder, certificate });
        }
        let text = existing.as_ref().map(|(text, _)| text.as_str());
        let inserted = hosts_file::insert(text, endpoints, made)
            .map_err(|problem| CertsDirError::File { file: file.clone(), problem })?;
        let step = match (inserted, existing) {
            (Inserted::Foreign, _) => {
                Step::Nothing("already has an entry for the endpoint that kuik did not write: unchanged")
            }
            (Inserted::Text(content), Some((before, _))) if content == before => {
                Step::Nothing("is up to date")
            }
            (Inserted::Text(content), Some((_, like))) => {
                Step::Replace { content, like, done: "now has kuik first, followed by its previous content" }
            }
            (Inserted::Text(content), None) if made == Made::File => Step::Create { content },
            (Inserted::Text(content), None) => Step::CreateFolder { content },
        };
        Ok(Change { file, step })
    }

    /// Plans removing kuik's entry from the file of `registry`.
    pub(super) fn plan_remove(&self, registry: &str) -> Result<Change, CertsDirError> {
        self.plan_remove_from(&self.folder_of(registry))
    }

    /// Plans removing kuik's entries from every file.
    pub(super) fn plan_remove_all(&self) -> Result<Vec<Change>, CertsDirError> {
        let changes: Result<Vec<_>, _> =
            self.folders()?.iter().map(|folder| self.plan_remove_from(folder)).collect();
        Ok(changes?.into_iter().filter(|change| !matches!(change.step, Step::Nothing(_))).collect())
    }

    fn plan_remove_from(&self, folder: &Path) -> Result<Change, CertsDirError> {
        let file = real(&folder.join(FILE));
        let Some((text, like)) = read(&file)? else {
            return Ok(Change { file, step: Step::Nothing("does not exist") });
        };
        let removed = hosts_file::remove(&text)
            .map_err(|problem| CertsDirError::File { file: file.clone(), problem })?;
        let step = match removed {
            (_, None) => Step::Nothing("has no entry of kuik"),
            (left, Some(made)) if made >= Made::File && left.trim().is_empty() => Step::Delete { made },
            (content, Some(_)) => Step::Replace { content, like, done: "is restored" },
        };
        Ok(Change { file, step })
    }

    /// Returns the registries with their own directory, which containerd reads instead of [`DEFAULT`].
    pub(super) fn own_folders(&self) -> Result<Vec<String>, CertsDirError> {
        let names = self.folders()?.into_iter().filter_map(|folder| {
            folder.file_name().and_then(OsStr::to_str).filter(|name| *name != DEFAULT).map(str::to_owned)
        });
        Ok(names.collect())
    }

    /// Removes the directory of all registries if kuik created it and it is empty.
    pub(super) fn remove_if_ours(&self, changes: &[Change]) {
        let ours = |change: &Change| matches!(change.step, Step::Delete { made: Made::CertsDir });
        if changes.iter().any(ours) {
            // Fails if it is not empty, and then it stays.
            let _ = fs::remove_dir(&self.0);
        }
    }

    fn folders(&self) -> Result<Vec<PathBuf>, CertsDirError> {
        let failed = |source| CertsDirError::Io { attempted: "list", path: self.0.clone(), source };
        let entries = match fs::read_dir(&self.0) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed(error)),
        };
        let mut folders = Vec::new();
        for entry in entries {
            let path = entry.map_err(failed)?.path();
            let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
            if path.is_dir() && !hidden {
                folders.push(path);
            }
        }
        folders.sort();
        Ok(folders)
    }

    /// Returns the directory that containerd reads for a registry: with a port it has two spellings, and the first one wins.
    fn folder_of(&self, registry: &str) -> PathBuf {
        if let Some((host, port)) = registry.rsplit_once(':') {
            let first = self.0.join(format!("{host}_{port}_"));
            if first.is_dir() {
                return first;
            }
        }
        self.0.join(registry)
    }
}

impl Change {
    /// Makes the change, and returns a description of it.
    pub(super) fn make(&self) -> Result<String, CertsDirError> {
        let file = &self.file;
        let said = |done: &str| format!("{} {done}", file.display());
        let failed = |attempted| move |source| CertsDirError::Io { attempted, path: file.clone(), source };
        match &self.step {
            Step::Nothing(why) => Ok(said(why)),
            Step::Replace { content, like, done } => {
                replace(file, content, Some(like)).map_err(failed("replace"))?;
                Ok(said(done))
            }
            Step::Create { content } => {
                replace(file, content, None).map_err(failed("write"))?;
                Ok(said("is created"))
            }
            Step::CreateFolder { content } => {
                create_folder(file, content).map_err(failed("write"))?;
                Ok(said("is created"))
            }
            Step::Delete { made } => {
                fs::remove_file(file).map_err(failed("remove"))?;
                if *made >= Made::Folder
                    && let Some(folder) = file.parent()
                {
                    // Fails if it is not empty, and then it stays.
                    let _ = fs::remove_dir(folder);
                }
                Ok(said("is removed"))
            }
        }
    }
}

/// Resolves links, so that the file is replaced and not the link.
fn real(file: &Path) -> PathBuf {
    fs::canonicalize(file).unwrap_or_else(|_| file.to_owned())
}

fn read(file: &Path) -> Result<Option<(String, Metadata)>, CertsDirError> {
    let failed = |source| CertsDirError::Io { attempted: "read", path: file.to_owned(), source };
    let opened = match File::open(file) {
        Ok(opened) => opened,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let metadata = opened.metadata().map_err(failed)?;
    let mut content = Vec::new();
    opened.take(MAX_BYTES + 1).read_to_end(&mut content).map_err(failed)?;
    let too_large = content.len() as u64 > MAX_BYTES;
    match String::from_utf8(content) {
        Ok(text) if !too_large => Ok(Some((text, metadata))),
        _ => Err(CertsDirError::NotText(file.to_owned())),
    }
}

/// Returns a certificate or key that containerd finds by its name alone, as Docker does.
fn certificate_in(folder: &Path) -> Result<Option<String>, CertsDirError> {
    let failed = |source| CertsDirError::Io { attempted: "list", path: folder.to_owned(), source };
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mut found = None;
    for entry in entries {
        let name = entry.map_err(failed)?.file_name().to_string_lossy().into_owned();
        let is_one = [".crt", ".cert", ".key"].iter().any(|end| name.ends_with(end));
        if is_one && found.as_ref().is_none_or(|found| *found > name) {
            found = Some(name);
        }
    }
    Ok(found)
}

/// Replaces the file atomically. Owner and mode are those of `like`.
fn replace(file: &Path, content: &str, like: Option<&Metadata>) -> io::Result<()> {
    let folder = file.parent().unwrap_or(Path::new("."));
    let mut new = NamedTempFile::with_prefix_in(".hosts.toml.", folder)?;
    new.write_all(content.as_bytes())?;
    let mode = like.map_or(0o644, |like| like.mode() & 0o7777);
    new.as_file().set_permissions(Permissions::from_mode(mode))?;
    if let Some(like) = like {
        let own = new.as_file().metadata()?;
        if (own.uid(), own.gid()) != (like.uid(), like.gid()) {
            chown(new.path(), Some(like.uid()), Some(like.gid()))?;
        }
    }
    new.as_file().sync_all()?;
    new.persist(file)?;
    File::open(folder)?.sync_all()
}

/// Creates the directory of the file, atomically with the file in it.
fn create_folder(file: &Path, content: &str) -> io::Result<()> {
    let folder = file.parent().unwrap_or(Path::new("."));
    let above = folder.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(above)?;
    let new = tempfile::Builder::new().prefix(".kuik-").tempdir_in(above)?;
    replace(&new.path().join(FILE), content, None)?;
    fs::set_permissions(new.path(), Permissions::from_mode(0o755))?;
    fs::rename(new.path(), folder)?;
    // Its name has changed: there is nothing left to remove.
    let _ = new.keep();
    File::open(above)?.sync_all()
}
