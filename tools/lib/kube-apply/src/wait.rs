//! What may be waited for, and which objects tell.

use crate::object::{Object, ObjectId};
use std::fmt;

/// What is waited for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "namespace and name say it")]
pub enum Wait {
    /// All pods of a Deployment are new and available.
    Deployment { namespace: String, name: String },
    /// All pods of a DaemonSet are new and available.
    DaemonSet { namespace: String, name: String },
    /// All pods of a StatefulSet are new and ready.
    StatefulSet { namespace: String, name: String },
    /// A Job has completed; one that has failed is an error at once.
    Job { namespace: String, name: String },
    /// A custom resource definition is established.
    CrdEstablished { name: String },
    /// An aggregated API is available.
    ApiService { name: String },
    /// A claim is bound.
    Pvc { namespace: String, name: String },
    /// A condition of any object has that status (`True`).
    Condition {
        api_version: String,
        kind: String,
        namespace: Option<String>,
        name: String,
        condition: String,
        status: String,
    },
    /// These nodes are ready; without names, all that there are, and at least one.
    NodesReady { names: Vec<String> },
    /// An object is gone.
    Gone { id: ObjectId },
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Wait::Deployment { namespace, name } => write!(f, "Deployment {namespace}/{name}"),
            Wait::DaemonSet { namespace, name } => write!(f, "DaemonSet {namespace}/{name}"),
            Wait::StatefulSet { namespace, name } => write!(f, "StatefulSet {namespace}/{name}"),
            Wait::Job { namespace, name } => write!(f, "Job {namespace}/{name}"),
            Wait::CrdEstablished { name } => write!(f, "CustomResourceDefinition {name}"),
            Wait::ApiService { name } => write!(f, "APIService {name}"),
            Wait::Pvc { namespace, name } => write!(f, "PersistentVolumeClaim {namespace}/{name}"),
            Wait::Condition { kind, namespace, name, condition, status, .. } => {
                let namespace = namespace.as_ref().map(|name| format!("{name}/")).unwrap_or_default();
                write!(f, "{kind} {namespace}{name} ({condition}={status})")
            }
            Wait::NodesReady { .. } => f.write_str("the cluster's nodes"),
            Wait::Gone { id } => write!(f, "the end of {id}"),
        }
    }
}

impl Wait {
    /// What makes an object of a set ready, for the kinds that become so; none for others, and for claims, which may wait for their first pod.
    pub fn of(object: &Object) -> Option<Wait> {
        let id = object.id();
        let (name, namespace) =
            (id.name.clone(), id.namespace.clone().unwrap_or_else(|| "default".to_owned()));
        Some(match (id.group(), id.kind.as_str()) {
            ("apps", "Deployment") => Wait::Deployment { namespace, name },
            ("apps", "DaemonSet") => Wait::DaemonSet { namespace, name },
            ("apps", "StatefulSet") => Wait::StatefulSet { namespace, name },
            ("batch", "Job") => Wait::Job { namespace, name },
            ("apiextensions.k8s.io", "CustomResourceDefinition") => Wait::CrdEstablished { name },
            ("apiregistration.k8s.io", "APIService") => Wait::ApiService { name },
            _ => return None,
        })
    }

    /// The objects to look at; without a name all of the kind.
    pub(crate) fn target(&self) -> (&str, &str, Option<&str>, Option<&str>) {
        match self {
            Wait::Deployment { namespace, name } => ("apps/v1", "Deployment", Some(namespace), Some(name)),
            Wait::DaemonSet { namespace, name } => ("apps/v1", "DaemonSet", Some(namespace), Some(name)),
            Wait::StatefulSet { namespace, name } => ("apps/v1", "StatefulSet", Some(namespace), Some(name)),
            Wait::Job { namespace, name } => ("batch/v1", "Job", Some(namespace), Some(name)),
            Wait::CrdEstablished { name } => {
                ("apiextensions.k8s.io/v1", "CustomResourceDefinition", None, Some(name))
            }
            Wait::ApiService { name } => ("apiregistration.k8s.io/v1", "APIService", None, Some(name)),
            Wait::Pvc { namespace, name } => ("v1", "PersistentVolumeClaim", Some(namespace), Some(name)),
            Wait::Condition { api_version, kind, namespace, name, .. } => {
                (api_version, kind, namespace.as_deref(), Some(name))
            }
            Wait::NodesReady { .. } => ("v1", "Node", None, None),
            Wait::Gone { id } => (
                &id.api_version,
                &id.kind,
                Some(id.namespace.as_deref().unwrap_or("default")),
                Some(&id.name),
            ),
        }
    }

    /// Whether pods do the work.
    pub(crate) fn has_pods(&self) -> bool {
        matches!(
            self,
            Wait::Deployment { .. } | Wait::DaemonSet { .. } | Wait::StatefulSet { .. } | Wait::Job { .. }
        )
    }
}
