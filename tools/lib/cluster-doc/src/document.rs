//! The document: text in, sections out, one's own status written back.

use serde_json::{Map, Value};

use crate::cross;
use crate::machines::{self, Machine};
use crate::parse;
use crate::read::{FromDoc, Node, nearest};
use crate::spec::{Section, Spec};
use crate::status::PveVm;
use crate::types::Name;
use crate::{Pointer, Refusals};

/// The version of the document that these tools read.
const API_VERSION: &str = "kubeline/v1";

/// A cluster document.
#[derive(Clone, Debug)]
pub struct Document {
    text: String,
    root: Map<String, Value>,
    name: Option<Name>,
}

impl Document {
    /// Reads a document from text and checks its frame; the sections are checked as they are asked for.
    ///
    /// # Errors
    /// Refusals that name place, line and column.
    pub fn parse(text: impl AsRef<[u8]>) -> Result<Document, Refusals> {
        let (text, value) = parse::parse(text.as_ref())?;
        let Value::Object(root) = value else {
            return Err(Refusals::one(Pointer::root(), "is no JSON object"));
        };
        let mut wrong = Refusals::default();
        frame(&root, &mut wrong);
        let name = name(&root, &mut wrong);
        if wrong.is_empty() { Ok(Document { text, root, name }) } else { Err(wrong.located(&text)) }
    }

    /// The cluster's name, when `metadata` gives one.
    pub fn name(&self) -> Option<&Name> {
        self.name.as_ref()
    }

    /// The cluster's name.
    ///
    /// # Errors
    /// A refusal when the document gives none.
    pub fn need_name(&self) -> Result<&Name, Refusals> {
        self.name.as_ref().ok_or_else(|| {
            let at = Pointer::root().key("metadata").key("name");
            Refusals::one(at, "is missing; the machines' names begin with it").located(&self.text)
        })
    }

    /// Reads these sections, and checks them alone and against one another.
    ///
    /// # Errors
    /// All mistakes found, together.
    pub fn spec(&self, wanted: &[Section]) -> Result<Spec, Refusals> {
        let mut wrong = Refusals::default();
        let mut spec = Spec::default();
        match self.root.get("spec") {
            Some(Value::Object(map)) => {
                unknown_sections(map, &mut wrong);
                spec = Spec::read(map, wanted, &mut wrong);
            }
            Some(_) => wrong.add(Pointer::root().key("spec"), "is no object; write { ... }"),
            None => wrong.add(Pointer::root().key("spec"), "is missing: it says what the cluster shall be"),
        }
        if spec.pools.is_some() && self.name.is_none() {
            wrong.add(
                Pointer::root().key("metadata").key("name"),
                "is missing; the machines' names begin with it",
            );
        }
        cross::check(self.name.as_ref(), &spec, &mut wrong);
        if wrong.is_empty() { Ok(spec) } else { Err(wrong.located(&self.text)) }
    }

    /// Fills in line and column of refusals that a tool found itself.
    pub fn locate(&self, wrong: Refusals) -> Refusals {
        wrong.located(&self.text)
    }

    /// What is right but worth a word, such as two control planes.
    pub fn warnings(&self, spec: &Spec) -> Vec<String> {
        cross::warnings(spec)
    }

    /// The machines: those of the pools, those that exist already, and those that pve-vm still knows.
    pub fn machines(&self, spec: &Spec) -> Vec<Machine> {
        let status: PveVm = self.status("pve-vm").unwrap_or_default();
        machines::machines(self.name.as_ref(), spec, &status)
    }

    /// A section of `status`, read leniently; `None` when it is not there or of another form.
    pub fn status<T: serde::de::DeserializeOwned>(&self, tool: &str) -> Option<T> {
        T::deserialize(self.root.get("status")?.get(tool)?).ok()
    }

    /// The value at a pointer of RFC 6901, such as `/metadata/name`.
    pub fn at(&self, pointer: &str) -> Option<&Value> {
        let (first, rest) = match pointer.strip_prefix('/')?.split_once('/') {
            Some((first, _)) => (first, &pointer[first.len() + 1..]),
            None => (&pointer[1..], ""),
        };
        self.root.get(&first.replace("~1", "/").replace("~0", "~"))?.pointer(rest)
    }

