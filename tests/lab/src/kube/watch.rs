//! Watches: changes as a stream of lines.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::cluster::Cluster;
use super::resources::Resource;
use super::selectors::Selector;
use super::server::Body;
use super::status::Status;
use super::store::Event;
use super::verbs::served;

/// Shows an object; true for the first of a stream.
pub(crate) type Show = Box<dyn Fn(&Resource, Value, bool) -> Value + Send + Sync>;

/// What is watched.
pub(crate) struct Watch {
    pub res: Resource,
    pub ns: Option<String>,
    pub labels: Selector,
    pub fields: Selector,
    /// Empty or `0`: what is there now comes first.
    pub from: String,
    /// A bookmark ends what is there now.
    pub initial: bool,
    pub bookmarks: bool,
    pub timeout: Option<Duration>,
    /// How an object is shown (whole, as a Table, its metadata alone).
    pub show: Show,
}

impl Watch {
    fn matches(&self, object: &Value) -> bool {
        self.ns.as_deref().is_none_or(|ns| object["metadata"]["namespace"] == ns)
            && self.labels.matches(&object["metadata"]["labels"])
            && self.fields.matches_fields(object)
    }

    fn bookmark(&self, version: u64, ends_initial: bool) -> Value {
        let mut object = json!({"kind": self.res.kind, "apiVersion": self.res.api_version(),
            "metadata": {"resourceVersion": version.to_string(), "creationTimestamp": null}});
        if ends_initial {
            object["metadata"]["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        json!({"type": "BOOKMARK", "object": object})
    }
}

/// Starts a watch and gives the body that carries it.
pub(crate) fn start(cluster: Arc<Cluster>, watch: Watch, stop: CancellationToken) -> Body {
    let (send, receive) = mpsc::channel(64);
    tokio::spawn(async move {
        let timeout = watch.timeout.unwrap_or(Duration::from_secs(3600));
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(timeout) => {}
            _ = follow(&cluster, &watch, &send) => {}
            () = send.closed() => {}
        }
    });
    let lines = futures::stream::unfold(receive, |mut receive| async {
        let line: Bytes = receive.recv().await?;
        Some((Ok(Frame::data(line)), receive))
    });
    StreamBody::new(lines).boxed_unsync()
}

async fn follow(cluster: &Cluster, watch: &Watch, send: &mpsc::Sender<Bytes>) -> Option<()> {
    let mut changes = cluster.changes();
    let store_name = watch.res.store();
    let mut at;
    if watch.from.is_empty() || watch.from == "0" || watch.initial {
        let (version, now) = cluster.with(|store| {
            let now: Vec<Value> = store
                .list(&store_name, watch.ns.as_deref())
                .filter(|o| watch.matches(o))
                .map(|o| served(&watch.res, o))
                .collect();
            (store.version(), now)
        });
        at = version;
        for (i, object) in now.into_iter().enumerate() {
            line(send, json!({"type": "ADDED", "object": (watch.show)(&watch.res, object, i == 0)})).await?;
        }
        if watch.initial {
            line(send, watch.bookmark(version, true)).await?;
        }
    } else {
        at = watch.from.parse().unwrap_or(0);
    }
    let mut bookmarks = tokio::time::interval(Duration::from_secs(60));
    bookmarks.tick().await;
    loop {
        changes.borrow_and_update();
        let (version, news) = cluster.with(|store| (store.version(), store.since(&store_name, at)));
        let news = match news {
            Ok(news) => news,
            Err(oldest) => {
                line(send, json!({"type": "ERROR", "object": Status::gone(at, oldest).body})).await?;
                return None;
            }
        };
        for change in news {
            let now = change.event != Event::Deleted && watch.matches(&change.object);
            let before = change.old.as_deref().is_some_and(|o| watch.matches(o));
            let kind = match (before, now) {
                (false, true) => "ADDED",
                (true, true) => "MODIFIED",
                (true, false) => "DELETED",
                (false, false) => continue,
            };
            let object = (watch.show)(&watch.res, served(&watch.res, &change.object), false);
            line(send, json!({"type": kind, "object": object})).await?;
        }
        at = at.max(version);
        tokio::select! {
            changed = changes.changed() => changed.ok()?,
            _ = bookmarks.tick() => {
                if watch.bookmarks {
                    line(send, watch.bookmark(at, false)).await?;
                }
            }
        }
    }
}

async fn line(send: &mpsc::Sender<Bytes>, value: Value) -> Option<()> {
    let mut text = value.to_string();
    text.push('\n');
    send.send(Bytes::from(text)).await.ok()
}
