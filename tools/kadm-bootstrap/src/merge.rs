//! The operator's access, merged on request into a kubeconfig that holds others: a context, its cluster and its user, and
//! nothing else in the file changes its meaning.

use std::path::Path;

use serde_json::{Map, Value, json};
use stage::{Ctx, Failure, HeldKind};

use crate::access::{Merge, MergeSeen};
use crate::api::Api;
use crate::build::{Build, RENEW};
use crate::certificate;
use crate::evidence::wait_for_api;
use crate::kubeconfig;
use crate::seen::Seen;
use crate::step::Step;
use crate::want::Want;

/// The names of the context and its cluster, and of its user, in a file that holds several clusters: kubeadm gives every
/// cluster's administrator the same name.
fn names(want: &Want) -> (String, String) {
    (want.cluster.clone(), format!("{}-admin", want.cluster))
}

fn entry<'r>(root: &'r Map<String, Value>, list: &str, name: &str) -> Option<&'r Value> {
    root.get(list)?.as_array()?.iter().find(|one| one["name"] == name)
}

/// A file's text as a kubeconfig; an empty one is an empty kubeconfig.
fn parse(text: &str) -> Result<Map<String, Value>, String> {
    if text.trim().is_empty() {
        return Ok(Map::new());
    }
    let root: Value = serde_saphyr::from_str(text).map_err(|_| "it is no YAML".to_owned())?;
    let Value::Object(root) = root else { return Err("it is no kubeconfig".to_owned()) };
    if root.get("kind").is_some_and(|kind| kind != "Config") {
        return Err("it is no kubeconfig".to_owned());
    }
    let list = |name: &&str| root.get(*name).is_none_or(|all| all.is_array() || all.is_null());
    match ["clusters", "contexts", "users"].iter().find(|name| !list(name)) {
        Some(odd) => Err(format!("its {odd} are no list")),
        None => Ok(root),
    }
}

/// What a text holds of the cluster, and what of somebody else's is in the way.
pub fn read(text: &str, private: bool, want: &Want) -> MergeSeen {
    let mut seen = MergeSeen { exists: true, private, ..MergeSeen::default() };
    // A `#` in a value stands within it; one that begins a comment stands at the beginning or after a space.
    seen.comments = text.lines().any(|line| line.trim_start().starts_with('#') || line.contains(" #"));
    let root = match parse(text) {
        Ok(root) => root,
        Err(fault) => return MergeSeen { fault: Some(fault), ..seen },
    };
    let (context, user) = names(want);
    seen.current = root.get("current-context").and_then(Value::as_str).unwrap_or_default().to_owned();
    let cluster_entry = entry(&root, "clusters", &context).map(|c| &c["cluster"]);
    let context_entry = entry(&root, "contexts", &context).map(|c| &c["context"]);
    let user_entry = entry(&root, "users", &user).map(|u| &u["user"]);
    let text_of =
        |value: Option<&Value>, field: &str| value.and_then(|v| v[field].as_str()).map(str::to_owned);
    seen.server = text_of(cluster_entry, "server");
    let ca = text_of(cluster_entry, "certificate-authority-data");
    seen.ca = ca.as_deref().and_then(certificate::of_base64).map(|c| c.sha256);
    let pem = text_of(user_entry, "client-certificate-data");
    seen.expires = pem.as_deref().and_then(certificate::of_base64).map(|c| c.expires);
    let ours = context_entry.is_some_and(|c| c["cluster"] == context.as_str() && c["user"] == user.as_str());
    seen.whole = ours && cluster_entry.is_some() && user_entry.is_some();
    let plain = |fields: &Value| {
        let known = ["client-certificate-data", "client-key-data"];
        fields.as_object().is_some_and(|all| all.keys().all(|name| known.contains(&name.as_str())))
    };
    seen.fault = match () {
        () if cluster_entry.is_some() && seen.ca.is_none() => {
            Some(format!("its cluster \"{context}\" has no authority in it by which it could be known"))
        }
        () if context_entry.is_some() && !ours => {
            Some(format!("its context \"{context}\" is of another cluster or user"))
        }
        () if user_entry.is_some_and(|u| !plain(u)) || (user_entry.is_some() && context_entry.is_none()) => {
            Some(format!("its user \"{user}\" is somebody's own"))
        }
        () => None,
    };
    seen
}

