//! Workers: UPIDs, logs, exit statuses.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value as Json, json};
use tokio::task::AbortHandle;

use super::dispatch::Call;
use super::hub::Hub;
use super::reply::{Answer, Fail, Reply, nothing};
use super::state::State;

/// A worker, running or ended.
#[derive(Debug)]
pub(super) struct Task {
    pub upid: String,
    pub node: String,
    pub pid: u64,
    pub kind: String,
    pub id: String,
    pub user: String,
    pub start: u64,
    pub end: Option<u64>,
    pub exit: Option<String>,
    pub log: Log,
    pub order: u64,
    abort: Option<AbortHandle>,
}

pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

/// A worker's log. It has a lock of its own, so that a worker may write while it holds the state.
#[derive(Clone, Debug, Default)]
pub(super) struct Log {
    lines: Arc<Mutex<Vec<String>>>,
}

impl Log {
    pub fn line(&self, text: impl Into<String>) {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).push(text.into());
    }

    fn all(&self) -> Vec<String> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Call {
    /// Starts a worker on a node and gives its UPID. An injected end takes the worker's place.
    pub fn work<F>(&self, node: &str, kind: &str, id: &str, work: impl FnOnce(Log) -> F) -> String
    where
        F: Future<Output = Result<(), String>> + Send + 'static,
    {
        let log = Log::default();
        let upid = self.hub.register(node, kind, id, &self.who.name(), &log);
        match self.task_end.clone() {
            Some(exit) => {
                let hub = self.hub.clone();
                self.hub.run(&upid, async move {
                    hub.world.clock.wait(Duration::from_secs(1)).await;
                    if exit == "OK" { Ok(()) } else { Err(exit) }
                });
            }
            None => match self.task_end_after.clone() {
                None => self.hub.run(&upid, work(log)),
                Some(end) => {
                    let (hub, name, told, work) = (self.hub.clone(), upid.clone(), log.clone(), work(log));
                    self.hub.run(&upid, async move {
                        let result = work.await;
                        if end == "VANISH" {
                            hub.state().tasks.remove(&name);
                        } else if end.starts_with("WARNINGS") {
                            told.line("WARN: injected");
                        } else if result.is_ok() {
                            return Err(end);
                        }
                        result
                    });
                }
            },
        }
        upid
    }
}

impl Hub {
    fn register(&self, node: &str, kind: &str, id: &str, user: &str, log: &Log) -> String {
        let mut state = self.state();
        let order = state.count();
        let (pid, start) = (0x0001_0000 + order, now());
        let upid =
            format!("UPID:{node}:{pid:08X}:{:08X}:{start:08X}:{kind}:{id}:{user}:", 0x0010_0000 + order);
        let task = Task {
            upid: upid.clone(),
            node: node.into(),
            pid,
            kind: kind.into(),
            id: id.into(),
            user: user.into(),
            start,
            end: None,
            exit: None,
            log: log.clone(),
            order,
            abort: None,
        };
        state.tasks.insert(upid.clone(), task);
        upid
    }

    fn run(self: &Arc<Self>, upid: &str, work: impl Future<Output = Result<(), String>> + Send + 'static) {
        let (hub, name) = (self.clone(), upid.to_owned());
        let running = self.runtime.spawn(async move {
            let result = work.await;
            hub.finish(&name, result);
        });
        if let Some(task) = self.state().tasks.get_mut(upid) {
            task.abort = Some(running.abort_handle());
        }
    }

    fn finish(&self, upid: &str, result: Result<(), String>) {
        let mut state = self.state();
        let Some(task) = state.tasks.get_mut(upid).filter(|t| t.exit.is_none()) else { return };
        task.end = Some(now());
        let warnings = task.log.all().iter().filter(|l| l.starts_with("WARN: ")).count();
        match result {
            Ok(()) if warnings > 0 => {
                task.log.line(format!("TASK WARNINGS: {warnings}"));
                task.exit = Some(format!("WARNINGS: {warnings}"));
            }
            Ok(()) => {
                task.log.line("TASK OK");
                task.exit = Some("OK".into());
            }
            Err(why) => {
                let why = why.trim_end().replace('\n', " ");
                task.log.line(format!("TASK ERROR: {why}"));
                task.exit = Some(why);
            }
        }
        drop(state);
        self.ended.notify_waiters();
    }

    /// Ends a task at once: its node went down, or somebody stopped it.
    pub(super) fn kill(&self, upid: &str, exit: &str) {
        let mut state = self.state();
        let Some(task) = state.tasks.get_mut(upid).filter(|t| t.exit.is_none()) else { return };
        if let Some(abort) = &task.abort {
            abort.abort();
        }
        task.end = Some(now());
        task.exit = Some(exit.into());
        drop(state);
        self.ended.notify_waiters();
    }

    /// Waits until a task has ended; false when the nominal time was over first.
    pub(super) async fn task_ended(&self, upid: &str, wait: Duration) -> bool {
        let ended = async {
            loop {
                let notified = self.ended.notified();
                if self.state().tasks.get(upid).is_none_or(|t| t.exit.is_some()) {
                    return;
                }
                notified.await;
            }
        };
        tokio::time::timeout(self.world.clock.real(wait).max(Duration::from_millis(20)), ended).await.is_ok()
    }
}

