//! Namespaces: what each has from the start, and how one empties.

use serde_json::json;

use super::{MANAGER, delete, ensure, going, names};
use crate::kube::store::{Store, key_of};

/// One pass.
pub(crate) fn run(store: &mut Store) {
    for (_, ns) in names(store, "namespaces") {
        let Some(namespace) = store.get("namespaces", "", &ns).cloned() else { continue };
        if going(&namespace) {
            empty(store, &ns);
            continue;
        }
        ensure(
            store,
            MANAGER,
            json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": ns}}),
        );
        if store.get("configmaps", &ns, "kube-root-ca.crt").is_none() {
            let ca = store.ca.clone();
            ensure(
                store,
                MANAGER,
                json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "kube-root-ca.crt", "namespace": ns,
                    "annotations": {"kubernetes.io/description": "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes clusters."}},
                    "data": {"ca.crt": ca}}),
            );
        }
    }
}

fn empty(store: &mut Store, ns: &str) {
    let mut left = false;
    for of in store.stores() {
        let objects: Vec<_> = store.list(&of, Some(ns)).cloned().collect();
        // Of cluster-wide objects the namespace is empty, and this one is not.
        for object in objects {
            let (_, name) = key_of(&object);
            if !going(&object) {
                delete(store, &of, ns, &name, None);
            }
            left |= store.get(&of, ns, &name).is_some();
        }
    }
    if !left {
        store.take("namespaces", "", ns);
    }
}
