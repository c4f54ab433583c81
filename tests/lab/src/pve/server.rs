//! The HTTP layer: what pveproxy does before and after a handler runs.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::ext::ReasonPhrase;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Map, Value as Json};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::dispatch::{self, Call};
use super::form::{self, percent_decode};
use super::hub::{Hub, RawRequest};
use super::reply::{Answer, Fail, Reply};
use super::schema::{Value, Values};
use crate::faults::Action;
use crate::journal::Window;

/// Bodies are refused above this (pve-http-server, AnyEvent.pm); uploads have room for a small image.
const MOST: usize = 512 << 10;
const MOST_UPLOAD: usize = 64 << 20;
/// Idle connections are cut after this.
const IDLE: Duration = Duration::from_secs(5);
/// Requests that one connection may carry.
const REQUESTS: usize = 100;
/// pveproxy gives a handler so long, then says 596 while the handler runs on.
const PROXY: Duration = Duration::from_secs(30);
/// Every 401 is delayed so long.
const REFUSAL: Duration = Duration::from_secs(3);

/// Serves one node until told to stop.
pub(super) async fn serve(
    hub: Arc<Hub>,
    node: String,
    listener: TcpListener,
    tls: TlsAcceptor,
    stop: CancellationToken,
) {
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else { continue };
        let (hub, node, tls, stop) = (hub.clone(), node.clone(), tls.clone(), stop.clone());
        tokio::spawn(async move {
            let connection = async {
                let Ok(stream) = tls.accept(stream).await else { return };
                let count = AtomicUsize::new(0);
                let service = service_fn(|request| {
                    let last = count.fetch_add(1, Ordering::Relaxed) + 1 >= REQUESTS;
                    handle(hub.clone(), node.clone(), request, last)
                });
                let mut server = hyper::server::conn::http1::Builder::new();
                server.timer(TokioTimer::new()).header_read_timeout(IDLE).max_headers(64);
                // An error is a client that went away, or a drop that was asked for.
                drop(server.serve_connection(TokioIo::new(stream), service).await);
            };
            tokio::select! {
                () = stop.cancelled() => {}
                () = connection => {}
            }
        });
    }
}

/// The connection is to be cut without an answer.
#[derive(Debug, thiserror::Error)]
#[error("connection cut")]
struct Cut;

async fn handle(
    hub: Arc<Hub>,
    node: String,
    request: Request<Incoming>,
    last: bool,
) -> Result<Response<Full<Bytes>>, Cut> {
    let upload = request.uri().path().ends_with("/upload");
    let answer = respond(&hub, &node, request).await?;
    let refused = answer.is_err();
    let mut response = write(&hub, answer);
    if refused || last || upload {
        response.headers_mut().insert(CONNECTION, http::HeaderValue::from_static("close"));
    }
    Ok(response)
}

async fn respond(hub: &Arc<Hub>, node: &str, request: Request<Incoming>) -> Result<Answer, Cut> {
    let method = request.method().as_str().to_owned();
    let raw = request.uri().path().to_owned();
    let Some(path) = raw.strip_prefix("/api2/json").map(str::to_owned) else {
        hub.world.journal.record_unknown(Window::Pve, node, &format!("{method} {raw}"));
        return Ok(Err(Fail::limit(501, format!("Method '{method} {raw}' not implemented"))));
    };
    let path = if path.is_empty() { "/".to_owned() } else { path };
    let line = format!("{method} {path}");
    let found = hub
        .schema
        .find(&method, &decoded(&path))
        .filter(|(route, _)| dispatch::known(&route.method, &route.path));
    match &found {
        Some((route, _)) => {
            let reads =
                method == "GET" || route.path == "/access/ticket" || route.path.ends_with("/agent/ping");
            hub.world.journal.record(Window::Pve, node, &line, !reads);
        }
        None => drop(hub.world.journal.record_unknown(Window::Pve, node, &line)),
    }

    let fault = hub.world.faults.take(Window::Pve, node, &line);
    let (mut task_end, mut task_end_after) = (None, None);
    match &fault {
        Some(Action::Status(status, text)) => return Ok(Err(Fail::status(*status, text.clone()))),
        Some(Action::DropBefore) => return Err(Cut),
        Some(Action::Hang) => pending::<()>().await,
        Some(Action::Delay(nominal)) => hub.world.clock.wait(*nominal).await,
        Some(Action::Meanwhile(event)) => event.happens(),
        Some(Action::TaskEnd(exit)) => task_end = Some(exit.clone()),
        Some(Action::TaskEndAfter(exit)) => task_end_after = Some(exit.clone()),
        _ => {}
    }
    let answer = execute(hub, node, &path, request, found, (task_end, task_end_after)).await;
    match fault {
        Some(Action::StatusAfter(status, text)) => Ok(Err(Fail::status(status, text))),
        Some(Action::DropAfter) => Err(Cut),
        _ => Ok(answer),
    }
}

