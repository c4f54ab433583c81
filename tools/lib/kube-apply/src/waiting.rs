//! Waiting for evidence, with a deadline, saying what is lacking.

use crate::cluster::Cluster;
use crate::discovery::Resource;
use crate::error::{Class, Error};
use crate::health::{self, Health};
use crate::wait::Wait;
use crate::{reasons, wire};
use futures::StreamExt;
use kube::api::WatchEvent;
use serde_json::Value;
use std::time::Duration;
use tokio::time::Instant;

/// A watch that says nothing for so long is looked behind: an event about a pod changes no object that is watched.
const LOOK_AGAIN: Duration = Duration::from_secs(10);
/// The first pause where there is nothing to watch, as before a kind exists; it doubles.
const PAUSE: Duration = Duration::from_millis(100);

/// A collection that is looked at, and the version at which it was.
struct Look {
    path: String,
    query: String,
    version: String,
}

impl Cluster {
    /// Waits until it is there, at most until the deadline; `say` hears what is lacking, whenever that changes.
    ///
    /// An API server that does not answer meanwhile is waited for, too.
    pub async fn wait(&self, what: &Wait, deadline: Duration, say: impl Fn(&str)) -> Result<(), Error> {
        let begun = Instant::now();
        let mut last = String::new();
        let looking = self.look_until_ready(what, |reason| {
            if *reason != last {
                say(&format!("waiting for {what}: {reason}"));
                last = reason.to_owned();
            }
        });
        match tokio::time::timeout(deadline, looking).await {
            Ok(done) => done,
            Err(_) => {
                let reason = if last.is_empty() { "the API server did not answer".to_owned() } else { last };
                Err(Error::NotReady { what: what.to_string(), reason, after: begun.elapsed() })
            }
        }
    }

    /// Waits for several at once, with one deadline for all; the first that fails ends it.
    pub async fn wait_all(&self, what: &[Wait], deadline: Duration, say: impl Fn(&str)) -> Result<(), Error> {
        let each = what.iter().map(|one| self.wait(one, deadline, &say));
        futures::future::try_join_all(each).await.map(drop)
    }

    /// Whether it is there now; if not, what is lacking.
    pub async fn ready(&self, what: &Wait) -> Result<Result<(), String>, Error> {
        let (health, objects, _) = self.look(what).await?;
        Ok(match health {
            Health::Ready => Ok(()),
            Health::Failed(reason) => Err(reason),
            Health::Waiting(reason) => Err(self.explained(what, &objects, reason).await.0),
        })
    }

