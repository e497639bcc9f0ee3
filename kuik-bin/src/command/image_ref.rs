//! `kuik image-ref`: image reference parser, with one JSON object per line of output.
//!
//! It is a filter: each line of input produces one line of output, in order, in constant memory.

use std::{
    ffi::OsString,
    io::{self, BufRead, BufReader, BufWriter, Read, Write},
};

use kuik_core::reference::{ImageReference, ProxyAuthority, encode};
use serde::Serialize;

/// Maximum line length in bytes, far above that of any reference.
const MAX_LINE: usize = 64 * 1024;
const BUFFER: usize = 64 * 1024;

/// Parse image references and print one JSON object per line.
///
/// Each object has `input` and `valid`. If valid: `registry` and `repository` (normalized), `tag` and `digest` (as
/// written, or null), `normalized` (the full name, with `:latest` if there is neither tag nor digest), `familiar` (the
/// shortest equivalent name) and `proxied` (the rewritten image, or null if it cannot be pulled through the proxy).
/// Otherwise: `error`. The exit code is 0 even if references are invalid.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Image references; without any, they are read from standard input, one per line.
    #[arg(value_name = "REF")]
    references: Vec<OsString>,
    /// Port of the proxy on every node.
    #[arg(long, default_value_t = 7439, value_parser = clap::value_parser!(u16).range(1..))]
    port: u16,
}

impl Arguments {
    /// Parses the arguments, or standard input if there are none, and writes to standard output.
    ///
    /// # Errors
    /// Fails if input cannot be read, or output cannot be written.
    pub fn run(&self) -> io::Result<()> {
        let mut answers = Answers {
            proxy: ProxyAuthority::localhost(self.port),
            output: BufWriter::with_capacity(BUFFER, io::stdout().lock()),
        };
        if self.references.is_empty() {
            answers.answer_lines(io::stdin().lock())?;
        }
        for reference in &self.references {
            answers.answer(reference.as_encoded_bytes())?;
        }
        answers.output.flush()
    }
}

struct Answers<W> {
    proxy: ProxyAuthority,
    output: W,
}

#[derive(Serialize)]
struct Answer<'a> {
    input: &'a str,
    valid: bool,
    #[serde(flatten)]
    meaning: Meaning<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Meaning<'a> {
    Valid {
        registry: &'a str,
        repository: &'a str,
        tag: Option<&'a str>,
        digest: Option<&'a str>,
        normalized: String,
        familiar: String,
        proxied: Option<String>,
    },
    Invalid {
        error: String,
    },
}

impl<W: Write> Answers<W> {
    fn answer_lines(&mut self, input: impl Read) -> io::Result<()> {
        let mut input = BufReader::with_capacity(BUFFER, input);
        let mut line = Vec::new();
        while read_line(&mut input, &mut line)? {
            self.answer(&line)?;
            if input.buffer().is_empty() {
                // An interactive caller may be waiting for this answer.
                self.output.flush()?;
            }
        }
        Ok(())
    }

    fn answer(&mut self, reference: &[u8]) -> io::Result<()> {
        if reference.len() > MAX_LINE {
            let shown = String::from_utf8_lossy(reference.get(..MAX_LINE).unwrap_or_default());
            return self.invalid(&shown, format!("it has more than {MAX_LINE} bytes"));
        }
        match str::from_utf8(reference) {
            Ok(text) => self.answer_text(text),
            Err(error) => self.invalid(
                &String::from_utf8_lossy(reference),
                format!("it is not UTF-8 text at byte {}", error.valid_up_to()),
            ),
        }
    }

    fn answer_text(&mut self, text: &str) -> io::Result<()> {
        match ImageReference::parse(text) {
            Ok(image) => self.write(&Answer {
                input: text,
                valid: true,
                meaning: Meaning::Valid {
                    registry: image.registry(),
                    repository: &image.path(),
                    tag: image.tag(),
                    digest: image.digest(),
                    normalized: image.normalized(),
                    familiar: image.familiar(),
                    proxied: encode(&image, &self.proxy).ok(),
                },
            }),
            Err(error) => self.invalid(text, error.to_string()),
        }
    }

    fn invalid(&mut self, input: &str, error: String) -> io::Result<()> {
        self.write(&Answer { input, valid: false, meaning: Meaning::Invalid { error } })
    }

    fn write(&mut self, answer: &Answer<'_>) -> io::Result<()> {
        serde_json::to_writer(&mut self.output, answer)?;
        self.output.write_all(b"\n")
    }
}

/// Reads a line into `line`, without its line ending; truncates long lines to one byte more than [`MAX_LINE`]. Returns
/// whether there was a line.
fn read_line(input: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<bool> {
    line.clear();
    // A line of maximum length, and a `\r\n` that does not count.
    let limit = MAX_LINE + 2;
    let read = input.by_ref().take(limit as u64).read_until(b'\n', line)?;
    if line.last() == Some(&b'\n') {
        line.pop();
    } else if read == limit {
        input.skip_until(b'\n')?;
    }
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    Ok(read > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(input: &[u8]) -> Vec<serde_json::Value> {
        let mut answers = Answers { proxy: ProxyAuthority::localhost(7439), output: Vec::new() };
        answers.answer_lines(input).unwrap();
        let text = String::from_utf8(answers.output).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn each_line_produces_one_answer() {
        let long = "a".repeat(MAX_LINE);
        let lines =
            [b"nginx".as_slice(), b"", b"\xff\xfe", long.as_bytes(), b"quay.io/app"].join(b"\r\n".as_slice());
        let answers = answers(&lines);
        let valid: Vec<_> = answers.iter().map(|answer| answer["valid"].as_bool().unwrap()).collect();
        assert_eq!(valid, [true, false, false, false, true]);
        assert_eq!(answers[3]["input"].as_str(), Some(long.as_str()));
        assert_eq!(answers[4]["registry"], "quay.io");
    }

    #[test]
    fn long_line_is_truncated() {
        for excess in [1, 2, 3, 4, MAX_LINE] {
            let mut lines = vec![b'a'; MAX_LINE + excess];
            lines.extend_from_slice(b"\nnginx\n");
            let answers = answers(&lines);
            assert_eq!(answers.len(), 2, "{excess}");
            assert_eq!(answers[0]["input"].as_str().map(str::len), Some(MAX_LINE));
            assert_eq!(answers[0]["error"], "it has more than 65536 bytes");
            assert_eq!(answers[1]["input"], "nginx");
        }
    }
}