fn decoded(path: &str) -> String {
    // Decoded by segment: an encoded slash inside a volume's name does not split it anew, because the
    // volume takes the rest of the path anyway.
    path.split('/').map(|p| percent_decode(p, false)).collect::<Vec<_>>().join("/")
}

async fn execute(
    hub: &Arc<Hub>,
    node: &str,
    path: &str,
    request: Request<Incoming>,
    found: Option<super::schema::Found>,
    (task_end, task_end_after): (Option<String>, Option<String>),
) -> Answer {
    let (parts, body) = request.into_parts();
    let method = parts.method.as_str();
    let header =
        |name| parts.headers.get(name).and_then(|v: &http::HeaderValue| v.to_str().ok()).unwrap_or_default();
    let length: usize = header(CONTENT_LENGTH).parse().unwrap_or(0);
    if header(TRANSFER_ENCODING).contains("chunked") {
        return Err(Fail::limit(501, "chunked transfer encoding not supported"));
    }
    if matches!(method, "GET" | "DELETE") && length > 0 {
        return Err(Fail::limit(501, format!("Unexpected content for method '{method}'")));
    }
    let kind = header(CONTENT_TYPE);
    let multipart = kind.starts_with("multipart/form-data") && path.ends_with("/upload");
    let most = if multipart { MOST_UPLOAD } else { MOST };
    if length > most {
        return Err(Fail::limit(501, "for data too large"));
    }
    let body = Limited::new(body, most)
        .collect()
        .await
        .map_err(|_| Fail::limit(501, "for data too large"))?
        .to_bytes();
    if let Some(raw) = hub.raw().as_mut() {
        let target = parts.uri.path_and_query().map(ToString::to_string).unwrap_or_default();
        let (method, kind) = (method.to_owned(), kind.to_owned());
        raw.push(RawRequest { method, target, kind, body: body.clone() });
    }

    let public = path == "/access/ticket";
    let who = if public { Ok(Default::default()) } else { hub.authenticate(method, &parts.headers) };
    let who = match who {
        Ok(who) => who,
        Err(fail) => {
            hub.world.clock.wait(REFUSAL).await;
            return Err(fail);
        }
    };
    let Some((route, in_path)) = found else { return Err(Fail::unknown(method, &decoded(path))) };

    let (mut values, upload) = match kind.split(';').next().unwrap_or_default().trim() {
        "" | "application/x-www-form-urlencoded" => (form::form(&String::from_utf8_lossy(&body)), None),
        "application/json" if body.is_empty() => (Values::new(), None),
        "application/json" => (form::json(&body)?, None),
        "multipart/form-data" if multipart => {
            let (values, file) = form::multipart(kind, &body)?;
            (values, Some(file))
        }
        other => return Err(Fail::limit(506, format!("upload not implemented for content type '{other}'"))),
    };
    values.extend(form::form(parts.uri.query().unwrap_or_default()));
    for (name, there) in in_path {
        if let Some(Value::One(here)) = values.get(&name)
            && *here != there
        {
            let why = "duplicate parameter (already defined in URI) with conflicting values!";
            return Err(Fail::parameter(&name, why));
        }
        values.insert(name, Value::One(there));
    }
    let call =
        Call { hub: hub.clone(), entry: node.into(), route, values, who, task_end, task_end_after, upload };

    // The handler outlives a client that goes away, and pveproxy's patience.
    let refused_login = public && method == "POST";
    let worker = hub.runtime.spawn(dispatch::run(call));
    let patience = hub.world.clock.real(PROXY);
    let outcome =
        if patience.is_zero() { Ok(worker.await) } else { tokio::time::timeout(patience, worker).await };
    match outcome {
        Ok(Ok(answer)) => {
            if refused_login && answer.is_err() {
                hub.world.clock.wait(REFUSAL).await;
            }
            answer
        }
        Ok(Err(broken)) => Err(Fail::die(format!("the lab's handler broke: {broken}"))),
        Err(_) => Err(Fail::proxy(596, "Connection timed out")),
    }
}

fn write(hub: &Hub, answer: Answer) -> Response<Full<Bytes>> {
    let (status, reason, body, kind) = match answer {
        Ok(Reply { data, beside }) => {
            let mut whole = Map::new();
            whole.insert("data".into(), data);
            whole.extend(beside);
            (200, None, Json::Object(whole).to_string(), "application/json;charset=UTF-8")
        }
        Err(fail) => {
            let (body, kind) = fail.write(hub.config.message_field);
            (fail.status, Some(fail.reason().to_owned()), body, kind)
        }
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static(kind));
    response.headers_mut().insert(http::header::SERVER, http::HeaderValue::from_static("pve-api-daemon/3.0"));
    response.headers_mut().insert(http::header::CACHE_CONTROL, http::HeaderValue::from_static("max-age=0"));
    if let Some(reason) = reason.and_then(|r| ReasonPhrase::try_from(r.into_bytes()).ok()) {
        response.extensions_mut().insert(reason);
    }
    response
}
