//! The garbage collector: objects whose owners are gone, and deletions that wait for dependents.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::Value;

use super::{MANAGER, Plant, delete, going, list, text, update};
use crate::kube::store::{Store, key_of};

/// One pass.
pub(crate) fn run(store: &mut Store, plant: &mut Plant) {
    if plant.collected == store.loose {
        return;
    }
    plant.collected = store.loose;
    let mut uids: BTreeSet<String> = BTreeSet::new();
    let mut owned: Vec<(String, Arc<Value>)> = Vec::new();
    let mut held: Vec<Arc<Value>> = Vec::new();
    for of in store.stores() {
        for object in store.list(&of, None) {
            uids.insert(text(object, "/metadata/uid").to_owned());
            if !list(object, "/metadata/ownerReferences").is_empty() {
                owned.push((of.clone(), object.clone()));
            }
            if going(object) && !list(object, "/metadata/finalizers").is_empty() {
                held.push(object.clone());
            }
        }
    }
    for (of, object) in &owned {
        let owners = list(object, "/metadata/ownerReferences");
        if !going(object) && owners.iter().all(|o| !uids.contains(text(o, "/uid"))) {
            let (ns, name) = key_of(object);
            delete(store, of, &ns, &name, None);
        }
    }
    for object in held {
        let has = |f: &str| list(&object, "/metadata/finalizers").iter().any(|v| v == f);
        let uid = text(&object, "/metadata/uid");
        let dependents: Vec<&(String, Arc<Value>)> = owned
            .iter()
            .filter(|(_, o)| list(o, "/metadata/ownerReferences").iter().any(|r| r["uid"] == uid))
            .collect();
        if has("foregroundDeletion") {
            let mut waiting = false;
            for (of, dependent) in &dependents {
                let (ns, name) = key_of(dependent);
                if !going(dependent) {
                    delete(store, of, &ns, &name, None);
                }
                waiting |= store.get(of, &ns, &name).is_some();
            }
            if !waiting {
                release(store, &object, "foregroundDeletion");
            }
        }
        if has("orphan") {
            for (_, dependent) in &dependents {
                let mut free = Value::clone(dependent);
                let rest: Vec<Value> = list(&free, "/metadata/ownerReferences")
                    .iter()
                    .filter(|r| r["uid"] != uid)
                    .cloned()
                    .collect();
                free["metadata"]["ownerReferences"] = rest.into();
                update(store, MANAGER, free);
            }
            release(store, &object, "orphan");
        }
    }
}

fn release(store: &mut Store, object: &Value, finalizer: &str) {
    let mut free = object.clone();
    let rest: Vec<Value> =
        list(&free, "/metadata/finalizers").iter().filter(|f| *f != finalizer).cloned().collect();
    free["metadata"]["finalizers"] = rest.into();
    update(store, MANAGER, free);
}
