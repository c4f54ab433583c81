//! One request to the API server: sent, judged, and sent again where the fault passes by itself.

use crate::error::{Class, Error, refusal_class};
use bytes::Bytes;
use http::{Request, header};
use kube::client::Body;
use serde::Deserialize;
use serde_json::Value;
use std::time::Duration;
use tokio::time::Instant;

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// An answer takes at most this long: no admission webhook may take more than 30 s (its timeoutSeconds).
const ATTEMPT: Duration = Duration::from_secs(35);

/// A way to one API server.
#[derive(Clone)]
pub(crate) struct Wire {
    pub(crate) client: kube::Client,
    pub(crate) server: String,
    /// How long a request is repeated.
    pub(crate) patience: Duration,
}

/// A refusal, with the parts that later code judges.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Refusal {
    pub(crate) code: u16,
    pub(crate) reason: String,
    pub(crate) message: String,
    pub(crate) details: Details,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Details {
    pub(crate) name: String,
    pub(crate) kind: String,
    pub(crate) causes: Vec<Cause>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Cause {
    pub(crate) reason: String,
    pub(crate) message: String,
    pub(crate) field: String,
}

/// What a request ended in, if not in an answer.
#[derive(Debug)]
pub(crate) enum Fault {
    Refused(Box<Refusal>),
    Other(Error),
}

impl Fault {
    pub(crate) fn into_error(self, doing: &str) -> Error {
        match self {
            Fault::Other(error) => error,
            Fault::Refused(refusal) => Error::Refused {
                doing: doing.to_owned(),
                code: refusal.code,
                reason: refusal.reason,
                message: refusal.message,
            },
        }
    }

    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Fault::Refused(refusal) if refusal.code == 404)
    }
}

impl Refusal {
    fn class(&self) -> Class {
        // A conflict of field managers has its causes, and stays.
        if self.code == 409 && self.details.causes.iter().any(|cause| cause.reason == "FieldManagerConflict")
        {
            return Class::Precondition;
        }
        refusal_class(self.code, &self.reason, &self.message)
    }

    fn from_body(code: u16, body: &[u8]) -> Refusal {
        let mut refusal: Refusal = serde_json::from_slice(body).unwrap_or_default();
        if refusal.message.is_empty() {
            // A proxy, or a path that nobody serves, answers in plain text.
            refusal.message = String::from_utf8_lossy(body).trim().chars().take(500).collect();
        }
        refusal.code = code;
        refusal
    }
}

/// The answer to a request that was granted.
pub(crate) struct Answer {
    pub(crate) code: u16,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn json(&self, doing: &str) -> Result<Value, Error> {
        self.parse(doing)
    }

    pub(crate) fn parse<T: serde::de::DeserializeOwned>(&self, doing: &str) -> Result<T, Error> {
        serde_json::from_slice(&self.body)
            .map_err(|error| Error::Answer { doing: doing.to_owned(), why: error.to_string() })
    }
}

