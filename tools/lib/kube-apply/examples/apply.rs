//! Applies a manifest file as one set, as a tool does: `apply KUBECONFIG FILE`. For measuring beside `kubectl apply --server-side`.

#![allow(clippy::print_stdout, reason = "an example has no stage")]

use kube_apply::{Cluster, ManifestSet, Outcome};
use std::path::Path;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, kubeconfig, file] = arguments.as_slice() else {
        return Err("usage: apply KUBECONFIG FILE".into());
    };
    let mut set = ManifestSet::new("kubeline-bench");
    set.add_yaml(file, &std::fs::read_to_string(file)?)?;
    let cluster = Cluster::connect(Path::new(kubeconfig), "kubeline-bench").await?;
    let done = cluster.apply(&set, |_| {}).await?;
    let same = done.iter().filter(|(_, outcome)| *outcome == Outcome::Same).count();
    println!("{} objects, {same} of them unchanged", done.len());
    Ok(())
}
