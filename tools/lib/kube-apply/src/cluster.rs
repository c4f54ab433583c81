//! A connection to one cluster, and the plain operations on its objects.

use crate::discovery::{Discovery, Resource};
use crate::error::Error;
use crate::object::ObjectId;
use crate::wire::{self, Fault, Wire};
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// How many requests are under way at once.
pub(crate) const PARALLEL: usize = 8;
/// How long a request is repeated, unless [`Cluster::patience`] says otherwise.
const PATIENCE: Duration = Duration::from_secs(60);

/// A connection to one cluster, as one field manager.
#[derive(Clone)]
pub struct Cluster {
    pub(crate) wire: Wire,
    pub(crate) manager: String,
    pub(crate) force: bool,
    pub(crate) discovery: Arc<Discovery>,
}

impl Cluster {
    /// Reads a kubeconfig and makes a connection from that file alone; nothing is sent yet.
    ///
    /// The field manager names the tool (`kubeline-cni-install`).
    pub async fn connect(kubeconfig: &Path, field_manager: &str) -> Result<Cluster, Error> {
        let broken = |source: Box<dyn std::error::Error + Send + Sync>| Error::Kubeconfig {
            path: kubeconfig.to_owned(),
            source,
        };
        // Fails only where a provider is there already, which is then as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        private(kubeconfig)?;
        let file = Kubeconfig::read_from(kubeconfig).map_err(|error| broken(Box::new(error)))?;
        let with_proxy = file
            .clusters
            .iter()
            .filter_map(|named| named.cluster.as_ref())
            .any(|one| one.proxy_url.is_some());
        let mut config = kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
            .await
            .map_err(|error| broken(Box::new(error)))?;
        // Repeating is ours: it knows which faults pass, and the deadline.
        config.default_retry = false;
        // Of that file alone: kube also takes HTTPS_PROXY of the environment, which is not the way to one's own cluster.
        if !with_proxy {
            config.proxy_url = None;
        }
        config.connect_timeout = Some(Duration::from_secs(10));
        let server = config.cluster_url.to_string().trim_end_matches('/').to_owned();
        let client = kube::Client::try_from(config).map_err(|error| broken(Box::new(error)))?;
        Ok(Cluster {
            wire: Wire { client, server, patience: PATIENCE },
            manager: field_manager.to_owned(),
            force: false,
            discovery: Arc::default(),
        })
    }

    /// A connection by a client that there is already; errors name no server.
    pub fn of(client: kube::Client, field_manager: &str) -> Cluster {
        Cluster {
            wire: Wire { client, server: "the API".to_owned(), patience: PATIENCE },
            manager: field_manager.to_owned(),
            force: false,
            discovery: Arc::default(),
        }
    }

