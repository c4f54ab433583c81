//! Requests that were recorded with a real v1.36.2 API server, answered by the lab.
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "helpers of tests fail by panicking and say what they skip"
)]

mod kube_support;

use kube_support::{Lab, facts};
use serde_json::Value;

/// What differs from run to run, or names the recorded machine.
fn masked(mut value: Value) -> Value {
    match &mut value {
        Value::Object(map) => {
            for (name, inner) in map.iter_mut() {
                let random = [
                    "uid",
                    "resourceVersion",
                    "creationTimestamp",
                    "deletionTimestamp",
                    "time",
                    "lastTransitionTime",
                    "clusterIP",
                    "clusterIPs",
                    "serverAddress",
                ];
                *inner = if random.contains(&name.as_str()) { "*".into() } else { masked(inner.take()) };
            }
            value
        }
        Value::Array(list) => list.iter_mut().map(|v| masked(v.take())).collect(),
        _ => value,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lab_answers_as_recorded() {
    let Some(facts) = facts() else { return };
    let text = std::fs::read_to_string(facts.join("kube-api/transcripts.json")).unwrap();
    let recorded: Vec<Value> = serde_json::from_str(&text).unwrap();
    assert!(recorded.len() >= 44, "only {} requests were recorded", recorded.len());
    let lab = Lab::start().await;
    let mut wrong = Vec::new();
    for entry in &recorded {
        let name = entry["name"].as_str().unwrap();
        let asked = &entry["request"];
        let client = if name == "no credentials" { &lab.nobody } else { &lab.client };
        let method = asked["method"].as_str().unwrap().parse().unwrap();
        let mut request = client.request(method, lab.url(asked["path"].as_str().unwrap()));
        for (header, value) in asked["headers"].as_object().unwrap() {
            request = request.header(header, value.as_str().unwrap());
        }
        if !asked["body"].is_null() {
            request = request.body(asked["body"].to_string());
        }
        let answer = request.send().await.unwrap();
        let wanted = &entry["response"];
        let code = answer.status().as_u16();
        let kind = answer.headers()["content-type"].to_str().unwrap().to_owned();
        let text = answer.text().await.unwrap();
        let body = if wanted["body"].is_string() {
            Value::String(text)
        } else {
            serde_json::from_str(&text).unwrap_or(Value::String(text))
        };
        let (got, want) = (masked(body), masked(wanted["body"].clone()));
        if u64::from(code) != wanted["status"].as_u64().unwrap()
            || got != want
            || wanted["headers"]["Content-Type"] != kind
        {
            wrong.push(format!(
                "{name}:\n  got  {code} {kind} {got}\n  want {} {} {want}",
                wanted["status"], wanted["headers"]["Content-Type"]
            ));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), recorded.len(), wrong.join("\n"));
    assert!(lab.world.journal.unknown().is_empty());
}
