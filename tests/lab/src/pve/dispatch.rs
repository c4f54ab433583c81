//! From a request to its handler, through the checks in Proxmox's order.

use std::sync::Arc;

use futures::future::BoxFuture;

use super::auth::{self, Who};
use super::form::Upload;
use super::hub::Hub;
use super::reply::{Answer, Fail};
use super::schema::{Route, Value, Values, verify};
use super::state::Kind;
use super::{backup, ha, lxc, nodes, pools, qemu, site, storage, tasks};

/// One request, understood.
pub(super) struct Call {
    pub hub: Arc<Hub>,
    /// The node that was connected to.
    pub entry: String,
    pub route: Arc<Route>,
    pub values: Values,
    pub who: Who,
    /// An injected end for the task that this request starts.
    pub task_end: Option<String>,
    /// The same, once the task has done its work.
    pub task_end_after: Option<String>,
    pub upload: Option<Upload>,
}

impl Call {
    /// A parameter's text.
    pub fn text(&self, name: &str) -> Option<&str> {
        match self.values.get(name) {
            Some(Value::One(text)) => Some(text),
            _ => None,
        }
    }

    /// A list parameter.
    pub fn list(&self, name: &str) -> Vec<String> {
        match self.values.get(name) {
            Some(Value::One(text)) => vec![text.clone()],
            Some(Value::Many(list)) => list.clone(),
            None => Vec::new(),
        }
    }

    /// A boolean parameter; false when it is not given.
    pub fn flag(&self, name: &str) -> bool {
        self.text(name) == Some("1")
    }

    /// A number.
    pub fn number(&self, name: &str) -> Option<u64> {
        self.text(name)?.trim_start_matches('+').parse().ok()
    }

    /// The guest in the path.
    pub fn vmid(&self) -> u32 {
        self.text("vmid").and_then(|v| v.parse().ok()).unwrap_or(0)
    }

    /// The node in the path.
    pub fn node(&self) -> &str {
        self.text("node").unwrap_or_default()
    }
}

