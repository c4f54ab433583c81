//! Whether what is waited for is there, judged from objects alone.
//!
//! Workloads are judged as `kubectl rollout status` does: only a status of the newest generation counts.

use crate::wait::Wait;
use serde_json::Value;

/// What objects say about a wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Health {
    Ready,
    /// Not yet; what is lacking.
    Waiting(String),
    /// Never.
    Failed(String),
}

use Health::{Failed, Ready, Waiting};

/// Judges the objects that a wait looks at: one at most, but for nodes.
pub(crate) fn judge(wait: &Wait, objects: &[Value]) -> Health {
    if let Wait::NodesReady { names } = wait {
        return nodes(names, objects);
    }
    let Some(object) = objects.first() else {
        return match wait {
            Wait::Gone { .. } => Ready,
            _ => Waiting("it does not exist yet".into()),
        };
    };
    match wait {
        Wait::Deployment { .. } => newest(object, deployment),
        Wait::DaemonSet { .. } => newest(object, daemon_set),
        Wait::StatefulSet { .. } => newest(object, stateful_set),
        Wait::Job { .. } => job(object),
        Wait::CrdEstablished { .. } => condition(object, "Established", "True"),
        Wait::ApiService { .. } => condition(object, "Available", "True"),
        Wait::Pvc { .. } => claim(object),
        Wait::Condition { condition: name, status, .. } => condition(object, name, status),
        Wait::Gone { .. } => going(object),
        Wait::NodesReady { .. } => Ready,
    }
}

fn number(object: &Value, pointer: &str) -> i64 {
    object.pointer(pointer).and_then(Value::as_i64).unwrap_or_default()
}

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// A condition of an object's status.
pub(crate) fn find<'a>(object: &'a Value, name: &str) -> Option<&'a Value> {
    let conditions = object.pointer("/status/conditions")?.as_array()?;
    conditions.iter().find(|condition| text(condition, "/type") == name)
}

fn newest(object: &Value, judge: fn(&Value) -> Health) -> Health {
    if number(object, "/status/observedGeneration") < number(object, "/metadata/generation") {
        return Waiting("its controller has not seen it yet".into());
    }
    judge(object)
}

fn deployment(object: &Value) -> Health {
    let wanted = object.pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or(1);
    let [all, updated, available] =
        ["/status/replicas", "/status/updatedReplicas", "/status/availableReplicas"]
            .map(|at| number(object, at));
    if updated < wanted {
        return Waiting(format!("{updated} of {wanted} pods are updated"));
    }
    if all > updated {
        return Waiting(format!("{} old pods are still there", all - updated));
    }
    if available < updated {
        return Waiting(format!("{available} of {wanted} pods are available"));
    }
    Ready
}

fn daemon_set(object: &Value) -> Health {
    let [wanted, updated, available] =
        ["/status/desiredNumberScheduled", "/status/updatedNumberScheduled", "/status/numberAvailable"]
            .map(|at| number(object, at));
    if updated < wanted {
        return Waiting(format!("{updated} of {wanted} pods are updated"));
    }
    if available < wanted {
        return Waiting(format!("{available} of {wanted} pods are available"));
    }
    Ready
}

fn stateful_set(object: &Value) -> Health {
    let wanted = object.pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or(1);
    let ready = number(object, "/status/readyReplicas");
    if ready < wanted {
        return Waiting(format!("{ready} of {wanted} pods are ready"));
    }
    let on_delete = text(object, "/spec/updateStrategy/type") == "OnDelete";
    if !on_delete && text(object, "/status/updateRevision") != text(object, "/status/currentRevision") {
        return Waiting(format!(
            "{} of {wanted} pods are updated",
            number(object, "/status/updatedReplicas")
        ));
    }
    Ready
}

fn job(object: &Value) -> Health {
    let is = |name| find(object, name).filter(|condition| text(condition, "/status") == "True");
    if is("Complete").is_some() {
        return Ready;
    }
    match is("Failed") {
        Some(failed) => Failed(said(failed)),
        None => Waiting(format!(
            "{} pods are active, {} have failed",
            number(object, "/status/active"),
            number(object, "/status/failed")
        )),
    }
}

fn claim(object: &Value) -> Health {
    match text(object, "/status/phase") {
        "Bound" => Ready,
        "Lost" => Failed("its volume is lost".into()),
        phase => {
            let class = text(object, "/spec/storageClassName");
            Waiting(format!("it is {}, its class is {class}", if phase.is_empty() { "new" } else { phase }))
        }
    }
}

