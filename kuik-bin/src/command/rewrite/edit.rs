//! Text edits by byte range, verified to change nothing else.
//!
//! After the edits, the text is parsed again alongside the original: all parser events must be equal, except for the
//! edited scalars, which must have their new values. A wrong range, from here or from the parser, thus causes an error
//! and never a manifest with a different meaning.

use std::{collections::BTreeMap, ops::Range};

use saphyr_parser::Event;

use super::{
    chunk::{Chunk, chunks},
    error::{BadManifest, Position},
};

/// Replacement of one value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Edit {
    /// Byte range to replace.
    pub(super) range: Range<usize>,
    /// New text.
    pub(super) text: String,
    /// Number of the value's parser event, from 1.
    pub(super) event: usize,
}

/// Applies the edits.
pub(super) fn apply(text: &str, edits: &[Edit]) -> Result<String, BadManifest> {
    let mut ordered: Vec<_> = edits.iter().collect();
    ordered.sort_by_key(|edit| edit.range.start);
    let mut edited = String::with_capacity(text.len() + edits.len() * 32);
    let mut done = 0;
    for edit in ordered {
        let Some(before) = text.get(done..edit.range.start) else { return Err(unsound(Position::START)) };
        edited.push_str(before);
        edited.push_str(&edit.text);
        done = edit.range.end;
    }
    edited.push_str(text.get(done..).ok_or_else(|| unsound(Position::START))?);
    verify(text, &edited, edits)?;
    Ok(edited)
}

fn verify(before: &str, after: &str, edits: &[Edit]) -> Result<(), BadManifest> {
    let expected: BTreeMap<_, _> = edits.iter().map(|edit| (edit.event, edit.text.as_str())).collect();
    let (before, after) = (chunks(before), chunks(after));
    if before.len() != after.len() {
        return Err(unsound(Position::START));
    }
    let mut events = 0;
    for (before, after) in before.iter().zip(&after) {
        verify_chunk(before, after, &expected, &mut events)?;
    }
    Ok(())
}

fn verify_chunk(
    before: &Chunk<'_>,
    after: &Chunk<'_>,
    expected: &BTreeMap<usize, &str>,
    events: &mut usize,
) -> Result<(), BadManifest> {
    let (mut old, mut new) = (before.parser(), after.parser());
    loop {
        let (old, new) = match (old.next_event(), new.next_event()) {
            (None, None) => return Ok(()),
            (Some(Ok(old)), Some(Ok(new))) => (old, new),
            _ => return Err(unsound(Position::START)),
        };
        *events += 1;
        let as_expected = match (expected.get(events), &old.0, &new.0) {
            (None, old, new) => old == new,
            (
                Some(text),
                Event::Scalar(_, style, anchor, tag),
                Event::Scalar(new, new_style, new_anchor, new_tag),
            ) => new == text && (style, anchor, tag) == (new_style, new_anchor, new_tag),
            // An alias that was replaced by a value.
            (Some(text), Event::Alias(_), Event::Scalar(new, _, 0, None)) => new == text,
            _ => false,
        };
        if !as_expected {
            return Err(unsound(before.position(&old.1.start)));
        }
    }
}

fn unsound(at: Position) -> BadManifest {
    at.bad("cannot edit this in place without changing more than images")
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "image: nginx # web\nother: nginx\n";

    fn edit(range: Range<usize>, text: &str, event: usize) -> Edit {
        Edit { range, text: text.to_owned(), event }
    }

    #[test]
    fn edits_apply_in_any_order() {
        let edits = [edit(26..31, "b:2", 7), edit(7..12, "a/1", 5)];
        assert_eq!(apply(TEXT, &edits).unwrap(), "image: a/1 # web\nother: b:2\n");
        assert_eq!(apply(TEXT, &[]).unwrap(), TEXT);
    }

    #[test]
    fn edit_that_changes_anything_else_is_rejected() {
        for wrong in [
            edit(7..12, "a: b", 5),  // becomes a map, or an error
            edit(7..12, "a #b", 5),  // the rest becomes a comment
            edit(0..5, "image2", 5), // the key, not the value
            edit(7..11, "a", 5),     // a byte too few
            edit(7..18, "a", 7),     // another event than the one named
            edit(7..12, "a", 9),     // the event that ends the map
            edit(7..999, "a", 5),    // past the end
            edit(7..12, "~x: [", 5), // no YAML at all
        ] {
            assert!(apply(TEXT, std::slice::from_ref(&wrong)).is_err(), "{wrong:?}");
        }
        let overlapping = [edit(7..12, "a", 5), edit(10..12, "b", 7)];
        assert!(apply(TEXT, &overlapping).is_err());
    }
}
