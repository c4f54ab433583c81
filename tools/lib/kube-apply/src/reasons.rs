//! Why a workload is not ready: its pods, their containers, and the last event that warns.

use serde_json::Value;

/// What keeps pods from being ready, the worst first; none where all are.
pub(crate) fn of_pods(pods: &[Value]) -> Option<String> {
    let mut found: Vec<(u8, String)> = pods.iter().filter_map(pod).collect();
    found.sort();
    found.into_iter().next().map(|(_, reason)| reason)
}

/// The last warning about one of these objects, unless it says again what is `said` already.
pub(crate) fn last_warning(events: &[Value], names: &[&str], said: &str) -> Option<String> {
    let about = |event: &&Value| names.contains(&text(event, "/involvedObject/name"));
    let warnings = events.iter().filter(|event| text(event, "/type") == "Warning").filter(about);
    let last = warnings.max_by_key(|event| when(event))?;
    let (name, reason, message) =
        (text(last, "/involvedObject/name"), text(last, "/reason"), text(last, "/message"));
    (message.is_empty() || !said.contains(message)).then(|| format!("{name}: {reason}: {message}"))
}

/// Events carry their time in one of three places, depending on who wrote them.
fn when(event: &Value) -> String {
    let times = ["/series/lastObservedTime", "/lastTimestamp", "/eventTime", "/metadata/creationTimestamp"];
    times.into_iter().map(|at| text(event, at)).find(|time| !time.is_empty()).unwrap_or_default().to_owned()
}

/// A label selector of a workload, as the query takes it.
pub(crate) fn selector(workload: &Value) -> Option<String> {
    let labels = workload.pointer("/spec/selector/matchLabels")?.as_object()?;
    let pairs: Vec<String> = labels
        .iter()
        .filter_map(|(key, value)| value.as_str().map(|value| format!("{key}={value}")))
        .collect();
    (!pairs.is_empty()).then(|| pairs.join(","))
}

fn pod(pod: &Value) -> Option<(u8, String)> {
    let name = text(pod, "/metadata/name");
    if matches!(text(pod, "/status/phase"), "Succeeded") || is_true(pod, "Ready") {
        return None;
    }
    for list in ["/status/initContainerStatuses", "/status/containerStatuses"] {
        for container in pod.pointer(list).and_then(Value::as_array).into_iter().flatten() {
            if let Some(state) = state(container) {
                return Some((0, format!("pod {name}, container {}: {state}", text(container, "/name"))));
            }
        }
    }
    let conditions = pod.pointer("/status/conditions").and_then(Value::as_array);
    for condition in conditions.into_iter().flatten() {
        let (kind, status) = (text(condition, "/type"), text(condition, "/status"));
        if kind == "PodScheduled" && status == "False" {
            let (reason, message) = (text(condition, "/reason"), text(condition, "/message"));
            return Some((1, format!("pod {name}: {reason}: {message}")));
        }
    }
    let containers = pod.pointer("/status/containerStatuses").and_then(Value::as_array);
    let unready = containers.into_iter().flatten().find(|one| one.get("ready") != Some(&Value::Bool(true)));
    match (text(pod, "/status/phase"), unready) {
        ("Running", Some(container)) => {
            Some((2, format!("pod {name}, container {}: it runs but is not ready", text(container, "/name"))))
        }
        (phase, _) => Some((3, format!("pod {name}: {}", if phase.is_empty() { "Pending" } else { phase }))),
    }
}

/// What is wrong with a container, if it is more than a slow start.
fn state(container: &Value) -> Option<String> {
    let waiting = text(container, "/state/waiting/reason");
    let message = text(container, "/state/waiting/message");
    if !waiting.is_empty() && !matches!(waiting, "ContainerCreating" | "PodInitializing") {
        return Some(if message.is_empty() { waiting.to_owned() } else { format!("{waiting}: {message}") });
    }
    let ended = container.pointer("/state/terminated")?;
    let code = ended.get("exitCode").and_then(Value::as_i64).unwrap_or_default();
    (code != 0).then(|| format!("{}, exit code {code}", text(ended, "/reason")))
}

fn is_true(pod: &Value, name: &str) -> bool {
    crate::health::find(pod, name).is_some_and(|condition| text(condition, "/status") == "True")
}

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_worst_pod_speaks() {
        let pulling = json!({"metadata": {"name": "a"}, "status": {"phase": "Pending", "containerStatuses": [
            {"name": "c", "state": {"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling image"}}}]}});
        let lost = json!({"metadata": {"name": "b"}, "status": {"phase": "Pending", "conditions": [
            {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes are available"}]}});
        let slow = json!({"metadata": {"name": "d"}, "status": {"phase": "Running", "containerStatuses": [
            {"name": "c", "ready": false, "state": {"running": {}}}]}});
        let fine = json!({"metadata": {"name": "e"}, "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
        assert_eq!(of_pods(std::slice::from_ref(&fine)), None);
        let said = |pods: &[Value]| of_pods(pods).unwrap();
        assert_eq!(said(&[fine.clone(), slow.clone()]), "pod d, container c: it runs but is not ready");
        assert_eq!(said(&[slow.clone(), lost.clone()]), "pod b: Unschedulable: 0/3 nodes are available");
        assert_eq!(
            said(&[fine, slow, lost, pulling]),
            "pod a, container c: ImagePullBackOff: Back-off pulling image"
        );
    }

    #[test]
    fn the_last_warning_counts() {
        let event = |name: &str, kind: &str, time: &str, message: &str| {
            json!({"type": kind, "reason": "Failed",
            "message": message, "lastTimestamp": time, "involvedObject": {"name": name}})
        };
        let events = [
            event("a", "Warning", "2026-01-01T00:00:02Z", "new"),
            event("a", "Warning", "2026-01-01T00:00:01Z", "old"),
            event("a", "Normal", "2026-01-01T00:00:03Z", "fine"),
            event("other", "Warning", "2026-01-01T00:00:04Z", "not ours"),
        ];
        assert_eq!(last_warning(&events, &["a"], "").unwrap(), "a: Failed: new");
        assert_eq!(last_warning(&events, &["a"], "pod a: new"), None);
        assert_eq!(last_warning(&events, &["b"], ""), None);
    }

    #[test]
    fn selectors_become_queries() {
        let workload = json!({"spec": {"selector": {"matchLabels": {"app": "x", "k8s/tier": "y"}}}});
        assert_eq!(selector(&workload).unwrap(), "app=x,k8s/tier=y");
        assert_eq!(selector(&json!({"spec": {}})), None);
    }
}
