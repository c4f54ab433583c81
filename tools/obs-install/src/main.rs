//! The program `obs-install`.

fn main() -> std::process::ExitCode {
    stage::start::<obs_install::ObsInstall>()
}
