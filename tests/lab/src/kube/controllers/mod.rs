//! Controllers.
pub(crate) mod nodes;
pub(crate) mod pods;
use super::store::Store;
use crate::Clock;
use crate::world::Kubelet;
#[derive(Debug)]
pub(crate) struct Plant {
    clock: Clock,
}
impl Plant {
    pub(crate) fn new(clock: Clock) -> Plant {
        Plant { clock }
    }
    pub(crate) fn next(&self) -> Option<tokio::time::Instant> {
        let _ = self.clock;
        None
    }
    pub(crate) fn kubelet_up(&mut self, _k: Kubelet) {}
    pub(crate) fn kubelet_down(&mut self, _n: &str) {}
}
pub(crate) fn pass(_s: &mut Store, _p: &mut Plant) {}
