//! Requests: parsed, recorded, faulted, and handed to what answers them.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::api;
use super::auth::{self, Identity};
use super::cluster::Cluster;
use super::discovery;
use super::server::{Body, Dropped};
use super::status::Status;
use crate::faults::Action;
use crate::journal::Window;

/// The most that a body may have.
const LIMIT: usize = 16 << 20;

/// A request, read.
#[derive(Debug)]
pub(crate) struct Asked {
    pub method: Method,
    pub path: String,
    pub query: BTreeMap<String, String>,
    pub accept: String,
    pub content_type: String,
    pub agent: String,
    pub identity: Identity,
    pub body: Bytes,
}

impl Asked {
    /// A query parameter; empty when it is not given.
    pub(crate) fn param(&self, name: &str) -> &str {
        self.query.get(name).map_or("", String::as_str)
    }

    /// True for `true` and `1`.
    pub(crate) fn flag(&self, name: &str) -> bool {
        matches!(self.param(name), "true" | "1")
    }
}

/// An answer, before it is bytes.
pub(crate) enum Answer {
    /// JSON, or for a string plain text.
    Value { code: u16, value: Value, warnings: Vec<String>, content_type: Option<String> },
    /// A watch.
    Stream(Body),
}

impl Answer {
    /// Success with an object.
    pub(crate) fn ok(value: Value) -> Answer {
        Answer::Value { code: 200, value, warnings: Vec::new(), content_type: None }
    }

    fn refused(status: Status) -> Answer {
        Answer::Value { code: status.code, value: status.body, warnings: Vec::new(), content_type: None }
    }

    fn into_response(self) -> Response<Body> {
        let (code, value, warnings, content_type) = match self {
            Answer::Stream(body) => {
                let mut response = Response::new(body);
                response
                    .headers_mut()
                    .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
                return response;
            }
            Answer::Value { code, value, warnings, content_type } => (code, value, warnings, content_type),
        };
        let (text, kind) = match value {
            Value::String(text) => (text, "text/plain; charset=utf-8".to_owned()),
            other => (other.to_string(), content_type.unwrap_or_else(|| "application/json".into())),
        };
        let mut response = Response::new(Full::new(Bytes::from(text)).boxed_unsync());
        *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        if let Ok(kind) = HeaderValue::from_str(&kind) {
            response.headers_mut().insert(header::CONTENT_TYPE, kind);
        }
        for warning in warnings {
            let text = warning.replace('\\', "\\\\").replace('"', "\\\"");
            if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{text}\"")) {
                response.headers_mut().append(header::WARNING, value);
            }
        }
        response
    }
}

/// Answers one request.
pub(crate) async fn handle(
    cluster: Arc<Cluster>,
    host: Arc<str>,
    identity: Identity,
    stop: CancellationToken,
    request: Request<Incoming>,
) -> Result<Response<Body>, Dropped> {
    let (parts, body) = request.into_parts();
    let text = |name: header::HeaderName| {
        parts.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned()
    };
    let Ok(body) = Limited::new(body, LIMIT).collect().await else {
        return Ok(Answer::refused(Status::text(413, "request body too large")).into_response());
    };
    let query = parts.uri.query().unwrap_or_default();
    let bearer = text(header::AUTHORIZATION);
    let identity = match (identity, bearer.strip_prefix("Bearer ")) {
        (Identity::Anonymous, Some(token)) => cluster.with(|store| Identity::of_token(store, token.trim())),
        (identity, _) => identity,
    };
    let asked = Asked {
        method: parts.method.clone(),
        path: parts.uri.path().to_owned(),
        query: parse_query(query),
        accept: text(header::ACCEPT),
        content_type: text(header::CONTENT_TYPE),
        agent: text(header::USER_AGENT),
        identity,
        body: body.to_bytes(),
    };
    let line = format!("{} {}", asked.method, asked.path);
    let full = if query.is_empty() { line.clone() } else { format!("{line}?{query}") };
    if worth_recording(&asked) {
        cluster.world.journal.record(Window::Kube, &host, &line, is_changing(&asked));
    }
    let mut after = None;
    match cluster.world.faults.take(Window::Kube, &host, &full) {
        Some(Action::Status(code, text)) => {
            return Ok(Answer::refused(Status::fault(code, &text)).into_response());
        }
        Some(Action::DropBefore) => return Err(Dropped),
        Some(Action::Hang) => {
            stop.cancelled().await;
            return Err(Dropped);
        }
        Some(Action::Delay(nominal)) => cluster.world.clock.wait(nominal).await,
        Some(other) => after = Some(other),
        None => {}
    }
    let answer = answer(&cluster, &asked, stop);
    if let Answer::Value { code: 501, .. } = &answer {
        cluster.world.journal.record_unknown(Window::Kube, &host, &full);
    }
    match after {
        Some(Action::StatusAfter(code, text)) => {
            Ok(Answer::refused(Status::fault(code, &text)).into_response())
        }
        Some(Action::DropAfter) => Err(Dropped),
        _ => Ok(answer.into_response()),
    }
}

