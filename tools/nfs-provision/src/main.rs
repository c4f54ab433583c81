//! The program `nfs-provision`.

fn main() -> std::process::ExitCode {
    stage::start::<nfs_provision::NfsProvision>()
}