impl Wire {
    /// Sends a request until it is granted, refused for good, or the patience ends.
    ///
    /// Only for requests that may be repeated, as are all of this crate.
    pub(crate) async fn call(&self, doing: &str, request: Request<Bytes>) -> Result<Answer, Fault> {
        let begun = Instant::now();
        let mut pause = FIRST_PAUSE;
        loop {
            let left = self.patience.saturating_sub(begun.elapsed());
            let attempt = self.attempt(request.clone(), left.clamp(Duration::from_secs(1), ATTEMPT)).await;
            let (wanted_pause, fault) = match attempt {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err((refusal, after))) => {
                    if refusal.class() != Class::Transient {
                        return Err(Fault::Refused(Box::new(refusal)));
                    }
                    (after, Fault::Refused(Box::new(refusal)))
                }
                Err(source) => {
                    if let Some(error) = self.hopeless(doing, &*source) {
                        return Err(Fault::Other(error));
                    }
                    (None, Fault::Other(self.unreachable(doing, begun.elapsed(), source)))
                }
            };
            let next = wanted_pause.unwrap_or(pause).max(pause);
            if begun.elapsed() + next > self.patience {
                return Err(fault);
            }
            tracing::debug!(doing, pause = ?next, "trying again: {}", said(&fault));
            tokio::time::sleep(next).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn attempt(&self, request: Request<Bytes>, limit: Duration) -> Result<Attempt, BoxError> {
        let exchange = async {
            let response = self.client.send(request.map(Body::from)).await?;
            let code = response.status().as_u16();
            let after = retry_after(response.headers());
            let body = response.into_body().collect_bytes().await?;
            if code < 400 {
                return Ok(Ok(Answer { code, body }));
            }
            Ok(Err((Refusal::from_body(code, &body), after)))
        };
        match tokio::time::timeout(limit, exchange).await {
            Ok(done) => done.map_err(plain),
            Err(_) => Err(format!("no answer within {}", crate::error::seconds(limit)).into()),
        }
    }

    fn unreachable(&self, doing: &str, after: Duration, source: BoxError) -> Error {
        Error::Unreachable { doing: doing.to_owned(), server: self.server.clone(), after, source }
    }

    /// An error that no repetition mends: a certificate or credentials.
    fn hopeless(&self, doing: &str, error: &(dyn std::error::Error + 'static)) -> Option<Error> {
        let mut link = Some(error);
        while let Some(one) = link {
            use rustls::Error::{InvalidCertificate, NoCertificatesPresented};
            if let Some(tls @ (InvalidCertificate(_) | NoCertificatesPresented)) = one.downcast_ref() {
                return Some(Error::Untrusted {
                    doing: doing.to_owned(),
                    server: self.server.clone(),
                    source: Box::<rustls::Error>::new(tls.clone()),
                });
            }
            if let Some(kube::Error::Auth(auth)) = one.downcast_ref::<kube::Error>() {
                let server = self.server.clone();
                return Some(Error::Credentials { server, source: auth.to_string().into() });
            }
            // An io::Error is transparent: its source is that of what it holds.
            link = match one.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
                Some(held) => Some(held),
                None => one.source(),
            };
        }
        None
    }
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type Attempt = Result<Answer, (Refusal, Option<Duration>)>;

/// Without the wrapping, whose text repeats what it wraps.
fn plain(error: kube::Error) -> BoxError {
    match error {
        kube::Error::Service(inner) => inner,
        kube::Error::HyperError(inner) => Box::new(inner),
        other => Box::new(other),
    }
}

fn said(fault: &Fault) -> String {
    match fault {
        Fault::Refused(refusal) => format!("{} {}", refusal.code, refusal.message),
        Fault::Other(error) => error.to_string(),
    }
}

/// The pause that a server asks for, in seconds (RFC 9110, 10.2.3; the API server never sends a date).
pub(crate) fn retry_after(headers: &http::HeaderMap) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?;
    text.trim().parse().ok().map(Duration::from_secs)
}

/// A GET.
pub(crate) fn get(path: &str) -> Request<Bytes> {
    build(Request::get(path).header(header::ACCEPT, "application/json"), Bytes::new())
}

/// A server-side apply; `query` without its question mark.
pub(crate) fn patch(path: &str, query: &str, body: Bytes) -> Request<Bytes> {
    let request = Request::patch(format!("{path}?{query}"))
        .header(header::ACCEPT, "application/json")
        .header(header::CONTENT_TYPE, "application/apply-patch+yaml");
    build(request, body)
}

/// A DELETE with its options.
pub(crate) fn delete(path: &str, options: &Value) -> Request<Bytes> {
    let request = Request::delete(path)
        .header(header::ACCEPT, "application/json")
        .header(header::CONTENT_TYPE, "application/json");
    build(request, Bytes::from(options.to_string()))
}

fn build(request: http::request::Builder, body: Bytes) -> Request<Bytes> {
    // Paths are percent-encoded before they come here, so that the builder cannot fail; if it did, the server's 404 says so.
    request.body(body).unwrap_or_else(|_| Request::new(Bytes::new()))
}

/// A part of a path or a query, percent-encoded (RFC 3986: all but the unreserved characters).
pub(crate) fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_classed() {
        let typed = br#"{"kind":"Status","message":"failed to create typed patch object (/d; apps/v1, Kind=Deployment): .spec.replicaz: field not declared in schema","code":500}"#;
        assert_eq!(Refusal::from_body(500, typed).class(), Class::Precondition);
        assert_eq!(
            Refusal::from_body(500, br#"{"message":"etcdserver: request timed out"}"#).class(),
            Class::Transient
        );
        assert_eq!(Refusal::from_body(503, b"service unavailable\n").class(), Class::Transient);
        let conflict = br#"{"reason":"Conflict","message":"Apply failed","details":{"causes":[{"reason":"FieldManagerConflict","message":"conflict with \"m1\"","field":".data.k"}]}}"#;
        assert_eq!(Refusal::from_body(409, conflict).class(), Class::Precondition);
        assert_eq!(Refusal::from_body(409, br#"{"reason":"Conflict"}"#).class(), Class::Transient);
        let plain = Refusal::from_body(404, b"404 page not found\n");
        assert_eq!((plain.class(), plain.message.as_str()), (Class::Precondition, "404 page not found"));
    }

    #[test]
    fn parts_of_paths_cannot_leave_their_place() {
        assert_eq!(encode("system:node"), "system%3Anode");
        assert_eq!(encode("../a?b#c/d e"), "..%2Fa%3Fb%23c%2Fd%20e");
    }
}
