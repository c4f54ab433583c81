//! A manifest set: the objects that one tool keeps in a cluster.

use crate::error::Error;
use crate::object::{Object, ObjectId};
use crate::wait::Wait;
use crate::{images, yaml};
use base64::Engine;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};

/// The label that binds an object to its ApplySet (KEP-3659).
pub(crate) const PART_OF: &str = "applyset.kubernetes.io/part-of";
/// The label that makes an object an ApplySet's parent.
pub(crate) const SET_ID: &str = "applyset.kubernetes.io/id";
/// The parent's annotation with the kinds that its set has.
pub(crate) const KINDS: &str = "applyset.kubernetes.io/contains-group-kinds";
/// The parent's annotation with the namespaces that its set uses beside its own.
pub(crate) const NAMESPACES: &str = "applyset.kubernetes.io/additional-namespaces";
/// The parent's annotation with the program that keeps the set; another program leaves it alone.
pub(crate) const TOOLING: &str = "applyset.kubernetes.io/tooling";
/// The namespace of all parents.
pub(crate) const PARENT_NAMESPACE: &str = "kube-system";

/// When an object is applied: all of a stage before any of the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Namespaces.
    Namespaces,
    /// Custom resource definitions, until they are established.
    Definitions,
    /// All else.
    Rest,
}

impl Stage {
    /// All stages in order.
    pub const ALL: [Stage; 3] = [Stage::Namespaces, Stage::Definitions, Stage::Rest];

    /// The stage of an object.
    pub fn of(id: &ObjectId) -> Stage {
        match (id.group(), id.kind.as_str()) {
            ("", "Namespace") => Stage::Namespaces,
            ("apiextensions.k8s.io", "CustomResourceDefinition") => Stage::Definitions,
            _ => Stage::Rest,
        }
    }
}

/// An ordered set of objects, none of them twice, that forms one ApplySet.
#[derive(Clone, Debug)]
pub struct ManifestSet {
    name: String,
    objects: Vec<Object>,
    // Of the whole set, also where `objects` is a part of it.
    members: BTreeSet<ObjectId>,
}

impl ManifestSet {
    /// An empty set; the name (`kubeline-cni-install`) also names its parent ConfigMap in kube-system.
    pub fn new(name: &str) -> Self {
        ManifestSet { name: name.to_owned(), objects: Vec::new(), members: BTreeSet::new() }
    }

    /// The set's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Adds all objects of a YAML or JSON text; a `List` is taken apart. `source` names the text in errors.
    pub fn add_yaml(&mut self, source: &str, text: &str) -> Result<(), Error> {
        let broken = |why: String| Error::Manifest { source_name: source.to_owned(), why };
        for (number, mut document) in yaml::read(text).map_err(broken)?.into_iter().enumerate() {
            let broken = |why: String| broken(format!("document {}: {why}", number + 1));
            match document.get_mut("items").map(Value::take) {
                Some(Value::Array(items)) if is_list(&document) => {
                    for item in items {
                        self.add(Object::new(item).map_err(broken)?)?;
                    }
                }
                Some(other) => {
                    document["items"] = other;
                    self.add(Object::new(document).map_err(broken)?)?;
                }
                None => self.add(Object::new(document).map_err(broken)?)?,
            }
        }
        Ok(())
    }

    /// Adds one object, with the set's label on it.
    pub fn add(&mut self, mut object: Object) -> Result<(), Error> {
        let id = object.id();
        if !self.members.insert(id.clone()) {
            return Err(Error::Twice { id: Box::new(id), set: self.name.clone() });
        }
        object.set_label(PART_OF, &self.applyset_id());
        self.objects.push(object);
        Ok(())
    }

    /// The objects, in the order of adding.
    pub fn objects(&self) -> &[Object] {
        &self.objects
    }

    /// What to wait for until all workloads of the set, its definitions and its APIs are ready.
    pub fn waits(&self) -> Vec<Wait> {
        self.in_order().filter_map(Wait::of).collect()
    }

    /// The objects, to change; their names must stay.
    pub fn objects_mut(&mut self) -> &mut [Object] {
        &mut self.objects
    }

    /// The object of that name.
    pub fn get(&self, id: &ObjectId) -> Option<&Object> {
        self.objects.iter().find(|object| object.id() == *id)
    }

