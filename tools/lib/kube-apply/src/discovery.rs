//! Which path serves a kind: asked once for each group and version.

use crate::error::Error;
use crate::wire::{self, Wire};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// A kind as the API serves it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Resource {
    pub(crate) kind: String,
    /// The plural, as in the path.
    pub(crate) name: String,
    pub(crate) namespaced: bool,
}

#[derive(Deserialize)]
struct ResourceList {
    #[serde(default)]
    resources: Vec<Resource>,
}

#[derive(Deserialize)]
struct GroupList {
    #[serde(default)]
    groups: Vec<Group>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Group {
    name: String,
    preferred_version: Option<GroupVersion>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct GroupVersion {
    group_version: String,
}

/// What the server was asked so far.
#[derive(Default)]
pub(crate) struct Discovery {
    versions: Mutex<BTreeMap<String, Arc<Vec<Resource>>>>,
}

impl Discovery {
    /// The resource of a kind; none where the server has none.
    pub(crate) async fn find(
        &self,
        wire: &Wire,
        api_version: &str,
        kind: &str,
    ) -> Result<Option<Resource>, Error> {
        let known = self.lock().get(api_version).cloned();
        let resources = match known {
            Some(resources) => resources,
            None => self.ask(wire, api_version).await?,
        };
        Ok(resources.iter().find(|resource| resource.kind == kind).cloned())
    }

    /// Forgets what may have changed: after a definition was applied, and before a new look.
    pub(crate) fn forget_absent(&self, kinds: &[(String, String)]) {
        let mut versions = self.lock();
        for (api_version, kind) in kinds {
            let absent = |list: &Arc<Vec<Resource>>| !list.iter().any(|resource| resource.kind == *kind);
            if versions.get(api_version).is_some_and(absent) {
                versions.remove(api_version);
            }
        }
    }

    /// The version that a group prefers, as `group/version`; `v1` for the core group.
    pub(crate) async fn preferred(&self, wire: &Wire, group: &str) -> Result<Option<String>, Error> {
        if group.is_empty() {
            return Ok(Some("v1".to_owned()));
        }
        let doing = "list the API's groups";
        let answer = wire.call(doing, wire::get("/apis")).await.map_err(|fault| fault.into_error(doing))?;
        let list: GroupList = answer.parse(doing)?;
        let found = list.groups.into_iter().find(|one| one.name == group);
        Ok(found.and_then(|one| one.preferred_version).map(|version| version.group_version))
    }

    async fn ask(&self, wire: &Wire, api_version: &str) -> Result<Arc<Vec<Resource>>, Error> {
        let doing = format!("list the kinds of {api_version}");
        let list = match wire.call(&doing, wire::get(&root(api_version))).await {
            Ok(answer) => answer.parse::<ResourceList>(&doing)?.resources,
            Err(fault) if fault.is_not_found() => Vec::new(),
            Err(fault) => return Err(fault.into_error(&doing)),
        };
        // Subresources ("deployments/scale") have kinds of their own.
        let list: Vec<Resource> = list.into_iter().filter(|resource| !resource.name.contains('/')).collect();
        let list = Arc::new(list);
        self.lock().insert(api_version.to_owned(), Arc::clone(&list));
        Ok(list)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Arc<Vec<Resource>>>> {
        self.versions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The path of a group and version.
pub(crate) fn root(api_version: &str) -> String {
    match api_version.split_once('/') {
        None => format!("/api/{}", wire::encode(api_version)),
        Some((group, version)) => format!("/apis/{}/{}", wire::encode(group), wire::encode(version)),
    }
}

impl Resource {
    /// The path of all objects of this kind, in one namespace or (none) everywhere.
    pub(crate) fn collection(&self, api_version: &str, namespace: Option<&str>) -> String {
        let root = root(api_version);
        match namespace {
            Some(namespace) if self.namespaced => {
                format!("{root}/namespaces/{}/{}", wire::encode(namespace), self.name)
            }
            _ => format!("{root}/{}", self.name),
        }
    }

    /// The path of one object.
    pub(crate) fn object(&self, api_version: &str, namespace: Option<&str>, name: &str) -> String {
        let namespace = namespace.unwrap_or("default");
        format!("{}/{}", self.collection(api_version, Some(namespace)), wire::encode(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_those_of_the_api() {
        let deployments =
            Resource { kind: "Deployment".into(), name: "deployments".into(), namespaced: true };
        assert_eq!(deployments.object("apps/v1", Some("a"), "b"), "/apis/apps/v1/namespaces/a/deployments/b");
        assert_eq!(
            deployments.object("apps/v1", None, "b"),
            "/apis/apps/v1/namespaces/default/deployments/b"
        );
        assert_eq!(deployments.collection("apps/v1", None), "/apis/apps/v1/deployments");
        let nodes = Resource { kind: "Node".into(), name: "nodes".into(), namespaced: false };
        assert_eq!(nodes.object("v1", Some("ignored"), "n"), "/api/v1/nodes/n");
    }
}
