//! The program behind a proxy, as a site without a way out of its own has one.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Output};
use std::sync::mpsc;
use std::thread;

use serde_json::json;
use sha2::{Digest as _, Sha256};

const MANIFEST: &str = include_str!("golden/tigera-operator.yaml");

/// Answers every request with the manifest and tells its first line: absolute where it is a proxy that is asked.
fn serve() -> (String, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap().to_string();
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            tell.send(answer(stream.unwrap())).unwrap();
        }
    });
    (at, told)
}

fn answer(mut stream: TcpStream) -> String {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
    let first = lines.next().unwrap_or_default();
    lines.find(String::is_empty);
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", MANIFEST.len());
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(MANIFEST.as_bytes()).unwrap();
    first
}

/// `cni-install render` of a document whose manifest is at that address.
fn render(url: &str, variables: &[(&str, &str)]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let digest: String = Sha256::digest(MANIFEST).iter().map(|byte| format!("{byte:02x}")).collect();
    let document = json!({"apiVersion": "kubeline/v1", "kind": "Cluster", "metadata": {"name": "p"}, "spec": {
        "kubernetes": {"version": "1.36.2", "podCidr": "10.244.0.0/16", "serviceCidr": "10.96.0.0/12", "kubeconfig": "k"},
        "cni": {}, "artifacts": [{"name": "tigera-operator", "url": url, "sha256": digest}]}});
    let file = folder.path().join("cluster.json");
    std::fs::write(&file, document.to_string()).unwrap();
    Command::new(env!("CARGO_BIN_EXE_cni-install"))
        .args(["render", "-f"])
        .arg(&file)
        .current_dir(folder.path())
        .env_clear()
        .env("XDG_CACHE_HOME", folder.path())
        .envs(variables.iter().copied())
        .output()
        .unwrap()
}

#[test]
fn the_environments_proxy_is_used_but_where_it_is_not_to_be() {
    let (proxy, asked) = serve();
    let with = format!("http://{proxy}");
    // A name that nobody has: only a proxy can be asked for it.
    let far = "http://artefacts.invalid/tigera-operator.yaml";
    let done = render(far, &[("HTTP_PROXY", &with), ("http_proxy", &with)]);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    assert!(String::from_utf8_lossy(&done.stdout).contains("kind: Installation"));
    assert_eq!(asked.recv().unwrap(), format!("GET {far} HTTP/1.1"));

    let (site, visited) = serve();
    let near = format!("http://{site}/tigera-operator.yaml");
    let without = [
        ("HTTP_PROXY", with.as_str()),
        ("http_proxy", &with),
        ("NO_PROXY", "127.0.0.1"),
        ("no_proxy", "127.0.0.1"),
    ];
    let done = render(&near, &without);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    assert_eq!(visited.recv().unwrap(), "GET /tigera-operator.yaml HTTP/1.1");
    assert!(asked.try_recv().is_err(), "the proxy was asked although NO_PROXY names the site");
}
