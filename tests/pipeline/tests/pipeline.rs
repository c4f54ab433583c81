//! The whole chain against the lab, by the real binaries.
#![allow(clippy::unwrap_used)] // A test says what it expects.

mod site;

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;
use site::{PIPE, Site, binaries};

fn kubeline(site: &Site, tool: &str) -> Command {
    site.command(binaries().join(tool))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn up_builds_the_cluster_and_up_again_changes_nothing() {
    let site = Site::new().await;
    let said = site.chain("up", &[]).await;
    assert_eq!(said.exit, 0, "{}", said.stderr);
    site.assert_known();

    let document = site.result();
    let machines = document["status"]["pve-vm"]["machines"].as_array().unwrap();
    assert_eq!(machines.len(), 13);
    let mut places: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for machine in machines {
        assert!(machine["address"].is_string(), "{machine}");
        assert!(!machine["hostKeys"].as_array().unwrap().is_empty(), "{machine}");
        places.entry(machine["pool"].as_str().unwrap()).or_default().push(machine["node"].as_str().unwrap());
    }
    for hard in ["lb", "cp"] {
        let distinct: BTreeSet<_> = places[hard].iter().collect();
        assert_eq!(distinct.len(), 3, "{hard}: {:?}", places[hard]);
    }
    let workers: Vec<_> = ["prod", "nonprod"].iter().flat_map(|p| &places[p]).collect();
    for node in ["pve1", "pve2", "pve3"] {
        assert_eq!(workers.iter().filter(|n| ***n == node).count(), 2, "workers on {node}: {workers:?}");
    }
    let keys: BTreeSet<&str> = document["status"].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys, PIPE.into_iter().collect());

    let view = site.command(binaries().join("pipeline-view")).args(["nodes", "out/demo/kubeconfig"]).output();
    let nodes = String::from_utf8(view.unwrap().stdout).unwrap();
    assert_eq!(nodes.lines().filter(|l| l.contains(" Ready ")).count(), 9, "{nodes}");

    let said = site.chain("check", &[]).await;
    assert_eq!(said.exit, 0, "{}{}", said.stdout, said.stderr);

    let mark = site.lab.world.journal.len();
    let before = std::fs::read(site.out("cluster.json")).unwrap();
    let said = site.chain("up", &[]).await;
    assert_eq!(said.exit, 0, "{}", said.stderr);
    assert_eq!(std::fs::read(site.out("cluster.json")).unwrap(), before);
    let changing = site.lab.world.journal.changing_since(mark);
    assert!(changing.is_empty(), "{changing:#?}");
    let said = site.chain("plan", &[]).await;
    let idle = said.stdout.lines().filter(|l| l.contains("nothing to do")).count();
    assert_eq!(idle, 8, "{}", said.stdout);

    let said = site.chain("down", &["--delete-data", "demo-nfs-1"]).await;
    assert_eq!(said.exit, 0, "{}", said.stderr);
    let left: Vec<_> = site.lab.pve.view().into_iter().filter(|g| !g.template).collect();
    assert!(left.is_empty(), "{left:?}");
    site.assert_known();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_bare_pipe_does_the_same() {
    let site = Site::new().await;
    let [first, rest @ ..] = PIPE.map(|tool| format!("'{}/{tool}'", binaries().display()));
    let line = format!("{first} < lab/cluster.json | {}", rest.join(" | "));
    let script = format!("set -o pipefail; mkdir -p out/demo; {line} > out/demo/cluster.json");
    let mut command = site.command("bash");
    command.args(["-c", &script]);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let piped = site.result();
    let mark = site.lab.world.journal.len();
    let said = site.chain("up", &[]).await;
    assert_eq!(said.exit, 0, "{}", said.stderr);
    // All that is left is what the pipe cannot know: the CA that the load balancers verify the API by.
    for entry in site.lab.world.journal.changing_since(mark) {
        assert!(entry.target.starts_with("demo-lb-"), "{entry:?}");
    }
    let chained = site.result();
    for tool in PIPE.iter().filter(|t| **t != "lb-render") {
        assert_eq!(piped["status"][tool], chained["status"][tool], "{tool}");
    }
    site.assert_known();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxmox_node_is_lost_and_comes_back() {
    let site = Site::new().await;
    let said = site.chain("up", &[]).await;
    assert_eq!(said.exit, 0, "{}", said.stderr);
    let document = site.result();
    let machines = document["status"]["pve-vm"]["machines"].as_array().unwrap();
    let lost: Vec<String> = machines
        .iter()
        .filter(|m| m["node"] == "pve2")
        .map(|m| m["name"].as_str().unwrap().to_owned())
        .collect();
    assert!(lost.len() >= 4, "{lost:?}");
    let guests = site.lab.pve.view().len();
    site.lab.pve.node_off("pve2");

    let view = || {
        let mut command = site.command(binaries().join("pipeline-view"));
        command.args(["nodes", "out/demo/kubeconfig"]);
        async move { tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap() }
    };
    let nodes = view().await;
    assert!(nodes.status.success(), "the API is gone: {}", String::from_utf8_lossy(&nodes.stderr));

    let said = site.chain("check", &[]).await;
    assert_ne!(said.exit, 0);
    for name in &lost {
        assert!(
            said.stdout.contains(name.as_str()) || said.stderr.contains(name.as_str()),
            "{name}: {}",
            said.stdout
        );
    }
    let said = site.chain("up", &[]).await;
    assert_eq!(said.exit, 7, "{}", said.stderr);

    site.lab.pve.node_on("pve2").unwrap();
    let said = site.chain("up", &[]).await;
    assert_eq!(said.exit, 0, "{}", said.stderr);
    assert_eq!(site.lab.pve.view().len(), guests);
    let again = site.result();
    let key = |d: &Value| d["status"]["pve-vm"]["machines"].clone();
    assert_eq!(key(&again), key(&document));
    site.assert_known();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_document_touches_nothing() {
    let site = Site::new().await;
    // Each is a shell line that feeds a tool; the exit is 3, or 8 for empty input.
    let good = std::fs::read_to_string(site.document()).unwrap();
    std::fs::write(site.dir.path().join("cut.json"), &good[..good.len() / 2]).unwrap();
    let feeds = [
        ("echo '{}'", 3),
        ("cat cut.json", 3),
        ("head -c 1073741824 /dev/zero | tr '\\0' '['", 3),
        ("head -c 1073741824 /dev/zero | tr '\\0' ' '", 3),
        ("printf '\"'; head -c 1073741824 /dev/zero | tr '\\0' a", 3),
        ("echo '{\"kind\":\"Cluster\",\"kind\":\"Cluster\"}'", 3),
        ("echo '{\"apiVersion\":\"kubeline/v9\",\"kind\":\"Cluster\",\"spec\":{}}'", 3),
        ("head -c 100 /dev/zero", 3),
        ("printf '\\377\\376{}'", 3),
        ("true", 8),
    ];
    let mark = site.lab.world.journal.len();
    for tool in PIPE {
        for (feed, exit) in feeds {
            let binary = binaries().join(tool);
            // The limit is of address space: bounded memory, whatever the stream.
            let script = format!("({feed}) 2>/dev/null | (ulimit -v 1000000; exec '{}')", binary.display());
            let mut command = site.command("bash");
            command.args(["-c", &script]);
            let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(exit), "{feed} | {tool}: {stderr}");
            assert!(output.stdout.is_empty(), "{feed} | {tool} wrote to stdout");
            assert!(stderr.starts_with(&format!("{tool}: ")), "{feed} | {tool}: {stderr}");
        }
        let binary = binaries().join(tool);
        let mut command = site.command("bash");
        command.args(["-c", &format!("exec '{}' <&-", binary.display())]);
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        assert_eq!(output.status.code(), Some(8), "{tool} with a closed stdin");
    }
    assert_eq!(site.lab.world.journal.len(), mark, "something was asked of the world");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_goes_away_is_a_quiet_end() {
    let site = Site::new().await;
    let mut command = kubeline(&site, "pve-vm");
    command.arg("schema");
    let script =
        format!("'{}' schema | head -n 1; exit ${{PIPESTATUS[0]}}", binaries().join("pve-vm").display());
    let mut command = site.command("bash");
    command.args(["-c", &script]);
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}
