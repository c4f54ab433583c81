//! Who is asking, and what they may do.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use http::HeaderMap;
use serde_json::{Map, json};

use super::config::{Acl, UserConfig};
use super::dispatch::Call;
use super::form::percent_decode;
use super::hub::Hub;
use super::reply::{Answer, Fail};
use super::schema::Right;
use super::state::State;

/// An authenticated caller.
#[derive(Clone, Debug, Default)]
pub(super) struct Who {
    /// `name@realm`.
    pub user: String,
    /// The token's name, when it came by a token.
    pub token: Option<String>,
}

impl Who {
    /// As in UPIDs: `name@realm` or `name@realm!token`.
    pub fn name(&self) -> String {
        match &self.token {
            Some(token) => format!("{}!{token}", self.user),
            None => self.user.clone(),
        }
    }

    /// `root@pam` itself; a token of it is not root.
    pub fn root(&self) -> bool {
        self.user == "root@pam" && self.token.is_none()
    }
}

/// Tickets given out: ticket to user and CSRF token.
#[derive(Debug, Default)]
pub(super) struct Tickets {
    known: Mutex<BTreeMap<String, (String, String)>>,
}

impl Tickets {
    fn known(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, (String, String)>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Hub {
    /// Who sent these headers.
    pub fn authenticate(&self, method: &str, headers: &HeaderMap) -> Result<Who, Fail> {
        let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default();
        if let Some(token) = text("authorization").strip_prefix("PVEAPIToken=") {
            let failed = || Fail::unauthorized("Authentication failed!");
            let (name, secret) = token.split_once('=').ok_or_else(failed)?;
            let (user, id) = name.split_once('!').ok_or_else(failed)?;
            let known = self.config.users.iter().find(|u| u.id == user).ok_or_else(failed)?;
            let known = known.tokens.iter().find(|t| t.id == id && t.secret == secret).ok_or_else(failed)?;
            return Ok(Who { user: user.into(), token: Some(known.id.clone()) });
        }
        let cookie = text("cookie").split(';').find_map(|c| c.trim().strip_prefix("PVEAuthCookie="));
        let ticket = percent_decode(cookie.ok_or_else(|| Fail::unauthorized("No ticket"))?, false);
        let known = self.tickets.known();
        let (user, csrf) = known.get(&ticket).ok_or_else(|| Fail::unauthorized("Authentication failed!"))?;
        if method != "GET" && text("csrfpreventiontoken") != csrf {
            return Err(Fail::unauthorized("Permission denied - invalid csrf token"));
        }
        Ok(Who { user: user.clone(), token: None })
    }

    fn user(&self, id: &str) -> Option<&UserConfig> {
        self.config.users.iter().find(|u| u.id == id)
    }

    /// True when the caller has the privilege on the path.
    pub fn may(&self, state: &State, who: &Who, path: &str, privilege: &str) -> bool {
        self.rights(state, who, path).contains_key(privilege)
    }

    /// All privileges of the caller on a path, each with whether it propagates.
    fn rights(&self, state: &State, who: &Who, path: &str) -> BTreeMap<String, bool> {
        if who.root() {
            return BTreeMap::from_iter(all_privileges(self).into_iter().map(|p| (p, true)));
        }
        let Some(user) = self.user(&who.user) else { return BTreeMap::new() };
        let of_user = match who.user.as_str() {
            "root@pam" => all_privileges(self).into_iter().map(|p| (p, true)).collect(),
            _ => with_pool(state, &user.acl, path),
        };
        let Some(token) = who.token.as_ref().and_then(|id| user.tokens.iter().find(|t| t.id == *id)) else {
            return of_user;
        };
        if !token.privsep {
            return of_user;
        }
        let mut of_token = with_pool(state, &token.acl, path);
        of_token.retain(|privilege, _| of_user.contains_key(privilege));
        of_token
    }

    /// Refuses unless the caller has all (or one) of the privileges.
    pub fn check(
        &self,
        state: &State,
        who: &Who,
        path: &str,
        privileges: &[&str],
        any: bool,
    ) -> Result<(), Fail> {
        let missing = privileges.iter().find(|p| !self.may(state, who, path, p));
        let enough =
            if any { privileges.iter().any(|p| self.may(state, who, path, p)) } else { missing.is_none() };
        if enough {
            return Ok(());
        }
        let named = if any { privileges.join("|") } else { missing.copied().unwrap_or_default().to_owned() };
        Err(Fail::forbidden(format!("Permission check failed ({path}, {named})")))
    }
}

fn all_privileges(hub: &Hub) -> BTreeSet<String> {
    let mut all: BTreeSet<String> =
        hub.config.users.iter().flat_map(|u| &u.acl).flat_map(|a| a.privileges.clone()).collect();
    let more = "Datastore.Allocate Datastore.AllocateSpace Datastore.AllocateTemplate Datastore.Audit Pool.Allocate \
        Pool.Audit SDN.Use Sys.AccessNetwork Sys.Audit Sys.Console Sys.Modify Sys.PowerMgmt VM.Allocate VM.Audit \
        VM.Backup VM.Clone VM.Config.CDROM VM.Config.CPU VM.Config.Cloudinit VM.Config.Disk VM.Config.HWType \
        VM.Config.Memory VM.Config.Network VM.Config.Options VM.Console VM.Migrate VM.PowerMgmt VM.Snapshot \
        VM.Snapshot.Rollback VM.GuestAgent.Audit VM.GuestAgent.FileRead VM.GuestAgent.FileWrite \
        VM.GuestAgent.Unrestricted VM.Monitor";
    all.extend(more.split_whitespace().map(str::to_owned));
    all
}

/// What entries say of a path: the deepest entry that applies wins, as in Proxmox's `roles`.
fn on_path(acl: &[Acl], path: &str) -> BTreeMap<String, bool> {
    let mut levels = vec!["/".to_owned()];
    let mut at = String::new();
    for part in path.split('/').filter(|p| !p.is_empty()) {
        at = format!("{at}/{part}");
        levels.push(at.clone());
    }
    let mut rights = BTreeMap::new();
    for level in &levels {
        let last = level == path;
        let entries: Vec<&Acl> = acl.iter().filter(|a| a.path == *level && (last || a.propagate)).collect();
        if !entries.is_empty() {
            rights =
                entries.iter().flat_map(|a| a.privileges.iter().map(|p| (p.clone(), a.propagate))).collect();
        }
    }
    rights
}

fn with_pool(state: &State, acl: &[Acl], path: &str) -> BTreeMap<String, bool> {
    let mut rights = on_path(acl, path);
    let vmid = path.strip_prefix("/vms/").and_then(|v| v.parse::<u32>().ok());
    if let Some(pool) = vmid.and_then(|v| state.guests.get(&v)).and_then(|g| g.pool.as_ref()) {
        rights.extend(on_path(acl, &format!("/pool/{pool}")));
    }
    let storage = path.strip_prefix("/storage/");
    for (name, _) in storage.iter().flat_map(|s| state.pools.iter().filter(|(_, p)| p.storages.contains(*s)))
    {
        rights.extend(on_path(acl, &format!("/pool/{name}")));
    }
    rights
}

impl Call {
    /// Refuses unless the caller has all of the privileges on a path.
    pub fn need(&self, path: &str, privileges: &[&str]) -> Result<(), Fail> {
        self.hub.check(&self.hub.state(), &self.who, path, privileges, false)
    }

    /// Refuses unless the caller has one of the privileges on a path.
    pub fn need_any(&self, path: &str, privileges: &[&str]) -> Result<(), Fail> {
        self.hub.check(&self.hub.state(), &self.who, path, privileges, true)
    }

    /// Refuses unless the caller has a privilege on a guest, or on the pool that it will join.
    pub fn need_guest(&self, vmid: u32, pool: Option<&str>, privileges: &[&str]) -> Result<(), Fail> {
        let state = self.hub.state();
        let in_pool =
            |p: &str| pool.is_some_and(|pool| self.hub.may(&state, &self.who, &format!("/pool/{pool}"), p));
        let path = format!("/vms/{vmid}");
        match privileges.iter().find(|p| !self.hub.may(&state, &self.who, &path, p) && !in_pool(p)) {
            Some(missing) => Err(Fail::forbidden(format!("Permission check failed ({path}, {missing})"))),
            None => Ok(()),
        }
    }

    /// The rights that the route's table asks for.
    pub fn permitted(&self, right: &Right) -> Result<(), Fail> {
        let privileges: Vec<&str> = right.privileges.iter().map(String::as_str).collect();
        match right.path.as_str() {
            "(clone)" => {
                self.need(&format!("/vms/{}", self.text("vmid").unwrap_or_default()), &privileges)?;
                let new = format!("/vms/{}", self.text("newid").unwrap_or_default());
                let alone = self.need(&new, &["VM.Allocate"]);
                match self.text("pool") {
                    Some(pool) if alone.is_err() => {
                        let known = self.hub.state().pools.contains_key(pool);
                        if !known {
                            let text = format!("Permission check failed (pool '{pool}' does not exist)");
                            return Err(Fail::forbidden(text));
                        }
                        self.need(&format!("/pool/{pool}"), &["VM.Allocate"])
                    }
                    _ => alone,
                }
            }
            "(download)" => {
                self.need(&format!("/storage/{}", self.text("storage").unwrap_or_default()), &privileges)?;
                if self.need("/", &["Sys.Audit", "Sys.Modify"]).is_ok() {
                    return Ok(());
                }
                self.need(
                    &format!("/nodes/{}", self.text("node").unwrap_or_default()),
                    &["Sys.AccessNetwork"],
                )
            }
            path => {
                let mut filled = path.to_owned();
                for (name, value) in &self.values {
                    filled = filled.replace(&format!("{{{name}}}"), &value.text());
                }
                self.hub.check(&self.hub.state(), &self.who, &filled, &privileges, right.any)
            }
        }
    }
}

/// `POST /access/ticket`.
pub(super) fn ticket(call: &Call) -> Answer {
    let given = call.text("username").unwrap_or_default();
    let id = match call.text("realm") {
        Some(realm) if !given.contains('@') => format!("{given}@{realm}"),
        _ => given.to_owned(),
    };
    let password = call.text("password").unwrap_or_default();
    let failed = || Fail::unauthorized("authentication failure");
    let user = call.hub.user(&id).ok_or_else(failed)?;
    let renewed = call.hub.tickets.known().get(password).is_some_and(|(u, _)| *u == id);
    if !renewed && user.password.as_deref() != Some(password) {
        return Err(failed());
    }
    let random = || format!("{:032X}", rand::random::<u128>());
    let ticket = format!("PVE:{id}:{}::{}", &random()[..8], random());
    let csrf = format!("{}:{}", &random()[..8], random());
    call.hub.tickets.known().insert(ticket.clone(), (id.clone(), csrf.clone()));
    let answer = json!({
        "username": id,
        "ticket": ticket,
        "CSRFPreventionToken": csrf,
        "clustername": call.hub.config.cluster,
        "cap": {},
    });
    Ok(answer.into())
}

/// `GET /access/permissions`.
pub(super) fn permissions(call: &Call) -> Answer {
    let state = call.hub.state();
    let mut paths: BTreeSet<String> = match call.text("path") {
        Some(path) => [path.to_owned()].into(),
        None => ["/", "/access", "/nodes", "/pool", "/sdn", "/storage", "/vms"].map(str::to_owned).into(),
    };
    if call.text("path").is_none() {
        let user = call.hub.user(&call.who.user);
        let tokens = user.iter().flat_map(|u| &u.tokens).flat_map(|t| &t.acl);
        paths.extend(user.iter().flat_map(|u| &u.acl).chain(tokens).map(|a| a.path.clone()));
        paths.extend(state.guests.values().filter(|g| g.pool.is_some()).map(|g| format!("/vms/{}", g.vmid)));
    }
    let mut answer = Map::new();
    for path in paths {
        let rights = call.hub.rights(&state, &call.who, &path);
        if !rights.is_empty() || call.text("path").is_some() {
            let rights: Map<_, _> =
                rights.into_iter().map(|(p, propagate)| (p, json!(u8::from(propagate)))).collect();
            answer.insert(path, rights.into());
        }
    }
    Ok(serde_json::Value::Object(answer).into())
}
