//! The lab's own door for people and scripts: what there is, and switches for Proxmox nodes and faults.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::lab::Lab;
use crate::{Action, Fault, Window};

/// Serves the door on the lab's own network and writes its address to `control` in the lab's directory.
///
/// # Errors
/// An address in use, a directory that cannot be written.
pub async fn serve(lab: Arc<Lab>) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind((lab.world.net.host(253), 0)).await?;
    let address = listener.local_addr()?;
    std::fs::write(lab.dir().join("control"), format!("{address}\n"))?;
    let router = Router::new()
        .route("/status", get(status))
        .route("/journal", get(journal))
        .route("/node/off", post(node_off))
        .route("/node/on", post(node_on))
        .route("/fault", post(fault))
        .with_state(lab);
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(address)
}

async fn status(State(lab): State<Arc<Lab>>) -> Json<Value> {
    let nodes: Vec<Value> =
        lab.pve.nodes().iter().map(|n| json!({ "name": n, "on": lab.pve.node_is_on(n) })).collect();
    Json(json!({
        "nodes": nodes,
        "guests": lab.pve.view(),
        "vip": { "address": lab.world.net.host(10), "holders": lab.hosts.holders(lab.world.net.host(10)) },
        "journal": lab.world.journal.len(),
        "unknown": lab.world.journal.unknown(),
    }))
}

#[derive(Deserialize)]
struct Since {
    #[serde(default)]
    since: usize,
    #[serde(default)]
    changing: bool,
}

async fn journal(State(lab): State<Arc<Lab>>, Query(query): Query<Since>) -> Json<Value> {
    let entries = if query.changing {
        lab.world.journal.changing_since(query.since)
    } else {
        lab.world.journal.since(query.since)
    };
    Json(json!({ "entries": entries, "next": lab.world.journal.len() }))
}

#[derive(Deserialize)]
struct Node {
    name: String,
}

async fn node_off(State(lab): State<Arc<Lab>>, Query(node): Query<Node>) -> (StatusCode, Json<Value>) {
    if !lab.pve.nodes().contains(&node.name) {
        return unknown(&node.name);
    }
    lab.pve.node_off(&node.name);
    (StatusCode::OK, Json(json!({ "node": node.name, "on": false })))
}

async fn node_on(State(lab): State<Arc<Lab>>, Query(node): Query<Node>) -> (StatusCode, Json<Value>) {
    if !lab.pve.nodes().contains(&node.name) {
        return unknown(&node.name);
    }
    match lab.pve.node_on(&node.name) {
        Ok(()) => (StatusCode::OK, Json(json!({ "node": node.name, "on": true }))),
        Err(e) => (StatusCode::INTERNAL_SERVER_ERROR, Json(json!({ "error": e.to_string() }))),
    }
}

fn unknown(name: &str) -> (StatusCode, Json<Value>) {
    (StatusCode::NOT_FOUND, Json(json!({ "error": format!("there is no Proxmox node {name}") })))
}

#[derive(Deserialize)]
struct FaultQuery {
    window: String,
    matching: String,
    #[serde(default)]
    skip: usize,
    #[serde(default = "once")]
    times: usize,
    action: String,
    #[serde(default)]
    text: String,
    #[serde(default)]
    code: i32,
}

fn once() -> usize {
    1
}

async fn fault(State(lab): State<Arc<Lab>>, Query(query): Query<FaultQuery>) -> (StatusCode, Json<Value>) {
    let window = match query.window.as_str() {
        "pve" => Window::Pve,
        "ssh" => Window::Ssh,
        "kube" => Window::Kube,
        other => return (StatusCode::BAD_REQUEST, Json(json!({ "error": format!("no window {other}") }))),
    };
    let code = u16::try_from(query.code).unwrap_or(500);
    let action = match query.action.as_str() {
        "status" => Action::Status(code, query.text),
        "status-after" => Action::StatusAfter(code, query.text),
        "drop-before" => Action::DropBefore,
        "drop-after" => Action::DropAfter,
        "hang" => Action::Hang,
        "task-end" => Action::TaskEnd(query.text),
        "exit" => Action::Exit(query.code, query.text),
        other => return (StatusCode::BAD_REQUEST, Json(json!({ "error": format!("no action {other}") }))),
    };
    lab.world.faults.inject(Fault {
        window,
        matching: query.matching,
        skip: query.skip,
        times: query.times,
        action,
    });
    (StatusCode::OK, Json(json!({ "faults": "injected" })))
}
