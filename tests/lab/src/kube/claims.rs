//! Claims of volumes: what is required of them, and how they may change.

use serde_json::{Value, json};

use super::admission::{Fault, forbidden, required};
use super::controllers::list;
use super::store::Store;

/// What the API server says to a new claim, and to a change of one.
pub(crate) fn admit(store: &Store, old: Option<&Value>, new: &mut Value, faults: &mut Vec<Fault>) {
    if let Some(old) = old {
        let mut before = old["spec"].clone();
        let after = &new["spec"];
        if let Some(requests) = after.pointer("/resources/requests") {
            before["resources"]["requests"] = requests.clone();
        }
        if before.get("volumeName").is_none()
            && let Some(volume) = after.get("volumeName")
        {
            before["volumeName"] = volume.clone();
        }
        if before != *after {
            faults.push(forbidden("spec", "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims"));
        }
        // RecoverVolumeExpansionFailure: down to what the volume has, and no further.
        let has = old.pointer("/status/capacity/storage").and_then(Value::as_str).unwrap_or_default();
        if size(request(new)) < size(request(old)) && size(request(new)) <= size(has) {
            let field = "spec.resources.requests.storage";
            faults.push(forbidden(field, "field can not be less than status.capacity"));
        }
        return;
    }
    if list(new, "/spec/accessModes").is_empty() {
        faults.push(required("spec.accessModes", "at least 1 access mode is required"));
    }
    if new.pointer("/spec/resources/requests/storage").is_none() {
        faults.push(required("spec.resources[storage]", ""));
    }
    if new["spec"].get("storageClassName").is_none() {
        let default = store
            .list("storageclasses.storage.k8s.io", None)
            .find(|c| c["metadata"]["annotations"]["storageclass.kubernetes.io/is-default-class"] == "true");
        if let Some(class) = default {
            new["spec"]["storageClassName"] = class["metadata"]["name"].clone();
        }
    }
    new["metadata"]["finalizers"] = json!(["kubernetes.io/pvc-protection"]);
}

/// Why a claim may not ask for more (plugin/pkg/admission/storage/persistentvolume/resize).
pub(crate) fn grows(store: &Store, old: &Value, new: &Value) -> Option<&'static str> {
    if size(request(new)) <= size(request(old)) {
        return None;
    }
    if old["status"]["phase"] != "Bound" {
        return Some("Only bound persistent volume claims can be expanded");
    }
    let class = old["spec"]["storageClassName"].as_str().unwrap_or_default();
    let class = store.get("storageclasses.storage.k8s.io", "", class);
    let allowed = class.is_some_and(|class| class["allowVolumeExpansion"] == true);
    (!allowed).then_some(
        "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize",
    )
}

fn request(claim: &Value) -> &str {
    claim.pointer("/spec/resources/requests/storage").and_then(Value::as_str).unwrap_or_default()
}

/// The bytes of a quantity such as `10Gi`; 0 for what is none.
fn size(quantity: &str) -> u64 {
    const UNITS: [(&str, u64); 8] = [
        ("Ki", 1 << 10),
        ("Mi", 1 << 20),
        ("Gi", 1 << 30),
        ("Ti", 1 << 40),
        ("k", 1_000),
        ("M", 1_000_000),
        ("G", 1_000_000_000),
        ("T", 1_000_000_000_000),
    ];
    let unit = UNITS.iter().find_map(|(unit, factor)| Some((quantity.strip_suffix(unit)?, factor)));
    let (number, factor) = unit.unwrap_or((quantity, &1));
    number.parse::<u64>().map_or(0, |number| number * factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_compared_by_their_bytes() {
        assert!(size("1Gi") > size("1000Mi") && size("1Gi") > size("1G"));
        assert_eq!(size("2048"), size("2Ki"));
    }
}