    /// The objects of one stage, in the order of adding.
    pub fn stage(&self, stage: Stage) -> impl Iterator<Item = &Object> {
        self.objects.iter().filter(move |object| Stage::of(&object.id()) == stage)
    }

    /// The objects in the order of applying.
    pub fn in_order(&self) -> impl Iterator<Item = &Object> {
        Stage::ALL.into_iter().flat_map(|stage| self.stage(stage))
    }

    /// A part of the set that stays a part: pruning still knows the whole.
    pub fn only(&self, ids: &[ObjectId]) -> ManifestSet {
        let wanted: BTreeSet<&ObjectId> = ids.iter().collect();
        let objects = self.objects.iter().filter(|object| wanted.contains(&object.id())).cloned().collect();
        ManifestSet { name: self.name.clone(), objects, members: self.members.clone() }
    }

    /// Every image that the objects name, sorted, none twice.
    pub fn images(&self) -> Vec<String> {
        let mut found = BTreeSet::new();
        let naming = self.objects.iter().filter(|object| Stage::of(&object.id()) != Stage::Definitions);
        for object in naming {
            images::visit(&mut object.value().clone(), &mut |image| {
                found.insert(image.clone());
            });
        }
        found.into_iter().collect()
    }

    /// Has every image come from a mirror: `registry` (`registry.example.org/mirror`) replaces each one's own registry.
    pub fn rewrite_images(&mut self, registry: &str) {
        for object in &mut self.objects {
            images::visit(object.value_mut(), &mut |image| *image = images::in_registry(image, registry));
        }
    }

    /// The set's parent as it is when the cluster holds exactly this set.
    pub fn parent(&self) -> Object {
        self.parent_with(&self.group_kinds(), &self.namespaces())
    }

    /// The name of the parent.
    pub fn parent_id(&self) -> ObjectId {
        ObjectId::new("v1", "ConfigMap", Some(PARENT_NAMESPACE), &self.name)
    }

    /// The identity of the ApplySet: a digest of the parent's name, namespace, kind and group.
    pub fn applyset_id(&self) -> String {
        let digest = Sha256::digest(format!("{}.{PARENT_NAMESPACE}.ConfigMap.", self.name));
        format!("applyset-{}-v1", base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(digest))
    }

    /// Whether the whole set has that object, in whatever version.
    pub(crate) fn has(&self, id: &ObjectId) -> bool {
        self.members.iter().any(|member| same_object(member, id))
    }

    pub(crate) fn group_kinds(&self) -> BTreeSet<String> {
        self.members.iter().map(ObjectId::group_kind).collect()
    }

    pub(crate) fn namespaces(&self) -> BTreeSet<String> {
        self.members
            .iter()
            .filter_map(|id| id.namespace.clone())
            .filter(|name| name != PARENT_NAMESPACE)
            .collect()
    }

    pub(crate) fn parent_with(&self, kinds: &BTreeSet<String>, namespaces: &BTreeSet<String>) -> Object {
        let list = |names: &BTreeSet<String>| names.iter().map(String::as_str).collect::<Vec<_>>().join(",");
        let mut annotations = BTreeMap::from([
            (TOOLING, concat!("kubeline/v", env!("CARGO_PKG_VERSION")).to_owned()),
            (KINDS, list(kinds)),
        ]);
        if !namespaces.is_empty() {
            annotations.insert(NAMESPACES, list(namespaces));
        }
        let parent = json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {
                "name": self.name,
                "namespace": PARENT_NAMESPACE,
                "labels": {SET_ID: self.applyset_id()},
                "annotations": annotations,
            },
        });
        Object::known(parent)
    }
}

fn is_list(document: &Value) -> bool {
    document.get("kind").and_then(Value::as_str).is_some_and(|kind| kind.ends_with("List"))
        && document.pointer("/metadata/name").is_none()
}

