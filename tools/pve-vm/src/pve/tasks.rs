//! Tasks: polled on the node that runs them, until they end.

use std::time::{Duration, Instant};

use serde_json::Value;
use stage::Ctx;

use super::client::{Client, encode, passing};
use super::error::Error;
use super::far::Far;
use super::request::Request;
use super::upid::Upid;
use super::values::{list, text};

/// A task may be unknown for a moment after its start; later it is gone.
const UNKNOWN: Duration = Duration::from_secs(5);
/// How long node or network may be in trouble while a task runs.
const TROUBLE: Duration = Duration::from_secs(60);

/// How long a task of this kind may run: those that copy disks take their time.
fn limit(kind: &str) -> Duration {
    match kind {
        "qmclone" | "qmcreate" | "vzcreate" | "download" | "qmmove" | "qmtemplate" => {
            Duration::from_secs(3600)
        }
        _ => Duration::from_secs(300),
    }
}

impl Client {
    /// Sends a request that starts a task and waits for the task's end. An answer without a task is an end too.
    ///
    /// # Errors
    /// As Proxmox, the network or the task says.
    pub async fn run(&self, ctx: &Ctx, request: &Request) -> Result<(), Error> {
        let answer = self.send(request).await?;
        match answer.as_str().and_then(Upid::parse) {
            Some(upid) => self.wait(ctx, &upid).await,
            None => Ok(()),
        }
    }

    /// Waits for a task's end; warnings are told and are no failure.
    ///
    /// # Errors
    /// The task's own error, or that it vanished or takes too long.
    pub async fn wait(&self, ctx: &Ctx, upid: &Upid) -> Result<(), Error> {
        let path = format!("/nodes/{}/tasks/{}", upid.node, encode(&upid.to_string()));
        let start = Instant::now();
        let mut trouble: Option<Instant> = None;
        let mut pause = Duration::from_millis(10);
        let mut far = Far::new();
        loop {
            match self.send(&Request::get(format!("{path}/status"))).await {
                Ok(status) if text(&status, "status").as_deref() == Some("stopped") => {
                    return self.ended(ctx, upid, &path, &status).await;
                }
                Ok(_) => {
                    trouble = None;
                    far.look(self, ctx, upid, &path).await;
                }
                Err(error) => {
                    let since = *trouble.get_or_insert_with(Instant::now);
                    let unknown = error.to_string().contains("no such task");
                    if unknown && since.elapsed() > UNKNOWN {
                        return Err(Error::Vanished { kind: upid.kind.clone(), node: upid.node.clone() });
                    }
                    let node_trouble = passing(&error) || error.status().is_some_and(|s| s >= 500);
                    if !unknown && (!node_trouble || since.elapsed() > TROUBLE) {
                        return Err(error);
                    }
                }
            }
            if start.elapsed() > limit(&upid.kind) {
                return Err(Error::Slow {
                    kind: upid.kind.clone(),
                    node: upid.node.clone(),
                    seconds: start.elapsed().as_secs(),
                });
            }
            let come = far.words.as_ref().map(|words| format!(": {words}")).unwrap_or_default();
            ctx.waiting(format!("task {} of {} on node {}{come}", upid.kind, upid.id, upid.node));
            tokio::time::sleep(pause).await;
            pause = (pause * 3 / 2).min(Duration::from_secs(2));
        }
    }

    async fn ended(&self, ctx: &Ctx, upid: &Upid, path: &str, status: &Value) -> Result<(), Error> {
        let exit = text(status, "exitstatus").unwrap_or_else(|| "unexpected status".to_owned());
        if exit == "OK" {
            return Ok(());
        }
        if exit.starts_with("WARNINGS") {
            let log =
                self.read(Request::get(format!("{path}/log")).with("limit", 500)).await.unwrap_or_default();
            for line in list(&log).iter().filter_map(|l| text(l, "t")).filter(|l| l.starts_with("WARN")) {
                ctx.say(&format!("{} of {} on node {}: {line}", upid.kind, upid.id, upid.node));
            }
            return Ok(());
        }
        let error = Error::Task { kind: upid.kind.clone(), node: upid.node.clone(), exit };
        if error.class() == super::Class::Done { Ok(()) } else { Err(error) }
    }
}
