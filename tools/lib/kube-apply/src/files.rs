//! A set as files: one an object, and a kustomization.yaml.

use crate::error::Error;
use crate::object::ObjectId;
use crate::set::ManifestSet;
use crate::yaml;
use serde_json::{Value, json};
use std::collections::BTreeMap;

impl ManifestSet {
    /// The set as files, for Git and for `kubectl apply -k`: one an object, and a kustomization.yaml, which lists
    /// them in the order of applying.
    ///
    /// # Errors
    /// `Manifest` for an object that cannot be written as YAML.
    pub fn files(&self) -> Result<BTreeMap<String, String>, Error> {
        let broken = |why| Error::Manifest { source_name: self.name().to_owned(), why };
        let parent = self.parent();
        let objects: Vec<_> = std::iter::once(&parent).chain(self.in_order()).collect();
        let names = names(&objects.iter().map(|object| object.id()).collect::<Vec<_>>());
        let mut files = BTreeMap::new();
        for (name, object) in names.iter().zip(objects) {
            files.insert(name.clone(), yaml::write(object.value()).map_err(broken)?);
        }
        let kustomization = json!({
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "resources": names.into_iter().map(Value::from).collect::<Vec<_>>(),
        });
        files.insert("kustomization.yaml".to_owned(), yaml::write(&kustomization).map_err(broken)?);
        Ok(files)
    }
}

/// A file name for each object: kind, namespace and name; with the group where two kinds share a name.
fn names(ids: &[ObjectId]) -> Vec<String> {
    let mut taken: BTreeMap<String, u32> = BTreeMap::new();
    for id in ids {
        *taken.entry(file_name(id, false)).or_default() += 1;
    }
    let mut used: BTreeMap<String, u32> = BTreeMap::new();
    ids.iter()
        .map(|id| {
            let name = file_name(id, taken.get(&file_name(id, false)).is_some_and(|count| *count > 1));
            let count = used.entry(name.clone()).or_default();
            *count += 1;
            if *count == 1 { format!("{name}.yaml") } else { format!("{name}-{count}.yaml") }
        })
        .collect()
}

fn file_name(id: &ObjectId, with_group: bool) -> String {
    let kind = if with_group { id.group_kind() } else { id.kind.clone() };
    let parts = [Some(kind.as_str()), id.namespace.as_deref(), Some(id.name.as_str())];
    let name: Vec<&str> = parts.into_iter().flatten().collect();
    let plain = |c: char| {
        if c.is_ascii_alphanumeric() || c == '.' || c == '-' { c.to_ascii_lowercase() } else { '_' }
    };
    name.join("-").chars().map(plain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain_and_different() {
        let ids = [
            ObjectId::new("apps/v1", "Deployment", Some("traefik"), "traefik"),
            ObjectId::new("rbac.authorization.k8s.io/v1", "ClusterRole", None, "system:Reader"),
            ObjectId::new("networking.k8s.io/v1", "NetworkPolicy", Some("a"), "x"),
            ObjectId::new("projectcalico.org/v3", "NetworkPolicy", Some("a"), "x"),
            ObjectId::new("v1", "ConfigMap", None, "a_b"),
            ObjectId::new("v1", "ConfigMap", None, "a:b"),
        ];
        assert_eq!(
            names(&ids),
            [
                "deployment-traefik-traefik.yaml",
                "clusterrole-system_reader.yaml",
                "networkpolicy.networking.k8s.io-a-x.yaml",
                "networkpolicy.projectcalico.org-a-x.yaml",
                "configmap-a_b.yaml",
                "configmap-a_b-2.yaml",
            ]
        );
    }
}
