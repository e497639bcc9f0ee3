//! Chunks of a manifest for the YAML parser, and the mapping from parser positions to byte offsets.
//!
//! JSON is YAML with two exceptions, which are handled here. JSON documents may follow each other without a separator, so
//! each becomes a chunk. JSON may write a character as two `\u` surrogates, which YAML rejects, so the parser gets
//! replacement characters of the same length instead, which are never printed.
//!
//! The parser counts characters; everything else counts bytes of the original text.

use std::borrow::Cow;

use saphyr_parser::{Marker, Parser, ScanError, Span, StrInput};
use serde::de::IgnoredAny;

use super::error::{BadManifest, Position};

/// Number of characters per stored byte offset.
const STRIDE: usize = 64;

pub(super) struct Chunk<'t> {
    /// Text for the parser, with as many characters as the chunk.
    view: Cow<'t, str>,
    /// Byte offset of the chunk in the whole text.
    start: usize,
    start_at: Position,
    /// Byte offset in `view` of every [`STRIDE`]th character; `None` if the text is ASCII.
    strides: Option<Vec<usize>>,
}

/// Splits a text into chunks: one for each document of a JSON stream, otherwise one in total.
pub(super) fn chunks(text: &str) -> Vec<Chunk<'_>> {
    json_documents(text).unwrap_or_else(|| vec![Chunk::new(text.into(), 0, Position::START)])
}

/// Returns whether a text consists of one or more JSON documents.
pub(super) fn is_json(text: &str) -> bool {
    json_documents(text).is_some()
}

fn json_documents(text: &str) -> Option<Vec<Chunk<'_>>> {
    let body = text.trim_start_matches('\u{feff}');
    let skipped = text.len() - body.len();
    if !body.trim_ascii_start().starts_with(['{', '[']) {
        return None;
    }
    let mut chunks = Vec::new();
    let (mut start, mut at) = (0, Position::START);
    let mut documents = serde_json::Deserializer::from_str(body).into_iter::<IgnoredAny>();
    while let Some(document) = documents.next() {
        document.ok()?;
        let piece = body.get(start..documents.byte_offset())?;
        chunks.push(Chunk::new(without_surrogates(piece), skipped + start, at));
        for character in piece.chars() {
            at = match character {
                '\n' => Position { line: at.line + 1, column: 1 },
                _ => Position { line: at.line, column: at.column + 1 },
            };
        }
        start = documents.byte_offset();
    }
    Some(chunks)
}

/// Replaces each `\ud800` to `\udfff` in valid JSON with `\ufffd`.
fn without_surrogates(json: &str) -> Cow<'_, str> {
    let is_surrogate = |escape: &str| {
        let hex = escape.get(2..6).and_then(|digits| u32::from_str_radix(digits, 16).ok());
        escape.starts_with("\\u") && hex.is_some_and(|code| (0xd800..0xe000).contains(&code))
    };
    let mut shown = String::new();
    let mut rest = json;
    let mut from = 0;
    while let Some(backslash) = rest.get(from..).and_then(|tail| tail.find('\\')).map(|found| from + found) {
        if rest.get(backslash..).is_some_and(is_surrogate) {
            shown.push_str(rest.get(..backslash).unwrap_or_default());
            shown.push_str("\\ufffd");
            rest = rest.get(backslash + 6..).unwrap_or_default();
            from = 0;
        } else {
            // A backslash and the escaped character.
            let escaped = rest.get(backslash + 1..).and_then(|tail| tail.chars().next());
            from = backslash + 1 + escaped.map_or(0, char::len_utf8);
        }
    }
    if shown.is_empty() {
        return Cow::Borrowed(json);
    }
    shown.push_str(rest);
    Cow::Owned(shown)
}

impl<'t> Chunk<'t> {
    fn new(view: Cow<'t, str>, start: usize, start_at: Position) -> Self {
        let strides = (!view.is_ascii())
            .then(|| view.char_indices().step_by(STRIDE).map(|(offset, _)| offset).collect());
        Self { view, start, start_at, strides }
    }

    pub(super) fn parser(&self) -> Parser<'_, StrInput<'_>> {
        Parser::new_from_str(&self.view)
    }

    /// Returns the byte range of `span` in the whole text.
    pub(super) fn range(&self, span: Span) -> std::ops::Range<usize> {
        self.start + self.byte(span.start.index())..self.start + self.byte(span.end.index())
    }

    pub(super) fn position(&self, marker: &Marker) -> Position {
        let (lines, column) = (marker.line().saturating_sub(1), marker.col());
        match lines {
            0 => Position { line: self.start_at.line, column: self.start_at.column + column },
            _ => Position { line: self.start_at.line + lines, column: column + 1 },
        }
    }

    pub(super) fn error(&self, error: &ScanError) -> BadManifest {
        self.position(error.marker()).bad(error.info())
    }

    fn byte(&self, character: usize) -> usize {
        let Some(strides) = &self.strides else { return character.min(self.view.len()) };
        let Some(&near) = strides.get(character / STRIDE) else { return self.view.len() };
        let tail = self.view.get(near..).unwrap_or_default();
        let beyond = tail.char_indices().nth(character % STRIDE).map_or(tail.len(), |(offset, _)| offset);
        near + beyond
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_documents_become_separate_chunks() {
        let text = "\u{feff}{\"a\":\n1}\n {\"b\":2} [3]\n";
        let chunks = chunks(text);
        let views: Vec<_> = chunks.iter().map(|chunk| chunk.view.as_ref()).collect();
        assert_eq!(views, ["{\"a\":\n1}", "\n {\"b\":2}", " [3]"]);
        assert_eq!(chunks[1].start_at, Position { line: 2, column: 3 });
        assert_eq!(chunks[2].start, text.find(" [3]").unwrap());
    }

    #[test]
    fn yaml_is_one_chunk() {
        for text in ["", "a: b", "{a: b}", "{\"a\": 1}\n---\n{\"b\": 2}\n", "[1, 2"] {
            assert_eq!(chunks(text).len(), 1, "{text:?}");
        }
    }

    #[test]
    fn surrogates_are_replaced_at_the_same_length() {
        let json = r#"{"a":"\ud83d\ude00 é \\ud83d \\\ud83d\ude00 \u0041"}"#;
        let shown = without_surrogates(json);
        assert_eq!(shown, r#"{"a":"\ufffd\ufffd é \\ud83d \\\ufffd\ufffd \u0041"}"#);
        assert!(matches!(without_surrogates(r#""\u0041\\ud83d""#), Cow::Borrowed(_)));
    }

    #[test]
    fn character_positions_map_to_bytes() {
        let text: String = "aé日😀".chars().cycle().take(1000).collect();
        let chunk = Chunk::new(text.as_str().into(), 0, Position::START);
        for (index, (offset, _)) in text.char_indices().enumerate() {
            assert_eq!(chunk.byte(index), offset);
        }
        assert_eq!(chunk.byte(1000), text.len());
        assert_eq!(chunk.byte(9999), text.len());
    }
}
