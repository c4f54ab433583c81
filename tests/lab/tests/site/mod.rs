//! A lab with only the SSH window, and a plain SSH client for it.

#![allow(dead_code, reason = "each test file uses a part")]

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use lab::hosts::Hosts;
use lab::kube::Kube;
use lab::world::{ApiServer, Boot, Kubelet, Kubernetes, World};
use lab::{Clock, Faults, Journal, Subnet};
use russh::ChannelMsg;
use russh::client::{Config, Handle, Handler};
use russh::keys::{PrivateKey, PrivateKeyWithHashAlg, PublicKey};
use serde_json::Value;

pub const PORT: u16 = 2222;

/// A lab whose Kubernetes window is a notebook.
pub struct Site {
    pub hosts: Hosts,
    pub world: Arc<World>,
    pub kube: Arc<Notebook>,
    pub key: PrivateKey,
    _dir: tempfile::TempDir,
}

impl Site {
    pub fn new() -> Site {
        Site::with_clock(Clock::ZERO)
    }

    /// With the real Kubernetes window.
    pub fn with_kubernetes() -> Site {
        Site::build(Clock::ZERO, true)
    }

    pub fn with_clock(clock: Clock) -> Site {
        Site::build(clock, false)
    }

    fn build(clock: Clock, window: bool) -> Site {
        let dir = tempfile::tempdir().unwrap();
        let world = Arc::new(World {
            clock,
            journal: Journal::default(),
            faults: Faults::default(),
            net: Subnet::claim().unwrap(),
            dir: dir.path().into(),
        });
        let window = window.then(|| Kube::new(world.clone()));
        let kube = Arc::new(Notebook { window, ..Notebook::default() });
        let hosts = Hosts::new(world.clone(), kube.clone(), PORT);
        let key = russh::keys::ssh_key::private::Ed25519Keypair::from_seed(&[7; 32]).into();
        Site { hosts, world, kube, key, _dir: dir }
    }

    pub fn address(&self, last: u8) -> Ipv4Addr {
        self.world.net.host(last)
    }

    pub fn boot(&self, name: &str, last: u8) -> Boot {
        Boot {
            name: name.into(),
            address: Some(self.address(last)),
            mac: format!("bc:24:11:00:00:{last:02x}"),
            user: "kubeline".into(),
            authorized_keys: vec![self.key.public_key().to_openssh().unwrap()],
            cores: 4,
            memory_mib: 8192,
            disks: vec![40 << 30, 500 << 30],
            agent: true,
            ..Boot::default()
        }
    }

    /// Adds a machine and waits until it takes connections.
    pub async fn machine(&self, name: &str, last: u8) -> Client {
        self.hosts.add(self.boot(name, last));
        self.connect(last).await
    }

