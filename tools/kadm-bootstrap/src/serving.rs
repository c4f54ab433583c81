//! Serving certificates of kubelets: whose request is whose, and the approval of the first ones.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use remote::{Command, Host};
use serde_json::{Value, json};
use stage::{Ctx, Failure, Waiting};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer as _;

use crate::api::{Api, ApiError};
use crate::certificate::sha256;
use crate::evidence::EVIDENCE;
use crate::node::Node;
use crate::seen::{RequestSeen, RequestState};
use crate::want::Want;

/// Where requests are.
pub const REQUESTS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
/// The serving certificate on a machine: the link that the certificate manager of client-go keeps.
const CERTIFICATE: &str = "/var/lib/kubelet/pki/kubelet-server-current.pem";
/// The signer of kubelets' serving certificates (kubernetes.io, "Certificate Signing Requests").
const SIGNER: &str = "kubernetes.io/kubelet-serving";
/// What a serving certificate may be for; the signer refuses others.
const USAGES: [&str; 3] = ["digital signature", "key encipherment", "server auth"];
/// No certificate is asked for longer than this, in seconds; what kubelets ask for has no such wish.
const LONGEST: u64 = 367 * 86_400;

/// The requests of kubelets in a list, by name.
pub fn requests(list: &Value, nodes: &[Node]) -> BTreeMap<String, RequestSeen> {
    let all = list["items"].as_array().into_iter().flatten();
    let serving = all.filter(|r| r["spec"]["signerName"] == SIGNER);
    serving.filter_map(|r| Some((r["metadata"]["name"].as_str()?.to_owned(), request(r, nodes)))).collect()
}

fn request(object: &Value, nodes: &[Node]) -> RequestSeen {
    let user = object["spec"]["username"].as_str().unwrap_or_default();
    let node = user.strip_prefix("system:node:").unwrap_or(user).to_owned();
    let is = |kind: &str| {
        let conditions = object["status"]["conditions"].as_array().into_iter().flatten();
        conditions.into_iter().find(|c| c["type"] == kind)
    };
    let issued = object["status"]["certificate"].as_str().is_some_and(|c| !c.is_empty());
    let state = match (is("Denied").or(is("Failed")), is("Approved")) {
        (Some(why), _) => RequestState::Refused(why["message"].as_str().unwrap_or_default().to_owned()),
        (None, Some(_)) if issued => RequestState::Issued,
        (None, Some(_)) => RequestState::Approved,
        (None, None) => match verdict(object, nodes) {
            Ok(()) => RequestState::Good,
            Err(why) => RequestState::Odd(why),
        },
    };
    let sha256 = sha256(object["spec"]["request"].as_str().unwrap_or_default().as_bytes());
    RequestSeen { node, state, sha256 }
}

/// Whether a request is that of a node of the document for its own name and its own address, and for nothing else.
///
/// # Errors
/// What is odd about it.
pub fn verdict(object: &Value, nodes: &[Node]) -> Result<(), String> {
    let spec = &object["spec"];
    let texts = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let user = spec["username"].as_str().unwrap_or_default();
    let name = user.strip_prefix("system:node:").ok_or_else(|| format!("{user} made it, who is no node"))?;
    if !texts(&spec["groups"]).iter().any(|g| g == "system:nodes") {
        return Err(format!("{user} is not in the group system:nodes"));
    }
    let node = nodes.iter().find(|n| n.name == name);
    let node = node.ok_or_else(|| format!("{name} is no node of the document"))?;
    let usages = texts(&spec["usages"]);
    if let Some(usage) = usages.iter().find(|u| !USAGES.contains(&u.as_str())) {
        return Err(format!("it is for {usage} too"));
    }
    if !usages.iter().any(|u| u == "server auth") {
        return Err("it is not for serving".to_owned());
    }
    if spec["expirationSeconds"].as_u64().is_some_and(|s| s > LONGEST) {
        return Err("it is to hold for more than a year".to_owned());
    }
    content(spec["request"].as_str().unwrap_or_default(), user, node)
}