enum Handler {
    Now(fn(&Call) -> Answer),
    Later(fn(Call) -> BoxFuture<'static, Answer>),
}

use Handler::{Later, Now};

/// True when the lab handles this route.
pub(super) fn known(method: &str, path: &str) -> bool {
    handler(method, path).is_some()
}

/// Runs a request through the checks to its handler.
pub(super) async fn run(mut call: Call) -> Answer {
    let route = call.route.clone();
    if route.ticket_only && call.who.token.is_some() {
        let text = format!("URI '{}' not available with API token, need proper ticket.", route.path);
        return Err(Fail::forbidden(text));
    }
    if let Some(right) = &route.right {
        call.permitted(right)?;
    }
    let node = if route.path.contains("{node}") { call.node().to_owned() } else { call.entry.clone() };
    reachable(&call, &node)?;
    if !route.lax {
        let hub = call.hub.clone();
        let errors = verify(&hub.schema, &route.params, &mut call.values);
        if !errors.is_empty() {
            return Err(Fail::parameters(errors));
        }
    }
    let changes = route.method != "GET" && route.path != "/access/ticket" && !route.path.contains("/agent/");
    if changes && !call.hub.state().quorate() {
        return Err(Fail::die("cluster not ready - no quorum?"));
    }
    let hub = call.hub.clone();
    let _worker = match hub.daemons.get(&node) {
        Some(workers) => workers.acquire().await.ok(),
        None => None,
    };
    match handler(&route.method, &route.path) {
        Some(Now(handle)) => handle(&call),
        Some(Later(handle)) => handle(call).await,
        None => Err(Fail::unknown(&route.method, &route.path)),
    }
}

fn reachable(call: &Call, node: &str) -> Result<(), Fail> {
    match call.hub.state().nodes.get(node) {
        None => Err(Fail::die(format!(
            "hostname lookup '{node}' failed - failed to get address info for: {node}: Name or service not known"
        ))),
        Some(node) if !node.online => Err(Fail::proxy(595, "No route to host")),
        Some(_) => Ok(()),
    }
}

#[rustfmt::skip]
fn handler(method: &str, path: &str) -> Option<Handler> {
    Some(match (method, path) {
        ("GET", "/version") => Now(site::version),
        ("GET", "/access") => Now(site::access),
        ("GET", "/access/permissions") => Now(auth::permissions),
        ("GET", "/access/ticket") => Now(site::login_form),
        ("POST", "/access/ticket") => Now(auth::ticket),
        ("GET", "/cluster") => Now(site::index),
        ("GET", "/cluster/status") => Now(site::status),
        ("GET", "/cluster/resources") => Now(site::resources),
        ("GET", "/cluster/nextid") => Now(site::next_id),
        ("GET", "/cluster/tasks") => Now(tasks::list),
        ("GET", "/cluster/options") => Now(site::options),

        ("GET", "/cluster/backup") => Now(backup::list),
        ("POST", "/cluster/backup") => Now(backup::add),
        ("GET", "/cluster/backup/{id}") => Now(backup::get),
        ("PUT", "/cluster/backup/{id}") => Now(backup::change),
        ("DELETE", "/cluster/backup/{id}") => Now(backup::remove),
        ("POST", "/nodes/{node}/vzdump") => Now(backup::dump),

        ("GET", "/cluster/ha/status/current") => Now(ha::current),
        ("GET", "/cluster/ha/resources") => Now(ha::resources),
        ("POST", "/cluster/ha/resources") => Now(ha::add_resource),
        ("GET", "/cluster/ha/resources/{sid}") => Now(ha::resource),
        ("PUT", "/cluster/ha/resources/{sid}") => Now(ha::change_resource),
        ("DELETE", "/cluster/ha/resources/{sid}") => Now(ha::remove_resource),
        ("GET", "/cluster/ha/rules") => Now(ha::rules),
        ("POST", "/cluster/ha/rules") => Now(ha::add_rule),
        ("GET", "/cluster/ha/rules/{rule}") => Now(ha::rule),
        ("PUT", "/cluster/ha/rules/{rule}") => Now(ha::change_rule),
        ("DELETE", "/cluster/ha/rules/{rule}") => Now(ha::remove_rule),
        ("GET", "/cluster/ha/groups") => Now(ha::groups),
        ("POST", "/cluster/ha/groups") => Now(ha::add_group),
        ("GET", "/cluster/ha/groups/{group}") => Now(ha::group),
        ("PUT", "/cluster/ha/groups/{group}") => Now(ha::change_group),
        ("DELETE", "/cluster/ha/groups/{group}") => Now(ha::remove_group),

        ("GET", "/pools") => Now(pools::list),
        ("POST", "/pools") => Now(pools::add),
        ("PUT", "/pools" | "/pools/{poolid}") => Now(pools::change),
        ("DELETE", "/pools" | "/pools/{poolid}") => Now(pools::remove),
        ("GET", "/pools/{poolid}") => Now(pools::get),
        ("GET", "/storage") => Now(storage::configured),
        ("GET", "/storage/{storage}") => Now(storage::one_configured),

        ("GET", "/nodes") => Now(nodes::list),
        ("GET", "/nodes/{node}") => Now(nodes::index),
        ("GET", "/nodes/{node}/version") => Now(site::version),
        ("GET", "/nodes/{node}/status") => Now(nodes::status),
        ("GET", "/nodes/{node}/network") => Now(nodes::network),
        ("GET", "/nodes/{node}/tasks") => Now(tasks::list),
        ("GET", "/nodes/{node}/tasks/{upid}") => Now(|_| tasks::index()),
        ("DELETE", "/nodes/{node}/tasks/{upid}") => Now(tasks::stop),
        ("GET", "/nodes/{node}/tasks/{upid}/status") => Now(tasks::status),
        ("GET", "/nodes/{node}/tasks/{upid}/log") => Now(tasks::log),

        ("GET", "/nodes/{node}/storage") => Now(storage::list),
        ("GET", "/nodes/{node}/storage/{storage}") => Now(storage::index),
        ("GET", "/nodes/{node}/storage/{storage}/status") => Now(storage::status),
        ("GET", "/nodes/{node}/storage/{storage}/content") => Now(storage::content),
        ("GET", "/nodes/{node}/storage/{storage}/content/{volume}") => Now(storage::volume),
        ("DELETE", "/nodes/{node}/storage/{storage}/content/{volume}") => Later(|c| Box::pin(storage::remove(c))),
        ("POST", "/nodes/{node}/storage/{storage}/download-url") => Now(storage::download),
        ("POST", "/nodes/{node}/storage/{storage}/upload") => Now(storage::upload),

        ("GET", "/nodes/{node}/qemu") => Now(|c| qemu::list(c, Kind::Qemu)),
        ("POST", "/nodes/{node}/qemu") => Later(|c| Box::pin(qemu::create::create(c))),
        ("GET", "/nodes/{node}/qemu/{vmid}") => Now(|_| qemu::index()),
        ("DELETE", "/nodes/{node}/qemu/{vmid}") => Now(|c| qemu::destroy::destroy(c, Kind::Qemu)),
        ("GET", "/nodes/{node}/qemu/{vmid}/config") => Now(|c| qemu::show::config(c, Kind::Qemu)),
        ("PUT", "/nodes/{node}/qemu/{vmid}/config") => Later(|c| Box::pin(qemu::change::put(c))),
        ("POST", "/nodes/{node}/qemu/{vmid}/config") => Later(|c| Box::pin(qemu::change::post(c))),
        ("GET", "/nodes/{node}/qemu/{vmid}/pending") => Now(|c| qemu::show::pending(c, Kind::Qemu)),
        ("POST", "/nodes/{node}/qemu/{vmid}/clone") => Now(qemu::clone::clone),
        ("PUT", "/nodes/{node}/qemu/{vmid}/resize") => Now(qemu::disks::resize),
        ("POST", "/nodes/{node}/qemu/{vmid}/template") => Now(qemu::disks::template),
        ("PUT", "/nodes/{node}/qemu/{vmid}/unlink") => Later(|c| Box::pin(qemu::change::unlink(c))),
        ("POST", "/nodes/{node}/qemu/{vmid}/move_disk") => Now(qemu::disks::move_disk),
        ("GET", "/nodes/{node}/qemu/{vmid}/migrate") => Now(qemu::migrate::preconditions),
        ("POST", "/nodes/{node}/qemu/{vmid}/migrate") => Now(qemu::migrate::migrate),
        ("GET", "/nodes/{node}/qemu/{vmid}/cloudinit") => Now(qemu::show::cloudinit),
        ("PUT", "/nodes/{node}/qemu/{vmid}/cloudinit") => Now(qemu::show::regenerate),
        ("GET", "/nodes/{node}/qemu/{vmid}/cloudinit/dump") => Now(qemu::show::dump),
        ("GET", "/nodes/{node}/qemu/{vmid}/status") => Now(|_| qemu::index()),
        ("GET", "/nodes/{node}/qemu/{vmid}/status/current") => Now(|c| qemu::show::current(c, Kind::Qemu)),
        ("POST", "/nodes/{node}/qemu/{vmid}/status/start") => Now(qemu::power::start),
        ("POST", "/nodes/{node}/qemu/{vmid}/status/stop") => Now(qemu::power::stop),
        ("POST", "/nodes/{node}/qemu/{vmid}/status/shutdown") => Now(qemu::power::shutdown),
        ("POST", "/nodes/{node}/qemu/{vmid}/status/reboot") => Now(qemu::power::reboot),
        ("POST", "/nodes/{node}/qemu/{vmid}/status/reset") => Now(qemu::power::reset),
        ("GET", "/nodes/{node}/qemu/{vmid}/snapshot") => Now(|c| qemu::snapshot::list(c, Kind::Qemu)),
        ("POST", "/nodes/{node}/qemu/{vmid}/snapshot") => Now(|c| qemu::snapshot::take(c, Kind::Qemu)),
        ("DELETE", "/nodes/{node}/qemu/{vmid}/snapshot/{snapname}") => Now(|c| qemu::snapshot::remove(c, Kind::Qemu)),
        ("POST", "/nodes/{node}/qemu/{vmid}/snapshot/{snapname}/rollback") => Now(|c| qemu::snapshot::rollback(c, Kind::Qemu)),
        ("POST", "/nodes/{node}/qemu/{vmid}/agent/ping") => Later(|c| Box::pin(qemu::agent::ping(c))),
        ("GET", "/nodes/{node}/qemu/{vmid}/agent/network-get-interfaces") => Later(|c| Box::pin(qemu::agent::interfaces(c))),
        ("GET", "/nodes/{node}/qemu/{vmid}/agent/get-osinfo") => Later(|c| Box::pin(qemu::agent::os_info(c))),
        ("GET", "/nodes/{node}/qemu/{vmid}/agent/get-host-name") => Later(|c| Box::pin(qemu::agent::host_name(c))),
        ("GET", "/nodes/{node}/qemu/{vmid}/agent/info") => Later(|c| Box::pin(qemu::agent::info(c))),
        ("POST", "/nodes/{node}/qemu/{vmid}/agent/exec") => Later(|c| Box::pin(qemu::agent::exec(c))),
        ("GET", "/nodes/{node}/qemu/{vmid}/agent/exec-status") => Later(|c| Box::pin(qemu::agent::exec_status(c))),
        ("GET", "/nodes/{node}/qemu/{vmid}/agent/file-read") => Later(|c| Box::pin(qemu::agent::file_read(c))),
        ("POST", "/nodes/{node}/qemu/{vmid}/agent/file-write") => Later(|c| Box::pin(qemu::agent::file_write(c))),

        ("GET", "/nodes/{node}/lxc") => Now(|c| qemu::list(c, Kind::Lxc)),
        ("POST", "/nodes/{node}/lxc") => Later(|c| Box::pin(lxc::create(c))),
        ("GET", "/nodes/{node}/lxc/{vmid}") => Now(|_| qemu::index()),
        ("DELETE", "/nodes/{node}/lxc/{vmid}") => Now(|c| qemu::destroy::destroy(c, Kind::Lxc)),
        ("GET", "/nodes/{node}/lxc/{vmid}/config") => Now(|c| qemu::show::config(c, Kind::Lxc)),
        ("GET", "/nodes/{node}/lxc/{vmid}/pending") => Now(|c| qemu::show::pending(c, Kind::Lxc)),
        ("PUT", "/nodes/{node}/lxc/{vmid}/config") => Later(|c| Box::pin(lxc::change(c))),
        ("POST", "/nodes/{node}/lxc/{vmid}/clone") => Now(lxc::clone),
        ("POST", "/nodes/{node}/lxc/{vmid}/migrate") => Now(lxc::migrate::migrate),
        ("PUT", "/nodes/{node}/lxc/{vmid}/resize") => Now(lxc::resize),
        ("GET", "/nodes/{node}/lxc/{vmid}/interfaces") => Now(lxc::interfaces),
        ("POST", "/nodes/{node}/lxc/{vmid}/template") => Now(lxc::template),
        ("GET", "/nodes/{node}/lxc/{vmid}/snapshot") => Now(|c| qemu::snapshot::list(c, Kind::Lxc)),
        ("POST", "/nodes/{node}/lxc/{vmid}/snapshot") => Now(|c| qemu::snapshot::take(c, Kind::Lxc)),
        ("DELETE", "/nodes/{node}/lxc/{vmid}/snapshot/{snapname}") => Now(|c| qemu::snapshot::remove(c, Kind::Lxc)),
        ("POST", "/nodes/{node}/lxc/{vmid}/snapshot/{snapname}/rollback") => Now(|c| qemu::snapshot::rollback(c, Kind::Lxc)),
        ("GET", "/nodes/{node}/lxc/{vmid}/status/current") => Now(|c| qemu::show::current(c, Kind::Lxc)),
        ("POST", "/nodes/{node}/lxc/{vmid}/status/start") => Now(lxc::power::start),
        ("POST", "/nodes/{node}/lxc/{vmid}/status/stop") => Now(|c| lxc::power::stop(c, "vzstop")),
        ("POST", "/nodes/{node}/lxc/{vmid}/status/shutdown") => Now(|c| lxc::power::stop(c, "vzshutdown")),
        ("POST", "/nodes/{node}/lxc/{vmid}/status/reboot") => Now(lxc::power::reboot),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::known;
    use crate::pve::schema::{Generation, Schema};

    #[test]
    fn every_request_in_the_tables_is_handled() {
        for generation in [Generation::V8, Generation::V9] {
            let schema = Schema::new(generation).unwrap();
            let missing: Vec<String> = schema
                .routes
                .iter()
                .filter(|r| !known(&r.method, &r.path))
                .map(|r| format!("{} {}", r.method, r.path))
                .collect();
            assert!(missing.is_empty(), "{missing:?}");
        }
    }
}
