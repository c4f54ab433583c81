//! The rendered folder as `kubectl apply -k` reads it.

use std::collections::BTreeMap;
use std::process::Command;

use kube_apply::ManifestSet;
use serde_json::Value;
use stage::Rendered;

/// Whether `kubectl` is on this machine.
pub(crate) fn kubectl() -> bool {
    Command::new("kubectl").args(["version", "--client"]).output().is_ok_and(|output| output.status.success())
}

/// Has `kubectl kustomize` read the files, and compares: each object is there, unchanged, and no other.
///
/// # Errors
/// What kubectl refuses, or reads otherwise than it was written.
pub(crate) fn check(files: &[Rendered]) -> Result<usize, String> {
    let folder = tempfile::tempdir().map_err(|e| e.to_string())?;
    let mut written = BTreeMap::new();
    for file in files {
        let path = folder.path().join(&file.path);
        let made = path.parent().map_or(Ok(()), std::fs::create_dir_all);
        made.and_then(|()| std::fs::write(&path, &file.content))
            .map_err(|e| format!("{}: {e}", file.path))?;
        if file.path.ends_with(".yaml") && file.path != "kustomization.yaml" {
            written.extend(objects(&String::from_utf8_lossy(&file.content))?);
        }
    }
    let output = Command::new("kubectl").arg("kustomize").arg(folder.path()).output();
    let output = output.map_err(|e| format!("kubectl: {e}"))?;
    if !output.status.success() {
        return Err(format!("kubectl kustomize: {}", String::from_utf8_lossy(&output.stderr)));
    }
    let read = objects(&String::from_utf8_lossy(&output.stdout))?;
    let differ = |name: &&String| read.get(*name) != written.get(*name);
    match written.keys().chain(read.keys()).find(differ) {
        Some(name) => Err(format!("kubectl kustomize reads {name} otherwise than it was rendered")),
        None => Ok(written.len()),
    }
}

fn objects(text: &str) -> Result<BTreeMap<String, Value>, String> {
    let mut set = ManifestSet::new("kustomize");
    set.add_yaml("kustomize", text).map_err(|e| e.to_string())?;
    Ok(set.objects().iter().map(|object| (object.id().to_string(), object.value().clone())).collect())
}
