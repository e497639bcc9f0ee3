//! Evaluation of a document: its tree as plain JSON, with aliases and merge keys (`<<`) expanded, and the mapping from a
//! JSON pointer back to the tree.
//!
//! Invariant: for any document, time and memory are proportional to its text: alias expansion and depth are bounded.

use std::collections::BTreeMap;

use saphyr_parser::ScalarStyle;
use serde_json::{Map, Number, Value};

use super::{
    error::{BadManifest, Position},
    tree::{Content, Node, Scalar, Slot, Tag, Tree},
};

/// Maximum nesting depth, including aliases.
const MAX_DEPTH: usize = 128;
/// Maximum cost of alias expansion in one document: bytes of text, plus [`VALUE_COST`] for each value.
const MAX_EXPANSION: usize = 64 << 20;
const VALUE_COST: usize = 64;

impl Tree {
    /// Returns the document as JSON.
    pub(super) fn to_value(&self) -> Result<Value, BadManifest> {
        Expansion { tree: self, left: MAX_EXPANSION }.value(self.root, 0, false)
    }

    /// Returns the entry at `pointer`, which must be in the form of [`kuik_webhook::pod`], in a tree that
    /// [`Tree::to_value`] accepts.
    pub(super) fn resolve(&self, pointer: &str) -> Option<Slot> {
        pointer.split('/').skip(1).try_fold(self.root, |slot, step| match &self.node(slot.node)?.content {
            Content::Scalar(_) => None,
            Content::List(items) => items.get(step.parse::<usize>().ok()?).copied(),
            Content::Map(entries) => self.lookup(entries, step),
        })
    }

    /// Returns the value of `key`, by the rules of [`Expansion::entries`].
    fn lookup(&self, entries: &[(Slot, Slot)], key: &str) -> Option<Slot> {
        let own =
            entries.iter().rev().find(|(name, _)| self.key(*name) == Some(key) && !self.is_merge(*name));
        own.map(|(_, value)| *value).or_else(|| {
            let merges = entries.iter().filter(|(name, _)| self.is_merge(*name));
            merges.flat_map(|(_, merged)| self.merged(*merged)).find_map(|slot| match self.node(slot.node) {
                Some(Node { content: Content::Map(entries), .. }) => self.lookup(entries, key),
                _ => None,
            })
        })
    }

    fn key(&self, slot: Slot) -> Option<&str> {
        self.scalar(slot.node).map(|scalar| scalar.text.as_ref())
    }

    fn is_merge(&self, slot: Slot) -> bool {
        self.scalar(slot.node).is_some_and(|key| key.style == ScalarStyle::Plain && &*key.text == "<<")
    }

    /// Returns the maps of a merge key's value: the value itself, or its items.
    fn merged(&self, value: Slot) -> Vec<Slot> {
        match self.node(value.node).map(|node| &node.content) {
            Some(Content::List(items)) => items.clone(),
            Some(Content::Map(_)) => vec![value],
            _ => Vec::new(),
        }
    }
}

struct Expansion<'t> {
    tree: &'t Tree,
    left: usize,
}

impl<'t> Expansion<'t> {
    /// Evaluates an entry. `aliased`: it is reached through an alias, so its text may count more than once.
    fn value(&mut self, slot: Slot, depth: usize, aliased: bool) -> Result<Value, BadManifest> {
        let Some(node) = self.tree.node(slot.node) else { return Ok(Value::Null) };
        if depth > MAX_DEPTH {
            return Err(node.at.bad(format!("values are nested more than {MAX_DEPTH} deep")));
        }
        let aliased = aliased || slot.alias.is_some();
        match &node.content {
            Content::Scalar(scalar) => {
                self.spend(aliased, scalar.text.len(), node.at)?;
                Ok(typed(scalar))
            }
            Content::List(items) => {
                self.spend(aliased, 0, node.at)?;
                let items = items.iter().map(|item| self.value(*item, depth + 1, aliased));
                Ok(Value::Array(items.collect::<Result<_, _>>()?))
            }
            Content::Map(_) => {
                self.spend(aliased, 0, node.at)?;
                let mut entries = BTreeMap::new();
                self.entries(node, &mut entries, depth, aliased)?;
                let mut map = Map::new();
                for (key, (value, aliased)) in entries {
                    map.insert(key.to_owned(), self.value(value, depth + 1, aliased)?);
                }
                Ok(Value::Object(map))
            }
        }
    }

