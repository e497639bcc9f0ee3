//! Token file, reloaded when it changes: rotating the token needs no restart.

use std::{
    fmt, fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use kuik_core::content::Digest;
use parking_lot::Mutex;
use subtle::ConstantTimeEq as _;

/// Minimum interval between checks of the file.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Maximum length of a token, in bytes.
const MAX_BYTES: u64 = 4096;

/// Minimum length of a token: a shorter file is still being written.
const MIN_BYTES: usize = 4;

/// A token in a file. Cheap to clone; its `Debug` output contains no secret.
#[derive(Clone)]
pub struct TokenFile {
    path: Arc<Path>,
    state: Arc<Mutex<State>>,
}

/// State of the file. The token itself is not kept: its hash suffices for comparison.
struct State {
    hash: Digest,
    seen: Seen,
    looked_at: Instant,
}

/// Identity of the file's version. A Secret of Kubernetes is a link to another file after a change.
#[derive(Clone, PartialEq, Eq)]
struct Seen {
    modified: Option<SystemTime>,
    length: u64,
    #[cfg(unix)]
    inode: u64,
}

/// Error for a token file that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UnusableToken {
    /// The file cannot be read.
    #[error("cannot read the token file {0}")]
    Unreadable(PathBuf, #[source] io::Error),
    /// The file does not contain a valid token.
    #[error("no token in the token file {0}: expected {MIN_BYTES} to {MAX_BYTES} bytes of text on one line")]
    Malformed(PathBuf),
}

impl TokenFile {
    /// Reads the token in a file; surrounding white space is not part of it.
    ///
    /// # Errors
    /// Returns an error if the file does not contain a token.
    pub fn open(path: &Path) -> Result<Self, UnusableToken> {
        let (hash, seen) = read(path)?;
        let state = State { hash, seen, looked_at: Instant::now() };
        Ok(Self { path: path.into(), state: Arc::new(Mutex::new(state)) })
    }

    /// Whether `secret` is the current token. The comparison takes constant time.
    #[must_use]
    pub fn matches(&self, secret: &str) -> bool {
        self.matches_at(secret, Instant::now())
    }

    fn matches_at(&self, secret: &str, now: Instant) -> bool {
        let shown = Digest::sha256(secret.as_bytes());
        let mut state = self.state.lock();
        if now.saturating_duration_since(state.looked_at) >= CHECK_INTERVAL {
            state.looked_at = now;
            self.reload_if_changed(&mut state);
        }
        shown.as_str().as_bytes().ct_eq(state.hash.as_str().as_bytes()).into()
    }

    /// Reloads the file if it has changed. If it is missing or half written, the last token stays valid.
    fn reload_if_changed(&self, state: &mut State) {
        match fs::metadata(&self.path) {
            Ok(metadata) if Seen::of(&metadata) == state.seen => return,
            _ => {}
        }
        match read(&self.path) {
            Ok((hash, seen)) => {
                if hash != state.hash {
                    tracing::info!(file = %self.path.display(), "token reloaded");
                }
                (state.hash, state.seen) = (hash, seen);
            }
            Err(error) => {
                tracing::warn!(%error, "failed to reload the token, keeping the last one");
            }
        }
    }
}

fn read(path: &Path) -> Result<(Digest, Seen), UnusableToken> {
    let unreadable = |error| UnusableToken::Unreadable(path.to_owned(), error);
    let file = fs::File::open(path).map_err(unreadable)?;
    // Taken before the contents are read: a later change is seen at the next check.
    let seen = Seen::of(&file.metadata().map_err(unreadable)?);
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    let token = str::from_utf8(&bytes).map(str::trim).unwrap_or_default();
    let whole = bytes.len() as u64 <= MAX_BYTES && token.len() >= MIN_BYTES;
    if !whole || token.contains(char::is_control) {
        return Err(UnusableToken::Malformed(path.to_owned()));
    }
    Ok((Digest::sha256(token.as_bytes()), seen))
}

impl Seen {
    fn of(metadata: &fs::Metadata) -> Self {
        Self {
            modified: metadata.modified().ok(),
            length: metadata.len(),
            #[cfg(unix)]
            inode: std::os::unix::fs::MetadataExt::ino(metadata),
        }
    }
}

impl fmt::Debug for TokenFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenFile").field("path", &self.path).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changed_token_takes_effect_without_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        fs::write(&path, "first\n").unwrap();
        let token = TokenFile::open(&path).unwrap();
        let start = Instant::now();
        assert!(token.matches_at("first", start));
        assert!(!token.matches_at("firs", start) && !token.matches_at("first\n", start));

        fs::write(&path, "second").unwrap();
        assert!(token.matches_at("first", start), "the file is not looked at for every request");
        assert!(token.matches_at("second", start + CHECK_INTERVAL));
        assert!(!token.matches_at("first", start + CHECK_INTERVAL));

        // Kubernetes replaces it with another file of the same size.
        let next = dir.path().join("next");
        fs::write(&next, "third!").unwrap();
        fs::rename(&next, &path).unwrap();
        assert!(token.matches_at("third!", start + 2 * CHECK_INTERVAL));
    }

    #[test]
    fn missing_or_empty_file_keeps_the_last_token() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        fs::write(&path, "first").unwrap();
        let token = TokenFile::open(&path).unwrap();
        let start = Instant::now();
        fs::write(&path, "").unwrap();
        assert!(token.matches_at("first", start + CHECK_INTERVAL));
        assert!(!token.matches_at("", start + CHECK_INTERVAL));
        fs::remove_file(&path).unwrap();
        assert!(token.matches_at("first", start + 2 * CHECK_INTERVAL));
        fs::write(&path, "later").unwrap();
        assert!(token.matches_at("later", start + 3 * CHECK_INTERVAL));
    }

    #[test]
    fn invalid_token_files_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        assert!(matches!(TokenFile::open(&path), Err(UnusableToken::Unreadable(..))));
        for content in ["", " \n", "abc", "two\nlines", &"x".repeat(5000)] {
            fs::write(&path, content).unwrap();
            assert!(matches!(TokenFile::open(&path), Err(UnusableToken::Malformed(_))), "{content:?}");
        }
        fs::write(&path, b"\xff\xff\xff\xff\xff").unwrap();
        assert!(matches!(TokenFile::open(&path), Err(UnusableToken::Malformed(_))));
    }
}
