//! containerd's folder of registry hosts (`config_path`), and what is changed in it.
//!
//! All changes are planned before the first is made, so that a file that cannot be merged leaves all others as they
//! are. A file is replaced by renaming, and a new folder appears with its file in it: an empty folder would hide
//! `_default`.

use std::{
    ffi::OsStr,
    fs::{self, File, Metadata, Permissions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown},
    path::{Path, PathBuf},
};

use tempfile::NamedTempFile;

use super::hosts_file::{self, Inserted, Made, Unusable};

/// The folder that is for all registries without one of their own.
pub(super) const DEFAULT: &str = "_default";

const FILE: &str = "hosts.toml";
/// The largest file that is read, in bytes.
const MAX_BYTES: u64 = 1 << 20;

/// containerd's folder of registry hosts.
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
    /// It is as it should be.
    Nothing(&'static str),
    /// The file is replaced; its owner and mode stay.
    Replace { content: String, like: Metadata, done: &'static str },
    /// The file is written into a folder that is there.
    Create { content: String },
    /// The folder is made, with the file in it.
    CreateFolder { content: String },
    /// The file goes, and what was made for it where nothing else is in it.
    Delete { made: Made },
}

/// Why a registry's folder is left as it is, or could not be changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(super) enum CertsDirError {
    /// The file cannot be merged.
    #[error("{}: {problem}", .file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// Why.
        problem: Unusable,
    },
    /// The file is too large, or not UTF-8.
    #[error("{} is no hosts.toml that containerd reads: it is not UTF-8, or has more than {MAX_BYTES} bytes", .0.display())]
    NotText(PathBuf),
    /// There are certificates that containerd reads only while there is no `hosts.toml`.
    #[error(
        "{} has {certificate:?}, which containerd reads only while there is no {FILE} beside it: write a {FILE} that \
         names it (ca = {certificate:?}, or client), then run this again", .folder.display()
    )]
    Certificates {
        /// The folder.
        folder: PathBuf,
        /// One of them.
        certificate: String,
    },
    /// The system says no.
    #[error("cannot {attempted} {}", .path.display())]
    Io {
        /// What was attempted.
        attempted: &'static str,
        /// On what.
        path: PathBuf,
        /// What it says.
        source: io::Error,
    },
}

impl CertsDir {
    pub(super) fn new(folder: PathBuf) -> Self {
        Self(folder)
    }

    /// Plans the entry for `endpoint` in the file of `registry`, or in [`DEFAULT`].
    pub(super) fn plan_insert(&self, registry: &str, endpoint: &str) -> Result<Change, CertsDirError> {
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
        let inserted = hosts_file::insert(text, endpoint, made)
            .map_err(|problem| CertsDirError::File { file: file.clone(), problem })?;
        let step = match (inserted, existing) {
            (Inserted::Theirs, _) => {
                Step::Nothing("has an entry for the endpoint that is not ours: it stays as it is")
            }
            (Inserted::Text(content), Some((before, _))) if content == before => {
                Step::Nothing("is as it should be")
            }
            (Inserted::Text(content), Some((_, like))) => {
                Step::Replace { content, like, done: "has kuik first; what was in it follows" }
            }
            (Inserted::Text(content), None) if made == Made::File => Step::Create { content },
            (Inserted::Text(content), None) => Step::CreateFolder { content },
        };
        Ok(Change { file, step })
    }

    /// Plans that our entry goes from the file of `registry`.
    pub(super) fn plan_remove(&self, registry: &str) -> Result<Change, CertsDirError> {
        self.plan_remove_from(&self.folder_of(registry))
    }

    /// Plans that our entries go from every file.
    pub(super) fn plan_remove_all(&self) -> Result<Vec<Change>, CertsDirError> {
        let changes: Result<Vec<_>, _> =
            self.folders()?.iter().map(|folder| self.plan_remove_from(folder)).collect();
        Ok(changes?.into_iter().filter(|change| !matches!(change.step, Step::Nothing(_))).collect())
    }

    fn plan_remove_from(&self, folder: &Path) -> Result<Change, CertsDirError> {
        let file = real(&folder.join(FILE));
        let Some((text, like)) = read(&file)? else {
            return Ok(Change { file, step: Step::Nothing("is not there") });
        };
        let removed = hosts_file::remove(&text)
            .map_err(|problem| CertsDirError::File { file: file.clone(), problem })?;
        let step = match removed {
            (_, None) => Step::Nothing("has no entry of kuik"),
            (left, Some(made)) if made >= Made::File && left.trim().is_empty() => Step::Delete { made },
            (content, Some(_)) => Step::Replace { content, like, done: "is as it was without kuik" },
        };
        Ok(Change { file, step })
    }

    /// The registries that have a folder of their own, which hides [`DEFAULT`] from them.
    pub(super) fn own_folders(&self) -> Result<Vec<String>, CertsDirError> {
        let names = self.folders()?.into_iter().filter_map(|folder| {
            folder.file_name().and_then(OsStr::to_str).filter(|name| *name != DEFAULT).map(str::to_owned)
        });
        Ok(names.collect())
    }

    /// Removes the folder of all registries, where it was made for us and nothing is left in it.
    pub(super) fn remove_if_ours(&self, changes: &[Change]) {
        let ours = |change: &Change| matches!(change.step, Step::Delete { made: Made::CertsDir });
        if changes.iter().any(ours) {
            // What is in it is not ours; then it stays.
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

    /// The folder that containerd reads for a registry: with a port it has two spellings, the first of which wins.
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
    /// Makes the change, and says what was done.
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
                Ok(said("is new"))
            }
            Step::CreateFolder { content } => {
                create_folder(file, content).map_err(failed("write"))?;
                Ok(said("is new"))
            }
            Step::Delete { made } => {
                fs::remove_file(file).map_err(failed("remove"))?;
                if *made >= Made::Folder
                    && let Some(folder) = file.parent()
                {
                    // Where somebody has put something else into it, it stays.
                    let _ = fs::remove_dir(folder);
                }
                Ok(said("is gone"))
            }
        }
    }
}

/// Where a file is that may be a link, so that what is replaced is the file and not the link.
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

/// A certificate or key that containerd finds by its name alone, as Docker does.
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

/// Puts `content` in the place of the file, whole or not at all. Owner and mode are those of `like`.
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

/// Makes the folder of the file, which appears with the file in it.
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