/// Looks at the file.
///
/// # Errors
/// Exit 4 when it cannot be read.
pub fn observe(want: &Want) -> Result<Option<MergeSeen>, Failure> {
    use std::os::unix::fs::MetadataExt as _;
    let Some(merge) = &want.merge else { return Ok(None) };
    let wrong = |e: std::io::Error| {
        Failure::precondition(format!("cannot read {}", merge.shown)).because(e.to_string())
    };
    match std::fs::read(&merge.path) {
        Ok(text) => {
            let private = std::fs::metadata(&merge.path).map_err(wrong)?.mode() & 0o077 == 0;
            Ok(Some(read(&String::from_utf8_lossy(&text), private, want)))
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Some(MergeSeen::default())),
        Err(e) => Err(wrong(e)),
    }
}

impl Build<'_> {
    /// Merges the operator's access into the file that a flag names.
    pub(crate) fn merge(&mut self, via: &str) {
        let (Some(merge), Some(seen)) = (&self.want.merge, &self.seen.merge) else { return };
        let (context, user) = names(self.want);
        let server = format!("https://{}", self.want.endpoint);
        let cluster = self.seen.cluster.as_ref().filter(|c| c.missing.is_empty());
        let theirs = seen.ca.is_some() && seen.ca.as_deref() != cluster.map(|c| c.ca.as_str());
        let other = theirs.then(|| format!("its cluster \"{context}\" is another one, of another authority"));
        if let Some(why) = seen.fault.clone().or(other) {
            let config = format!("kubectl config --kubeconfig={}", merge.shown);
            let hint = format!(
                "look at it: {config} view; then: {config} rename-context {context} NAME, or delete-context {context}, \
                 delete-cluster {context}, delete-user {user}"
            );
            self.plan.hold(HeldKind::Unmet, &merge.shown, why, Some(hint));
            return;
        }
        let now = self.seen.hosts.get(via).map_or(0, |h| h.time);
        let why = match () {
            () if !seen.exists => "there is none".to_owned(),
            () if !seen.whole => format!("it has no context \"{context}\""),
            () if seen.server.as_deref() != Some(&server) => "its server is not the VIP".to_owned(),
            () if seen.expires.is_some_and(|e| e - now < RENEW) => "its certificate ends soon".to_owned(),
            () if !seen.private => "others can read it".to_owned(),
            () if merge.switch && seen.current != context => match seen.current.as_str() {
                "" => "it has no current context".to_owned(),
                current => format!("its current context is {current}"),
            },
            () => return,
        };
        let step = Step::Merge {
            via: via.to_owned(),
            path: merge.shown.clone(),
            context,
            server,
            switch: merge.switch,
        };
        let chain = self.chain.clone();
        let id = self.plan.step_after(&chain, step, why);
        if seen.comments {
            self.plan.detail(id, ["its comments are lost: the file is written anew".to_owned()]);
        }
    }
}

/// The context of a cluster that goes, when the file has it.
pub fn gone(want: &Want, seen: &Seen, known: impl Fn(&str) -> bool) -> Option<Step> {
    let (merge, there) = (want.merge.as_ref()?, seen.merge.as_ref()?);
    let ours = there.fault.is_none() && there.whole && there.ca.as_deref().is_some_and(known);
    ours.then(|| Step::Unmerge { path: merge.shown.clone(), context: names(want).0 })
}

fn put(root: &mut Map<String, Value>, list: &str, name: &str, value: Value) {
    let slot = root.entry(list).or_insert_with(|| json!([]));
    if slot.is_null() {
        *slot = json!([]);
    }
    let Value::Array(all) = slot else { return };
    match all.iter_mut().find(|one| one["name"] == name) {
        Some(one) => *one = value,
        None => all.push(value),
    }
}