    async fn look_until_ready(&self, what: &Wait, mut say: impl FnMut(&str)) -> Result<(), Error> {
        let mut pause = PAUSE;
        loop {
            let (health, objects, look) = match self.look(what).await {
                Ok(found) => found,
                Err(error) if matches!(error.class(), Class::Unreachable | Class::Transient) => {
                    say(&error.to_string());
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LOOK_AGAIN);
                    continue;
                }
                Err(error) => return Err(error),
            };
            let reason = match health {
                Health::Ready => return Ok(()),
                Health::Failed(reason) => return Err(Error::Failed { what: what.to_string(), reason }),
                Health::Waiting(reason) => reason,
            };
            let (reason, pods) = self.explained(what, &objects, reason).await;
            say(&reason);
            let begun = Instant::now();
            let looks: Vec<Look> = look.into_iter().chain(pods).collect();
            let seen = !looks.is_empty() && self.change(&looks).await;
            // A watch that ends at once, or none, must not become a busy loop.
            if !seen && begun.elapsed() < PAUSE {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LOOK_AGAIN);
            } else {
                pause = PAUSE;
            }
        }
    }

    async fn look(&self, what: &Wait) -> Result<(Health, Vec<Value>, Option<Look>), Error> {
        let (api_version, kind, namespace, name) = what.target();
        let Some(resource) = self.resource(api_version, kind).await? else {
            self.discovery.forget_absent(&[(api_version.to_owned(), kind.to_owned())]);
            let health = match what {
                Wait::Gone { .. } => Health::Ready,
                _ => Health::Waiting(format!("the cluster has no kind {kind} in {api_version} yet")),
            };
            return Ok((health, Vec::new(), None));
        };
        let query =
            name.map(|name| format!("fieldSelector={}", wire::encode(&format!("metadata.name={name}"))));
        let (objects, look) = self.collection(&resource, (api_version, kind), namespace, query).await?;
        Ok((health::judge(what, &objects), objects, look))
    }

    async fn collection(
        &self,
        resource: &Resource,
        (api_version, kind): (&str, &str),
        namespace: Option<&str>,
        query: Option<String>,
    ) -> Result<(Vec<Value>, Option<Look>), Error> {
        let path = resource.collection(api_version, namespace);
        let query = query.unwrap_or_default();
        let (objects, version) = self.list_at(&path, &query, (api_version, kind)).await?;
        let look = (!version.is_empty()).then_some(Look { path, query, version });
        Ok((objects, look))
    }

    /// The reason with what pods and events add to it; they are no more than explanation, so that their own errors are not ours.
    async fn explained(&self, what: &Wait, objects: &[Value], reason: String) -> (String, Option<Look>) {
        let (_, _, Some(namespace), Some(name)) = what.target() else { return (reason, None) };
        let is_claim = matches!(what, Wait::Pvc { .. });
        let Some(object) = objects.first().filter(|_| is_claim || what.has_pods()) else {
            return (reason, None);
        };
        let (mut names, mut more, mut look) = (vec![name.to_owned()], None, None);
        if let (Some(selector), Ok(Some(pods))) =
            (reasons::selector(object), self.resource("v1", "Pod").await)
        {
            let query = format!("labelSelector={}", wire::encode(&selector));
            if let Ok((pods, seen)) =
                self.collection(&pods, ("v1", "Pod"), Some(namespace), Some(query)).await
            {
                let pod_name =
                    |pod: &Value| pod.pointer("/metadata/name").and_then(Value::as_str).map(str::to_owned);
                names.extend(pods.iter().filter_map(pod_name));
                more = reasons::of_pods(&pods);
                look = seen;
            }
        }
        let events = self.list("v1", "Event", Some(namespace), None).await.unwrap_or_default();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let warning = reasons::last_warning(&events, &names, more.as_deref().unwrap_or_default());
        let parts = [Some(reason), more, warning];
        (parts.into_iter().flatten().collect::<Vec<_>>().join("; "), look)
    }

    /// Watches collections until one changes, or it is time to look again; whether one changed.
    async fn change(&self, looks: &[Look]) -> bool {
        let watches = looks.iter().map(|look| Box::pin(self.watch(look)));
        tokio::time::timeout(LOOK_AGAIN, futures::future::select_all(watches))
            .await
            .is_ok_and(|(changed, _, _)| changed)
    }

    async fn watch(&self, look: &Look) -> bool {
        let and = if look.query.is_empty() { "" } else { "&" };
        let target = format!(
            "{}?{}{and}watch=true&timeoutSeconds={}&resourceVersion={}",
            look.path,
            look.query,
            LOOK_AGAIN.as_secs() + 5,
            wire::encode(&look.version)
        );
        let request = wire::get(&target).map(|body| body.to_vec());
        let Ok(events) = self.wire.client.request_events::<Value>(request).await else { return false };
        let mut events = std::pin::pin!(events);
        while let Some(event) = events.next().await {
            match event {
                Ok(WatchEvent::Bookmark(_)) => {}
                Ok(WatchEvent::Added(_) | WatchEvent::Modified(_) | WatchEvent::Deleted(_)) => return true,
                // A version that is too old, or a stream that broke: the next look has a new one.
                Ok(WatchEvent::Error(_)) | Err(_) => return false,
            }
        }
        false
    }
}
