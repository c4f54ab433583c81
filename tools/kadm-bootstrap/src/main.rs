//! The program `kadm-bootstrap`.

fn main() -> std::process::ExitCode {
    stage::start::<kadm_bootstrap::KadmBootstrap>()
}
