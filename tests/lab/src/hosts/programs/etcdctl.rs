//! etcdctl and etcdutl.

use serde_json::{Value, json};

use super::{Ctx, Output};
use crate::hosts::etcd;

const DEADLINE: &str = "Error: context deadline exceeded";

/// etcdctl 3.6.
pub fn etcdctl(ctx: &mut Ctx, args: &[String]) -> Output {
    let mut words = Vec::new();
    let (mut endpoints, mut format, mut all) =
        (vec!["https://127.0.0.1:2379".to_string()], "simple".to_string(), false);
    let mut rest = args.iter();
    let mut files = Vec::new();
    while let Some(arg) = rest.next() {
        let (name, value) =
            arg.split_once('=').map_or((arg.as_str(), None), |(n, v)| (n, Some(v.to_string())));
        match name {
            "--endpoints" | "--cacert" | "--cert" | "--key" | "-w" | "--write-out" | "--command-timeout"
            | "--dial-timeout" => {
                let value = value.or_else(|| rest.next().cloned()).unwrap_or_default();
                match name {
                    "--endpoints" => endpoints = value.split(',').map(String::from).collect(),
                    "-w" | "--write-out" => format = value,
                    "--cacert" | "--cert" | "--key" => files.push(value),
                    _ => {}
                }
            }
            "--cluster" => all = true,
            option if option.starts_with('-') => return ctx.unknown("etcdctl", args),
            word => words.push(word),
        }
    }
    if words == ["version"] {
        return Output::ok("etcdctl version: 3.6.8\nAPI version: 3.6\n");
    }
    let here = {
        let machine = ctx.machine();
        if let Some(missing) = files.iter().find(|f| !machine.fs.exists(f)) {
            return Output::fail(1, format!("Error: open {missing}: no such file or directory"));
        }
        // etcd asks for a client certificate of its own CA.
        if files.len() < 3 {
            return Output::fail(1, DEADLINE);
        }
        etcd::stored(&machine)
    };
    let Some((cluster_id, own)) = here else { return Output::fail(1, DEADLINE) };
    let running = etcd::running(&ctx.hosts, &cluster_id);
    let Some(cluster) = ctx.hosts.etcd().get(&cluster_id).cloned() else { return Output::fail(1, DEADLINE) };
    let quorate = cluster.quorate(&running);
    let member_at = |endpoint: &str| {
        let host = endpoint.trim_start_matches("https://").split(':').next().unwrap_or_default();
        let member = if ["127.0.0.1", "localhost"].contains(&host) {
            cluster.members.iter().find(|m| m.id == own)
        } else {
            cluster.members.iter().find(|m| m.address == host)
        };
        member.filter(|m| running.contains(&m.id))
    };
    if all && quorate {
        endpoints = cluster.members.iter().map(|m| format!("https://{}:2379", m.address)).collect();
    }
    let asked = endpoints.iter().find_map(|e| member_at(e)).map(|m| m.id);
    let header = json!({"cluster_id": cluster.id, "member_id": asked.unwrap_or(own), "raft_term": 2});
    let as_json = format == "json";
    match words.as_slice() {
        ["member", "list"] => {
            if asked.is_none() || !quorate {
                return Output::fail(1, DEADLINE);
            }
            if !as_json {
                let line = |m: &etcd::Member| {
                    let state = "started";
                    format!(
                        "{:x}, {state}, {}, https://{2}:2380, https://{2}:2379, {3}\n",
                        m.id, m.name, m.address, m.learner
                    )
                };
                return Output::ok(cluster.members.iter().map(line).collect::<String>());
            }
            let members: Vec<Value> = cluster
                .members
                .iter()
                .map(|m| {
                    let mut shown = json!({"ID": m.id, "name": m.name, "peerURLs": [format!("https://{}:2380", m.address)],
                        "clientURLs": [format!("https://{}:2379", m.address)]});
                    if m.learner {
                        shown["isLearner"] = json!(true);
                    }
                    shown
                })
                .collect();
            Output::ok(format!("{}\n", json!({"header": header, "members": members})))
        }
        ["endpoint", "health"] => {
            // A learner answers, and may not read what the question is about.
            let healthy = |e: &String| quorate && member_at(e).is_some_and(|m| !m.learner);
            let why = |e: &String| match member_at(e).filter(|m| m.learner && quorate) {
                Some(_) => ("2.678035127s", "etcdserver: rpc not supported for learner"),
                None => ("5.001891112s", "context deadline exceeded"),
            };
            let down = endpoints.iter().any(|e| !healthy(e));
            let text = if as_json {
                let shown: Vec<Value> = endpoints
                    .iter()
                    .map(|e| match healthy(e) {
                        true => json!({"endpoint": e, "health": true, "took": "6.079244ms"}),
                        false => {
                            json!({"endpoint": e, "health": false, "took": why(e).0, "error": why(e).1})
                        }
                    })
                    .collect();
                format!("{}\n", Value::Array(shown))
            } else {
                endpoints
                    .iter()
                    .filter(|e| healthy(e))
                    .map(|e| format!("{e} is healthy: successfully committed proposal: took = 6.073635ms\n"))
                    .collect()
            };
            let out = Output { exit: i32::from(down), stdout: text.into(), stderr: Vec::new() };
            if down { out.with_stderr("Error: unhealthy cluster\n") } else { out }
        }
        ["endpoint", "status"] if as_json => {
            let leader =
                cluster.members.iter().find(|m| !m.learner && running.contains(&m.id)).map_or(0, |m| m.id);
            let mut shown = Vec::new();
            let mut errors = String::new();
            for endpoint in &endpoints {
                match member_at(endpoint) {
                    Some(m) => shown.push(json!({"Endpoint": endpoint, "Status": {
                        "header": {"cluster_id": cluster.id, "member_id": m.id, "revision": cluster.revision, "raft_term": 2},
                        "version": "3.6.8", "dbSize": 1_634_304, "leader": leader, "raftIndex": 1030, "raftTerm": 2, "raftAppliedIndex": 1030,
                        "dbSizeInUse": 1_634_304}})),
                    None => errors.push_str(&format!("Failed to get the status of endpoint {endpoint} (context deadline exceeded)\n")),
                }
            }
            Output {
                exit: i32::from(!errors.is_empty()),
                stdout: format!("{}\n", Value::Array(shown)).into(),
                stderr: errors.into(),
            }
        }
        ["member", "remove", id] => {
            if asked.is_none() || !quorate {
                return Output::fail(1, DEADLINE);
            }
            let Ok(number) = u64::from_str_radix(id, 16) else {
                return Output::fail(
                    128,
                    format!(
                        "Error: bad member ID arg (strconv.ParseUint: parsing \"{id}\": invalid syntax), expecting ID in Hex"
                    ),
                );
            };
            let removed = ctx.hosts.etcd().get_mut(&cluster_id).is_some_and(|c| c.remove(number));
            if !removed {
                return Output::fail(1, "Error: etcdserver: member not found");
            }
            ctx.changes();
            Output::ok(format!("Member {number:>16x} removed from cluster {:x}\n", cluster.id))
        }
        ["alarm", "list"] => Output::quiet(),
        // A member gives what it has, with a quorum or without one.
        ["snapshot", "save", path] => {
            if asked.is_none() {
                return Output::fail(1, DEADLINE);
            }
            ctx.changes();
            let content = etcd::snapshot(&ctx.hosts, &cluster_id, &cluster);
            ctx.machine().fs.put(path, content, 0o600, "root", "root");
            Output::ok(format!("Snapshot saved at {path}\n"))
        }
        _ => ctx.unknown("etcdctl", args),
    }
}

/// etcdutl 3.6, which works on files.
pub fn etcdutl(ctx: &mut Ctx, args: &[String]) -> Output {
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["snapshot", "status", path, "-w", "json"] => {
            let content = ctx.machine().fs.read(path).map(<[u8]>::to_vec);
            let Ok(content) = content else {
                return Output::fail(1, format!("Error: stat {path}: no such file or directory"));
            };
            match etcd::read_snapshot(&content) {
                Some(found) => Output::ok(format!(
                    "{}\n",
                    json!({"hash": found.hash, "revision": found.revision, "totalKey": found.keys, "totalSize": content.len()})
                )),
                // The real one faults on a file that was cut.
                None => Output::fail(2, "unexpected fault address 0x7f125959f000\nfatal error: fault"),
            }
        }
        _ => ctx.unknown("etcdutl", args),
    }
}
