//! The objects of a tool, in waves.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kube_apply::{ManifestSet, Object, ObjectId};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};
use stage::{Failure, Rendered};

use crate::failure::failure;
use crate::ready::Ready;

/// What stands where a secret would.
const HIDDEN: &str = "(hidden)";

/// An object that is made once, with content that nobody knows before, and never changed again.
#[derive(Clone, Debug)]
pub struct Once {
    /// The object.
    pub id: ObjectId,
    /// Makes it.
    pub make: fn(&ObjectId) -> Value,
}

/// Objects that go together, and the evidence that the next wave waits for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wave {
    pub(crate) objects: Vec<ObjectId>,
    pub(crate) once: Vec<Once>,
    pub(crate) needs: Vec<Ready>,
}

/// What a tool keeps in the cluster: one ApplySet, in waves.
#[derive(Clone, Debug)]
pub struct Addon {
    pub(crate) set: ManifestSet,
    pub(crate) waves: Vec<Wave>,
    registry: Option<String>,
    // As their publishers name them.
    upstream: Vec<String>,
}

impl Addon {
    /// An addon without objects, of that tool.
    pub fn new(tool: &str) -> Addon {
        Addon {
            set: ManifestSet::new(&format!("kubeline-{tool}")),
            waves: Vec::new(),
            registry: None,
            upstream: Vec::new(),
        }
    }

    /// Begins the next wave: what is added from here on waits for the wave before.
    pub fn wave(&mut self) -> &mut Addon {
        self.waves.push(Wave::default());
        self
    }

    /// Adds the objects of a YAML text; `source` names it in errors.
    ///
    /// # Errors
    /// A text that is no YAML, or holds an object that is there already.
    pub fn add(&mut self, source: &str, text: &str) -> Result<&mut Addon, Failure> {
        let before = self.set.objects().len();
        self.set
            .add_yaml(source, text)
            .map_err(|error| failure(format!("cannot read the manifests of {source}"), &error))?;
        let added: Vec<ObjectId> = self.set.objects()[before..].iter().map(Object::id).collect();
        self.last().objects.extend(added);
        Ok(self)
    }

    /// Splits the last wave: the objects that fit go in a wave of their own before it.
    pub fn first(&mut self, fits: impl Fn(&ObjectId) -> bool) -> &mut Addon {
        let last = self.last();
        let (early, late) = std::mem::take(&mut last.objects).into_iter().partition(fits);
        last.objects = late;
        let at = self.waves.len() - 1;
        self.waves.insert(at, Wave { objects: early, ..Wave::default() });
        self
    }

    /// Adds an object that is made only where it is missing.
    pub fn add_once(&mut self, id: ObjectId, make: fn(&ObjectId) -> Value) -> &mut Addon {
        self.last().once.push(Once { id, make });
        self
    }

    /// What is waited for after this wave.
    pub fn until(&mut self, needs: impl IntoIterator<Item = Ready>) -> &mut Addon {
        self.last().needs.extend(needs);
        self
    }

    /// Waits for every workload of this wave.
    pub fn until_workloads(&mut self) -> &mut Addon {
        let needs: Vec<Ready> = self.last().objects.iter().filter_map(Ready::of_workload).collect();
        self.until(needs)
    }

    /// Has every image come from a registry mirror, where the document names one; once, after all objects were added.
    pub fn mirror(&mut self, registry: Option<&String>) -> &mut Addon {
        self.upstream = self.set.images();
        if let Some(registry) = registry {
            self.set.rewrite_images(registry);
        }
        self.registry = registry.cloned();
        self
    }

    /// Each image as its publisher names it, and as the objects name it, together with `more` that no object names.
    pub(crate) fn sources(&self, more: Vec<String>) -> BTreeMap<String, String> {
        let here = |image: &str| match &self.registry {
            Some(registry) => kube_apply::in_registry(image, registry),
            None => image.to_owned(),
        };
        self.upstream.iter().cloned().chain(more).map(|image| (image.clone(), here(&image))).collect()
    }

