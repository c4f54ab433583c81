//! The program: hands over to the shell that every tool runs in.

fn main() -> std::process::ExitCode {
    stage::start::<pve_vm::PveVmTool>()
}
