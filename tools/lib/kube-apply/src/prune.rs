//! The ApplySet of a manifest set (KEP-3659): its parent, and what has left it.
//!
//! The parent is a ConfigMap in kube-system that names the kinds and namespaces of the set. While a set is applied
//! the parent names both old and new ones, so that a run that was killed leaves nothing unknown.

use crate::apply::Outcome;
use crate::cluster::Cluster;
use crate::diff::FieldChange;
use crate::error::Error;
use crate::object::{Object, ObjectId};
use crate::observe::{Difference, What};
use crate::owners;
use crate::set::{KINDS, ManifestSet, NAMESPACES, PART_OF, SET_ID, Stage, TOOLING};
use crate::wait::Wait;
use serde_json::Value;
use std::collections::BTreeSet;
use std::time::Duration;

/// An object that carries the set's label but is not in the set any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leftover {
    /// The object.
    pub id: ObjectId,
    /// Its uid: only this very object is deleted.
    pub uid: String,
    /// Why it stays unless data may go: it is a claim, a definition or a namespace.
    pub holds: Option<&'static str>,
}

/// Whether pruning may delete what holds data: claims, volumes, definitions (with all their objects) and namespaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prune {
    /// They stay.
    KeepData,
    /// They go, too.
    WithData,
}

impl Cluster {
    /// What has left the set: objects with its label that this manager applied and that the set has no more.
    ///
    /// What another manager applied, or a controller made, is never among them.
    pub async fn leftovers(&self, set: &ManifestSet) -> Result<Vec<Leftover>, Error> {
        let Some(parent) = self.live_parent(set).await? else { return Ok(Vec::new()) };
        let mut found = Vec::new();
        for group_kind in listed(&parent, KINDS) {
            let (kind, group) = group_kind.split_once('.').unwrap_or((&group_kind, ""));
            let Some(api_version) = self.discovery.preferred(&self.wire, group).await? else { continue };
            let labels = format!("{PART_OF}={}", set.applyset_id());
            for item in self.list(&api_version, kind, None, Some(&labels)).await? {
                let Ok(object) = Object::new(item) else { continue };
                if !set.has(&object.id()) && self.is_ours(object.value()) {
                    let uid =
                        object.value().pointer("/metadata/uid").and_then(Value::as_str).unwrap_or_default();
                    found.push(Leftover { id: object.id(), uid: uid.to_owned(), holds: holds(&object.id()) });
                }
            }
        }
        // The order of deleting: the reverse of the order of applying.
        found.sort_by(|one, other| {
            Stage::of(&other.id).cmp(&Stage::of(&one.id)).then_with(|| one.id.cmp(&other.id))
        });
        Ok(found)
    }

    /// Deletes what has left the set, and has the parent name exactly what there is; returns what was deleted.
    pub async fn prune(&self, set: &ManifestSet, data: Prune) -> Result<Vec<ObjectId>, Error> {
        self.prune_those(set, |left| left.holds.is_none() || data == Prune::WithData).await
    }

    /// As [`Cluster::prune`], but only what `go` says: what has left the set since somebody looked stays for the next look.
    pub async fn prune_those(
        &self,
        set: &ManifestSet,
        go: impl Fn(&Leftover) -> bool,
    ) -> Result<Vec<ObjectId>, Error> {
        let mut deleted = Vec::new();
        let mut kept = Vec::new();
        for leftover in self.leftovers(set).await? {
            if !go(&leftover) {
                kept.push(leftover.id);
            } else if self.remove(&leftover.id, Some(&leftover.uid)).await? {
                deleted.push(leftover.id);
            }
        }
        let mut kinds = set.group_kinds();
        kinds.extend(kept.iter().map(ObjectId::group_kind));
        let mut namespaces = set.namespaces();
        namespaces.extend(kept.iter().filter_map(|id| id.namespace.clone()));
        let wanted = set.parent_with(&kinds, &namespaces);
        if self.live_parent(set).await?.is_some_and(|live| !says(&live, &wanted)) {
            self.apply_object(&wanted).await?;
        }
        Ok(deleted)
    }

    /// Deletes the objects of a set, the reverse of applying, waiting for each stage to be gone; the parent last.
    ///
    /// With [`Prune::KeepData`] claims, volumes, definitions and the namespaces of claims stay, and the parent with them.
    /// Returns what was deleted.
    pub async fn delete_set(
        &self,
        set: &ManifestSet,
        data: Prune,
        deadline: Duration,
        say: impl Fn(&str) + Sync,
    ) -> Result<Vec<ObjectId>, Error> {
        let mut deleted = Vec::new();
        let mut kept = false;
        for stage in Stage::ALL.into_iter().rev() {
            let mut going = Vec::new();
            for object in set.stage(stage).collect::<Vec<_>>().into_iter().rev() {
                let id = object.id();
                if data == Prune::KeepData && self.must_stay(&id).await? {
                    kept = true;
                } else if self.delete(&id).await? {
                    going.push(id);
                }
            }
            for id in &going {
                self.wait(&Wait::Gone { id: id.clone() }, deadline, &say).await?;
            }
            deleted.extend(going);
        }
        if !kept && self.delete(&set.parent_id()).await? {
            deleted.push(set.parent_id());
        }
        Ok(deleted)
    }

    async fn must_stay(&self, id: &ObjectId) -> Result<bool, Error> {
        if Stage::of(id) == Stage::Namespaces {
            return Ok(!self.list("v1", "PersistentVolumeClaim", Some(&id.name), None).await?.is_empty());
        }
        Ok(holds(id).is_some())
    }

