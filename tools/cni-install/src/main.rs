//! The program `cni-install`.

fn main() -> std::process::ExitCode {
    stage::start::<cni_install::CniInstall>()
}
