//! What an apply would change, found by the server itself: a dry run beside the object as it is.

use crate::cluster::{Cluster, PARALLEL};
use crate::diff::{self, FieldChange};
use crate::discovery::Resource;
use crate::error::Error;
use crate::object::{Object, ObjectId};
use crate::owners;
use crate::set::{ManifestSet, Stage};
use crate::wire::{self, Answer, Fault, Refusal};
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesOrdered;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use tokio::sync::Semaphore;

/// How much of manifests is under way at once, in KiB: an answer is several times as large in memory.
const KIB_UNDER_WAY: u32 = 512;

/// One object, and what an apply would do to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// The object.
    pub id: ObjectId,
    /// What an apply would do.
    pub what: What,
    /// It exists, and this manager has never applied it: somebody else made it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub theirs: bool,
}

/// What an apply would do to an object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum What {
    /// It does not exist; the server accepts it.
    Create,
    /// It exists and these fields differ.
    Change {
        /// The fields.
        fields: Vec<FieldChange>,
    },
    /// It is as wanted.
    Same,
    /// A field that cannot be changed differs: it can only be deleted and created.
    Immutable {
        /// The server's text.
        reason: String,
    },
    /// Fields that differ belong to other managers.
    Conflict {
        /// Each field with the manager that owns it.
        fields: Vec<(String, String)>,
    },
    /// It does not exist and could not be tried: its namespace or kind does not exist yet either.
    Undried {
        /// What does not exist yet.
        reason: String,
        /// Whether this set brings it.
        promised: bool,
    },
}

impl fmt::Display for Difference {
    /// One line, and one for each field: `change v1 ConfigMap a/b`, `  .data.k: "1" -> "2"`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Difference { id, what, .. } = self;
        match what {
            What::Create => write!(f, "create {id}"),
            What::Same => write!(f, "keep {id}"),
            What::Immutable { reason } => write!(f, "recreate {id}: {reason}"),
            What::Undried { reason, .. } => write!(f, "create {id} (not tried: {reason})"),
            What::Conflict { fields } => {
                write!(f, "conflict on {id}:")?;
                fields.iter().try_for_each(|(field, manager)| write!(f, "\n  {field} belongs to {manager}"))
            }
            What::Change { fields } => {
                write!(f, "change {id}:")?;
                fields
                    .iter()
                    .try_for_each(|field| write!(f, "\n  {}", field.to_string().replace('\n', "\n  ")))
            }
        }
    }
}

impl Difference {
    /// Whether nothing is to be done.
    pub fn is_same(&self) -> bool {
        self.what == What::Same
    }
}

/// Refuses differences that an apply would stumble over: conflicts, and what the set cannot bring into being.
pub fn refuse_blocked(differences: &[Difference]) -> Result<(), Error> {
    for Difference { id, what, .. } in differences {
        match what {
            What::Conflict { fields } => {
                return Err(Error::Conflict { object: Box::new(id.clone()), fields: fields.clone() });
            }
            What::Undried { reason, promised: false } => {
                return Err(Error::Failed { what: format!("apply of {id}"), reason: reason.clone() });
            }
            _ => {}
        }
    }
    Ok(())
}

impl Cluster {
    /// What [`Cluster::apply`] would change, for each object of the set in the order of applying; changes nothing.
    ///
    /// The first entry is the set's parent ConfigMap. Errors are the server's refusals of an object.
    pub async fn observe(&self, set: &ManifestSet) -> Result<Vec<Difference>, Error> {
        self.look_anew(set).await?;
        let mut found = vec![self.observe_parent(set).await?];
        for stage in Stage::ALL {
            let changing = changing_kinds(set, &found);
            let objects: Vec<&Object> = set.stage(stage).collect();
            let each = self.parallel(&objects, |object| self.observe_one(set, object, &changing)).await?;
            found.extend(each);
        }
        Ok(found)
    }

