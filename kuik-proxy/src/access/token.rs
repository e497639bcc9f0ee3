//! The token in its file: read again when the file changes, so that rotating it needs no restart.

use std::{
    fmt, fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use kuik_core::content::Digest;
use subtle::ConstantTimeEq as _;

/// How often the file is looked at, at most.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The longest token that is read, in bytes.
const MAX_BYTES: u64 = 4096;

/// The shortest token that is taken: a shorter file is one that somebody has begun to write.
const MIN_BYTES: usize = 4;

/// A token in a file. Cheap to clone; prints no secret.
#[derive(Clone)]
pub struct TokenFile {
    path: Arc<Path>,
    state: Arc<Mutex<State>>,
}

/// What is known of the file. The token itself is not kept: its hash is enough to compare with.
struct State {
    hash: Digest,
    seen: Seen,
    looked_at: Instant,
}

/// By what a file is known to have changed. A Secret of Kubernetes is a link to another file after a change.
#[derive(Clone, PartialEq, Eq)]
struct Seen {
    modified: Option<SystemTime>,
    length: u64,
    #[cfg(unix)]
    inode: u64,
}

/// A token file that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UnusableToken {
    /// It cannot be read.
    #[error("cannot read the token file {0}")]
    Unreadable(PathBuf, #[source] io::Error),
    /// What it holds is no token.
    #[error("the token file {0} holds no token: {MIN_BYTES} to {MAX_BYTES} bytes of text, on one line")]
    Malformed(PathBuf),
}

impl TokenFile {
    /// Reads the token in a file; space around it is not part of it.
    ///
    /// # Errors
    /// Where there is none.
    pub fn open(path: &Path) -> Result<Self, UnusableToken> {
        let (hash, seen) = read(path)?;
        let state = State { hash, seen, looked_at: Instant::now() };
        Ok(Self { path: path.into(), state: Arc::new(Mutex::new(state)) })
    }

    /// Whether `secret` is the token now. How long it takes says nothing about how much of it is right.
    #[must_use]
    pub fn matches(&self, secret: &str) -> bool {
        self.matches_at(secret, Instant::now())
    }

    fn matches_at(&self, secret: &str, now: Instant) -> bool {
        let shown = Digest::sha256(secret.as_bytes());
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if now.saturating_duration_since(state.looked_at) >= LOOK_EVERY {
            state.looked_at = now;
            self.look(&mut state);
        }
        shown.as_str().as_bytes().ct_eq(state.hash.as_str().as_bytes()).into()
    }

    /// Reads the file again where it has changed. Where it is gone or half written, the last token holds.
    fn look(&self, state: &mut State) {
        match fs::metadata(&self.path) {
            Ok(metadata) if Seen::of(&metadata) == state.seen => return,
            _ => {}
        }
        match read(&self.path) {
            Ok((hash, seen)) => {
                if hash != state.hash {
                    tracing::info!(file = %self.path.display(), "the token has changed");
                }
                (state.hash, state.seen) = (hash, seen);
            }
            Err(error) => {
                tracing::warn!(%error, "the token cannot be read again: the last one holds");
            }
        }
    }
}

fn read(path: &Path) -> Result<(Digest, Seen), UnusableToken> {
    let unreadable = |error| UnusableToken::Unreadable(path.to_owned(), error);
    let file = fs::File::open(path).map_err(unreadable)?;
    // Looked at before it is read: what is written meanwhile is seen the next time.
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
    fn a_new_token_holds_without_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        fs::write(&path, "first\n").unwrap();
        let token = TokenFile::open(&path).unwrap();
        let start = Instant::now();
        assert!(token.matches_at("first", start));
        assert!(!token.matches_at("firs", start) && !token.matches_at("first\n", start));

        fs::write(&path, "second").unwrap();
        assert!(token.matches_at("first", start), "the file is not looked at for every request");
        assert!(token.matches_at("second", start + LOOK_EVERY));
        assert!(!token.matches_at("first", start + LOOK_EVERY));

        // As Kubernetes does it: another file, of the same size, takes its place.
        let next = dir.path().join("next");
        fs::write(&next, "third!").unwrap();
        fs::rename(&next, &path).unwrap();
        assert!(token.matches_at("third!", start + 2 * LOOK_EVERY));
    }

    #[test]
    fn a_file_that_is_gone_or_empty_keeps_the_last_token() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        fs::write(&path, "first").unwrap();
        let token = TokenFile::open(&path).unwrap();
        let start = Instant::now();
        fs::write(&path, "").unwrap();
        assert!(token.matches_at("first", start + LOOK_EVERY));
        assert!(!token.matches_at("", start + LOOK_EVERY));
        fs::remove_file(&path).unwrap();
        assert!(token.matches_at("first", start + 2 * LOOK_EVERY));
        fs::write(&path, "later").unwrap();
        assert!(token.matches_at("later", start + 3 * LOOK_EVERY));
    }

    #[test]
    fn what_is_no_token_is_refused() {
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
