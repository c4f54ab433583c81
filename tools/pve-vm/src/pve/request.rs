//! A request as a value: method, path, parameters, perhaps a file.

use http::Method;

/// A file that is sent along with a request; what it holds is shown nowhere.
#[derive(Clone)]
pub struct Upload {
    /// The file's name at Proxmox.
    pub name: String,
    /// What it holds.
    pub content: Content,
}

/// Where the content of an upload is.
#[derive(Clone)]
pub enum Content {
    /// Here.
    Bytes(bytes::Bytes),
    /// In a file, which is sent piece by piece.
    File(std::path::PathBuf),
}

impl std::fmt::Debug for Upload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name)
    }
}

/// A request as a value.
#[derive(Clone, Debug)]
pub struct Request {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) fields: Vec<(String, String)>,
    pub(super) upload: Option<Upload>,
    /// The base address to ask instead of the endpoints, tried first.
    pub(super) at: Option<String>,
}

impl Request {
    fn new(method: Method, path: impl Into<String>) -> Request {
        Request { method, path: path.into(), fields: Vec::new(), upload: None, at: None }
    }

    /// Reads.
    pub fn get(path: impl Into<String>) -> Request {
        Request::new(Method::GET, path)
    }

    /// Makes or starts.
    pub fn post(path: impl Into<String>) -> Request {
        Request::new(Method::POST, path)
    }

    /// Changes.
    pub fn put(path: impl Into<String>) -> Request {
        Request::new(Method::PUT, path)
    }

    /// Removes.
    pub fn delete(path: impl Into<String>) -> Request {
        Request::new(Method::DELETE, path)
    }

    /// Adds a parameter.
    pub fn with(mut self, name: impl Into<String>, value: impl ToString) -> Request {
        self.fields.push((name.into(), value.to_string()));
        self
    }

    /// Adds parameters.
    pub fn with_all<'a>(mut self, fields: impl IntoIterator<Item = (&'a String, &'a String)>) -> Request {
        self.fields.extend(fields.into_iter().map(|(k, v)| (k.clone(), v.clone())));
        self
    }

    /// Sends a file along.
    pub fn with_upload(mut self, upload: Upload) -> Request {
        self.upload = Some(upload);
        self
    }

    /// Asks this base address before the endpoints.
    pub fn asked_at(mut self, base: Option<String>) -> Request {
        self.at = base;
        self
    }

    /// True when it has no parameters.
    pub fn is_bare(&self) -> bool {
        self.fields.is_empty()
    }

    /// Method and path, for messages; values are left out, since some are secret.
    pub fn line(&self) -> String {
        format!("{} {}", self.method, self.path)
    }
}

/// A file as pveproxy's own parser takes it: the fields first, the file last, all of a known length
/// (pve-http-server, AnyEvent.pm: `file_upload_multipart`).
pub(super) fn multipart(
    request: &Request,
    name: &str,
    body: reqwest::Body,
    length: u64,
) -> reqwest::multipart::Form {
    let fields = request.fields.iter();
    let form = fields.fold(reqwest::multipart::Form::new(), |form, (k, v)| form.text(k.clone(), v.clone()));
    let part = reqwest::multipart::Part::stream_with_length(body, length);
    form.part("filename", part.file_name(name.to_owned()))
}

impl Content {
    /// What is sent, and its bytes; a second for each megabyte of them is given on top.
    pub(super) async fn body(&self) -> std::io::Result<(reqwest::Body, u64)> {
        Ok(match self {
            Content::Bytes(bytes) => (bytes.clone().into(), bytes.len() as u64),
            Content::File(path) => {
                let file = tokio::fs::File::open(path).await?;
                let length = file.metadata().await?.len();
                (file.into(), length)
            }
        })
    }
}
