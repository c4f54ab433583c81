//! Simulated latencies: nominal durations, scaled.

use std::time::Duration;

/// Scales nominal latencies, so that a clone of 30 s takes 3 s, or nothing.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    scale: f64,
}

impl Clock {
    /// No latency at all: each wait is a mere yield.
    pub const ZERO: Clock = Clock { scale: 0.0 };

    /// A clock that lets `scale` of each nominal latency pass (0.1 is ten times as quick as life).
    pub fn scaled(scale: f64) -> Clock {
        Clock { scale: scale.max(0.0) }
    }

    /// How long a nominal latency takes here.
    pub fn real(&self, nominal: Duration) -> Duration {
        nominal.mul_f64(self.scale)
    }

    /// Waits for a nominal latency.
    pub async fn wait(&self, nominal: Duration) {
        let real = self.real(nominal);
        if real.is_zero() { tokio::task::yield_now().await } else { tokio::time::sleep(real).await }
    }
}

/// A moment as the API writes times with microseconds (MicroTime): in UTC, six digits after the second.
pub fn micro_time(at: time::OffsetDateTime) -> String {
    let (date, clock) = (at.date(), at.time());
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:06}Z",
        date.year(),
        u8::from(date.month()),
        date.day(),
        clock.hour(),
        clock.minute(),
        clock.second(),
        clock.microsecond()
    )
}
