//! The objects of one cluster, with their history.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::resources::{self, Resource};

/// How many changes a watch can look back.
const HISTORY: usize = 20_000;

/// Stores that change all the time and that no controller of workloads looks at.
const LIGHT: [&str; 5] = [
    "secrets",
    "configmaps",
    "events",
    "leases.coordination.k8s.io",
    "certificatesigningrequests.certificates.k8s.io",
];

/// What happened to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// It is new.
    Added,
    /// It changed.
    Modified,
    /// It is gone.
    Deleted,
}

/// One change.
#[derive(Clone, Debug)]
pub struct Change {
    /// The resource version of the change.
    pub version: u64,
    /// The store, such as `deployments.apps`.
    pub store: String,
    /// What happened.
    pub event: Event,
    /// The object after it (before it, for a deletion, with the version of the deletion).
    pub object: Arc<Value>,
    /// The object before it.
    pub old: Option<Arc<Value>>,
}

fn node_of(pod: &Value) -> Option<&str> {
    pod["spec"]["nodeName"].as_str()
}

/// Namespace (empty for the cluster's) and name.
pub type Key = (String, String);

/// The objects of one cluster.
#[derive(Debug)]
pub struct Store {
    objects: BTreeMap<String, BTreeMap<Key, Arc<Value>>>,
    /// The pods of each node, which controllers ask for most.
    on: BTreeMap<String, BTreeMap<Key, Arc<Value>>>,
    version: u64,
    log: VecDeque<Change>,
    /// The resources of CRDs that are established, one a version.
    pub custom: Vec<Resource>,
    /// The first control plane's CA, for `kube-root-ca.crt`.
    pub ca: String,
    /// The version that the API server says.
    pub server_version: String,
    seed: u64,
    /// Counts changes of everything but what [`LIGHT`] names.
    pub(crate) weight: u64,
    /// Counts what the garbage collector looks at: removals, deletions that wait, new objects with owners.
    pub(crate) loose: u64,
}

impl Store {
    /// An empty store whose generated names follow from `name`.
    pub fn new(name: &str) -> Store {
        let sum = Sha256::digest(name);
        let mut first = [0; 8];
        first.copy_from_slice(&sum[..8]);
        Store {
            objects: BTreeMap::new(),
            on: BTreeMap::new(),
            version: 0,
            log: VecDeque::new(),
            custom: Vec::new(),
            ca: String::new(),
            server_version: "v1.36.2".into(),
            seed: u64::from_le_bytes(first),
            weight: 0,
            loose: 0,
        }
    }

    /// The current resource version.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// One object.
    pub fn get(&self, store: &str, ns: &str, name: &str) -> Option<&Arc<Value>> {
        self.objects.get(store)?.get(&(ns.to_owned(), name.to_owned()))
    }

    /// All objects of a store, or those of one namespace.
    pub fn list<'s>(&'s self, store: &str, ns: Option<&'s str>) -> impl Iterator<Item = &'s Arc<Value>> {
        let from = (ns.unwrap_or_default().to_owned(), String::new());
        self.objects
            .get(store)
            .into_iter()
            .flat_map(move |all| all.range(from.clone()..))
            .take_while(move |(key, _)| ns.is_none_or(|n| key.0 == n))
            .map(|(_, object)| object)
    }

    /// The pods of one node.
    pub fn pods_on(&self, node: &str) -> impl Iterator<Item = &Arc<Value>> {
        self.on.get(node).into_iter().flat_map(BTreeMap::values)
    }

    // Keeps the pods of each node in line with what was written or taken out.
    fn moved(&mut self, store: &str, key: &Key, old: Option<&Value>, new: Option<&Arc<Value>>) {
        if store != "pods" {
            return;
        }
        if let Some(pods) = old.and_then(node_of).and_then(|node| self.on.get_mut(node)) {
            pods.remove(key);
        }
        if let Some((node, pod)) = new.and_then(|pod| Some((node_of(pod)?, pod))) {
            self.on.entry(node.to_owned()).or_default().insert(key.clone(), pod.clone());
        }
    }

    /// The names of all stores that hold something.
    pub fn stores(&self) -> Vec<String> {
        self.objects.iter().filter(|(_, all)| !all.is_empty()).map(|(name, _)| name.clone()).collect()
    }

    /// Writes an object with the next resource version and gives it as it is stored.
    pub fn put(&mut self, store: &str, mut object: Value) -> Arc<Value> {
        self.version += 1;
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        let object = Arc::new(object);
        let key = key_of(&object);
        let old = self.objects.entry(store.to_owned()).or_default().insert(key.clone(), object.clone());
        self.moved(store, &key, old.as_deref(), Some(&object));
        let event = if old.is_some() { Event::Modified } else { Event::Added };
        let meta = &object["metadata"];
        if meta.get("deletionTimestamp").is_some() || (old.is_none() && meta.get("ownerReferences").is_some())
        {
            self.loose += 1;
        }
        self.remember(Change {
            version: self.version,
            store: store.into(),
            event,
            object: object.clone(),
            old,
        });
        object
    }