    /// Learns where the set's kinds are served, several at once; kinds that were absent are asked for again.
    pub(crate) async fn look_anew(&self, set: &ManifestSet) -> Result<(), Error> {
        let kinds: BTreeMap<String, String> = set
            .objects()
            .iter()
            .map(|object| (object.api_version().to_owned(), object.kind().to_owned()))
            .collect();
        let all =
            set.objects().iter().map(|object| (object.api_version().to_owned(), object.kind().to_owned()));
        self.discovery.forget_absent(&all.collect::<Vec<_>>());
        let asked = kinds.iter().map(|(api_version, kind)| self.resource(api_version, kind));
        futures::future::try_join_all(asked).await.map(drop)
    }

    async fn observe_one(
        &self,
        set: &ManifestSet,
        object: &Object,
        changing: &BTreeSet<(String, String)>,
    ) -> Result<Difference, Error> {
        let id = object.id();
        let undried = |reason: String, promised| Difference {
            id: id.clone(),
            what: What::Undried { reason, promised },
            theirs: false,
        };
        let Some(resource) = self.resource(&id.api_version, &id.kind).await? else {
            let promised = defines(set, &id);
            return Ok(undried(
                format!("the cluster has no kind {} in {} yet", id.kind, id.api_version),
                promised,
            ));
        };
        let dry = self.try_out(&resource, object);
        let (live, dry) = futures::join!(self.read(&resource, &id), dry);
        let live = live?;
        let theirs = live.as_ref().is_some_and(|live| owners::applied(live, &self.manager).is_none());
        let what = match self.judge(live.as_ref(), dry) {
            Ok(what) => what,
            Err(Fault::Refused(refusal)) if no_namespace(&refusal) => {
                let namespace = refusal.details.name.clone();
                let promised = set.has(&ObjectId::new("v1", "Namespace", None, &namespace));
                return Ok(undried(format!("the namespace {namespace} does not exist yet"), promised));
            }
            Err(Fault::Refused(_)) if changing.contains(&(id.group().to_owned(), id.kind.clone())) => {
                return Ok(undried(format!("the definition of {} changes in this set", id.kind), true));
            }
            Err(fault) => return Err(fault.into_error(&format!("apply {id}"))),
        };
        Ok(Difference { id, what, theirs })
    }

    /// A dry run of one object: the object as it would be.
    pub(crate) async fn try_out(&self, resource: &Resource, object: &Object) -> Result<Value, Fault> {
        let answer = self.patch(resource, object, Run::Dry).await?;
        answer.json(&format!("apply {}", object.id())).map_err(Fault::Other)
    }

    /// What a dry run says, beside the object as it is.
    pub(crate) fn judge(&self, live: Option<&Value>, dry: Result<Value, Fault>) -> Result<What, Fault> {
        let dry = match dry {
            Ok(object) => object,
            Err(Fault::Refused(refusal)) => {
                if let Some(fields) = conflicts(&refusal) {
                    return Ok(What::Conflict { fields });
                }
                if live.is_some() && is_immutable(&refusal) {
                    return Ok(What::Immutable { reason: refusal.message });
                }
                return Err(Fault::Refused(refusal));
            }
            Err(fault) => return Err(fault),
        };
        let Some(live) = live else { return Ok(What::Create) };
        let mut fields = diff::compare(live, &dry, &self.manager);
        if fields.is_empty() && owners::applied(live, &self.manager) != owners::applied(&dry, &self.manager) {
            // Nothing to be seen changes, but whose it is: without this a field that leaves the manifest would stay.
            let (path, to) =
                (".metadata.managedFields".to_owned(), Some(format!("owned by {}", self.manager)));
            fields.push(FieldChange { path, from: None, to, lines: None, by: None });
        }
        Ok(if fields.is_empty() { What::Same } else { What::Change { fields } })
    }

