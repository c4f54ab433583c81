//! What the API server itself does after a write: CRDs are served, APIServices are judged.

use serde_json::{Value, json};

use super::resources::{self, Resource};
use super::store::Store;
use super::verbs::{Call, now};

impl Store {
    /// Follows up a write.
    pub(crate) fn after_write(&mut self, res: &Resource, name: &str) {
        match res.kind.as_str() {
            "CustomResourceDefinition" => self.establish(res, name),
            "APIService" => self.judge_api_service(name),
            _ => {}
        }
    }

    /// Follows up a removal.
    pub(crate) fn after_removal(&mut self, res: &Resource, name: &str) {
        if res.kind == "CustomResourceDefinition" {
            for object in self.list(name, None).cloned().collect::<Vec<_>>() {
                let (ns, object_name) = super::store::key_of(&object);
                self.take(name, &ns, &object_name);
            }
            self.custom.retain(|r| r.qualified() != name);
        }
    }

    /// Serves what the CRD describes and says so in its status.
    fn establish(&mut self, res: &Resource, name: &str) {
        let Some(crd) = self.get(&res.store(), "", name).cloned() else { return };
        let served = resources::of_crd(&crd);
        self.custom.retain(|r| r.qualified() != name);
        self.custom.extend(served);
        let mut wanted = (*crd).clone();
        let names = crd["spec"]["names"].clone();
        let stored: Vec<Value> = crd["spec"]["versions"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|v| v["storage"] == true)
            .map(|v| v["name"].clone())
            .collect();
        wanted["status"]["acceptedNames"] = names;
        for version in stored {
            if let Some(list) = wanted["status"]["storedVersions"].as_array_mut()
                && !list.contains(&version)
            {
                list.push(version);
            }
        }
        if !crd["status"]["conditions"].is_array() {
            let condition = |kind: &str, reason: &str, message: &str| json!({"type": kind, "status": "True", "lastTransitionTime": now(), "reason": reason, "message": message});
            wanted["status"]["conditions"] = json!([
                condition("NamesAccepted", "NoConflicts", "no conflicts found"),
                condition("Established", "InitialNamesAccepted", "the initial names have been accepted"),
            ]);
        }
        if wanted["status"] != crd["status"] {
            let mut call = Call::component("kube-apiserver").on("status");
            // The object was just read, so this cannot be refused; were it, the CRD would stay not Established.
            let _ = self.update(res, "", name, wanted, &mut call);
        }
    }

    /// Sets the condition Available of an APIService from its service and that one's endpoints.
    pub(crate) fn judge_api_service(&mut self, name: &str) {
        let Some(object) = self.get("apiservices.apiregistration.k8s.io", "", name).cloned() else { return };
        let (status, reason, message) = self.api_service_state(&object);
        let before = object["status"]["conditions"]
            .as_array()
            .and_then(|c| c.iter().find(|c| c["type"] == "Available"));
        if before.is_some_and(|c| {
            c["status"] == status && c["reason"] == reason && c["message"] == message.as_str()
        }) {
            return;
        }
        let Some(res) = self.resource("apiregistration.k8s.io", "v1", "apiservices") else { return };
        let mut wanted = (*object).clone();
        wanted["status"]["conditions"] = json!([{"type": "Available", "status": status,
            "lastTransitionTime": now(), "reason": reason, "message": message}]);
        let mut call = Call::component("kube-apiserver").on("status");
        let _ = self.update(&res, "", name, wanted, &mut call);
    }

    fn api_service_state(&self, object: &Value) -> (&'static str, &'static str, String) {
        let service = &object["spec"]["service"];
        if !service.is_object() {
            return ("True", "Local", "Local APIServices are always available".into());
        }
        let name = service["name"].as_str().unwrap_or_default();
        let ns = service["namespace"].as_str().unwrap_or_default();
        let Some(backend) = self.get("services", ns, name) else {
            return ("False", "ServiceNotFound", format!("service/{name} in {ns:?} is not present"));
        };
        let port =
            backend["spec"]["ports"].as_array().into_iter().flatten().find(|p| p["port"] == service["port"]);
        let Some(port) = port else {
            let message = format!("service/{name} in {ns:?} is not listening on port {}", service["port"]);
            return ("False", "ServicePortError", message);
        };
        let Some(endpoints) = self.get("endpoints", ns, name) else {
            return (
                "False",
                "EndpointsNotFound",
                format!("cannot find endpoints for service/{name} in {ns:?}"),
            );
        };
        let ready = endpoints["subsets"]
            .as_array()
            .into_iter()
            .flatten()
            .any(|s| s["addresses"].as_array().is_some_and(|a| !a.is_empty()));
        if !ready {
            let message = format!(
                "endpoints for service/{name} in {ns:?} have no addresses with port name \"{}\"",
                port["name"].as_str().unwrap_or_default()
            );
            return ("False", "MissingEndpoints", message);
        }
        ("True", "Passed", "all checks passed".into())
    }

    /// The APIService that answers for a group and version, with its state; `None` when the group is local.
    pub(crate) fn aggregated(&self, group: &str, version: &str) -> Option<bool> {
        let object = self.get("apiservices.apiregistration.k8s.io", "", &format!("{version}.{group}"))?;
        object["spec"]["service"].is_object().then(|| self.api_service_state(object).0 == "True")
    }
}
