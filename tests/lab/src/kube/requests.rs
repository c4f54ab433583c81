//! Certificate signing requests: who makes them, what stands in them, and the side door of their approval.

use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer as _;

use super::api::body;
use super::auth::{self, Identity, Wish};
use super::patch;
use super::resources::Resource;
use super::routes::{Answer, Asked};
use super::status::Status;
use super::store::Store;
use super::verbs::{Call, now, served};

/// The signer of kubelets' serving certificates.
pub(crate) const SERVING: &str = "kubernetes.io/kubelet-serving";

/// What the PKCS #10 text of a request asks for.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Request {
    pub common_name: String,
    pub organisations: Vec<String>,
    pub names: Vec<String>,
    pub addresses: Vec<IpAddr>,
    /// Alternative names of other kinds.
    pub others: usize,
    /// The public key with its algorithm (DER), as it stands in the request.
    pub key: Vec<u8>,
}

impl Request {
    /// Reads `spec.request`; `None` for what is no request.
    pub(crate) fn of(object: &Value) -> Option<Request> {
        let pem = STANDARD.decode(object["spec"]["request"].as_str()?).ok()?;
        let (_, pem) = x509_parser::pem::parse_x509_pem(&pem).ok()?;
        if pem.label != "CERTIFICATE REQUEST" {
            return None;
        }
        let (_, parsed) = X509CertificationRequest::from_der(&pem.contents).ok()?;
        let info = &parsed.certification_request_info;
        let text = |a: &x509_parser::x509::AttributeTypeAndValue<'_>| a.as_str().ok().map(str::to_owned);
        let mut request = Request {
            common_name: info.subject.iter_common_name().find_map(text).unwrap_or_default(),
            organisations: info.subject.iter_organization().filter_map(text).collect(),
            key: info.subject_pki.subject_public_key.data.to_vec(),
            ..Request::default()
        };
        for extension in parsed.requested_extensions().into_iter().flatten() {
            let ParsedExtension::SubjectAlternativeName(san) = extension else { continue };
            for name in &san.general_names {
                match name {
                    GeneralName::DNSName(name) => request.names.push((*name).to_owned()),
                    GeneralName::IPAddress(bytes) => {
                        match (<[u8; 4]>::try_from(*bytes), <[u8; 16]>::try_from(*bytes)) {
                            (Ok(four), _) => request.addresses.push(four.into()),
                            (_, Ok(sixteen)) => request.addresses.push(sixteen.into()),
                            _ => request.others += 1,
                        }
                    }
                    _ => request.others += 1,
                }
            }
        }
        Some(request)
    }
}

/// Writes into a new request who makes it: whatever the client says of that is not believed.
pub(crate) fn requestor(object: &mut Value, identity: &Identity) -> Result<(), Status> {
    if Request::of(object).is_none() {
        return Err(Status::bad_request(
            "spec.request: Invalid value: PEM block type must be CERTIFICATE REQUEST",
        ));
    }
    object["spec"]["username"] = identity.name().into();
    object["spec"]["groups"] = identity.groups().into();
    Ok(())
}

/// Whether somebody may approve requests of this signer (the admission plugin CertificateApproval).
pub(crate) fn may_approve(store: &Store, identity: &Identity, res: &Resource, signer: &str) -> bool {
    let signers = Resource { plural: "signers".into(), ..res.clone() };
    let domain = signer.split('/').next().unwrap_or_default();
    [signer.to_owned(), format!("{domain}/*")].iter().any(|name| {
        let wish = Wish { verb: "approve", res: &signers, sub: "", ns: "", name };
        auth::allow(store, identity, &wish).is_ok()
    })
}

/// True when a condition of this type stands.
pub(crate) fn has(object: &Value, kind: &str) -> bool {
    object["status"]["conditions"].as_array().into_iter().flatten().any(|c| c["type"] == kind)
}

/// `GET`, `PUT` and `PATCH` of `/approval`: of all that is sent only the conditions Approved and Denied count.
pub(crate) fn approval(
    store: &mut Store,
    asked: &Asked,
    res: &Resource,
    name: &str,
    mut call: Call,
) -> Result<Answer, Status> {
    let live = store.read(res, "", name)?;
    let sent = match asked.method.as_str() {
        "GET" => return Ok(Answer::ok(live)),
        "PUT" => body(asked)?,
        "PATCH" if asked.content_type.starts_with("application/merge-patch+json") => {
            let mut sent = live.clone();
            patch::merge(&mut sent, &body(asked)?);
            sent
        }
        "PATCH" => return Err(Status::unknown_to_lab("this form of a patch of /approval")),
        _ => return Err(Status::no_method()),
    };
    let signer = live["spec"]["signerName"].as_str().unwrap_or_default().to_owned();
    if !may_approve(store, &asked.identity, res, &signer) {
        let why = format!("user not permitted to approve requests with signerName \"{signer}\"");
        return Err(Status::forbidden(res, name, &why));
    }
    let conditions = sent["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let before = live["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let mut faults = Vec::new();
    let verdict = |c: &&Value| c["type"] == "Approved" || c["type"] == "Denied";
    for old in before.iter().filter(verdict) {
        if !conditions.iter().any(|c| c["type"] == old["type"]) {
            let kind = old["type"].as_str().unwrap_or_default();
            faults.push((
                "status.conditions".to_owned(),
                "FieldValueForbidden",
                format!("Forbidden: updates may not remove a condition of type \"{kind}\""),
            ));
        }
    }
    if conditions.iter().any(|c| c["type"] == "Approved") && conditions.iter().any(|c| c["type"] == "Denied")
    {
        faults.push((
            "status.conditions".to_owned(),
            "FieldValueInvalid",
            "Invalid value: \"Denied\": Approved and Denied conditions are mutually exclusive".to_owned(),
        ));
    }
    for (n, condition) in conditions.iter().enumerate().filter(|(_, c)| verdict(c)) {
        if condition["status"] != "True" {
            faults.push((
                format!("status.conditions[{n}].status"),
                "FieldValueNotSupported",
                "Unsupported value: supported values: \"True\"".to_owned(),
            ));
        }
    }
    if !faults.is_empty() {
        return Err(Status::invalid(res, name, &faults));
    }
    let mut kept: Vec<Value> = before.iter().filter(|c| !verdict(c)).cloned().collect();
    kept.extend(conditions.into_iter().filter(|c| verdict(&c)));
    for condition in &mut kept {
        for time in ["lastUpdateTime", "lastTransitionTime"] {
            if condition[time].is_null() {
                condition[time] = now().into();
            }
        }
    }
    let mut object = live;
    object["metadata"]["resourceVersion"] = sent["metadata"]["resourceVersion"].clone();
    object["status"]["conditions"] = json!(kept);
    call.sub = "status".into();
    let done = store.update(res, "", name, object, &mut call)?;
    Ok(Answer::ok(served(res, &done)))
}
