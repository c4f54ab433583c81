//! What reads the words of other programs, and what has to hold whatever they say.
//!
//! The fuzz targets and the test that replays the corpus share these.

use kadm_bootstrap::{certificate, etcd, kubeconfig, look, node, said, wal};

/// A reader, by the name of its target and of its folder in the corpus.
pub type Reader = (&'static str, fn(&[u8]));

/// All of them.
pub const READERS: [Reader; 7] = [
    ("kubeadm", kubeadm),
    ("look", look),
    ("etcd", etcd),
    ("kubeconfig", kubeconfig),
    ("haproxy", haproxy),
    ("keepalived", keepalived),
    ("upid", upid),
];

fn text(data: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(data)
}

/// What kubeadm complains of: at most one complaint a line, each of which is a line.
pub fn kubeadm(data: &[u8]) {
    let text = text(data);
    let found = said::complaints(&text);
    assert!(found.len() <= text.split('\n').count());
    let causes = said::causes(&text);
    assert!(causes.iter().all(|c| !c.contains('\n')));
    assert!(causes.len() <= found.len().max(3));
}

/// The facts of a machine: what stands in its answer alone.
pub fn look(data: &[u8]) {
    let text = text(data);
    let seen = look::read(&text);
    assert!(text.contains(&seen.hostname) && seen.state.iter().all(|s| text.contains(s)));
    assert!(seen.packages.len() + seen.units.len() + seen.files.len() <= text.lines().count());
}

/// etcd's members, snapshots and histogram: a member is healthy only if something said so.
pub fn etcd(data: &[u8]) {
    let members = etcd::read(data, b"").unwrap_or_default();
    assert!(members.iter().all(|m| !m.healthy));
    // A zero byte parts the list from the word on health.
    let (list, health) = data.split_at(data.iter().position(|b| *b == 0).unwrap_or(data.len()));
    let members = etcd::read(list, health.get(1..).unwrap_or_default()).unwrap_or_default();
    assert!(members.iter().all(|m| !m.healthy || text(health).contains("true")));
    assert!(etcd::snapshot_status(data).map_or(1, |s| s.total_key) > 0);
    assert!(wal::read(&text(data)).is_none_or(|_| text(data).contains("_bucket{le=")));
}

/// Kubeconfig files, certificates and nodes: what is given another server has it.
pub fn kubeconfig(data: &[u8]) {
    const SERVER: &str = "https://192.0.2.1:6443";
    let text = text(data);
    let seen = kubeconfig::read(&text, true);
    assert!(seen.private && (seen.ca.is_none() || kubeconfig::ca_pem(&text).is_some()));
    if let Some(changed) = kubeconfig::with_server(&text, SERVER) {
        assert_eq!(kubeconfig::read(&changed, true).server.as_deref(), Some(SERVER));
    }
    assert!(certificate::of_pem(data).is_none() || certificate::key_pin(data).is_some());
    if let Ok(object) = serde_json::from_slice(data) {
        let _ = node::read(&object);
    }
}

/// HAProxy's replies.
pub fn haproxy(data: &[u8]) {
    let text = text(data);
    assert!(lb_render::runtime::servers(&text).len() <= text.lines().count());
    assert!(lb_render::runtime::info(&text).len() <= text.lines().count());
}

/// keepalived's configuration: a file is always like itself.
pub fn keepalived(data: &[u8]) {
    let config = vip_keepalive::config::Config::read(&text(data));
    assert_eq!(config.differs(&config), None);
}

/// The names of Proxmox's tasks: what is read is what was written.
pub fn upid(data: &[u8]) {
    let text = text(data);
    if let Some(upid) = pve_vm::pve::Upid::parse(&text) {
        assert_eq!(upid.to_string(), text);
    }
}