fn same_object(one: &ObjectId, other: &ObjectId) -> bool {
    let namespace = |id: &ObjectId| id.namespace.clone().unwrap_or_else(|| "default".to_owned());
    one.name == other.name
        && one.kind == other.kind
        && one.group() == other.group()
        && namespace(one) == namespace(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIXED: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: a}
spec:
  template:
    spec:
      initContainers: [{name: i, image: busybox:1.37}]
      containers: [{name: c, image: quay.io/x/web:1}]
      volumes: [{name: v, image: {reference: quay.io/x/data:1}}]
---
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: ConfigMap, metadata: {name: c, namespace: a, labels: null}}
- {apiVersion: v1, kind: Namespace, metadata: {name: a}}
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: things.example.org}
spec: {group: example.org, names: {kind: Thing, plural: things}}
";

    fn mixed() -> ManifestSet {
        let mut set = ManifestSet::new("kubeline-test");
        set.add_yaml("mixed.yaml", MIXED).unwrap();
        set
    }

    fn shown<'a>(objects: impl Iterator<Item = &'a Object>) -> Vec<String> {
        objects.map(|object| object.id().to_string()).collect()
    }

    #[test]
    fn the_order_of_applying_is_by_stage() {
        let set = mixed();
        assert_eq!(
            shown(set.in_order()),
            [
                "v1 Namespace a",
                "apiextensions.k8s.io/v1 CustomResourceDefinition things.example.org",
                "apps/v1 Deployment a/web",
                "v1 ConfigMap a/c",
            ]
        );
        let ids: Vec<_> = set.stage(Stage::Namespaces).map(Object::id).collect();
        let part = set.only(&ids);
        assert_eq!(shown(part.objects().iter()), ["v1 Namespace a"]);
        assert_eq!(part.parent(), set.parent());
        assert!(set.objects().iter().all(|object| {
            object.value().pointer("/metadata/labels").and_then(|labels| labels.get(PART_OF)).is_some()
        }));
    }

    #[test]
    fn mistakes_are_named() {
        let mut set = mixed();
        let twice =
            set.add_yaml("more.yaml", "{apiVersion: v1, kind: Namespace, metadata: {name: a}}").unwrap_err();
        assert_eq!(twice.to_string(), "v1 Namespace a is in the set kubeline-test twice");
        let error = set.add_yaml("more.yaml", "a: 1\n---\nkind: X\napiVersion: v1\n").unwrap_err();
        assert_eq!(error.to_string(), "more.yaml: document 1: no Kubernetes object: it has no apiVersion");
        assert!(set.add_yaml("more.yaml", "a: [").is_err());
    }

    #[test]
    fn what_becomes_ready_is_waited_for() {
        let waits: Vec<String> = mixed().waits().iter().map(ToString::to_string).collect();
        assert_eq!(waits, ["CustomResourceDefinition things.example.org", "Deployment a/web"]);
    }

    #[test]
    fn images_are_listed_and_rewritten() {
        let mut set = mixed();
        assert_eq!(set.images(), ["busybox:1.37", "quay.io/x/data:1", "quay.io/x/web:1"]);
        set.rewrite_images("mirror.example.org");
        let wanted = [
            "mirror.example.org/library/busybox:1.37",
            "mirror.example.org/x/data:1",
            "mirror.example.org/x/web:1",
        ];
        assert_eq!(set.images(), wanted);
    }

    #[test]
    fn the_identity_is_that_of_the_convention() {
        // base64url(sha256("kubeline-test.kube-system.ConfigMap.")), as KEP-3659 defines the ID.
        let digest = Sha256::digest("kubeline-test.kube-system.ConfigMap.");
        let encoded = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(digest);
        assert_eq!(mixed().applyset_id(), format!("applyset-{encoded}-v1"));
        assert_eq!(encoded.len(), 43);
    }

    #[test]
    fn files_read_back_as_the_same_set() {
        let set = mixed();
        let files = set.files().unwrap();
        let kustomization = &files["kustomization.yaml"];
        let listed: Vec<_> = kustomization.lines().filter_map(|line| line.strip_prefix("- ")).collect();
        assert_eq!(
            listed,
            [
                "configmap-kube-system-kubeline-test.yaml",
                "namespace-a.yaml",
                "customresourcedefinition-things.example.org.yaml",
                "deployment-a-web.yaml",
                "configmap-a-c.yaml",
            ]
        );
        assert_eq!(files, set.files().unwrap());
        let mut back = ManifestSet::new("kubeline-test");
        for name in &listed[1..] {
            back.add_yaml(name, &files[*name]).unwrap();
        }
        assert!(back.objects().iter().eq(set.in_order()));
    }
}
