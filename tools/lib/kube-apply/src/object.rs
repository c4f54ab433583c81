//! One Kubernetes object, and its name.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::fmt;

/// What names an object in one cluster.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectId {
    /// Group and version, `apps/v1`; the core group is `v1`.
    pub api_version: String,
    /// The kind, `Deployment`.
    pub kind: String,
    /// The namespace; none for what has none, and for what its manifest leaves to `default`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The name.
    pub name: String,
}

impl ObjectId {
    /// A name from its parts.
    pub fn new(api_version: &str, kind: &str, namespace: Option<&str>, name: &str) -> Self {
        ObjectId {
            api_version: api_version.to_owned(),
            kind: kind.to_owned(),
            namespace: namespace.map(str::to_owned),
            name: name.to_owned(),
        }
    }

    /// The API group; empty for the core group.
    pub fn group(&self) -> &str {
        self.api_version.split_once('/').map_or("", |(group, _)| group)
    }

    /// Kind and group as the ApplySet convention writes them: `Deployment.apps`, `ConfigMap`.
    pub(crate) fn group_kind(&self) -> String {
        match self.group() {
            "" => self.kind.clone(),
            group => format!("{}.{group}", self.kind),
        }
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ", self.api_version, self.kind)?;
        if let Some(namespace) = &self.namespace {
            write!(f, "{namespace}/")?;
        }
        f.write_str(&self.name)
    }
}

/// A Kubernetes object: JSON that has an apiVersion, a kind and a name.
#[derive(Clone, PartialEq)]
pub struct Object(Value);

impl Object {
    /// Takes JSON as an object; what it lacks is said in the error.
    pub fn new(value: Value) -> Result<Object, String> {
        for pointer in ["/apiVersion", "/kind", "/metadata/name"] {
            match value.pointer(pointer).map(|found| found.as_str()) {
                Some(Some(text)) if !text.is_empty() => {}
                Some(_) => return Err(format!("{} is no text", field(pointer))),
                None => return Err(format!("no Kubernetes object: it has no {}", field(pointer))),
            }
        }
        match value.pointer("/metadata/namespace") {
            None | Some(Value::String(_)) => Ok(Object(value)),
            Some(_) => Err("metadata.namespace is no text".into()),
        }
    }

    /// For JSON of our own making, which has the three fields.
    pub(crate) fn known(value: Value) -> Object {
        Object(value)
    }

    /// Group and version.
    pub fn api_version(&self) -> &str {
        self.text("/apiVersion")
    }

    /// The kind.
    pub fn kind(&self) -> &str {
        self.text("/kind")
    }

    /// The namespace that the manifest names.
    pub fn namespace(&self) -> Option<&str> {
        self.0.pointer("/metadata/namespace").and_then(Value::as_str)
    }

    /// The name.
    pub fn name(&self) -> &str {
        self.text("/metadata/name")
    }

    /// What names the object.
    pub fn id(&self) -> ObjectId {
        ObjectId::new(self.api_version(), self.kind(), self.namespace(), self.name())
    }

    /// The object as JSON.
    pub fn value(&self) -> &Value {
        &self.0
    }

    /// The object as JSON, to change; apiVersion, kind and metadata.name must stay.
    pub fn value_mut(&mut self) -> &mut Value {
        &mut self.0
    }

    /// Sets one label.
    pub fn set_label(&mut self, key: &str, value: &str) {
        if let Some(labels) = self.metadata_map("labels") {
            labels.insert(key.to_owned(), Value::String(value.to_owned()));
        }
    }

    fn metadata_map(&mut self, name: &str) -> Option<&mut Map<String, Value>> {
        let metadata = self.0.get_mut("metadata")?.as_object_mut()?;
        let entry = metadata.entry(name).or_insert_with(|| Value::Object(Map::new()));
        if entry.is_null() {
            *entry = Value::Object(Map::new());
        }
        entry.as_object_mut()
    }

    fn text(&self, pointer: &str) -> &str {
        self.0.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
    }
}

impl fmt::Debug for Object {
    // The name alone: an object may be a Secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Object({})", self.id())
    }
}

fn field(pointer: &str) -> String {
    pointer.trim_start_matches('/').replace('/', ".")
}
