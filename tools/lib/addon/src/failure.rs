//! An error of the Kubernetes API as the end of a run.

use kube_apply::{Class, Error};
use stage::{Exit, Failure};

/// How a run ends by an error of the Kubernetes API.
pub fn exit(error: &Error) -> Exit {
    match error.class() {
        Class::Unreachable | Class::Transient => Exit::Transient,
        Class::Precondition => Exit::Precondition,
        Class::Internal => Exit::Internal,
    }
}

/// An error of the Kubernetes API as the end of a run.
pub fn failure(doing: impl Into<String>, error: &Error) -> Failure {
    Failure::of(exit(error), doing, error, error.hint())
}