    /// Takes over the `status` of an earlier document, each section that this one does not have itself.
    pub fn take_status(&mut self, earlier: &Document) {
        let Some(Value::Object(old)) = earlier.root.get("status") else { return };
        let status = self.root.entry("status").or_insert_with(|| Value::Object(Map::new()));
        if let Value::Object(status) = status {
            for (tool, section) in old {
                status.entry(tool.clone()).or_insert_with(|| section.clone());
            }
        }
    }

    /// The document with one section of `status` replaced: pretty-printed, everything else as it was and where
    /// it was, keys inside the section sorted, a line feed at the end.
    pub fn with_status(&self, tool: &str, section: Value) -> String {
        let mut root = self.root.clone();
        let status = root.entry("status").or_insert_with(|| Value::Object(Map::new()));
        if !status.is_object() {
            *status = Value::Object(Map::new());
        }
        if let Value::Object(map) = status {
            map.insert(tool.to_owned(), sorted(section));
        }
        pretty(&Value::Object(root))
    }

    /// The document without one section of `status`, as after a `destroy`.
    pub fn without_status(&self, tool: &str) -> String {
        let mut root = self.root.clone();
        if let Some(Value::Object(map)) = root.get_mut("status") {
            map.shift_remove(tool);
        }
        pretty(&Value::Object(root))
    }

    /// The digest-worthy part: `spec` as compact text.
    pub fn spec_text(&self) -> String {
        self.root.get("spec").map(Value::to_string).unwrap_or_default()
    }
}

fn pretty(value: &Value) -> String {
    let mut text = serde_json::to_string_pretty(value).unwrap_or_default();
    text.push('\n');
    text
}

fn sorted(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<_> = map.into_iter().map(|(k, v)| (k, sorted(v))).collect();
            entries.sort_by(|a, b| a.0.cmp(&b.0));
            Value::Object(entries.into_iter().collect())
        }
        Value::Array(list) => Value::Array(list.into_iter().map(sorted).collect()),
        other => other,
    }
}

fn frame(root: &Map<String, Value>, wrong: &mut Refusals) {
    let at = Pointer::root();
    let known = ["$schema", "apiVersion", "kind", "metadata", "spec", "status"];
    for key in root.keys().filter(|k| !known.contains(&k.as_str()) && !k.starts_with("x-")) {
        let near =
            nearest(key, known.into_iter()).map(|n| format!("; did you mean \"{n}\"?")).unwrap_or_default();
        wrong.add(at.key(key), format!("unknown field{near}"));
    }
    match root.get("apiVersion").map(|v| v.as_str()) {
        Some(Some(API_VERSION)) => {}
        Some(Some(other)) if other.starts_with("kubeline/v") => wrong.add(
            at.key("apiVersion"),
            format!("\"{other}\" is not read by this version, which reads \"{API_VERSION}\"; install the release that knows it"),
        ),
        Some(_) => wrong.add(at.key("apiVersion"), format!("is not ours; write \"{API_VERSION}\"")),
        None => wrong.add(at.key("apiVersion"), format!("is missing; write \"{API_VERSION}\"")),
    }
    match root.get("kind").map(|v| v.as_str()) {
        Some(Some("Cluster")) => {}
        Some(_) => wrong.add(at.key("kind"), "is not ours; write \"Cluster\""),
        None => wrong.add(at.key("kind"), "is missing; write \"Cluster\""),
    }
}

fn name(root: &Map<String, Value>, wrong: &mut Refusals) -> Option<Name> {
    let at = Pointer::root().key("metadata");
    let node = Node { value: root.get("metadata")?, at };
    let fields = node.fields(&["name"], wrong)?;
    fields.field::<Option<Name>>("name", wrong).flatten()
}

fn unknown_sections(map: &Map<String, Value>, wrong: &mut Refusals) {
    let known = || Section::ALL.iter().map(|s| s.key());
    for key in map.keys().filter(|k| !k.starts_with("x-") && !known().any(|s| s == k.as_str())) {
        let hint = nearest(key, known())
            .map(|near| format!("; did you mean \"{near}\"?"))
            .unwrap_or_else(|| format!("; known here: {}", known().collect::<Vec<_>>().join(", ")));
        wrong.add(Pointer::root().key("spec").key(key), format!("unknown section{hint}"));
    }
}

impl FromDoc for serde_json::Value {
    fn from_doc(node: &Node<'_>, _: &mut Refusals) -> Option<Self> {
        Some(node.value.clone())
    }
}