    fn is_ours(&self, object: &Value) -> bool {
        let owned = object.pointer("/metadata/ownerReferences").and_then(Value::as_array);
        owned.is_none_or(Vec::is_empty) && owners::applied(object, &self.manager).is_some()
    }

    /// The parent in the cluster, if it is one; one that another program keeps is refused.
    async fn live_parent(&self, set: &ManifestSet) -> Result<Option<Value>, Error> {
        let id = set.parent_id();
        let live = self.get(&id.api_version, &id.kind, id.namespace.as_deref(), &id.name).await?;
        let Some(live) = live else { return Ok(None) };
        if live.pointer("/metadata/labels").and_then(|labels| labels.get(SET_ID)).is_none() {
            return Ok(None);
        }
        let tooling = annotation(&live, TOOLING);
        if !tooling.is_empty() && !tooling.starts_with("kubeline/") {
            let what = format!("apply of the set {}", set.name());
            return Err(Error::Failed { what, reason: format!("its parent {id} belongs to {tooling}") });
        }
        Ok(Some(live))
    }

    /// Has the parent name all of the set, beside what it names already.
    pub(crate) async fn open_set(&self, set: &ManifestSet) -> Result<(ObjectId, Outcome), Error> {
        let live = self.live_parent(set).await?;
        let wanted = covering(set, live.as_ref());
        let outcome = match &live {
            Some(live) if says(live, &wanted) => Outcome::Same,
            _ if self.apply_object(&wanted).await?.created => Outcome::Created,
            _ => Outcome::Changed,
        };
        Ok((wanted.id(), outcome))
    }

    pub(crate) async fn observe_parent(&self, set: &ManifestSet) -> Result<Difference, Error> {
        let live = self.live_parent(set).await?;
        let wanted = covering(set, live.as_ref());
        let what = match &live {
            None => What::Create,
            Some(live) if says(live, &wanted) => What::Same,
            Some(live) => {
                let field = |name: &str| FieldChange {
                    path: format!(".metadata.annotations[\"{name}\"]"),
                    from: Some(annotation(live, name)),
                    to: Some(annotation(wanted.value(), name)),
                    lines: None,
                    by: None,
                };
                let fields = [TOOLING, KINDS, NAMESPACES].map(field).into_iter();
                What::Change { fields: fields.filter(|field| field.from != field.to).collect() }
            }
        };
        Ok(Difference { id: wanted.id(), what, theirs: false })
    }
}

/// The parent that names the set and what the live one names.
fn covering(set: &ManifestSet, live: Option<&Value>) -> Object {
    let with = |mut own: BTreeSet<String>, name| {
        own.extend(live.map(|live| listed(live, name)).unwrap_or_default());
        own
    };
    set.parent_with(&with(set.group_kinds(), KINDS), &with(set.namespaces(), NAMESPACES))
}

/// Whether a live parent says what it should.
fn says(live: &Value, wanted: &Object) -> bool {
    let label =
        |value: &Value| value.pointer("/metadata/labels").and_then(|labels| labels.get(SET_ID)).cloned();
    label(live) == label(wanted.value())
        && [TOOLING, KINDS, NAMESPACES]
            .into_iter()
            .all(|name| annotation(live, name) == annotation(wanted.value(), name))
}

fn annotation(object: &Value, name: &str) -> String {
    let annotations = object.pointer("/metadata/annotations");
    annotations.and_then(|map| map.get(name)).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn listed(parent: &Value, name: &str) -> BTreeSet<String> {
    annotation(parent, name).split(',').filter(|one| !one.is_empty()).map(str::to_owned).collect()
}

/// Why an object must not go by itself.
fn holds(id: &ObjectId) -> Option<&'static str> {
    match (id.group(), id.kind.as_str()) {
        ("", "PersistentVolumeClaim" | "PersistentVolume") => Some("it holds data"),
        ("", "Namespace") => Some("everything in it would go with it"),
        ("apiextensions.k8s.io", "CustomResourceDefinition") => Some("all its objects would go with it"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn set(kinds: &[(&str, &str)]) -> ManifestSet {
        let mut set = ManifestSet::new("kubeline-test");
        for (index, (api_version, kind)) in kinds.iter().enumerate() {
            let metadata = json!({"name": format!("o{index}"), "namespace": "a"});
            let object = json!({"apiVersion": api_version, "kind": kind, "metadata": metadata});
            set.add(Object::new(object).unwrap()).unwrap();
        }
        set
    }

    #[test]
    fn the_parent_names_old_and_new_until_pruned() {
        let old = set(&[("apps/v1", "Deployment"), ("v1", "ConfigMap")]).parent();
        assert_eq!(annotation(old.value(), KINDS), "ConfigMap,Deployment.apps");
        assert_eq!(annotation(old.value(), NAMESPACES), "a");
        let new = set(&[("v1", "Secret")]);
        let covering = covering(&new, Some(old.value()));
        assert_eq!(annotation(covering.value(), KINDS), "ConfigMap,Deployment.apps,Secret");
        assert!(!says(old.value(), &covering) && says(covering.value(), &covering));
        assert!(!says(covering.value(), &new.parent()));
    }

    #[test]
    fn what_holds_data_is_known() {
        assert!(holds(&ObjectId::new("v1", "PersistentVolumeClaim", Some("a"), "b")).is_some());
        assert!(
            holds(&ObjectId::new("apiextensions.k8s.io/v1", "CustomResourceDefinition", None, "b")).is_some()
        );
        assert!(holds(&ObjectId::new("v1", "Namespace", None, "b")).is_some());
        assert!(holds(&ObjectId::new("v1", "ConfigMap", Some("a"), "b")).is_none());
    }
}