    /// An object's value, to change; its name must stay.
    pub fn value_mut(&mut self, id: &ObjectId) -> Option<&mut Value> {
        self.set.objects_mut().iter_mut().find(|object| object.id() == *id).map(Object::value_mut)
    }

    /// Every image that the objects name.
    pub fn images(&self) -> Vec<String> {
        self.set.images()
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.set.objects().len()
    }

    /// True without objects.
    pub fn is_empty(&self) -> bool {
        self.set.objects().is_empty()
    }

    /// The objects as JSON, in the order of adding.
    pub fn values(&self) -> impl Iterator<Item = &Value> {
        self.set.objects().iter().map(Object::value)
    }

    /// A digest of all objects without their secrets, for the document's status.
    pub fn digest(&self) -> String {
        let mut hash = Sha256::new();
        for object in self.set.in_order() {
            hash.update(masked(object.value()).to_string());
        }
        hex(&hash.finalize())
    }

    pub(crate) fn digest_of(&self, id: &ObjectId) -> String {
        let object = self.set.get(id);
        hex(&Sha256::digest(object.map(|o| masked(o.value()).to_string()).unwrap_or_default()))
    }

    pub(crate) fn once(&self) -> impl Iterator<Item = &Once> {
        self.waves.iter().flat_map(|wave| &wave.once)
    }

    pub(crate) fn needs(&self) -> impl Iterator<Item = &Ready> {
        self.waves.iter().flat_map(|wave| &wave.needs)
    }

    fn last(&mut self) -> &mut Wave {
        if self.waves.is_empty() {
            self.waves.push(Wave::default());
        }
        let last = self.waves.len() - 1;
        &mut self.waves[last]
    }
}

/// Exactly what `apply` would send, one file an object, but for secrets: those are hidden.
///
/// # Errors
/// An object that cannot be written as YAML: a fault of ours.
pub fn rendered(addon: &Addon) -> Result<Vec<Rendered>, Failure> {
    let mut set = addon.set.clone();
    for object in set.objects_mut() {
        *object.value_mut() = masked(object.value());
    }
    let files = set.files().map_err(|error| failure("cannot write the manifests", &error))?;
    Ok(files.into_iter().map(|(path, text)| Rendered { path, content: text.into_bytes() }).collect())
}

/// An object without what is secret in it.
fn masked(object: &Value) -> Value {
    let mut object = object.clone();
    if object.get("kind").and_then(Value::as_str) != Some("Secret") {
        return object;
    }
    let hide = |map: &mut Map<String, Value>, with: &str| {
        for value in map.values_mut() {
            *value = with.into();
        }
    };
    if let Some(data) = object.get_mut("data").and_then(Value::as_object_mut) {
        hide(data, &STANDARD.encode(HIDDEN));
    }
    if let Some(data) = object.get_mut("stringData").and_then(Value::as_object_mut) {
        hide(data, HIDDEN);
    }
    object
}

/// A digest of some texts, for a pod's annotation: pods that do not read a changed file again are replaced.
pub fn digest<'a>(texts: impl IntoIterator<Item = &'a String>) -> String {
    let mut hash = Sha256::new();
    for text in texts {
        hash.update(text.len().to_le_bytes());
        hash.update(text);
    }
    hex(&hash.finalize())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_leave_no_trace() {
        let mut addon = Addon::new("test");
        let text = |secret: &str| {
            format!(
                "{{apiVersion: v1, kind: Secret, metadata: {{name: s, namespace: a}}, data: {{k: {}}}}}",
                STANDARD.encode(secret)
            )
        };
        addon.add("x", &text("hunter2")).unwrap();
        let mut other = Addon::new("test");
        other.add("x", &text("other")).unwrap();
        assert_eq!(addon.digest(), other.digest());
        for file in rendered(&addon).unwrap() {
            let content = String::from_utf8(file.content).unwrap();
            assert!(!content.contains(&STANDARD.encode("hunter2")), "{content}");
        }
        assert_eq!(addon.set.objects()[0].value()["data"]["k"], STANDARD.encode("hunter2"));
    }
}