/// The PKCS #10 part of a request.
fn content(coded: &str, user: &str, node: &Node) -> Result<(), String> {
    let unreadable = || "it is no certificate request in PEM".to_owned();
    let pem = STANDARD.decode(coded).map_err(|_| unreadable())?;
    let (_, pem) = x509_parser::pem::parse_x509_pem(&pem).map_err(|_| unreadable())?;
    if pem.label != "CERTIFICATE REQUEST" {
        return Err(unreadable());
    }
    let (_, parsed) = X509CertificationRequest::from_der(&pem.contents).map_err(|_| unreadable())?;
    let subject = &parsed.certification_request_info.subject;
    let names: Vec<&str> = subject.iter_common_name().filter_map(|a| a.as_str().ok()).collect();
    let groups: Vec<&str> = subject.iter_organization().filter_map(|a| a.as_str().ok()).collect();
    if names != [user] || groups != ["system:nodes"] || subject.iter_attributes().count() != 2 {
        return Err(format!("its subject is {subject}, not {user} of system:nodes alone"));
    }
    let mut dns = BTreeSet::new();
    let mut addresses: BTreeSet<IpAddr> = BTreeSet::new();
    for extension in parsed.requested_extensions().into_iter().flatten() {
        let ParsedExtension::SubjectAlternativeName(all) = extension else { continue };
        for name in &all.general_names {
            match name {
                GeneralName::DNSName(name) => drop(dns.insert((*name).to_owned())),
                GeneralName::IPAddress(bytes) => {
                    let four = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
                    let any = four.or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from));
                    addresses.insert(any.map_err(|_| "one of its addresses is none".to_owned())?);
                }
                other => return Err(format!("it is for {other} too")),
            }
        }
    }
    if let Some(odd) = dns.iter().find(|n| **n != node.name) {
        return Err(format!("it is for the name {odd}, and the node is {}", node.name));
    }
    if let Some(odd) = addresses.iter().find(|a| **a != IpAddr::from(node.address)) {
        return Err(format!("it is for the address {odd}, and {} is at {}", node.name, node.address));
    }
    if dns.is_empty() || addresses.is_empty() {
        return Err("it lacks the node's name or its address".to_owned());
    }
    Ok(())
}

/// Approves a request that is as it was when it was looked at.
///
/// # Errors
/// Exit 5 when it is another one by now, or what the API refused.
pub async fn approve(api: &Api, name: &str, sha256: &str, want: &Want, ctx: &Ctx) -> Result<(), Failure> {
    let doing = format!("cannot approve the certificate request {name}");
    let path = format!("{REQUESTS}/{name}");
    ctx.wait_for(&format!("the certificate request {name}"), EVIDENCE, || async {
        let object = match api.find(&path).await {
            // Gone: its kubelet makes another.
            Ok(None) => return Ok(Waiting::Seen(())),
            Ok(Some(object)) => object,
            Err(error) => return Ok(Waiting::NotYet(error.to_string())),
        };
        let seen = request(&object, &want.nodes);
        match seen.state {
            RequestState::Issued => Ok(Waiting::Seen(())),
            RequestState::Approved => {
                Ok(Waiting::NotYet("nobody signs it: does the controller manager run?".to_owned()))
            }
            RequestState::Refused(why) => Err(Failure::transient(&doing).because(why)),
            RequestState::Odd(why) => Err(Failure::transient(&doing).because(why)),
            RequestState::Good if seen.sha256 != sha256 => {
                Err(Failure::transient(&doing).because("it is another one by now"))
            }
            RequestState::Good => match approved(api, &path, object).await {
                Ok(()) => Ok(Waiting::NotYet("it is not signed yet".to_owned())),
                Err(error @ (ApiError::Away(_) | ApiError::Refused(409 | 500.., _))) => {
                    Ok(Waiting::NotYet(error.to_string()))
                }
                Err(error) => Err(error.failure(&doing)),
            },
        }
    })
    .await
}

