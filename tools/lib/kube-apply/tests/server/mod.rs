//! The API servers that the tests run against.

mod certificates;
mod envtest;
mod lab;

use std::any::Any;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// One API server, for as long as the value lives.
pub struct Server {
    /// Which one, for messages.
    pub name: &'static str,
    /// A kubeconfig for it, with all rights.
    pub kubeconfig: PathBuf,
    /// Whether controllers run beside it: without them no workload becomes ready and no namespace ends.
    pub controllers: bool,
    /// The lab's frame, where it is the lab: for its journal and its faults.
    pub lab: Option<Arc<::lab::World>>,
    _kept: Vec<Box<dyn Any + Send + Sync>>,
}

/// All servers that there are on this machine.
pub async fn servers() -> Vec<Server> {
    let mut found = vec![lab::start().await];
    match std::env::var_os("KUBEBUILDER_ASSETS").map(PathBuf::from) {
        Some(assets) if assets.join("kube-apiserver").exists() => found.push(envtest::start(&assets).await),
        _ => {
            println!("skipped for a real API server: KUBEBUILDER_ASSETS names no folder with kube-apiserver")
        }
    }
    found
}

/// Writes a kubeconfig without credentials, or with a CA, a client certificate and its key.
pub fn kubeconfig(folder: &Path, server: &str, client: Option<(&str, &str, &str)>) -> PathBuf {
    use base64::Engine;
    use std::os::unix::fs::OpenOptionsExt;
    let encode = |pem: &str| base64::engine::general_purpose::STANDARD.encode(pem);
    let (ca, user) = match client {
        None => (String::new(), "{}".to_owned()),
        Some((ca, certificate, key)) => (
            format!(", certificate-authority-data: {}", encode(ca)),
            format!("{{client-certificate-data: {}, client-key-data: {}}}", encode(certificate), encode(key)),
        ),
    };
    let text = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: t\n\
         contexts: [{{name: t, context: {{cluster: t, user: t}}}}]\n\
         clusters: [{{name: t, cluster: {{server: \"{server}\"{ca}}}}}]\n\
         users: [{{name: t, user: {user}}}]\n"
    );
    let path = folder.join("kubeconfig");
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).unwrap();
    std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
    path
}

/// The lab alone, for what only it can show.
pub async fn the_lab() -> Server {
    lab::start().await
}

impl Drop for Server {
    /// What the lab did not know is a gap in it, or a mistake of ours.
    fn drop(&mut self) {
        if let Some(world) = &self.lab
            && !std::thread::panicking()
        {
            assert_eq!(
                world.journal.unknown().iter().map(|entry| &entry.request).collect::<Vec<_>>(),
                [""; 0]
            );
        }
    }
}
