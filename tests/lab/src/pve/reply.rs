//! Answers and refusals, as Proxmox puts them on the wire.

use serde_json::{Map, Value as Json, json};

use super::schema::Errors;

/// A good answer: `data` and what stands beside it (`total`).
#[derive(Clone, Debug, Default)]
pub(super) struct Reply {
    pub data: Json,
    pub beside: Map<String, Json>,
}

impl From<Json> for Reply {
    fn from(data: Json) -> Reply {
        Reply { data, beside: Map::new() }
    }
}

impl From<String> for Reply {
    fn from(text: String) -> Reply {
        Json::String(text).into()
    }
}

/// What a handler gives back.
pub(super) type Answer = Result<Reply, Fail>;

/// `data: null`.
pub(super) fn nothing() -> Answer {
    Ok(Json::Null.into())
}

/// How a refusal is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Body {
    /// `{"data":null,"message":…,"errors":…}`.
    Json,
    /// The message as plain text (limits of the HTTP server itself).
    Plain,
    /// Nothing (401, and what a proxy to another node says).
    Empty,
}

/// A refusal.
#[derive(Clone, Debug)]
pub(super) struct Fail {
    pub status: u16,
    pub message: String,
    pub errors: Errors,
    pub body: Body,
}

impl Fail {
    fn new(status: u16, message: impl Into<String>, body: Body) -> Fail {
        Fail { status, message: message.into(), errors: Errors::new(), body }
    }

    /// What any Perl `die` becomes.
    pub fn die(message: impl Into<String>) -> Fail {
        Fail::new(500, message, Body::Json)
    }

    /// A parameter is refused.
    pub fn parameter(name: &str, why: impl Into<String>) -> Fail {
        Fail::parameters([(name.to_owned(), why.into())].into())
    }

    /// Parameters are refused.
    pub fn parameters(errors: Errors) -> Fail {
        Fail { errors, ..Fail::new(400, "Parameter verification failed.\n", Body::Json) }
    }

    /// 403 with this text.
    pub fn forbidden(message: impl Into<String>) -> Fail {
        Fail::new(403, message, Body::Json)
    }

    /// 401 with this text.
    pub fn unauthorized(message: impl Into<String>) -> Fail {
        Fail::new(401, message, Body::Empty)
    }

    /// No such request.
    pub fn unknown(method: &str, path: &str) -> Fail {
        Fail::new(501, format!("Method '{method} {path}' not implemented"), Body::Json)
    }

    /// A limit of the HTTP server.
    pub fn limit(status: u16, message: impl Into<String>) -> Fail {
        Fail::new(status, message, Body::Plain)
    }

    /// Trouble between nodes: 595 connect, 596 time-out.
    pub fn proxy(status: u16, message: &str) -> Fail {
        Fail::new(status, message, Body::Empty)
    }

    /// A refusal with any status, worded as the API words it.
    pub fn status(status: u16, message: impl Into<String>) -> Fail {
        let body = if matches!(status, 401 | 595..=599) { Body::Empty } else { Body::Json };
        Fail::new(status, message, body)
    }

    /// The first line, which becomes the reason phrase.
    pub fn reason(&self) -> &str {
        self.message.lines().next().unwrap_or_default()
    }

    /// As a task's exit status: typed errors show their code, newlines become blanks.
    pub fn exit(&self) -> String {
        let text = self.message.trim_end().replace('\n', " ");
        let details: String = self.errors.iter().map(|(k, v)| format!(" {k}: {v}")).collect();
        if self.status == 500 { text } else { format!("{} {text}{details}", self.status) }
    }

    /// The body and its content type.
    pub fn write(&self, message_field: bool) -> (String, &'static str) {
        match self.body {
            Body::Empty => (String::new(), "text/plain"),
            Body::Plain => (self.message.clone(), "text/plain"),
            Body::Json => {
                let mut body = json!({ "data": null });
                if let Some(body) = body.as_object_mut() {
                    if !self.errors.is_empty() {
                        body.insert("errors".into(), json!(self.errors));
                    }
                    if message_field {
                        body.insert("message".into(), format!("{}\n", self.message.trim_end()).into());
                    }
                }
                (body.to_string(), "application/json;charset=UTF-8")
            }
        }
    }
}