async fn approved(api: &Api, path: &str, mut object: Value) -> Result<(), ApiError> {
    let condition = json!({
        "type": "Approved", "status": "True", "reason": "KubelineApprove",
        "message": "kadm-bootstrap compared requestor, name and address with the cluster document",
    });
    match object["status"]["conditions"].as_array_mut() {
        Some(all) => all.push(condition),
        None => object["status"] = json!({ "conditions": [condition] }),
    }
    // The resourceVersion goes along: of two who decide one is refused.
    api.replace(&format!("{path}/approval"), &object).await
}

/// Waits until a kubelet that has just joined has its serving certificate, approving its request for it.
///
/// # Errors
/// Exit 5 when it does not ask, or asks for what is not its own.
pub async fn first(api: &Api, host: &Host, want: &Want, ctx: &Ctx) -> Result<(), Failure> {
    let node = host.name();
    let doing = format!("cannot have the kubelet on {node} certified for serving");
    let config = match api.lately("/api/v1/namespaces/kube-system/configmaps/kubelet-config").await {
        Err(ApiError::Refused(404, _)) => None,
        found => Some(found.map_err(|e| e.failure(&doing))?),
    };
    let config = config.as_ref().and_then(|m| m["data"]["kubelet"].as_str());
    let asks = config.and_then(|t| serde_saphyr::from_str::<Value>(t).ok());
    // A cluster from before: its kubelets sign for themselves.
    if asks.is_none_or(|c| c["serverTLSBootstrap"] != true) {
        return Ok(());
    }
    let serving = format!("{REQUESTS}?fieldSelector=spec.signerName={SIGNER}");
    let (has, user) = (Command::new("test").args(["-e", CERTIFICATE]).sudo(), format!("system:node:{node}"));
    ctx.wait_for(&format!("the serving certificate of the kubelet on {node}"), EVIDENCE, || async {
        let list = match api.lately(&serving).await {
            Ok(list) => list,
            Err(error) => return Ok(Waiting::NotYet(error.to_string())),
        };
        let (mut said, mut signed) = ("it has not asked for one".to_owned(), true);
        // Those of others are not looked into: many nodes may join side by side.
        let own = |o: &&Value| o["spec"]["signerName"] == SIGNER && o["spec"]["username"] == user.as_str();
        for object in list["items"].as_array().into_iter().flatten().filter(own) {
            let name = object["metadata"]["name"].as_str().unwrap_or_default();
            let state = request(object, &want.nodes).state;
            signed &= !matches!(state, RequestState::Good | RequestState::Approved);
            match state {
                RequestState::Good => {
                    match approved(api, &format!("{REQUESTS}/{name}"), object.clone()).await {
                        Ok(()) => said = format!("{name} is approved and not signed yet"),
                        // A 403 would be for ever, but what may deny it to an administrator may also let go of it.
                        Err(error) => said = format!("{name}: {error}"),
                    }
                }
                RequestState::Odd(why) | RequestState::Refused(why) => said = format!("{name}: {why}"),
                RequestState::Approved => said = format!("{name} is approved and not signed yet"),
                RequestState::Issued => {
                    said = format!("{name} is signed, and the kubelet has not taken it up")
                }
            }
        }
        // Before the signature there is nothing to look for on the machine.
        if signed && host.run(&has).await.map_err(|e| fleet::failure(&doing, &e))?.success() {
            return Ok(Waiting::Seen(()));
        }
        Ok(Waiting::NotYet(said))
    })
    .await
    .map_err(|f| f.hint("kubectl get csr"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    fn node(name: &str, last: u8) -> Node {
        Node {
            name: name.to_owned(),
            control_plane: false,
            address: [10, 0, 0, last].into(),
            labels: BTreeMap::new(),
            taints: BTreeSet::new(),
        }
    }

    fn pem(user: &str, group: &str, names: &[&str], addresses: &[[u8; 4]]) -> String {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, group);
        params.distinguished_name.push(DnType::CommonName, user);
        params.subject_alt_names.extend(names.iter().map(|n| SanType::DnsName((*n).try_into().unwrap())));
        params.subject_alt_names.extend(addresses.iter().map(|a| SanType::IpAddress((*a).into())));
        let request = params.serialize_request(&KeyPair::generate().unwrap()).unwrap();
        STANDARD.encode(request.pem().unwrap())
    }

    fn object(user: &str, request: String) -> Value {
        json!({ "metadata": { "name": "csr-1" }, "spec": { "signerName": SIGNER, "username": user,
            "groups": ["system:nodes", "system:authenticated"], "usages": ["digital signature", "server auth"],
            "request": request } })
    }

    /// Each thing that another node, or no node, could ask for is refused by its own words.
    #[test]
    fn only_a_node_s_own_name_and_address_are_approved() {
        let nodes = [node("w-1", 7), node("w-10", 70)];
        let user = "system:node:w-1";
        let own = || object(user, pem(user, "system:nodes", &["w-1"], &[[10, 0, 0, 7]]));
        assert_eq!(verdict(&own(), &nodes), Ok(()));
        let odd = |patch: &dyn Fn(&mut Value)| {
            let mut object = own();
            patch(&mut object);
            verdict(&object, &nodes).unwrap_err()
        };
        let request = |names: &[&str], addresses: &[[u8; 4]]| pem(user, "system:nodes", names, addresses);
        let with = |request: String| odd(&|o| o["spec"]["request"] = json!(request));
        assert!(
            odd(&|o| o["spec"]["username"] = json!("system:serviceaccount:a:b")).contains("who is no node")
        );
        assert!(
            odd(&|o| o["spec"]["username"] = json!("system:node:w-2")).contains("no node of the document")
        );
        assert!(odd(&|o| o["spec"]["groups"] = json!(["system:authenticated"])).contains("system:nodes"));
        assert!(
            odd(&|o| o["spec"]["usages"] = json!(["server auth", "client auth"])).contains("client auth")
        );
        assert!(odd(&|o| o["spec"]["usages"] = json!(["digital signature"])).contains("not for serving"));
        assert!(odd(&|o| o["spec"]["expirationSeconds"] = json!(400 * 86_400)).contains("a year"));
        assert!(with("AAAA".to_owned()).contains("no certificate request"));
        assert!(with(request(&["w-10"], &[[10, 0, 0, 70]])).contains("the name w-10"));
        assert!(with(request(&["w-1"], &[[10, 0, 0, 70]])).contains("the address 10.0.0.70"));
        assert!(with(request(&["w-1"], &[])).contains("lacks"));
        assert!(with(request(&[], &[[10, 0, 0, 7]])).contains("lacks"));
        assert!(with(pem(user, "system:masters", &["w-1"], &[[10, 0, 0, 7]])).contains("its subject"));
        assert!(
            with(pem("system:node:w-10", "system:nodes", &["w-1"], &[[10, 0, 0, 7]])).contains("its subject")
        );
    }

    #[test]
    fn states_are_read_from_conditions() {
        let nodes = [node("w-1", 7)];
        let user = "system:node:w-1";
        let mut one = object(user, pem(user, "system:nodes", &["w-1"], &[[10, 0, 0, 7]]));
        let state = |o: &Value| requests(&json!({ "items": [o] }), &nodes)["csr-1"].state.clone();
        assert_eq!(state(&one), RequestState::Good);
        one["status"] = json!({ "conditions": [{ "type": "Approved", "status": "True" }] });
        assert_eq!(state(&one), RequestState::Approved);
        one["status"]["certificate"] = json!("AAAA");
        assert_eq!(state(&one), RequestState::Issued);
        one["status"] = json!({ "conditions": [{ "type": "Denied", "status": "True", "message": "no" }] });
        assert_eq!(state(&one), RequestState::Refused("no".to_owned()));
        one["spec"]["signerName"] = json!("kubernetes.io/kube-apiserver-client");
        assert!(requests(&json!({ "items": [one] }), &nodes).is_empty());
    }
}
