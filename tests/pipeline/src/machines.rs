//! The machines and the shared address, from the document alone.

use cluster_doc::{Document, Section, Spec};
use serde_json::Value;

use crate::table;

/// The document and its spec.
pub fn read(path: &str) -> Result<(Document, Spec), String> {
    let text = std::fs::read(path).map_err(|e| format!("{path}: {e}"))?;
    let doc = Document::parse(text).map_err(|e| e.to_string())?;
    let spec = doc.spec(Section::ALL).map_err(|e| e.to_string())?;
    Ok((doc, spec))
}

/// By Proxmox node, then by name.
pub fn machines(path: &str) -> Result<String, String> {
    let (doc, spec) = read(path)?;
    let mut machines = doc.machines(&spec);
    machines.sort_by(|a, b| (&a.node, &a.name).cmp(&(&b.node, &b.name)));
    let head = ["NODE", "NAME", "ROLE", "ADDRESS", "VMID", "HOST KEY"].map(str::to_owned).to_vec();
    let rows = machines.iter().map(|m| {
        let key =
            m.host_keys.first().map(|k| k.chars().rev().take(12).collect::<String>().chars().rev().collect());
        vec![
            m.node.as_ref().map_or("-".into(), ToString::to_string),
            m.name.clone(),
            m.role.to_string(),
            m.address.to_string(),
            m.vmid.map_or("-".into(), |id| id.to_string()),
            key.map_or("-".into(), |k: String| format!("...{k}")),
        ]
    });
    let rows: Vec<_> = std::iter::once(head).chain(rows).collect();
    Ok(table::render(&rows))
}

/// Who holds the shared address, as vip-keepalive saw it.
pub fn vip(path: &str) -> Result<String, String> {
    let (doc, spec) = read(path)?;
    let vip = spec.vip().map_err(|e| e.to_string())?;
    let status: Value = doc.status("vip-keepalive").ok_or("the document has no status of vip-keepalive")?;
    let holder = status["holder"].as_str().unwrap_or("nobody");
    Ok(format!(
        "{} is held by {holder} (ports {}, {}, {})\n",
        vip.address, vip.ports.http, vip.ports.https, vip.ports.api
    ))
}
