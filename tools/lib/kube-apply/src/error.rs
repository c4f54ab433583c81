//! What can go wrong, and what the caller should make of it.

use crate::object::ObjectId;
use std::path::PathBuf;
use std::time::Duration;

/// The class of a fault, which decides a tool's exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The server or the site could not be reached at all.
    Unreachable,
    /// It passes by itself: the same command may succeed later.
    Transient,
    /// The operator must act first.
    Precondition,
    /// A fault of ours.
    Internal,
}

/// An error: what was being done, with the cause as its source.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The kubeconfig cannot be used.
    #[error("cannot use the kubeconfig {}", path.display())]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The kubeconfig holds a key, and others may read it.
    #[error("the kubeconfig {} can be read by others", path.display())]
    ReadableByOthers {
        /// The file.
        path: PathBuf,
    },
    /// A manifest is no YAML, or no Kubernetes object.
    #[error("{source_name}: {why}")]
    Manifest {
        /// Where the text came from.
        source_name: String,
        /// What is wrong with it.
        why: String,
    },
    /// One set holds an object twice.
    #[error("{id} is in the set {set} twice")]
    Twice {
        /// The object.
        id: Box<ObjectId>,
        /// The set.
        set: String,
    },
    /// The API server did not answer until the deadline.
    #[error("cannot {doing}: {server} did not answer for {}", seconds(*after))]
    Unreachable {
        /// The operation.
        doing: String,
        /// The server's address.
        server: String,
        /// How long it was tried.
        after: Duration,
        /// The last fault.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The credentials of the kubeconfig cannot be had: a plugin or a token file fails.
    #[error("cannot get the credentials for {server}")]
    Credentials {
        /// The server's address.
        server: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The API server's certificate is not one that the kubeconfig trusts.
    #[error("cannot {doing}: the certificate of {server} is not trusted")]
    Untrusted {
        /// The operation.
        doing: String,
        /// The server's address.
        server: String,
        /// What the verification found.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The API server answered with a refusal.
    #[error("cannot {doing}: the API server answered {code}{}: {message}", in_brackets(reason))]
    Refused {
        /// The operation.
        doing: String,
        /// The HTTP status.
        code: u16,
        /// The machine-readable reason (`Forbidden`, `Invalid`); may be empty.
        reason: String,
        /// The server's text.
        message: String,
    },
    /// Fields of an object belong to another field manager.
    #[error("cannot apply {object}: {}", owners(fields))]
    Conflict {
        /// The object.
        object: Box<ObjectId>,
        /// Each field with the manager that owns it.
        fields: Vec<(String, String)>,
    },
    /// A field that cannot be changed would change.
    #[error("cannot change {object}: {reason}")]
    Immutable {
        /// The object.
        object: Box<ObjectId>,
        /// The server's text.
        reason: String,
    },
    /// The cluster serves no such kind.
    #[error("{object}: the cluster has no kind {kind} in {api_version}")]
    UnknownKind {
        /// The object that was asked for.
        object: String,
        /// The group and version.
        api_version: String,
        /// The kind.
        kind: String,
    },
    /// The answer of the API server makes no sense.
    #[error("cannot {doing}: the API server's answer makes no sense: {why}")]
    Answer {
        /// The operation.
        doing: String,
        /// What is wrong with the answer.
        why: String,
    },
    /// What was waited for did not come in time.
    #[error("{what} is not ready after {}: {reason}", seconds(*after))]
    NotReady {
        /// What was waited for.
        what: String,
        /// What it still lacked, as last seen.
        reason: String,
        /// How long it was waited for.
        after: Duration,
    },
    /// What was waited for has failed for good.
    #[error("{what} has failed: {reason}")]
    Failed {
        /// What was waited for.
        what: String,
        /// Why.
        reason: String,
    },
    /// An artefact has another digest than the pinned one.
    #[error("{name} from {place} has the SHA-256 {found}, pinned is {wanted}")]
    Digest {
        /// The artefact's name.
        name: String,
        /// The URL or file.
        place: String,
        /// The pinned digest.
        wanted: String,
        /// The digest of what was there.
        found: String,
    },
    /// An artefact is larger than it may be.
    #[error("{name} from {place} is larger than {limit} bytes")]
    TooLarge {
        /// The artefact's name.
        name: String,
        /// The URL or file.
        place: String,
        /// The limit in bytes.
        limit: u64,
    },
    /// A bundle lacks an artefact.
    #[error("the bundle {} has no {name}", bundle.display())]
    NotBundled {
        /// The artefact's name.
        name: String,
        /// The bundle's folder.
        bundle: PathBuf,
        /// The file names that would do.
        wanted: Vec<String>,
    },
    /// An artefact could not be fetched.
    #[error("cannot fetch {name} from {url}")]
    Fetch {
        /// The artefact's name.
        name: String,
        /// The URL.
        url: String,
        /// The site was not reached at all, or its fault passes by itself, or it refused.
        class: Class,
        /// The last fault.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A file could not be read or written.
    #[error("cannot {doing} {}", path.display())]
    File {
        /// The operation.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

impl Error {
    /// The class of this fault.
    pub fn class(&self) -> Class {
        match self {
            Error::Unreachable { .. } => Class::Unreachable,
            Error::Refused { code, reason, message, .. } => refusal_class(*code, reason, message),
            Error::NotReady { .. } => Class::Transient,
            Error::Fetch { class, .. } => *class,
            Error::Kubeconfig { .. }
            | Error::ReadableByOthers { .. }
            | Error::Credentials { .. }
            | Error::Untrusted { .. }
            | Error::Conflict { .. }
            | Error::Immutable { .. }
            | Error::UnknownKind { .. }
            | Error::Failed { .. }
            | Error::Digest { .. }
            | Error::TooLarge { .. }
            | Error::NotBundled { .. }
            | Error::File { .. } => Class::Precondition,
            Error::Manifest { .. } | Error::Twice { .. } | Error::Answer { .. } => Class::Internal,
        }
    }

    /// What the operator can do, where that is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            Error::Conflict { .. } => {
                Some("leave these fields to their owner, or take them over with --force-conflicts".into())
            }
            Error::ReadableByOthers { path } => Some(format!("chmod 600 {}", path.display())),
            Error::Digest { place, .. } => Some(format!(
                "compare {place} with its publisher's digest; set spec.artifacts[].sha256 only then"
            )),
            Error::NotBundled { bundle, wanted, .. } => {
                Some(format!("put {} into {}", wanted.join(" or "), bundle.display()))
            }
            Error::Refused { code: 401, .. } => {
                Some("the kubeconfig's credentials are not valid for this cluster; fetch it anew".into())
            }
            Error::Fetch { .. } => Some(
                "without internet: --bundle DIR with the file in it, or spec.artifacts[].url of a mirror"
                    .into(),
            ),
            _ => None,
        }
    }
}

/// Whether a refusal passes by itself.
///
/// A 500 that begins with "failed to create typed patch object" is the API server's answer to a field that the
/// schema does not have (seen with 1.36), so it is permanent.
pub(crate) fn refusal_class(code: u16, reason: &str, message: &str) -> Class {
    match code {
        500 if message.contains("failed to create typed patch object") => Class::Precondition,
        429 | 500 | 502 | 503 | 504 => Class::Transient,
        // No conflict of managers (that is Error::Conflict): two writers met, or a name was taken between read and write.
        409 => Class::Transient,
        403 if message.contains("being terminated") => Class::Transient,
        _ if reason == "Expired" => Class::Transient,
        _ => Class::Precondition,
    }
}

/// A duration as people say it.
pub(crate) fn seconds(duration: Duration) -> String {
    let millis = duration.as_millis();
    if millis < 1000 {
        format!("{millis} ms")
    } else if millis < 120_000 {
        format!("{} s", millis / 1000)
    } else {
        format!("{} min", millis / 60_000)
    }
}

fn in_brackets(reason: &str) -> String {
    if reason.is_empty() { String::new() } else { format!(" ({reason})") }
}

fn owners(fields: &[(String, String)]) -> String {
    let each: Vec<String> =
        fields.iter().map(|(field, manager)| format!("{field} belongs to {manager}")).collect();
    each.join(", ")
}
