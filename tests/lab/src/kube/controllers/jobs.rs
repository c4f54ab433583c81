//! Jobs: pods until enough have succeeded.

use std::time::Duration;

use serde_json::{Value, json};

use super::{
    MANAGER, Plant, children, condition, conditions, create, delete, event, going, holds, names, number,
    pods, set_status, text,
};
use crate::kube::store::Store;
use crate::kube::verbs::now;

const STORE: &str = "jobs.batch";

/// One pass.
pub(crate) fn run(store: &mut Store, plant: &mut Plant) {
    for (ns, name) in names(store, STORE) {
        let Some(job) = store.get(STORE, &ns, &name).cloned() else { continue };
        if going(&job) {
            continue;
        }
        if holds(&job, "Complete") || holds(&job, "Failed") {
            let ttl = job["spec"]["ttlSecondsAfterFinished"].as_u64();
            if let Some(ttl) = ttl
                && plant.due(format!("ttl {}", text(&job, "/metadata/uid")), Duration::from_secs(ttl))
            {
                delete(store, STORE, &ns, &name, None);
            }
            continue;
        }
        work(store, &job);
    }
}

fn work(store: &mut Store, job: &Value) {
    let mine = children(store, "pods", job);
    let succeeded = mine.iter().filter(|p| p["status"]["phase"] == "Succeeded").count() as i64;
    let failed = mine.iter().filter(|p| p["status"]["phase"] == "Failed").count() as i64;
    let mut active = mine.iter().filter(|p| pods::is_active(p)).count() as i64;
    let wanted = number(job, "/spec/completions");
    let parallel = number(job, "/spec/parallelism");
    while active < parallel.min(wanted - succeeded) && job["spec"]["suspend"] != true {
        let mut pod = super::replicas::from_template(job);
        pod["metadata"]["generateName"] = format!("{}-", text(job, "/metadata/name")).into();
        if let Err(status) = create(store, MANAGER, pod) {
            event(
                store,
                job,
                "Warning",
                "FailedCreate",
                &format!("Error creating: {}", status.message()),
                "job-controller",
            );
            break;
        }
        active += 1;
    }
    let ready = mine.iter().filter(|p| pods::is_ready(p)).count();
    let start = job["status"].get("startTime").cloned().unwrap_or_else(|| now().into());
    let mut status =
        json!({"startTime": start, "terminating": 0, "ready": ready, "uncountedTerminatedPods": {}});
    for (field, n) in [("active", active), ("succeeded", succeeded), ("failed", failed)] {
        if n > 0 {
            status[field] = n.into();
        }
    }
    if succeeded >= wanted {
        let mut all = conditions(job);
        let message = "Reached expected number of succeeded pods";
        condition(&mut all, "SuccessCriteriaMet", "True", "CompletionsReached", message);
        condition(&mut all, "Complete", "True", "CompletionsReached", message);
        status["completionTime"] = now().into();
        status["conditions"] = all.into();
    }
    set_status(store, MANAGER, job, status);
}
