//! The program `ingress-install`.

fn main() -> std::process::ExitCode {
    stage::start::<ingress_install::IngressInstall>()
}