    /// Returns the entries of a map: its own, of which the last with a name wins, and merged ones with other names, of which
    /// the first wins.
    fn entries(
        &mut self,
        map: &'t Node,
        found: &mut BTreeMap<&'t str, (Slot, bool)>,
        depth: usize,
        aliased: bool,
    ) -> Result<(), BadManifest> {
        let Content::Map(entries) = &map.content else { return Ok(()) };
        if depth > MAX_DEPTH {
            return Err(map.at.bad(format!("values are nested more than {MAX_DEPTH} deep")));
        }
        self.spend(aliased, entries.len() * VALUE_COST, map.at)?;
        let tree = self.tree;
        let (merges, own): (Vec<_>, Vec<_>) = entries.iter().partition(|(name, _)| tree.is_merge(*name));
        let mut named = BTreeMap::new();
        for (name, value) in own {
            if let Some(key) = tree.key(name) {
                named.insert(key, (value, aliased));
            }
        }
        for (key, value) in named {
            found.entry(key).or_insert(value);
        }
        for slot in merges.iter().flat_map(|(_, merged)| tree.merged(*merged)) {
            if let Some(node) = tree.node(slot.node) {
                self.entries(node, found, depth + 1, true)?;
            }
        }
        Ok(())
    }

    fn spend(&mut self, aliased: bool, bytes: usize, at: Position) -> Result<(), BadManifest> {
        if aliased {
            let left = self.left.checked_sub(bytes.saturating_add(VALUE_COST));
            self.left = left.ok_or_else(|| at.bad("the document's aliases expand to too much content"))?;
        }
        Ok(())
    }
}

/// Converts a scalar by the core schema of YAML 1.2. With an unknown tag, it becomes null.
fn typed(scalar: &Scalar) -> Value {
    let text = scalar.text.as_ref();
    match (scalar.tag, scalar.style) {
        (Tag::Other, _) => Value::Null,
        (Tag::None, ScalarStyle::Plain) => match text {
            "" | "~" | "null" | "Null" | "NULL" => Value::Null,
            "true" | "True" | "TRUE" => Value::Bool(true),
            "false" | "False" | "FALSE" => Value::Bool(false),
            _ => number(text).map_or_else(|| Value::String(text.to_owned()), Value::Number),
        },
        (Tag::None | Tag::String, _) => Value::String(text.to_owned()),
    }
}

fn number(text: &str) -> Option<Number> {
    let numeric = text.bytes().all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte));
    if !numeric || !text.bytes().any(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse::<i64>().ok().map(Number::from).or_else(|| text.parse().ok().and_then(Number::from_f64))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{super::tree::documents, *};

    fn value(text: &str) -> Result<Value, BadManifest> {
        documents(text)?.first().map_or(Ok(Value::Null), Tree::to_value)
    }

    #[test]
    fn scalars_have_the_types_of_the_core_schema() {
        let text = "[~, , true, False, 12, -1.5, 1e3, nginx, '12', \"true\", !!str 12, !x y, 1.2.3, 0x1f]";
        let expected = json!([
            null, null, true, false, 12, -1.5, 1000.0, "nginx", "12", "true", "12", null, "1.2.3", "0x1f"
        ]);
        assert_eq!(value(&text.replace(", ,", ", null,")), Ok(expected));
    }

    #[test]
    fn aliases_and_merges_are_expanded() {
        let text = "a: &a {x: 1, y: 1}\nb: &b {y: 2, z: 2}\nc: {<<: [*a, *b], x: 0}\nd: *b\ne: {x: 9, <<: *a}\nf: {x: 1, x: 2}\n";
        let c = json!({ "x": 0, "y": 1, "z": 2 });
        let got = value(text).unwrap();
        assert_eq!(got["c"], c);
        assert_eq!(got["d"], json!({ "y": 2, "z": 2 }));
        assert_eq!(got["e"], json!({ "x": 9, "y": 1 }));
        assert_eq!(got["f"], json!({ "x": 2 }));
        let tree = documents(text).unwrap().remove(0);
        for pointer in ["/c/x", "/c/y", "/c/z", "/d/y", "/e/x", "/e/y", "/f/x"] {
            let slot = tree.resolve(pointer).unwrap();
            let scalar = typed(tree.scalar(slot.node).unwrap());
            assert_eq!(Some(&scalar), got.pointer(pointer), "{pointer}");
        }
        assert_eq!(tree.resolve("/c/q"), None);
    }

    #[test]
    fn alias_bombs_and_deep_nesting_are_rejected() {
        let mut laughs = "a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n".to_owned();
        let mut merges = "a0: &a0 {k: v}\n".to_owned();
        for level in 1..40 {
            let aliases = vec![format!("*a{}", level - 1); 9].join(", ");
            laughs.push_str(&format!("a{level}: &a{level} [{aliases}]\n"));
            merges.push_str(&format!("a{level}: &a{level} {{<<: [{aliases}]}}\n"));
        }
        for text in [laughs, merges] {
            assert_eq!(
                value(&text).unwrap_err().problem,
                "the document's aliases expand to too much content"
            );
        }
        for text in ["a: &a [*a]", "a: &a {b: *a}", "a: &a {<<: *a}"] {
            assert!(value(text).unwrap_err().problem.contains("deep"), "{text}");
        }
        let deep = format!("{}{}", "- ".repeat(100_000), "x");
        assert!(value(&deep).unwrap_err().problem.contains("deep"));
    }

    #[test]
    fn anchor_of_another_document_is_undefined() {
        assert!(documents("a: &x 1\n---\nb: *x\n").is_err_and(|error| error.at.line == 3));
    }
}
