//! Disruption budgets: how many pods may go.

use serde_json::json;

use super::{MANAGER, condition, conditions, names, pods, set_status, share};
use crate::kube::selectors::Selector;
use crate::kube::store::Store;

const STORE: &str = "poddisruptionbudgets.policy";

/// One pass.
pub(crate) fn run(store: &mut Store) {
    for (ns, name) in names(store, STORE) {
        let Some(budget) = store.get(STORE, &ns, &name).cloned() else { continue };
        let selector = Selector::of(&budget["spec"]["selector"]);
        let (mut expected, mut healthy) = (0, 0);
        for pod in store.list("pods", Some(&ns)).filter(|p| selector.matches(&p["metadata"]["labels"])) {
            if pods::is_active(pod) {
                expected += 1;
                healthy += i64::from(pods::is_ready(pod));
            }
        }
        let spec = &budget["spec"];
        let desired = match spec.get("minAvailable") {
            Some(least) => share(least, expected, true),
            None => (expected - share(&spec["maxUnavailable"], expected, true)).max(0),
        };
        let allowed = (healthy - desired).max(0);
        let mut all = conditions(&budget);
        if allowed > 0 {
            condition(&mut all, "DisruptionAllowed", "True", "SufficientPods", "");
        } else {
            condition(&mut all, "DisruptionAllowed", "False", "InsufficientPods", "");
        }
        let status = json!({"disruptionsAllowed": allowed, "currentHealthy": healthy, "desiredHealthy": desired,
            "expectedPods": expected, "observedGeneration": budget["metadata"]["generation"], "conditions": all});
        set_status(store, MANAGER, &budget, status);
    }
}
