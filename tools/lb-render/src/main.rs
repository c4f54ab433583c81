//! HAProxy from one JSON document.

fn main() -> std::process::ExitCode {
    stage::start::<lb_render::LbRender>()
}
