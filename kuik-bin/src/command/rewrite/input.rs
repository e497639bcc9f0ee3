//! Manifest reader with a total size limit.

use std::{
    error::Error as _,
    fmt,
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use super::error::{BadManifest, Position};

/// Maximum total size of all manifests, in bytes.
const MAX_BYTES: u64 = 64 << 20;

/// A manifest and its name in messages.
#[derive(Debug)]
pub(super) struct Manifest {
    pub(super) name: String,
    pub(super) text: String,
}

/// Error of a manifest.
#[derive(Debug, thiserror::Error)]
pub(super) enum BadInput {
    /// It cannot be read.
    #[error("{name}")]
    Unreadable {
        name: String,
        #[source]
        source: io::Error,
    },
    /// The total size limit is exceeded.
    #[error("{name}: exceeds the limit of {} MiB for all manifests together", MAX_BYTES >> 20)]
    TooLarge { name: String },
    /// It is not a manifest.
    #[error("{name}:{bad}")]
    Bad { name: String, bad: BadManifest },
}

/// All errors of manifests, one per line.
#[derive(Debug)]
pub(super) struct BadInputs(pub(super) Vec<BadInput>);

/// Reads manifests in sequence; `-` is standard input.
#[derive(Debug)]
pub(super) struct Inputs {
    left: u64,
}

impl Inputs {
    pub(super) fn new() -> Self {
        Self { left: MAX_BYTES }
    }

    pub(super) fn read(&mut self, path: &PathBuf) -> Result<Manifest, BadInput> {
        let standard = path == Path::new("-");
        let name = if standard { "standard input".to_owned() } else { path.display().to_string() };
        let mut bytes = Vec::new();
        // One byte more than allowed distinguishes a manifest that is too large from one that fits exactly.
        let limit = self.left + 1;
        let read = if standard {
            io::stdin().lock().take(limit).read_to_end(&mut bytes)
        } else {
            File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes))
        };
        if let Err(source) = read {
            return Err(BadInput::Unreadable { name, source });
        }
        let Some(left) = self.left.checked_sub(bytes.len() as u64) else {
            return Err(BadInput::TooLarge { name });
        };
        self.left = left;
        match String::from_utf8(bytes) {
            Ok(text) => Ok(Manifest { name, text }),
            Err(error) => {
                let good = error.as_bytes().get(..error.utf8_error().valid_up_to()).unwrap_or_default();
                let bad = end_of(&String::from_utf8_lossy(good)).bad("not UTF-8 text");
                Err(BadInput::Bad { name, bad })
            }
        }
    }
}

impl std::error::Error for BadInputs {}

impl fmt::Display for BadInputs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, bad) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{bad}")?;
            // The sources are printed here: an error can have only one source, and each of these has its own.
            if let Some(source) = bad.source() {
                write!(f, ": {source}")?;
            }
        }
        Ok(())
    }
}

/// Returns the position at the end of `text`.
fn end_of(text: &str) -> Position {
    let last = text.rsplit('\n').next().unwrap_or_default();
    Position { line: text.matches('\n').count() + 1, column: last.chars().count() + 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn end_position_matches_editors() {
        for (text, line, column) in [("", 1, 1), ("é", 1, 2), ("a\n", 2, 1), ("a\r\nbc", 2, 3)] {
            assert_eq!(end_of(text), Position { line, column }, "{text:?}");
        }
    }
}