/// The text with this cluster in it, taken from an admin.conf that leads to it.
fn merged(text: &str, admin: &str, switch: bool, want: &Want) -> Result<String, String> {
    let (context, user) = names(want);
    let mut root = parse(text)?;
    let admin: Value = serde_saphyr::from_str(admin).map_err(|_| "admin.conf is no YAML".to_owned())?;
    let (cluster, access) = kubeconfig::halves(&admin).ok_or("admin.conf is no kubeconfig")?;
    root.entry("apiVersion").or_insert_with(|| json!("v1"));
    root.entry("kind").or_insert_with(|| json!("Config"));
    put(&mut root, "clusters", &context, json!({ "name": context, "cluster": cluster }));
    put(&mut root, "users", &user, json!({ "name": user, "user": access }));
    let pair = match entry(&root, "contexts", &context) {
        // Its namespace is the operator's.
        Some(there) => there["context"].clone(),
        None => json!({ "cluster": context, "user": user }),
    };
    put(&mut root, "contexts", &context, json!({ "name": context, "context": pair }));
    root.entry("current-context").or_insert_with(|| json!(""));
    if switch {
        root.insert("current-context".to_owned(), json!(context));
    }
    serde_saphyr::to_string(&root).map_err(|e| e.to_string())
}

/// Writes the file with this cluster in it, once a request with the same access went through the VIP.
///
/// # Errors
/// Exit 4 when something of somebody else's is in the way by now.
pub async fn write(admin: &str, server: &str, switch: bool, want: &Want, ctx: &Ctx) -> Result<(), Failure> {
    let merge = file(want)?;
    let doing = format!("cannot merge into {}", merge.shown);
    let admin = kubeconfig::with_server(admin, server)
        .ok_or_else(|| Failure::precondition(&doing).because("admin.conf is no kubeconfig"))?;
    let api = Api::connect(&admin, None).await?;
    wait_for_api(&api, &format!("the API at {server}"), ctx).await?;
    let text = present(&merge.path, &doing)?;
    if let Some(fault) = read(&text, true, want).fault {
        return Err(Failure::precondition(doing).because(fault));
    }
    let text =
        merged(&text, &admin, switch, want).map_err(|why| Failure::precondition(&doing).because(why))?;
    ctx.write_file(&merge.path, text.as_bytes(), 0o600).map(drop)
}

/// Takes this cluster out of the file; a current context that was its own is none afterwards.
///
/// # Errors
/// Exit 4 when it cannot be read or written.
pub fn remove(context: &str, want: &Want, ctx: &Ctx) -> Result<(), Failure> {
    let merge = file(want)?;
    let doing = format!("cannot take {context} out of {}", merge.shown);
    let mut root =
        parse(&present(&merge.path, &doing)?).map_err(|why| Failure::precondition(&doing).because(why))?;
    let (_, user) = names(want);
    for (list, name) in [("contexts", context), ("clusters", context), ("users", user.as_str())] {
        if let Some(Value::Array(all)) = root.get_mut(list) {
            all.retain(|one| one["name"] != name);
        }
    }
    if root.get("current-context").is_some_and(|c| c == context) {
        root.insert("current-context".to_owned(), json!(""));
    }
    let text =
        serde_saphyr::to_string(&root).map_err(|e| Failure::internal(&doing).because(e.to_string()))?;
    ctx.write_file(&merge.path, text.as_bytes(), 0o600).map(drop)
}

/// The file of the flag; no plan has such a step without it.
fn file(want: &Want) -> Result<&Merge, Failure> {
    want.merge.as_ref().ok_or_else(|| Failure::internal("a kubeconfig is to be merged, and none was named"))
}

fn present(path: &Path, doing: &str) -> Result<String, Failure> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(text),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        Err(e) => Err(Failure::precondition(doing).because(e.to_string())),
    }
}