    /// Takes an object out.
    pub fn take(&mut self, store: &str, ns: &str, name: &str) -> Option<Arc<Value>> {
        let key = (ns.to_owned(), name.to_owned());
        let old = self.objects.get_mut(store)?.remove(&key)?;
        self.moved(store, &key, Some(&old), None);
        self.loose += 1;
        self.version += 1;
        let mut last = (*old).clone();
        last["metadata"]["resourceVersion"] = self.version.to_string().into();
        let object = Arc::new(last);
        self.remember(Change {
            version: self.version,
            store: store.into(),
            event: Event::Deleted,
            object: object.clone(),
            old: Some(old),
        });
        Some(object)
    }

    /// The last changes in words, for messages.
    pub fn recent(&self, count: usize) -> Vec<String> {
        let from = self.log.len().saturating_sub(count);
        self.log.range(from..).map(|c| format!("{:?} {} {:?}", c.event, c.store, key_of(&c.object))).collect()
    }

    fn remember(&mut self, change: Change) {
        self.weight += u64::from(!LIGHT.contains(&change.store.as_str()));
        self.log.push_back(change);
        if self.log.len() > HISTORY {
            self.log.pop_front();
        }
    }

    /// The changes of a store after a version; `Err` with the oldest version when that history is gone.
    pub fn since(&self, store: &str, version: u64) -> Result<Vec<Change>, u64> {
        let oldest = self.log.front().map_or(self.version + 1, |c| c.version);
        if version + 1 < oldest {
            return Err(oldest);
        }
        let first = self.log.partition_point(|c| c.version <= version);
        Ok(self.log.range(first..).filter(|c| c.store == store).cloned().collect())
    }

    /// All objects, one a line: the store and the object.
    pub fn dump(&self) -> String {
        let all =
            self.objects.iter().flat_map(|(store, all)| all.values().map(move |o| format!("{store} {o}\n")));
        all.collect()
    }

    /// Puts the objects of a dump in place of all that is here; versions go on, as after a restore with a bumped
    /// revision, and the history from before is forgotten.
    pub fn load(&mut self, dump: &str) {
        let gone: Vec<(String, Key)> = self
            .objects
            .iter()
            .flat_map(|(s, all)| all.keys().map(move |k| (s.clone(), k.clone())))
            .collect();
        for (store, (ns, name)) in gone {
            self.take(&store, &ns, &name);
        }
        for (store, text) in dump.lines().filter_map(|l| l.split_once(' ')) {
            if let Ok(object) = serde_json::from_str(text) {
                self.put(store, object);
            }
        }
        self.compact();
    }

    /// Forgets the history up to now, as compaction does.
    pub fn compact(&mut self) {
        self.log.clear();
    }

    /// The resource at this place of the API.
    pub fn resource(&self, group: &str, version: &str, plural: &str) -> Option<Resource> {
        self.all_resources().find(|r| r.group == group && r.version == version && r.plural == plural).cloned()
    }

    /// The resource of a kind.
    pub fn resource_of_kind(&self, api_version: &str, kind: &str) -> Option<Resource> {
        self.all_resources().find(|r| r.kind == kind && r.api_version() == api_version).cloned()
    }

    /// The (first served version of the) resource that is kept in this store.
    pub fn resource_of_store(&self, store: &str) -> Option<Resource> {
        self.all_resources().find(|r| r.qualified() == store).cloned()
    }

    /// All resources, the built-in ones first.
    pub fn all_resources(&self) -> impl Iterator<Item = &Resource> {
        resources::builtin().iter().filter(|r| !r.plural.is_empty()).chain(&self.custom)
    }

    /// The next number of a sequence that looks random (SplitMix64).
    pub fn random(&mut self) -> u64 {
        self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.seed;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A new uid.
    pub fn uid(&mut self) -> String {
        let (a, b) = (self.random(), self.random());
        format!(
            "{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}",
            a >> 32,
            (a >> 16) & 0xffff,
            a & 0xfff,
            (b >> 48) & 0x3fff | 0x8000,
            b & 0xffff_ffff_ffff
        )
    }

    /// The five characters that `generateName` adds.
    pub fn suffix(&mut self) -> String {
        let n = self.random();
        safe_letters(n, 5)
    }
}

/// Letters that cannot make a bad word (apimachinery's `rand.SafeEncodeString`).
pub(crate) fn safe_letters(mut n: u64, count: usize) -> String {
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    (0..count)
        .map(|_| {
            let letter = LETTERS[(n % 27) as usize];
            n /= 27;
            char::from(letter)
        })
        .collect()
}

/// A hash of a value in letters that cannot make a bad word, as pod templates are named.
pub(crate) fn hash(value: &Value) -> String {
    let sum = Sha256::digest(value.to_string());
    let mut first = [0; 8];
    first.copy_from_slice(&sum[..8]);
    safe_letters(u64::from_le_bytes(first), 10)
}

/// Namespace and name of an object.
pub fn key_of(object: &Value) -> Key {
    let meta = &object["metadata"];
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    (text(&meta["namespace"]), text(&meta["name"]))
}
