//! The tool's own verbs: what each does with the movements.

mod inventory;
pub mod rebalance;
mod replace;
mod role;
mod snapshots;

use std::sync::OnceLock;

use stage::{Exit, Failure, Own};

use crate::PveVmTool;
use crate::args::Verb;
use crate::seen::Seen;
use crate::want::Want;

/// What a verb does; its arguments are refused here.
///
/// # Errors
/// Exit 3 for a machine or pool that the document does not have, 2 for a snapshot's name that is none.
pub(crate) fn own(verb: &Verb, want: &Want) -> Result<Own<PveVmTool>, Failure> {
    let design = &want.design;
    Ok(match verb.clone() {
        Verb::Role { release } => {
            Own::Tell(Box::new(move |want: &Want| Ok(role::text(&want.design, release))))
        }
        Verb::Inventory { format } => {
            Own::Tell(Box::new(move |want: &Want| Ok(inventory::text(&want.design, &want.ssh, format))))
        }
        Verb::Replace { name, consent } => {
            if !design.machines.iter().any(|m| m.name == name) {
                let all: Vec<&str> = design.machines.iter().map(|m| m.name.as_str()).collect();
                return Err(Failure::new(Exit::Refused, format!("the document has no machine {name}"))
                    .because(format!("it has {}", all.join(", "))));
            }
            let before = OnceLock::new();
            Own::Settle {
                consent: Some(consent),
                planner: Box::new(move |want, seen| replace::plan(&want.design, seen, &name, &before)),
            }
        }
        Verb::Rebalance => Own::Look(Box::new(|want: &Want, seen: &Seen| {
            Ok((rebalance::text(&rebalance::moves(&want.design, seen)), Exit::Done))
        })),
        Verb::Snapshot { pool, name } => snapshots::take(design, pool, name)?,
        Verb::Rollback { pool, name, consent } => snapshots::roll_back(design, pool, name, consent)?,
        Verb::Snapshots { pool } => snapshots::listing(design, pool)?,
    })
}