fn condition(object: &Value, name: &str, wanted: &str) -> Health {
    match find(object, name) {
        None => Waiting(format!("it has no condition {name} yet")),
        Some(condition) if text(condition, "/status") == wanted => Ready,
        Some(condition) => Waiting(format!("{name} is {}: {}", text(condition, "/status"), said(condition))),
    }
}

fn going(object: &Value) -> Health {
    if object.pointer("/metadata/deletionTimestamp").is_none() {
        return Waiting("it is there".into());
    }
    let finalizers: Vec<_> = object
        .pointer("/metadata/finalizers")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    // A namespace says in conditions what is still in it, and which API does not answer for its part.
    let conditions = object.pointer("/status/conditions").and_then(Value::as_array);
    let left = conditions
        .into_iter()
        .flatten()
        .filter(|one| text(one, "/type").starts_with("Namespace") && text(one, "/status") == "True");
    let left: Vec<String> = left.map(|one| text(one, "/message").to_owned()).collect();
    let mut all = vec!["it is being deleted".to_owned()];
    if !finalizers.is_empty() {
        all.push(format!("and waits for {}", finalizers.join(", ")));
    }
    let first = all.join(" ");
    Waiting(std::iter::once(first).chain(left).collect::<Vec<_>>().join("; "))
}

fn nodes(names: &[String], nodes: &[Value]) -> Health {
    let is_ready = |node: &&Value| find(node, "Ready").is_some_and(|ready| text(ready, "/status") == "True");
    let ready: Vec<&str> = nodes.iter().filter(is_ready).map(|node| text(node, "/metadata/name")).collect();
    let wanted: Vec<&str> = if names.is_empty() {
        nodes.iter().map(|node| text(node, "/metadata/name")).collect()
    } else {
        names.iter().map(String::as_str).collect()
    };
    if wanted.is_empty() {
        return Waiting("there is no node yet".into());
    }
    let lacking: Vec<String> = wanted
        .iter()
        .filter(|name| !ready.contains(*name))
        .map(|name| match nodes.iter().find(|node| text(node, "/metadata/name") == *name) {
            None => format!("{name} has not joined"),
            Some(node) => match find(node, "Ready") {
                Some(ready) => format!("{name}: {}", said(ready)),
                None => format!("{name} has not reported"),
            },
        })
        .collect();
    if lacking.is_empty() {
        return Ready;
    }
    let (count, all) = (wanted.len() - lacking.len(), wanted.len());
    Waiting(format!("{count} of {all} nodes are ready; {}", lacking.join("; ")))
}