    pub async fn connect(&self, last: u8) -> Client {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            match self.try_connect(last, "kubeline").await {
                Some(client) => return client,
                None => assert!(Instant::now() < deadline, "no SSH server at {}", self.address(last)),
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub async fn try_connect(&self, last: u8, user: &str) -> Option<Client> {
        let config = Arc::new(Config { nodelay: true, ..Config::default() });
        let seen = Arc::new(Mutex::new(None));
        let mut handle =
            russh::client::connect(config, (self.address(last), PORT), Pin(seen.clone())).await.ok()?;
        let key = PrivateKeyWithHashAlg::new(Arc::new(self.key.clone()), None);
        let result = handle.authenticate_publickey(user, key).await.ok()?;
        let host_key = seen.lock().unwrap().clone().unwrap();
        result.success().then_some(Client { handle, host_key })
    }

    /// Fails when the lab was asked something that it does not know.
    pub fn nothing_unknown(&self) {
        let unknown = self.world.journal.unknown();
        assert!(unknown.is_empty(), "{unknown:#?}");
    }
}

pub struct Pin(Arc<Mutex<Option<PublicKey>>>);

impl Handler for Pin {
    type Error = russh::Error;

    async fn check_server_key(
        &mut self,
        key: &russh::keys::PublicKeyOrCertificate,
    ) -> Result<bool, Self::Error> {
        let russh::keys::PublicKeyOrCertificate::PublicKey { key, .. } = key else { return Ok(false) };
        *self.0.lock().unwrap() = Some(key.clone());
        Ok(true)
    }
}

pub struct Client {
    pub handle: Handle<Pin>,
    pub host_key: PublicKey,
}

#[derive(Debug, PartialEq)]
pub struct Said {
    pub exit: Option<u32>,
    pub out: String,
    pub err: String,
}

impl Client {
    pub async fn run(&self, line: &str) -> Said {
        self.feed(line, b"").await
    }

    pub async fn feed(&self, line: &str, stdin: &[u8]) -> Said {
        let mut said = Said { exit: None, out: String::new(), err: String::new() };
        let Ok(mut channel) = self.handle.channel_open_session().await else { return said };
        if channel.exec(true, line).await.is_err() {
            return said;
        }
        let _ = channel.data_bytes(stdin.to_vec()).await;
        let _ = channel.eof().await;
        while let Some(message) = channel.wait().await {
            match message {
                ChannelMsg::Data { data } => said.out.push_str(&String::from_utf8_lossy(&data)),
                ChannelMsg::ExtendedData { data, .. } => said.err.push_str(&String::from_utf8_lossy(&data)),
                ChannelMsg::ExitStatus { exit_status } => said.exit = Some(exit_status),
                _ => {}
            }
        }
        said
    }

    pub async fn ok(&self, line: &str) -> String {
        let said = self.run(line).await;
        assert_eq!(said.exit, Some(0), "{line}: {said:?}");
        said.out
    }

    pub async fn put(&self, path: &str, content: &str) {
        let length = content.len();
        let line = format!("sudo -n -- sh -c '# kubeline: write v1\n' sh {path} 644 root root {length}");
        let said = self.feed(&line, content.as_bytes()).await;
        assert!(matches!(said.exit, Some(0 | 80)), "{said:?}");
    }
}

/// Waits for evidence.
pub async fn until(what: &str, mut test: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !test().await {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Writes down what the machines tell Kubernetes, and passes it on to the window, or keeps the objects itself.
#[derive(Default)]
pub struct Notebook {
    pub lines: Mutex<Vec<String>>,
    objects: Mutex<Vec<(String, Value)>>,
    pub window: Option<Kube>,
}

impl Notebook {
    fn note(&self, line: String) {
        self.lines.lock().unwrap().push(line);
    }

    /// How often this line was written.
    pub fn count(&self, line: &str) -> usize {
        self.lines.lock().unwrap().iter().filter(|l| *l == line).count()
    }
}

fn same(object: &Value, kind: &str, namespace: Option<&str>, name: &str) -> bool {
    object["kind"] == kind
        && object["metadata"]["name"] == name
        && object["metadata"]["namespace"].as_str() == namespace
}

impl Kubernetes for Notebook {
    fn api_up(&self, server: ApiServer) {
        self.note(format!("api_up {}", server.host));
        if let Some(window) = &self.window {
            window.api_up(server);
        }
    }

    fn api_down(&self, host: &str) {
        self.note(format!("api_down {host}"));
        if let Some(window) = &self.window {
            window.api_down(host);
        }
    }

    fn quorum(&self, cluster_id: &str, quorate: bool) {
        self.note(format!("quorum {quorate}"));
        if let Some(window) = &self.window {
            window.quorum(cluster_id, quorate);
        }
    }

    fn kubelet_up(&self, cluster_id: &str, kubelet: Kubelet) {
        let role = if kubelet.control_plane { "control plane" } else { "worker" };
        self.note(format!("kubelet_up {} {role} {}", kubelet.name, kubelet.version));
        if let Some(window) = &self.window {
            window.kubelet_up(cluster_id, kubelet);
        }
    }

    fn kubelet_down(&self, cluster_id: &str, node: &str) {
        self.note(format!("kubelet_down {node}"));
        if let Some(window) = &self.window {
            window.kubelet_down(cluster_id, node);
        }
    }

    fn put(&self, cluster_id: &str, object: Value) {
        if let Some(window) = &self.window {
            return window.put(cluster_id, object);
        }
        let kind = object["kind"].as_str().unwrap().to_string();
        let name = object["metadata"]["name"].as_str().unwrap().to_string();
        let namespace = object["metadata"]["namespace"].as_str().map(String::from);
        self.delete(cluster_id, "", &kind, namespace.as_deref(), &name);
        self.objects.lock().unwrap().push((cluster_id.into(), object));
    }

    fn get(
        &self,
        cluster_id: &str,
        api: &str,
        kind: &str,
        namespace: Option<&str>,
        name: &str,
    ) -> Option<Value> {
        if let Some(window) = &self.window {
            return window.get(cluster_id, api, kind, namespace, name);
        }
        let objects = self.objects.lock().unwrap();
        objects
            .iter()
            .find(|(c, o)| c == cluster_id && same(o, kind, namespace, name))
            .map(|(_, o)| o.clone())
    }

    fn list(&self, cluster_id: &str, api: &str, kind: &str) -> Vec<Value> {
        if let Some(window) = &self.window {
            return window.list(cluster_id, api, kind);
        }
        let objects = self.objects.lock().unwrap();
        objects.iter().filter(|(c, o)| c == cluster_id && o["kind"] == kind).map(|(_, o)| o.clone()).collect()
    }

    fn delete(&self, cluster_id: &str, api: &str, kind: &str, namespace: Option<&str>, name: &str) {
        if let Some(window) = &self.window {
            return window.delete(cluster_id, api, kind, namespace, name);
        }
        self.objects.lock().unwrap().retain(|(c, o)| c != cluster_id || !same(o, kind, namespace, name));
    }
}