    /// A server-side apply, dry or real: the answer holds the object as it then is.
    pub(crate) async fn patch(
        &self,
        resource: &Resource,
        object: &Object,
        run: Run,
    ) -> Result<Answer, Fault> {
        let id = object.id();
        let doing = format!("apply {id}");
        let body = serde_json::to_vec(object.value())
            .map_err(|error| Fault::Other(Error::Answer { doing: doing.clone(), why: error.to_string() }))?;
        let mut query = format!("fieldManager={}&fieldValidation=Strict", wire::encode(&self.manager));
        if self.force {
            query.push_str("&force=true");
        }
        if run == Run::Dry {
            query.push_str("&dryRun=All");
        }
        let path = resource.object(&id.api_version, id.namespace.as_deref(), &id.name);
        self.wire.call(&doing, wire::patch(&path, &query, Bytes::from(body))).await
    }

    /// Runs something for each object, a bounded number and size at once; the results are in the objects' order.
    pub(crate) async fn parallel<'a, T, F, Work>(
        &self,
        objects: &[&'a Object],
        work: Work,
    ) -> Result<Vec<T>, Error>
    where
        Work: Fn(&'a Object) -> F,
        F: Future<Output = Result<T, Error>>,
    {
        let room = Semaphore::new(KIB_UNDER_WAY as usize);
        let job = async |weight, work: F| {
            // The semaphore is never closed.
            let _held = room.acquire_many(weight).await;
            work.await
        };
        let mut objects = objects.iter();
        let mut under_way = FuturesOrdered::new();
        let mut done = Vec::new();
        loop {
            while under_way.len() < PARALLEL
                && let Some(object) = objects.next()
            {
                let weight = weight(object.value()).clamp(1, KIB_UNDER_WAY);
                under_way.push_back(job(weight, work(object)));
            }
            match under_way.next().await {
                Some(one) => done.push(one?),
                None => return Ok(done),
            }
        }
    }
}

/// Whether a server-side apply is tried or done.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Run {
    Dry,
    Real,
}

/// About how many KiB an object has as JSON.
fn weight(value: &Value) -> u32 {
    fn bytes(value: &Value) -> usize {
        match value {
            Value::String(text) => text.len() + 3,
            Value::Array(items) => items.iter().map(bytes).sum::<usize>() + 2,
            Value::Object(map) => {
                map.iter().map(|(key, inner)| key.len() + 4 + bytes(inner)).sum::<usize>() + 2
            }
            _ => 5,
        }
    }
    u32::try_from(bytes(value) / 1024).unwrap_or(u32::MAX)
}

/// Whether the set has the definition of an object's kind.
pub(crate) fn defines(set: &ManifestSet, id: &ObjectId) -> bool {
    set.stage(Stage::Definitions)
        .any(|object| defined(object.value()) == (id.group().to_owned(), id.kind.clone()))
}

/// Group and kind that a definition defines.
pub(crate) fn defined(definition: &Value) -> (String, String) {
    let text = |pointer| definition.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    (text("/spec/group"), text("/spec/names/kind"))
}

fn changing_kinds(set: &ManifestSet, found: &[Difference]) -> BTreeSet<(String, String)> {
    let changing = |object: &&Object| {
        let id = object.id();
        found.iter().any(|difference| difference.id == id && !difference.is_same())
    };
    set.stage(Stage::Definitions).filter(changing).map(|object| defined(object.value())).collect()
}

/// The answer to an apply into a namespace that does not exist: a 404 about a namespace.
fn no_namespace(refusal: &Refusal) -> bool {
    refusal.code == 404 && refusal.details.kind == "namespaces"
}

/// The fields of others that an apply would have changed.
pub(crate) fn conflicts(refusal: &Refusal) -> Option<Vec<(String, String)>> {
    let of_managers = refusal.details.causes.iter().filter(|cause| cause.reason == "FieldManagerConflict");
    let fields: Vec<_> = of_managers
        .map(|cause| {
            // The message reads: conflict with "NAME" using apps/v1 at ...
            let manager = cause.message.split('"').nth(1).unwrap_or(&cause.message);
            (cause.field.clone(), manager.to_owned())
        })
        .collect();
    (refusal.code == 409 && !fields.is_empty()).then_some(fields)
}