/// A condition's words.
fn said(condition: &Value) -> String {
    match (text(condition, "/reason"), text(condition, "/message")) {
        ("", "") => text(condition, "/status").to_owned(),
        (reason, "") => reason.to_owned(),
        ("", message) => message.to_owned(),
        (reason, message) => format!("{reason}: {message}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn waiting(text: &str) -> Health {
        Waiting(text.into())
    }

    #[test]
    fn deployments_are_judged_by_their_newest_generation() {
        let wait = Wait::Deployment { namespace: "a".into(), name: "b".into() };
        assert_eq!(judge(&wait, &[]), waiting("it does not exist yet"));
        let at = |generation, seen, replicas, updated, available| {
            judge(
                &wait,
                &[json!({"metadata": {"generation": generation}, "spec": {"replicas": 2},
                "status": {"observedGeneration": seen, "replicas": replicas, "updatedReplicas": updated,
                    "availableReplicas": available}})],
            )
        };
        assert_eq!(at(2, 1, 2, 2, 2), waiting("its controller has not seen it yet"));
        assert_eq!(at(2, 2, 2, 1, 2), waiting("1 of 2 pods are updated"));
        assert_eq!(at(2, 2, 3, 2, 2), waiting("1 old pods are still there"));
        assert_eq!(at(2, 2, 2, 2, 1), waiting("1 of 2 pods are available"));
        assert_eq!(at(2, 2, 2, 2, 2), Ready);
        let none = json!({"metadata": {"generation": 1}, "spec": {"replicas": 0}, "status": {"observedGeneration": 1}});
        assert_eq!(judge(&wait, &[none]), Ready);
    }

    #[test]
    fn sets_of_pods_count_what_is_new_and_there() {
        let (namespace, name) = ("a".to_owned(), "b".to_owned());
        let daemons = Wait::DaemonSet { namespace: namespace.clone(), name: name.clone() };
        let on = |updated: i64, available: i64| {
            json!({"metadata": {"generation": 1}, "status": {"observedGeneration": 1, "desiredNumberScheduled": 3,
                "updatedNumberScheduled": updated, "numberAvailable": available}})
        };
        assert_eq!(judge(&daemons, &[on(2, 3)]), waiting("2 of 3 pods are updated"));
        assert_eq!(judge(&daemons, &[on(3, 2)]), waiting("2 of 3 pods are available"));
        assert_eq!(judge(&daemons, &[on(3, 3)]), Ready);
        let stateful = Wait::StatefulSet { namespace, name };
        let with = |ready: i64, current: &str, strategy: &str| {
            json!({"metadata": {"generation": 1}, "spec": {"replicas": 2, "updateStrategy": {"type": strategy}},
                "status": {"observedGeneration": 1, "readyReplicas": ready, "updatedReplicas": 1,
                    "currentRevision": current, "updateRevision": "b-2"}})
        };
        assert_eq!(judge(&stateful, &[with(1, "b-2", "RollingUpdate")]), waiting("1 of 2 pods are ready"));
        assert_eq!(judge(&stateful, &[with(2, "b-1", "RollingUpdate")]), waiting("1 of 2 pods are updated"));
        assert_eq!(judge(&stateful, &[with(2, "b-1", "OnDelete")]), Ready);
        assert_eq!(judge(&stateful, &[with(2, "b-2", "RollingUpdate")]), Ready);
    }

    #[test]
    fn claims_are_bound_or_lost() {
        let wait = Wait::Pvc { namespace: "a".into(), name: "b".into() };
        let at = |phase: &str| {
            judge(&wait, &[json!({"spec": {"storageClassName": "nfs"}, "status": {"phase": phase}})])
        };
        assert_eq!(at("Bound"), Ready);
        assert_eq!(at("Pending"), waiting("it is Pending, its class is nfs"));
        assert_eq!(at("Lost"), Failed("its volume is lost".into()));
    }

    #[test]
    fn jobs_end_well_or_not() {
        let wait = Wait::Job { namespace: "a".into(), name: "b".into() };
        let with = |kind: &str| {
            json!({"status": {"failed": 1, "conditions": [{"type": kind, "status": "True",
            "reason": "BackoffLimitExceeded", "message": "too often"}]}})
        };
        assert_eq!(judge(&wait, &[with("Complete")]), Ready);
        assert_eq!(judge(&wait, &[with("Failed")]), Failed("BackoffLimitExceeded: too often".into()));
        assert_eq!(judge(&wait, &[with("Suspended")]), waiting("0 pods are active, 1 have failed"));
    }

    #[test]
    fn conditions_say_why_not() {
        let wait = Wait::ApiService { name: "v1beta1.metrics.k8s.io".into() };
        let with = |status: &str| {
            json!({"status": {"conditions": [{"type": "Available", "status": status,
            "reason": "ServiceNotFound", "message": "no service"}]}})
        };
        assert_eq!(
            judge(&wait, &[json!({"status": {"conditions": null}})]),
            waiting("it has no condition Available yet")
        );
        assert_eq!(
            judge(&wait, &[with("False")]),
            waiting("Available is False: ServiceNotFound: no service")
        );
        assert_eq!(judge(&wait, &[with("True")]), Ready);
    }

    #[test]
    fn nodes_are_named_until_ready() {
        let node = |name: &str, status: &str| {
            json!({"metadata": {"name": name}, "status": {"conditions": [
            {"type": "Ready", "status": status, "reason": "KubeletNotReady", "message": "cni plugin not initialized"}]}})
        };
        let all = Wait::NodesReady { names: vec![] };
        assert_eq!(judge(&all, &[]), waiting("there is no node yet"));
        assert_eq!(judge(&all, &[node("a", "True")]), Ready);
        let some = Wait::NodesReady { names: vec!["a".into(), "b".into(), "c".into()] };
        let found = judge(&some, &[node("a", "True"), node("b", "False")]);
        let wanted =
            "1 of 3 nodes are ready; b: KubeletNotReady: cni plugin not initialized; c has not joined";
        assert_eq!(found, waiting(wanted));
    }

    #[test]
    fn what_is_to_go_says_what_holds_it() {
        let id = crate::ObjectId::new("v1", "Namespace", None, "a");
        let wait = Wait::Gone { id };
        assert_eq!(judge(&wait, &[]), Ready);
        let held = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["x/y"]}});
        assert_eq!(judge(&wait, &[held]), waiting("it is being deleted and waits for x/y"));
        let full = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}, "status": {"conditions": [
            {"type": "NamespaceDeletionDiscoveryFailure", "status": "False", "message": "All resources successfully discovered"},
            {"type": "NamespaceContentRemaining", "status": "True",
                "message": "Some resources are remaining: pods. has 1 resource instances"}]}});
        let said = "it is being deleted; Some resources are remaining: pods. has 1 resource instances";
        assert_eq!(judge(&wait, &[full]), waiting(said));
    }
}
