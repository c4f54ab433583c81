//! The wire: forms, reason phrases, several endpoints, and what pveproxy does to connections.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::Method;
use serde_json::Value;
use stage::Failure;

use super::error::{Class, Error};
use super::fetch::Unusable;
use super::login::Login;
use super::request::{Request, multipart};
use super::tls::{self, Trust, Vouched};

/// How long a whole request may take: pveproxy gives up on a daemon after 30 s (AnyEvent.pm, `timeout => 30`).
pub(super) const PATIENCE: Duration = Duration::from_secs(45);
/// pveproxy cuts idle connections after 5 s; one that we reuse must be younger.
const IDLE: Duration = Duration::from_secs(3);
pub(super) const CONNECT: Duration = Duration::from_secs(5);

#[derive(Clone)]
struct Ticket {
    cookie: String,
    csrf: String,
}

/// A connection to a Proxmox cluster, by any of its endpoints.
pub struct Client {
    http: reqwest::Client,
    endpoints: Vec<String>,
    current: AtomicUsize,
    login: Login,
    ticket: Mutex<Option<Ticket>>,
    vouched: Vouched,
}

impl Client {
    /// A client for these endpoints, such as `https://pve1:8006`; nothing is sent yet.
    ///
    /// # Errors
    /// A sentence that says what is wrong with the trust.
    pub fn new(endpoints: Vec<String>, login: Login, trust: &Trust) -> Result<Client, Unusable> {
        let vouched = Vouched::default();
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls::config(trust, &vouched)?)
            .http1_only()
            .pool_idle_timeout(IDLE)
            .connect_timeout(CONNECT)
            .timeout(PATIENCE)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()?;
        let (current, ticket) = (AtomicUsize::new(0), Mutex::new(None));
        Ok(Client { http, endpoints, current, login, ticket, vouched })
    }

    /// Believes the certificate with this fingerprint too, where one is trusted by its fingerprint: the list of
    /// nodes, which came over a connection that is believed, shows it.
    pub fn vouch(&self, shown: &str) {
        self.vouched.add(shown);
    }

    /// The API's base address on a node with this address.
    pub fn base_at(&self, address: &str) -> String {
        let first = self.endpoints.first().map(String::as_str).unwrap_or_default();
        let port = first.rsplit_once(':').map_or("8006", |(_, port)| port);
        let host = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
        format!("https://{host}:{port}")
    }

    /// Whom a privilege is given to, as options of `pveum acl modify`.
    pub fn grantee(&self) -> String {
        self.login.grantee()
    }

    /// Reads, and tries again where nothing can be doubled: other endpoints, closed connections, node trouble, locks.
    ///
    /// # Errors
    /// As Proxmox or the network says.
    pub async fn read(&self, request: Request) -> Result<Value, Error> {
        let mut pause = Duration::from_millis(100);
        let mut tries = 0;
        loop {
            match self.send(&request).await {
                Err(error) if (error.is_transport() || error.class() == Class::Retry) && tries < 4 => {
                    tracing::debug!("{}: {error}; asking again", request.line());
                    tries += 1;
                    tokio::time::sleep(pause).await;
                    pause *= 2;
                }
                result => return result,
            }
        }
    }

    /// Sends once; a connection that does not come about is tried at every endpoint.
    ///
    /// # Errors
    /// As Proxmox or the network says.
    pub async fn send(&self, request: &Request) -> Result<Value, Error> {
        let mut last = None;
        if let Some(base) = &request.at {
            match self.authorised(base, request).await {
                // The node may have no address that can be reached from here: the others pass it on.
                Err(Error::Silent { why, unsent: true, .. }) => {
                    tracing::debug!("{}: not asked at {base}: {why}", request.line());
                }
                result => return result,
            }
        }
        for _ in 0..self.endpoints.len().max(1) {
            let at = self.current.load(Ordering::Relaxed) % self.endpoints.len().max(1);
            let base = self.endpoints.get(at).map(String::as_str).unwrap_or_default();
            match self.authorised(base, request).await {
                Err(error @ Error::Silent { .. }) => {
                    let next = (at + 1) % self.endpoints.len().max(1);
                    // Another task may have moved on already.
                    let _ = self.current.compare_exchange(at, next, Ordering::Relaxed, Ordering::Relaxed);
                    if !matches!(error, Error::Silent { unsent: true, .. }) {
                        return Err(error);
                    }
                    last = Some(error);
                }
                result => return result,
            }
        }
        Err(last.unwrap_or_else(|| Error::Silent {
            request: request.line(),
            why: "there is no endpoint".to_owned(),
            unsent: true,
        }))
    }

    async fn authorised(&self, base: &str, request: &Request) -> Result<Value, Error> {
        let Login::Password { user, password } = &self.login else {
            return self.exchange(base, request, None).await;
        };
        let known = self.lock().clone();
        let fresh = known.is_none();
        let ticket = match known {
            Some(ticket) => ticket,
            None => self.log_in(base, user, password).await?,
        };
        match self.exchange(base, request, Some(&ticket)).await {
            // A ticket lives two hours (AccessControl.pm); one renewal is tried, with the password.
            Err(error) if error.status() == Some(401) && !fresh => {
                let ticket = self.log_in(base, user, password).await?;
                drop(error);
                self.exchange(base, request, Some(&ticket)).await
            }
            result => result,
        }
    }

    async fn log_in(&self, base: &str, user: &str, password: &str) -> Result<Ticket, Error> {
        let request = Request::post("/access/ticket").with("username", user).with("password", password);
        let answer = self.exchange(base, &request, None).await?;
        let text = |field: &str| answer.get(field).and_then(Value::as_str).map(str::to_owned);
        let strange = |why: &str| Error::Strange { request: request.line(), why: why.to_owned() };
        if answer.get("NeedTFA").is_some_and(|v| v == 1 || v == "1") {
            return Err(strange("the user needs a second factor; use an API token"));
        }
        let cookie = text("ticket").ok_or_else(|| strange("there is no ticket in it"))?;
        let csrf = text("CSRFPreventionToken").ok_or_else(|| strange("there is no CSRF token in it"))?;
        let ticket = Ticket { cookie, csrf };
        *self.lock() = Some(ticket.clone());
        Ok(ticket)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Ticket>> {
        self.ticket.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    async fn exchange(&self, base: &str, request: &Request, ticket: Option<&Ticket>) -> Result<Value, Error> {
        let url = format!("{base}/api2/json{}", request.path);
        let mut call = self.http.request(request.method.clone(), &url);
        // GET and DELETE must have no body (501 otherwise); the form encodes every ';' and '=' of a value.
        call = match request.method {
            Method::GET | Method::DELETE if request.fields.is_empty() => call,
            Method::GET | Method::DELETE => call.query(&request.fields),
            _ => match &request.upload {
                Some(upload) => {
                    let (body, length) = upload.content.body().await.map_err(|e| Error::Strange {
                        request: request.line(),
                        why: format!("the file to send cannot be read: {e}"),
                    })?;
                    let patience = PATIENCE + Duration::from_secs(length >> 20);
                    call.timeout(patience).multipart(multipart(request, &upload.name, body, length))
                }
                None => call.form(&request.fields),
            },
        };
        if let (Login::Token(token), true) = (&self.login, ticket.is_none()) {
            call = call.header("Authorization", format!("PVEAPIToken={token}"));
        }
        if let Some(ticket) = ticket {
            call = call.header("Cookie", format!("PVEAuthCookie={}", escape(&ticket.cookie)));
            if request.method != Method::GET {
                call = call.header("CSRFPreventionToken", &ticket.csrf);
            }
        }
        tracing::debug!("{} {url}", request.method);
        let silent = |e: reqwest::Error| Error::Silent {
            request: request.line(),
            unsent: e.is_connect(),
            why: told(&e.without_url()),
        };
        let response = call.send().await.map_err(silent)?;
        let status = response.status().as_u16();
        let phrase = response.extensions().get::<hyper::ext::ReasonPhrase>();
        let phrase = phrase.map(|p| String::from_utf8_lossy(p.as_bytes()).into_owned());
        let phrase = phrase.or_else(|| response.status().canonical_reason().map(str::to_owned));
        let body = response.bytes().await.map_err(silent)?;
        if status < 400 {
            let strange = |why: String| Error::Strange { request: request.line(), why };
            let mut value: Value = serde_json::from_slice(&body).map_err(|e| strange(e.to_string()))?;
            return match value.get_mut("data") {
                Some(data) => Ok(data.take()),
                None => Err(strange("it has no data; is this the API of Proxmox VE?".to_owned())),
            };
        }
        Err(refusal(status, phrase.unwrap_or_default(), &body))
    }
}

/// The message stands in the body since libpve-http-server-perl 5.2.0, before that in the reason phrase alone;
/// some refusals are plain text.
fn refusal(status: u16, phrase: String, body: &[u8]) -> Error {
    let value: Value = serde_json::from_slice(body).unwrap_or_default();
    let message = value.get("message").and_then(Value::as_str).map(|m| m.trim_end().replace('\n', "; "));
    let errors = value.get("errors").and_then(Value::as_object);
    let errors = errors
        .into_iter()
        .flatten()
        .map(|(k, v)| (k.clone(), v.as_str().map(str::to_owned).unwrap_or_else(|| v.to_string())));
    let said = message.filter(|m| !m.is_empty()).unwrap_or(phrase);
    let said = if said.is_empty() { "without a word".to_owned() } else { said };
    Error::Refused { status, said, errors: errors.collect() }
}

/// A ticket in a cookie: base64 and colons stay, what ends a cookie is escaped.
fn escape(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(byte as char),
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}

/// An error of the network and what is behind it, in one line.
fn told(error: &(dyn std::error::Error + 'static)) -> String {
    Failure::internal("").caused_by(error).causes.join(": ")
}

/// Percent-encoded, all but letters, digits and `-._~`.
pub(crate) fn encode(text: &str) -> String {
    escape(text)
}

/// True when trying later may do.
pub(crate) fn passing(error: &Error) -> bool {
    matches!(error.class(), Class::Retry | Class::Unknown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_is_found_wherever_it_stands() {
        let new = br#"{"data":null,"message":"VM is locked (clone)\n"}"#;
        assert_eq!(
            refusal(500, "other".into(), new).to_string(),
            "Proxmox answered 500: VM is locked (clone)"
        );
        let old = br#"{"data":null}"#;
        let error = refusal(500, "VM is locked (clone)".into(), old);
        assert_eq!(
            (error.to_string(), error.class()),
            ("Proxmox answered 500: VM is locked (clone)".into(), Class::Retry)
        );
        let fields = br#"{"data":null,"errors":{"vmid":"VM 101 already exists"},"message":"Parameter verification failed.\n"}"#;
        let error = refusal(400, String::new(), fields);
        assert_eq!(
            error.to_string(),
            "Proxmox answered 400: Parameter verification failed.; vmid: VM 101 already exists"
        );
        assert_eq!(error.class(), Class::Exists);
        assert_eq!(refusal(596, "Connection timed out".into(), b"").class(), Class::Unknown);
    }

    #[test]
    fn segments_carry_task_names() {
        assert_eq!(encode("UPID:a@b!c:"), "UPID%3Aa%40b%21c%3A");
    }
}
