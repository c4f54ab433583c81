//! The cluster as a picture: Proxmox nodes side by side, machines in them, the shared address above.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use cluster_doc::Machine;
use cluster_doc::spec::Role;

use crate::machines::read;

const WIDTH: usize = 250;
const GAP: usize = 30;
const BOX: usize = 52;

/// The document's machines as SVG.
pub fn svg(path: &str) -> Result<String, String> {
    let (doc, spec) = read(path)?;
    let machines = doc.machines(&spec);
    let mut nodes: BTreeMap<String, Vec<&Machine>> = BTreeMap::new();
    for machine in &machines {
        let node = machine.node.as_ref().map_or_else(|| "not placed yet".to_owned(), ToString::to_string);
        nodes.entry(node).or_default().push(machine);
    }
    for on_node in nodes.values_mut() {
        on_node.sort_by(|a, b| (a.role, &a.name).cmp(&(b.role, &b.name)));
    }
    let rows = nodes.values().map(Vec::len).max().unwrap_or(0);
    let width = GAP + nodes.len() * (WIDTH + GAP);
    let height = 150 + 50 + rows * (BOX + 10) + 60;
    let mut out = String::new();
    let _ = write!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" \
         font-family=\"system-ui, sans-serif\" font-size=\"13\">\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"#ffffff\"/>\n"
    );
    let name = doc.name().map(ToString::to_string).unwrap_or_default();
    text(&mut out, GAP, 34, 20, "bold", "#1f2937", &name);
    if let Some(vip) = &spec.vip {
        let ports = format!("{} · {} · {}", vip.ports.http, vip.ports.https, vip.ports.api);
        let x = width / 2 - 150;
        let _ = writeln!(
            out,
            "<rect x=\"{x}\" y=\"50\" width=\"300\" height=\"48\" rx=\"24\" fill=\"#fef3c7\" stroke=\"#d97706\" stroke-width=\"2\"/>"
        );
        middle(&mut out, width / 2, 71, "bold", &format!("VRRP {} (id {})", vip.address, vip.router_id));
        middle(&mut out, width / 2, 89, "normal", &format!("ports {ports}"));
    }
    for (n, (node, on_node)) in nodes.iter().enumerate() {
        let x = GAP + n * (WIDTH + GAP);
        let high = 46 + rows * (BOX + 10);
        let _ = writeln!(
            out,
            "<rect x=\"{x}\" y=\"140\" width=\"{WIDTH}\" height=\"{high}\" rx=\"10\" fill=\"#f9fafb\" stroke=\"#9ca3af\"/>"
        );
        text(&mut out, x + 14, 164, 14, "bold", "#374151", node);
        for (row, machine) in on_node.iter().enumerate() {
            let y = 176 + row * (BOX + 10);
            if machine.role == Role::LoadBalancer && spec.vip.is_some() {
                let (from, to) = (x + WIDTH / 2, width / 2);
                let _ = writeln!(
                    out,
                    "<path d=\"M{from} {y} C{from} 120 {to} 140 {to} 98\" fill=\"none\" stroke=\"#d97706\" stroke-width=\"1.5\" stroke-dasharray=\"5 4\"/>"
                );
            }
            let (fill, stroke) = colour(machine.role);
            let dash = if machine.reachable && !machine.leaving { "" } else { " stroke-dasharray=\"4 3\"" };
            let _ = writeln!(
                out,
                "<rect x=\"{}\" y=\"{y}\" width=\"{}\" height=\"{BOX}\" rx=\"6\" fill=\"{fill}\" stroke=\"{stroke}\"{dash}/>",
                x + 12,
                WIDTH - 24
            );
            text(&mut out, x + 24, y + 21, 13, "bold", "#111827", &machine.name);
            let labels: Vec<String> = machine.labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
            let detail = format!("{}  {}  {}", machine.address, machine.role, labels.join(" "));
            text(&mut out, x + 24, y + 40, 11, "normal", "#4b5563", detail.trim_end());
        }
    }
    out.push_str("</svg>\n");
    Ok(out)
}

fn colour(role: Role) -> (&'static str, &'static str) {
    match role {
        Role::LoadBalancer => ("#fffbeb", "#d97706"),
        Role::ControlPlane => ("#eff6ff", "#2563eb"),
        Role::Worker => ("#ecfdf5", "#059669"),
        Role::Nfs => ("#f5f3ff", "#7c3aed"),
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

fn text(out: &mut String, x: usize, y: usize, size: usize, weight: &str, fill: &str, words: &str) {
    let words = escape(words);
    let _ = writeln!(
        out,
        "<text x=\"{x}\" y=\"{y}\" font-size=\"{size}\" font-weight=\"{weight}\" fill=\"{fill}\">{words}</text>"
    );
}

fn middle(out: &mut String, x: usize, y: usize, weight: &str, words: &str) {
    let words = escape(words);
    let _ = writeln!(
        out,
        "<text x=\"{x}\" y=\"{y}\" text-anchor=\"middle\" font-weight=\"{weight}\" fill=\"#78350f\">{words}</text>"
    );
}
