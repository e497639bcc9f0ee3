//! Reads manifests, and no more of them than there is room for.

use std::{
    error::Error as _,
    fmt,
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use super::error::{BadManifest, Position};

/// How many bytes all manifests may have together.
const MAX_BYTES: u64 = 64 << 20;

/// A manifest as it was read, and what to call it.
#[derive(Debug)]
pub(super) struct Manifest {
    pub(super) name: String,
    pub(super) text: String,
}

/// A manifest that cannot be used, and why.
#[derive(Debug, thiserror::Error)]
pub(super) enum BadInput {
    /// It cannot be read.
    #[error("{name}")]
    Unreadable {
        name: String,
        #[source]
        source: io::Error,
    },
    /// With those before it, it is too large.
    #[error("{name}: manifests may have {} MiB together, and with this one they have more", MAX_BYTES >> 20)]
    TooLarge { name: String },
    /// It is no manifest.
    #[error("{name}:{bad}")]
    Bad { name: String, bad: BadManifest },
}

/// Every manifest that cannot be used, one a line.
#[derive(Debug)]
pub(super) struct BadInputs(pub(super) Vec<BadInput>);

/// Reads one manifest after the other; `-` is standard input.
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
        // A byte more than allowed tells a manifest that is too large from one that fits exactly.
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
                let bad = end_of(&String::from_utf8_lossy(good)).bad("this is not UTF-8 text");
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
            // The chain ends here: an error has one source, and these have one each.
            if let Some(source) = bad.source() {
                write!(f, ": {source}")?;
            }
        }
        Ok(())
    }
}

/// The position after all of `text`.
fn end_of(text: &str) -> Position {
    let last = text.rsplit('\n').next().unwrap_or_default();
    Position { line: text.matches('\n').count() + 1, column: last.chars().count() + 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_counted_as_editors_do() {
        for (text, line, column) in [("", 1, 1), ("é", 1, 2), ("a\n", 2, 1), ("a\r\nbc", 2, 3)] {
            assert_eq!(end_of(text), Position { line, column }, "{text:?}");
        }
    }
}