/// Whether a refusal is that of a field that cannot be changed; the API has no reason code for it, only these texts
/// (k8s.io/apimachinery validation.FieldImmutableErrorMsg, and the validation of each kind). A claim that may not grow
/// is refused by an admission plug-in (PersistentVolumeClaimResize).
pub(crate) fn is_immutable(refusal: &Refusal) -> bool {
    let text = refusal.message.to_ascii_lowercase();
    let says = |known: &[&str]| known.iter().any(|said| text.contains(said));
    match refusal.code {
        422 => says(&[
            "immutable",
            "updates to",
            "may not change once set",
            "cannot change",
            "can not be less than",
        ]),
        403 => says(&["pvc can be resized", "volume claims can be expanded"]),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn refusal(value: Value) -> Refusal {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn conflicts_name_field_and_manager() {
        let one = refusal(json!({"code": 409, "details": {"causes": [
            {"reason": "FieldManagerConflict", "message": "conflict with \"m1\"", "field": ".data.k"},
            {"reason": "FieldManagerConflict", "message": "conflict with \"kubectl\" using apps/v1", "field": ".spec.replicas"},
        ]}}));
        let wanted =
            [(".data.k", "m1"), (".spec.replicas", "kubectl")].map(|(f, m)| (f.to_owned(), m.to_owned()));
        assert_eq!(conflicts(&one), Some(wanted.to_vec()));
        assert_eq!(conflicts(&refusal(json!({"code": 409, "reason": "Conflict"}))), None);
    }

    #[test]
    fn immutable_fields_are_known_by_their_texts() {
        for message in [
            "Deployment.apps \"d\" is invalid: spec.selector: Invalid value: {}: field is immutable",
            "StorageClass.storage.k8s.io \"x\" is invalid: reclaimPolicy: Forbidden: updates to reclaimPolicy are forbidden.",
            "RoleBinding \"x\" is invalid: roleRef: Invalid value: {}: cannot change roleRef",
        ] {
            assert!(is_immutable(&refusal(json!({"code": 422, "message": message}))), "{message}");
        }
        let grown = "persistentvolumeclaims \"c\" is forbidden: only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize";
        assert!(is_immutable(&refusal(json!({"code": 403, "message": grown}))));
        let alien = "configmaps \"c\" is forbidden: User \"x\" cannot change it";
        assert!(!is_immutable(&refusal(json!({"code": 403, "message": alien}))));
        let other = "Service \"s\" is invalid: spec.ports[0].nodePort: Invalid value: 80: provided port is not in the valid range";
        assert!(!is_immutable(&refusal(json!({"code": 422, "message": other}))));
    }

    #[test]
    fn blocked_differences_are_refused() {
        let id = ObjectId::new("v1", "ConfigMap", Some("a"), "b");
        let with = |what| [Difference { id: id.clone(), what, theirs: false }];
        assert!(refuse_blocked(&with(What::Create)).is_ok());
        assert!(
            refuse_blocked(&with(What::Undried { reason: "no namespace a".into(), promised: true })).is_ok()
        );
        let lost = refuse_blocked(&with(What::Undried { reason: "no namespace a".into(), promised: false }))
            .unwrap_err();
        assert_eq!(lost.to_string(), "apply of v1 ConfigMap a/b has failed: no namespace a");
        let conflict =
            refuse_blocked(&with(What::Conflict { fields: vec![(".data.k".into(), "m1".into())] }))
                .unwrap_err();
        assert_eq!(conflict.to_string(), "cannot apply v1 ConfigMap a/b: .data.k belongs to m1");
        assert!(conflict.hint().unwrap().contains("--force-conflicts"));
    }
}