// Health checks come all the time, and a watch that goes on where it was is no new request.
fn worth_recording(asked: &Asked) -> bool {
    let health = ["/readyz", "/livez", "/healthz"].iter().any(|p| asked.path.starts_with(p));
    let resumed = asked.flag("watch") && !matches!(asked.param("resourceVersion"), "" | "0");
    !(resumed || health && asked.identity == Identity::Anonymous)
}

fn is_changing(asked: &Asked) -> bool {
    let review = asked.path.contains("/selfsubject")
        || asked.path.ends_with("accessreviews")
        || asked.path.ends_with("tokenreviews");
    asked.method != Method::GET && asked.method != Method::HEAD && asked.param("dryRun") != "All" && !review
}

fn answer(cluster: &Arc<Cluster>, asked: &Asked, stop: CancellationToken) -> Answer {
    let answered = if asked.path.starts_with("/api/") || asked.path.starts_with("/apis/") {
        api::answer(cluster, asked, stop)
    } else {
        auth::allow_path(&asked.identity, &asked.path).and_then(|()| plain(cluster, asked))
    };
    answered.unwrap_or_else(Answer::refused)
}

fn plain(cluster: &Cluster, asked: &Asked) -> Result<Answer, Status> {
    let path = asked.path.trim_end_matches('/');
    match path {
        "/version" => Ok(Answer::ok(discovery::version(&cluster.with(|s| s.server_version.clone())))),
        "/readyz" | "/livez" | "/healthz" => {
            Ok(Answer::ok(discovery::health(path, asked.query.contains_key("verbose"))))
        }
        "/api" | "/apis" => Ok(cluster.with(|store| discovery::root(store, asked))),
        "/openapi/v3" => Ok(Answer::ok(cluster.with(|store| discovery::openapi_index(store)))),
        "/openapi/v2" => Err(Status::unknown_to_openapi()),
        "" => Ok(Answer::ok(
            serde_json::json!({"paths": ["/api", "/apis", "/healthz", "/livez", "/openapi/v3", "/readyz", "/version"]}),
        )),
        _ => match path.strip_prefix("/openapi/v3/") {
            Some(group) => cluster
                .with(|store| discovery::openapi(store, group))
                .map(Answer::ok)
                .ok_or_else(Status::no_page),
            None if path.starts_with("/readyz/")
                || path.starts_with("/livez/")
                || path.starts_with("/healthz/") =>
            {
                Ok(Answer::ok("ok".into()))
            }
            None if path.starts_with("/metrics") || path.starts_with("/logs") => {
                Err(Status::unknown_to_lab(path))
            }
            None => Err(Status::no_page()),
        },
    }
}

fn parse_query(query: &str) -> BTreeMap<String, String> {
    query
        .split('&')
        .filter(|part| !part.is_empty())
        .map(|part| part.split_once('=').unwrap_or((part, "")))
        .map(|(name, value)| (decode(name), decode(value)))
        .collect()
}

/// Percent-decoding, with `+` for a space.
pub(crate) fn decode(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let bytes = text.as_bytes();
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let hex = text.get(at + 1..at + 3).and_then(|h| u8::from_str_radix(h, 16).ok());
        match (byte, hex) {
            (b'%', Some(value)) => {
                out.push(value);
                at += 2;
            }
            (b'+', _) => out.push(b' '),
            _ => out.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}
