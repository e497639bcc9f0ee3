//! Document trees of a manifest, in which every scalar has its position in the text.
//!
//! Aliases remain references to a node, so a tree is never larger than its text; [`super::value`] expands them. Nodes are
//! numbered in text order.

use std::{collections::HashMap, ops::Range};

use saphyr_parser::{Event, ScalarStyle};

use super::{
    chunk::{Chunk, chunks},
    error::{BadManifest, Position},
};

/// Maximum number of nodes in all documents of one file.
const MAX_NODES: usize = 4_000_000;

/// The number of a node in its tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct NodeId(usize);

/// The number of an alias (`*name`) in its tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct AliasId(usize);

/// An entry of a list or map: its node, and the alias that refers to it, if any.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Slot {
    pub(super) node: NodeId,
    pub(super) alias: Option<AliasId>,
}

pub(super) struct Tree {
    pub(super) root: Slot,
    nodes: Vec<Node>,
    aliases: Vec<Alias>,
}

pub(super) struct Node {
    pub(super) at: Position,
    pub(super) content: Content,
}

pub(super) enum Content {
    Scalar(Scalar),
    List(Vec<Slot>),
    Map(Vec<(Slot, Slot)>),
}

pub(super) struct Scalar {
    pub(super) text: Box<str>,
    pub(super) style: ScalarStyle,
    pub(super) tag: Tag,
    /// Byte range that the parser reported, which exceeds the value: see [`super::scalar`].
    pub(super) range: Range<usize>,
    /// Number of its parser event in the whole text.
    pub(super) event: usize,
}

/// Type that a scalar's tag specifies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tag {
    /// No tag: the type follows from style and text.
    None,
    /// `!!str` or `!`: a string.
    String,
    /// Any other tag: the value is unknown.
    Other,
}

pub(super) struct Alias {
    pub(super) target: NodeId,
    pub(super) range: Range<usize>,
    pub(super) event: usize,
}

/// Parses every document of `text`.
pub(super) fn documents(text: &str) -> Result<Vec<Tree>, BadManifest> {
    let mut builder = Builder::default();
    for chunk in chunks(text) {
        let mut parser = chunk.parser();
        while let Some(event) = parser.next_event() {
            let (event, span) = event.map_err(|error| chunk.error(&error))?;
            builder.event(&chunk, event, span)?;
        }
    }
    Ok(builder.done)
}

impl Tree {
    pub(super) fn node(&self, id: NodeId) -> Option<&Node> {
        self.nodes.get(id.0)
    }

    pub(super) fn scalar(&self, id: NodeId) -> Option<&Scalar> {
        match self.node(id).map(|node| &node.content) {
            Some(Content::Scalar(scalar)) => Some(scalar),
            _ => None,
        }
    }

    pub(super) fn alias(&self, id: AliasId) -> Option<&Alias> {
        self.aliases.get(id.0)
    }

    /// Returns every alias, with its number and its target.
    pub(super) fn aliases(&self) -> impl Iterator<Item = Slot> + '_ {
        let numbered = self.aliases.iter().enumerate();
        numbered.map(|(index, alias)| Slot { node: alias.target, alias: Some(AliasId(index)) })
    }
}

/// Tree builder. Deep nesting uses memory here, not stack.
#[derive(Default)]
struct Builder {
    done: Vec<Tree>,
    nodes: Vec<Node>,
    aliases: Vec<Alias>,
    anchors: HashMap<usize, NodeId>,
    open: Vec<Open>,
    root: Option<Slot>,
    events: usize,
    nodes_done: usize,
}

enum Open {
    List(NodeId, Vec<Slot>),
    Map(NodeId, Vec<(Slot, Slot)>, Option<Slot>),
}

impl Builder {
    fn event(
        &mut self,
        chunk: &Chunk<'_>,
        event: Event<'_>,
        span: saphyr_parser::Span,
    ) -> Result<(), BadManifest> {
        let at = chunk.position(&span.start);
        self.events += 1;
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let tag = match tag.as_deref() {
                    None => Tag::None,
                    Some(tag) if tag.is_yaml_core_schema() && tag.suffix == "str" => Tag::String,
                    Some(tag) if tag.handle.is_empty() && tag.suffix == "!" => Tag::String,
                    Some(_) => Tag::Other,
                };
                let range = chunk.range(span);
                let scalar = Scalar { text: text.into(), style, tag, range, event: self.events };
                let node = self.start(at, anchor, Content::Scalar(scalar))?;
                self.put(Slot { node, alias: None });
            }
            Event::Alias(anchor) => {
                let Some(&target) = self.anchors.get(&anchor) else {
                    return Err(at.bad("this alias refers to an undefined anchor"));
                };
                let alias = Some(AliasId(self.aliases.len()));
                self.aliases.push(Alias { target, range: chunk.range(span), event: self.events });
                self.put(Slot { node: target, alias });
            }
            Event::SequenceStart(anchor, _) => {
                let node = self.start(at, anchor, Content::List(Vec::new()))?;
                self.open.push(Open::List(node, Vec::new()));
            }
            Event::MappingStart(anchor, _) => {
                let node = self.start(at, anchor, Content::Map(Vec::new()))?;
                self.open.push(Open::Map(node, Vec::new(), None));
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(),
            Event::DocumentEnd => self.end_document(),
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentStart(_) => {}
        }
        Ok(())
    }

    fn start(&mut self, at: Position, anchor: usize, content: Content) -> Result<NodeId, BadManifest> {
        if self.nodes_done + self.nodes.len() >= MAX_NODES {
            return Err(at.bad(format!("more than {MAX_NODES} values")));
        }
        let id = NodeId(self.nodes.len());
        self.nodes.push(Node { at, content });
        if anchor != 0 {
            self.anchors.insert(anchor, id);
        }
        Ok(id)
    }

    fn put(&mut self, slot: Slot) {
        match self.open.last_mut() {
            None => self.root = Some(slot),
            Some(Open::List(_, items)) => items.push(slot),
            Some(Open::Map(_, entries, key)) => match key.take() {
                None => *key = Some(slot),
                Some(key) => entries.push((key, slot)),
            },
        }
    }

    fn end(&mut self) {
        let (id, content) = match self.open.pop() {
            Some(Open::List(id, items)) => (id, Content::List(items)),
            Some(Open::Map(id, entries, _)) => (id, Content::Map(entries)),
            None => return,
        };
        if let Some(node) = self.nodes.get_mut(id.0) {
            node.content = content;
        }
        self.put(Slot { node: id, alias: None });
    }

    fn end_document(&mut self) {
        let nodes = std::mem::take(&mut self.nodes);
        let aliases = std::mem::take(&mut self.aliases);
        self.nodes_done += nodes.len();
        self.anchors.clear();
        self.open.clear();
        if let Some(root) = self.root.take() {
            self.done.push(Tree { root, nodes, aliases });
        }
    }
}
