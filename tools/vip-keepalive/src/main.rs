//! One VRRP address on keepalived machines.

fn main() -> std::process::ExitCode {
    stage::start::<vip_keepalive::VipKeepalive>()
}
