//! The cluster's API, asked with the credentials of an admin.conf.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::{Method, Request};
use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::Value;
use stage::Failure;

/// How long one answer may take.
const ATTEMPT: Duration = Duration::from_secs(10);

/// Why the API did not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ApiError {
    /// It did not answer, or something in between did.
    Away(String),
    /// It refused: the HTTP status and its words.
    Refused(u16, String),
}

impl std::fmt::Display for ApiError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ApiError::Away(why) => f.write_str(why),
            ApiError::Refused(code, why) => write!(f, "it answered {code}: {why}"),
        }
    }
}

impl ApiError {
    /// As the end of a run; what passes by itself is exit 5.
    pub fn failure(&self, doing: impl Into<String>) -> Failure {
        match self {
            ApiError::Refused(400..=403 | 405..=408 | 410..=428, _) => Failure::precondition(doing),
            _ => Failure::transient(doing),
        }
        .because(self.to_string())
    }
}

/// An answer, and when it was asked for.
type Told = Arc<tokio::sync::Mutex<Option<(Instant, Result<Arc<Value>, ApiError>)>>>;

/// A connection to one API server, or to those behind the VIP.
#[derive(Clone)]
pub struct Api {
    client: Client,
    told: Arc<Mutex<BTreeMap<String, Told>>>,
}

impl Api {
    /// A connection with the credentials of this kubeconfig, to its own server or another one; nothing is sent yet.
    ///
    /// # Errors
    /// Exit 4 when the text is no kubeconfig.
    pub async fn connect(kubeconfig: &str, server: Option<&str>) -> Result<Api, Failure> {
        // Fails only where a provider is there already, which is then as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let doing = "cannot use the cluster's admin.conf";
        let broken = |e: &dyn std::error::Error| Failure::precondition(doing).because(e.to_string());
        let file = Kubeconfig::from_yaml(kubeconfig).map_err(|e| broken(&e))?;
        let mut config = kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
            .await
            .map_err(|e| broken(&e))?;
        if let Some(server) = server {
            config.cluster_url = server.parse().map_err(|e: http::uri::InvalidUri| broken(&e))?;
        }
        // Of that file alone; kube also takes the environment's proxy, which is not the way to one's own cluster.
        config.proxy_url = None;
        config.connect_timeout = Some(ATTEMPT);
        config.default_retry = false;
        let client = Client::try_from(config).map_err(|e| broken(&e))?;
        Ok(Api { client, told: Arc::default() })
    }

    /// The client itself.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        kind: &'static str,
        body: Option<&Value>,
    ) -> Result<String, ApiError> {
        let bytes = body.map(|b| b.to_string().into_bytes()).unwrap_or_default();
        let request = Request::builder().method(method).uri(path).header("content-type", kind).body(bytes);
        let request = request.map_err(|e| ApiError::Away(e.to_string()))?;
        match tokio::time::timeout(ATTEMPT, self.client.request_text(request)).await {
            Err(_) => Err(ApiError::Away(format!("no answer within {} s", ATTEMPT.as_secs()))),
            Ok(Ok(text)) => Ok(text),
            Ok(Err(kube::Error::Api(status))) => {
                Err(ApiError::Refused(status.code, status.message.trim().chars().take(300).collect()))
            }
            Ok(Err(error)) => Err(ApiError::Away(Failure::transient("").caused_by(&error).causes.join(": "))),
        }
    }

    async fn json(
        &self,
        method: Method,
        path: &str,
        kind: &'static str,
        body: Option<&Value>,
    ) -> Result<Value, ApiError> {
        let text = self.send(method, path, kind, body).await?;
        serde_json::from_str(&text).map_err(|e| ApiError::Away(format!("its answer is no JSON: {e}")))
    }

    /// The text at a path, such as `/readyz`.
    ///
    /// # Errors
    /// When it does not answer with 200.
    pub async fn text(&self, path: &str) -> Result<String, ApiError> {
        self.send(Method::GET, path, "application/json", None).await
    }

    /// What a path holds.
    ///
    /// # Errors
    /// When it does not answer with 200.
    pub async fn get(&self, path: &str) -> Result<Value, ApiError> {
        self.json(Method::GET, path, "application/json", None).await
    }

    /// What a path holds; `None` when there is nothing.
    ///
    /// # Errors
    /// When it answers with anything but 200 and 404.
    pub async fn find(&self, path: &str) -> Result<Option<Value>, ApiError> {
        match self.get(path).await {
            Ok(value) => Ok(Some(value)),
            Err(ApiError::Refused(404, _)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// What a path held at some moment since this was called: who waits side by side for news of one list shares its
    /// answers, a hundred joins do not ask a hundred times for a hundred objects.
    ///
    /// # Errors
    /// When it does not answer with 200.
    pub async fn lately(&self, path: &str) -> Result<Arc<Value>, ApiError> {
        let called = Instant::now();
        let told = {
            let mut all = self.told.lock().unwrap_or_else(PoisonError::into_inner);
            all.entry(path.to_owned()).or_default().clone()
        };
        let mut told = told.lock().await;
        match told.as_ref() {
            Some((asked, answer)) if *asked >= called => answer.clone(),
            _ => {
                let asked = Instant::now();
                let answer = self.get(path).await.map(Arc::new);
                told.insert((asked, answer)).1.clone()
            }
        }
    }

    /// Creates an object.
    ///
    /// # Errors
    /// When it is not created.
    pub async fn create(&self, path: &str, object: &Value) -> Result<(), ApiError> {
        self.json(Method::POST, path, "application/json", Some(object)).await.map(drop)
    }

    /// Puts an object in place of the one that is there, unless that changed since it was read.
    ///
    /// # Errors
    /// When it is not replaced.
    pub async fn replace(&self, path: &str, object: &Value) -> Result<(), ApiError> {
        self.json(Method::PUT, path, "application/json", Some(object)).await.map(drop)
    }

    /// Applies an object (server-side), taking over the fields.
    ///
    /// # Errors
    /// When it is not applied.
    pub async fn apply(&self, path: &str, manager: &str, object: &Value) -> Result<(), ApiError> {
        let path = format!("{path}?fieldManager={manager}&force=true");
        self.json(Method::PATCH, &path, "application/apply-patch+yaml", Some(object)).await.map(drop)
    }

    /// Merges a patch (RFC 7396) into an object.
    ///
    /// # Errors
    /// When it is not merged.
    pub async fn merge(&self, path: &str, manager: &str, patch: &Value) -> Result<(), ApiError> {
        let path = format!("{path}?fieldManager={manager}");
        self.json(Method::PATCH, &path, "application/merge-patch+json", Some(patch)).await.map(drop)
    }

    /// Deletes an object; false when it was gone.
    ///
    /// # Errors
    /// When it is not deleted.
    pub async fn delete(&self, path: &str) -> Result<bool, ApiError> {
        match self.json(Method::DELETE, path, "application/json", None).await {
            Ok(_) => Ok(true),
            Err(ApiError::Refused(404, _)) => Ok(false),
            Err(error) => Err(error),
        }
    }
}