    /// How long one request is repeated when the server does not answer or is overloaded; 60 s unless set.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.wire.patience = patience;
        self
    }

    /// Takes over fields that other managers own.
    #[must_use]
    pub fn force_conflicts(mut self) -> Self {
        self.force = true;
        self
    }

    /// The server's address, `https://192.168.20.10:6443`.
    pub fn server(&self) -> &str {
        &self.wire.server
    }

    /// The client, for what this crate has no call for.
    pub fn client(&self) -> kube::Client {
        self.wire.client.clone()
    }

    /// The server's version, `v1.36.2`.
    pub async fn version(&self) -> Result<String, Error> {
        let doing = "ask for the version";
        let answer =
            self.wire.call(doing, wire::get("/version")).await.map_err(|fault| fault.into_error(doing))?;
        match answer.json(doing)?.get("gitVersion").and_then(Value::as_str) {
            Some(version) => Ok(version.to_owned()),
            None => Err(Error::Answer { doing: doing.to_owned(), why: "it has no gitVersion".into() }),
        }
    }

    /// One object; none where it, or its kind, does not exist.
    pub async fn get(
        &self,
        api_version: &str,
        kind: &str,
        namespace: Option<&str>,
        name: &str,
    ) -> Result<Option<Value>, Error> {
        let id = ObjectId::new(api_version, kind, namespace, name);
        match self.resource(api_version, kind).await? {
            Some(resource) => self.read(&resource, &id).await,
            None => Ok(None),
        }
    }

    /// All objects of a kind, in one namespace or everywhere, with a label selector or without; none where the kind does not exist.
    pub async fn list(
        &self,
        api_version: &str,
        kind: &str,
        namespace: Option<&str>,
        labels: Option<&str>,
    ) -> Result<Vec<Value>, Error> {
        let Some(resource) = self.resource(api_version, kind).await? else { return Ok(Vec::new()) };
        let query =
            labels.map(|labels| format!("labelSelector={}", wire::encode(labels))).unwrap_or_default();
        Ok(self.list_at(&resource.collection(api_version, namespace), &query, (api_version, kind)).await?.0)
    }

    /// Deletes an object, and in the background what it owns; whether it was there.
    pub async fn delete(&self, id: &ObjectId) -> Result<bool, Error> {
        self.remove(id, None).await
    }

    /// Deletes an object, but only if it still has that uid.
    pub(crate) async fn remove(&self, id: &ObjectId, uid: Option<&str>) -> Result<bool, Error> {
        let doing = format!("delete {id}");
        let Some(resource) = self.resource(&id.api_version, &id.kind).await? else { return Ok(false) };
        let mut options =
            json!({"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"});
        if let Some(uid) = uid {
            options["preconditions"] = json!({ "uid": uid });
        }
        let path = resource.object(&id.api_version, id.namespace.as_deref(), &id.name);
        match self.wire.call(&doing, wire::delete(&path, &options)).await {
            Ok(_) => Ok(true),
            Err(fault) if fault.is_not_found() => Ok(false),
            // Another object of that name: the one that was meant is gone.
            Err(Fault::Refused(refusal)) if refusal.code == 409 && uid.is_some() => Ok(false),
            Err(fault) => Err(fault.into_error(&doing)),
        }
    }

    pub(crate) async fn resource(&self, api_version: &str, kind: &str) -> Result<Option<Resource>, Error> {
        self.discovery.find(&self.wire, api_version, kind).await
    }

    /// One object of a known resource.
    pub(crate) async fn read(&self, resource: &Resource, id: &ObjectId) -> Result<Option<Value>, Error> {
        let doing = format!("read {id}");
        let path = resource.object(&id.api_version, id.namespace.as_deref(), &id.name);
        match self.wire.call(&doing, wire::get(&path)).await {
            Ok(answer) => answer.json(&doing).map(Some),
            Err(fault) if fault.is_not_found() => Ok(None),
            Err(fault) => Err(fault.into_error(&doing)),
        }
    }

    /// The objects of a collection with their apiVersion and kind, and the list's resourceVersion.
    pub(crate) async fn list_at(
        &self,
        path: &str,
        query: &str,
        (api_version, kind): (&str, &str),
    ) -> Result<(Vec<Value>, String), Error> {
        let doing = format!("list {kind} of {api_version}");
        let target = if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") };
        let mut list = match self.wire.call(&doing, wire::get(&target)).await {
            Ok(answer) => answer.json(&doing)?,
            Err(fault) if fault.is_not_found() => return Ok((Vec::new(), String::new())),
            Err(fault) => return Err(fault.into_error(&doing)),
        };
        let version =
            list.pointer("/metadata/resourceVersion").and_then(Value::as_str).unwrap_or_default().to_owned();
        let mut items = match list.get_mut("items").map(Value::take) {
            Some(Value::Array(items)) => items,
            Some(Value::Null) | None => Vec::new(),
            Some(_) => return Err(Error::Answer { doing, why: "its items are no list".into() }),
        };
        for item in items.iter_mut().filter_map(Value::as_object_mut) {
            // Items of a list come without them.
            item.entry("apiVersion").or_insert_with(|| api_version.into());
            item.entry("kind").or_insert_with(|| kind.into());
        }
        Ok((items, version))
    }
}

/// A kubeconfig holds a key: as with ssh, only its owner may read it.
#[cfg(unix)]
fn private(kubeconfig: &Path) -> Result<(), Error> {
    use std::os::unix::fs::PermissionsExt;
    match std::fs::metadata(kubeconfig) {
        Ok(found) if found.permissions().mode() & 0o077 != 0 => {
            Err(Error::ReadableByOthers { path: kubeconfig.to_owned() })
        }
        _ => Ok(()),
    }
}

#[cfg(not(unix))]
fn private(_kubeconfig: &Path) -> Result<(), Error> {
    Ok(())
}
