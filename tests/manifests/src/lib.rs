//! Checks that manifests hold no field that Kubernetes does not know.
//!
//! Each object is read as the type of its kind and written again: what is lost on the way is unknown to the API,
//! and what cannot be read has a value of another form. Custom resources have no type here: they are counted apart.

use k8s_openapi::api::{
    admissionregistration::v1 as admission, apps::v1 as apps, autoscaling::v2 as autoscaling,
    batch::v1 as batch, core::v1 as core, networking::v1 as networking, policy::v1 as policy,
    rbac::v1 as rbac, scheduling::v1 as scheduling, storage::v1 as storage,
};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1 as extensions;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1 as registration;

mod cases;
mod installers;
mod kustomize;

pub use cases::cases;
pub use installers::installer;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::path::Path;

/// What is wrong with an object; nothing for one that is right, `None` where its kind has no type here.
pub fn mistakes(object: &Value) -> Option<Vec<String>> {
    let text = |key: &str| object.get(key).and_then(Value::as_str).unwrap_or_default();
    Some(match (text("apiVersion"), text("kind")) {
        ("v1", "ConfigMap") => again::<core::ConfigMap>(object),
        ("v1", "Namespace") => again::<core::Namespace>(object),
        ("v1", "PersistentVolume") => again::<core::PersistentVolume>(object),
        ("v1", "PersistentVolumeClaim") => again::<core::PersistentVolumeClaim>(object),
        ("v1", "Secret") => again::<core::Secret>(object),
        ("v1", "Service") => again::<core::Service>(object),
        ("v1", "ServiceAccount") => again::<core::ServiceAccount>(object),
        ("apps/v1", "DaemonSet") => again::<apps::DaemonSet>(object),
        ("apps/v1", "Deployment") => again::<apps::Deployment>(object),
        ("apps/v1", "StatefulSet") => again::<apps::StatefulSet>(object),
        ("autoscaling/v2", "HorizontalPodAutoscaler") => {
            again::<autoscaling::HorizontalPodAutoscaler>(object)
        }
        ("batch/v1", "Job") => again::<batch::Job>(object),
        ("networking.k8s.io/v1", "Ingress") => again::<networking::Ingress>(object),
        ("networking.k8s.io/v1", "IngressClass") => again::<networking::IngressClass>(object),
        ("networking.k8s.io/v1", "NetworkPolicy") => again::<networking::NetworkPolicy>(object),
        ("policy/v1", "PodDisruptionBudget") => again::<policy::PodDisruptionBudget>(object),
        ("rbac.authorization.k8s.io/v1", "ClusterRole") => again::<rbac::ClusterRole>(object),
        ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding") => again::<rbac::ClusterRoleBinding>(object),
        ("rbac.authorization.k8s.io/v1", "Role") => again::<rbac::Role>(object),
        ("rbac.authorization.k8s.io/v1", "RoleBinding") => again::<rbac::RoleBinding>(object),
        ("scheduling.k8s.io/v1", "PriorityClass") => again::<scheduling::PriorityClass>(object),
        ("storage.k8s.io/v1", "StorageClass") => again::<storage::StorageClass>(object),
        ("apiregistration.k8s.io/v1", "APIService") => again::<registration::APIService>(object),
        ("apiextensions.k8s.io/v1", "CustomResourceDefinition") => {
            again::<extensions::CustomResourceDefinition>(object)
        }
        ("admissionregistration.k8s.io/v1", "ValidatingWebhookConfiguration") => {
            again::<admission::ValidatingWebhookConfiguration>(object)
        }
        ("admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration") => {
            again::<admission::MutatingWebhookConfiguration>(object)
        }
        _ => return None,
    })
}

/// Checks all objects; returns how many have a type here, and the kinds of the others.
///
/// # Errors
/// Every mistake, with the object's kind and name.
pub fn check<'a>(objects: impl IntoIterator<Item = &'a Value>) -> Result<(usize, Vec<String>), Vec<String>> {
    let (mut known, mut others, mut wrong) = (0, Vec::new(), Vec::new());
    for object in objects {
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let name = format!("{} {}", text("/kind"), text("/metadata/name"));
        match mistakes(object) {
            Some(found) => {
                known += 1;
                wrong.extend(found.into_iter().map(|mistake| format!("{name}: {mistake}")));
            }
            None => others.push(format!("{} {}", text("/apiVersion"), text("/kind"))),
        }
    }
    if wrong.is_empty() { Ok((known, others)) } else { Err(wrong) }
}

/// Compares a text with the file that holds what is expected; with BLESS set, writes the file instead.
///
/// # Errors
/// What differs first, and how to accept it.
pub fn golden(path: &Path, actual: &str) -> Result<(), String> {
    if std::env::var_os("BLESS").is_some() {
        let folder = path.parent().unwrap_or(path);
        return std::fs::create_dir_all(folder)
            .and_then(|()| std::fs::write(path, actual))
            .map_err(|error| format!("cannot write {}: {error}", path.display()));
    }
    let expected = std::fs::read_to_string(path)
        .map_err(|error| format!("cannot read {}: {error}; BLESS=1 writes it", path.display()))?;
    if expected == actual {
        return Ok(());
    }
    let differs = expected.lines().zip(actual.lines()).position(|(one, other)| one != other);
    let line = differs.unwrap_or_else(|| expected.lines().count().min(actual.lines().count()));
    let shown = |text: &str| text.lines().nth(line).unwrap_or("(the end)").to_owned();
    Err(format!(
        "{} differs at line {}:\n- {}\n+ {}\nBLESS=1 accepts it; look at it with git diff",
        path.display(),
        line + 1,
        shown(&expected),
        shown(actual)
    ))
}

fn again<T: DeserializeOwned + Serialize>(object: &Value) -> Vec<String> {
    match serde_json::from_value::<T>(object.clone()).and_then(serde_json::to_value) {
        Ok(read) => {
            let mut lost = Vec::new();
            compare(object, &read, String::new(), &mut lost);
            lost
        }
        Err(error) => vec![error.to_string()],
    }
}

fn compare(written: &Value, read: &Value, at: String, lost: &mut Vec<String>) {
    match (written, read) {
        (Value::Object(written), Value::Object(read)) => {
            for (key, value) in written {
                match read.get(key) {
                    Some(other) => compare(value, other, format!("{at}.{key}"), lost),
                    None => lost.push(format!("{at}.{key} is no field that Kubernetes knows")),
                }
            }
        }
        (Value::Array(written), Value::Array(read)) => {
            for (n, (one, other)) in written.iter().zip(read).enumerate() {
                compare(one, other, format!("{at}[{n}]"), lost);
            }
        }
        (one, other) if one == other => {}
        (one, other) => lost.push(format!("{at} is {one}, and is read as {other}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn unknown_fields_are_found() {
        let right = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"},
            "spec": {"ports": [{"port": 80, "targetPort": "web"}]}});
        assert_eq!(mistakes(&right), Some(vec![]));
        let wrong = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"},
            "spec": {"ports": [{"port": 80, "targetport": "web"}]}});
        assert_eq!(
            mistakes(&wrong).unwrap(),
            [".spec.ports[0].targetport is no field that Kubernetes knows"]
        );
        let form =
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": {"ports": 1}});
        assert_eq!(mistakes(&form).unwrap().len(), 1);
        assert_eq!(mistakes(&json!({"apiVersion": "x/v1", "kind": "Y"})), None);
    }
}
