//! The controller manager's bootstrap signer: what a joining machine trusts, signed with each token.

use serde_json::{Map, Value, json};

use super::{MANAGER, update};
use crate::hosts::kubeadm::objects;
use crate::kube::store::Store;

/// Keeps the signatures of the ConfigMap `kube-public/cluster-info` in line with the tokens (pkg/controller/bootstrap of
/// Kubernetes).
pub(crate) fn signer(store: &mut Store) {
    let Some(map) = store.get("configmaps", "kube-public", "cluster-info").cloned() else { return };
    let Some(kubeconfig) = map["data"]["kubeconfig"].as_str() else { return };
    let mut data = Map::new();
    for secret in store.list("secrets", Some("kube-system")) {
        if let Some(token) = objects::token(secret).filter(|t| t.signs && !t.past()) {
            let signature = objects::signature(kubeconfig, &token.id, &token.secret);
            data.insert(format!("jws-kubeconfig-{}", token.id), json!(signature));
        }
    }
    data.insert("kubeconfig".into(), json!(kubeconfig));
    if map["data"] != Value::Object(data.clone()) {
        let mut map = (*map).clone();
        map["data"] = Value::Object(data);
        update(store, MANAGER, map);
    }
}
