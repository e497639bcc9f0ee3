//! Random upstream faults.

use std::time::Duration;

use http::{HeaderMap, HeaderValue, StatusCode, header::RETRY_AFTER};
use kuik_testkit::{Behavior, Gate, Rule, ScriptedRegistry, Target};

use crate::seeded_rng::SeededRng;

/// A fault for the next few requests.
fn fault(rng: &mut SeededRng) -> Behavior {
    let after = rng.within(0..400_000);
    match rng.within(0..16) {
        0 => Behavior::Refuse,
        1 => Behavior::Delay(Duration::from_millis(rng.within(1..300))),
        2 => Behavior::Stall { after, until: Gate::new() },
        3..7 => Behavior::Truncate { after },
        7 => Behavior::WrongBytes,
        8 => Behavior::Corrupt { at: rng.within(0..20_000) },
        9 => Behavior::TooManyBytes { extra: 1000, chunked: rng.percent(50) },
        10 => Behavior::NoLength,
        11 => Behavior::IgnoreRange,
        12 => Behavior::Announce(after),
        13 => Behavior::Throttle { bytes_per_second: rng.within(200_000..2_000_000) },
        14 => Behavior::Circle,
        _ => {
            let statuses = [404, 429, 500, 502, 503];
            let status = statuses[rng.within(0..statuses.len() as u64) as usize];
            let headers = HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_static("1"))]);
            Behavior::Answer {
                status: StatusCode::from_u16(status).unwrap(),
                headers,
                body: bytes::Bytes::new(),
            }
        }
    }
}

/// Injects faults into some requests, and now and then an outage of the registry. Returns the number of outages.
pub(crate) async fn inject_faults(registry: &ScriptedRegistry, rng: &mut SeededRng) -> usize {
    registry.clear_script();
    for _ in 0..rng.within(1..6) {
        let target = if rng.percent(85) { Target::Blob } else { Target::Manifest };
        registry.script(Rule::on(target).times(rng.within(1..4) as usize).does(fault(rng)));
    }
    if !rng.percent(3) {
        tokio::time::sleep(Duration::from_millis(rng.within(5..80))).await;
        return 0;
    }
    registry.stop().await;
    tokio::time::sleep(Duration::from_millis(rng.within(10..300))).await;
    registry.resume().await.unwrap();
    1
}
