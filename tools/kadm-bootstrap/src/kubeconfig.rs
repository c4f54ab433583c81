//! Kubeconfig files: whose they are, and the operator's made from an admin.conf.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::access::KubeconfigSeen;
use crate::certificate;

/// What a kubeconfig's current context leads to; a text that is none gives nothing but its mode.
pub fn read(text: &str, private: bool) -> KubeconfigSeen {
    let seen = KubeconfigSeen { private, ..KubeconfigSeen::default() };
    let Ok(root) = serde_saphyr::from_str::<Value>(text) else { return seen };
    let cluster = current(&root).cloned().unwrap_or_default();
    let ca = cluster["certificate-authority-data"].as_str().and_then(certificate::of_base64);
    KubeconfigSeen {
        server: cluster["server"].as_str().map(|s| s.trim_end_matches('/').to_owned()),
        ca: ca.map(|c| c.sha256),
        single: root["contexts"].as_array().is_some_and(|c| c.len() == 1),
        private,
        expires: user(&root)
            .and_then(|u| certificate::of_base64(u["client-certificate-data"].as_str()?))
            .map(|c| c.expires),
    }
}

/// The CA certificate (PEM) of the current context.
pub fn ca_pem(text: &str) -> Option<Vec<u8>> {
    let root: Value = serde_saphyr::from_str(text).ok()?;
    STANDARD.decode(current(&root)?["certificate-authority-data"].as_str()?).ok()
}

fn named<'r>(root: &'r Value, list: &str, name: &Value) -> Option<&'r Value> {
    root[list].as_array().and_then(|all| all.iter().find(|one| one["name"] == *name))
}

fn current(root: &Value) -> Option<&Value> {
    let context = named(root, "contexts", &root["current-context"])?;
    Some(&named(root, "clusters", &context["context"]["cluster"])?["cluster"])
}

fn user(root: &Value) -> Option<&Value> {
    let context = named(root, "contexts", &root["current-context"])?;
    Some(&named(root, "users", &context["context"]["user"])?["user"])
}

/// The cluster and the user of the current context.
pub fn halves(root: &Value) -> Option<(Value, Value)> {
    Some((current(root)?.clone(), user(root)?.clone()))
}

/// An admin.conf whose server is this one. A text that has it already stays as it is: kubeadm before 1.37 writes the
/// control plane's endpoint, later ones may write the machine's own.
pub fn with_server(text: &str, server: &str) -> Option<String> {
    let mut root: Value = serde_saphyr::from_str(text).ok()?;
    if current(&root)?["server"] == *server {
        return Some(text.to_owned());
    }
    for one in root["clusters"].as_array_mut()? {
        one.get_mut("cluster")?.as_object_mut()?.insert("server".to_owned(), server.into());
    }
    serde_saphyr::to_string(&root).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "apiVersion: v1\nkind: Config\nclusters:\n- name: prod\n  cluster:\n    server: https://10.0.0.1:6443\n\
        contexts:\n- name: a@prod\n  context: {cluster: prod, user: a}\ncurrent-context: a@prod\nusers:\n- name: a\n  user: {}\n";

    #[test]
    fn reads_and_points_elsewhere() {
        let seen = read(FILE, true);
        assert_eq!(seen.server.as_deref(), Some("https://10.0.0.1:6443"));
        assert!(seen.single && seen.ca.is_none());
        let moved = with_server(FILE, "https://10.0.0.9:6443").unwrap();
        assert_eq!(read(&moved, true).server.as_deref(), Some("https://10.0.0.9:6443"));
        assert_eq!(with_server(FILE, "https://10.0.0.1:6443").as_deref(), Some(FILE));
        assert_eq!(read("no: [yaml", false), KubeconfigSeen::default());
        assert_eq!(with_server(&FILE.replace("clusters:", "clusters:\n- name"), "https://x"), None);
    }
}