fn view(task: &Task) -> Json {
    let (user, token) = task.user.split_once('!').map_or((task.user.as_str(), None), |(u, t)| (u, Some(t)));
    let mut view = json!({
        "upid": task.upid,
        "node": task.node,
        "pid": task.pid,
        "pstart": 0x0010_0000 + task.order,
        "starttime": task.start,
        "type": task.kind,
        "id": task.id,
        "user": user,
    });
    if let (Some(token), Some(view)) = (token, view.as_object_mut()) {
        view.insert("tokenid".into(), token.into());
    }
    view
}

fn listed(task: &Task) -> Json {
    let mut view = view(task);
    if let (Some(end), Some(exit), Some(fields)) = (task.end, &task.exit, view.as_object_mut()) {
        fields.insert("endtime".into(), end.into());
        fields.insert("status".into(), exit.clone().into());
    }
    view
}

fn no_task(upid: &str) -> Fail {
    let known = upid.starts_with("UPID:") && upid.split(':').count() == 9;
    Fail::parameter("upid", if known { "no such task" } else { "unable to parse worker upid" })
}

/// A task of the caller's own, or any with a privilege on its node.
fn visible(call: &Call, state: &State, task: &Task, privilege: &str) -> bool {
    let own = task.user == call.who.name() || task.user.split('!').next() == Some(call.who.user.as_str());
    own || call.hub.may(state, &call.who, &format!("/nodes/{}", task.node), privilege)
}

fn with_task<T>(call: &Call, privilege: &str, look: impl FnOnce(&Task) -> T) -> Result<T, Fail> {
    let upid = call.text("upid").unwrap_or_default();
    let node = call.text("node").unwrap_or_default();
    let state = call.hub.state();
    let task = state.tasks.get(upid).filter(|t| t.node == node).ok_or_else(|| no_task(upid))?;
    if visible(call, &state, task, privilege) {
        return Ok(look(task));
    }
    Err(Fail::forbidden(format!("Permission check failed (/nodes/{node}, {privilege})")))
}

/// `GET …/tasks/{upid}/status`.
pub(super) fn status(call: &Call) -> Answer {
    let view = with_task(call, "Sys.Audit", |task| {
        let mut view = view(task);
        if let Some(fields) = view.as_object_mut() {
            fields.insert("status".into(), if task.exit.is_some() { "stopped" } else { "running" }.into());
            if let Some(exit) = &task.exit {
                fields.insert("exitstatus".into(), exit.clone().into());
            }
        }
        view
    })?;
    Ok(view.into())
}

/// `GET …/tasks/{upid}/log`.
pub(super) fn log(call: &Call) -> Answer {
    let start = call.number("start").unwrap_or(0) as usize;
    let limit = call.number("limit").unwrap_or(50) as usize;
    let lines = with_task(call, "Sys.Audit", |task| task.log.all())?;
    let total = lines.len();
    let limit = if limit == 0 { total } else { limit };
    let mut page: Vec<Json> = lines
        .iter()
        .enumerate()
        .skip(start)
        .take(limit)
        .map(|(n, t)| json!({ "n": n + 1, "t": t }))
        .collect();
    if total == 0 {
        page.push(json!({ "n": 1, "t": "no content" }));
    }
    let mut reply = Reply::from(Json::Array(page));
    reply.beside.insert("total".into(), total.into());
    Ok(reply)
}

/// `GET …/tasks/{upid}`.
pub(super) fn index() -> Answer {
    Ok(json!([{ "name": "log" }, { "name": "status" }]).into())
}

/// `DELETE …/tasks/{upid}`.
pub(super) fn stop(call: &Call) -> Answer {
    let upid = with_task(call, "Sys.Modify", |task| task.upid.clone())?;
    call.hub.kill(&upid, "interrupted by signal");
    nothing()
}

/// `GET /nodes/{node}/tasks` and `GET /cluster/tasks`.
pub(super) fn list(call: &Call) -> Answer {
    let node = call.text("node");
    let state = call.hub.state();
    let mut tasks: Vec<&Task> = state.tasks.values().filter(|t| node.is_none_or(|n| n == t.node)).collect();
    tasks.sort_by_key(|t| std::cmp::Reverse(t.order));
    let source = call.text("source").unwrap_or(if node.is_some() { "archive" } else { "all" });
    let vmid = call.text("vmid");
    let kind = call.text("typefilter");
    let errors = call.flag("errors");
    let keep = |t: &&&Task| {
        let running = t.exit.is_none();
        let failed = t.exit.as_ref().is_some_and(|e| e != "OK" && !e.starts_with("WARNINGS"));
        (match source {
            "archive" => !running,
            "active" => running,
            _ => true,
        }) && vmid.is_none_or(|v| v == t.id)
            && kind.is_none_or(|k| k == t.kind)
            && (!errors || failed)
    };
    let shown: Vec<Json> = tasks
        .iter()
        .filter(keep)
        .filter(|t| visible(call, &state, t, "Sys.Audit"))
        .map(|t| listed(t))
        .collect();
    drop(state);
    let total = shown.len();
    let start = call.number("start").unwrap_or(0) as usize;
    let limit = call.number("limit").unwrap_or(50) as usize;
    let page: Vec<Json> = shown.into_iter().skip(start).take(limit).collect();
    let mut reply = Reply::from(Json::Array(page));
    reply.beside.insert("total".into(), total.into());
    Ok(reply)
}
