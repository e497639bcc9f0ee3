//! What upstream does wrong, by chance.

use std::time::Duration;

use http::{HeaderMap, HeaderValue, StatusCode, header::RETRY_AFTER};
use kuik_core::testkit::{Behaviour, Gate, Rule, ScriptedRegistry, Target};

use crate::dice::Dice;

/// Something that happens to the next few requests.
fn fault(dice: &mut Dice) -> Behaviour {
    let after = dice.within(0..400_000);
    match dice.within(0..16) {
        0 => Behaviour::Refuse,
        1 => Behaviour::Delay(Duration::from_millis(dice.within(1..300))),
        2 => Behaviour::Stall { after, until: Gate::new() },
        3..7 => Behaviour::Truncate { after },
        7 => Behaviour::WrongBytes,
        8 => Behaviour::Corrupt { at: dice.within(0..20_000) },
        9 => Behaviour::TooManyBytes { extra: 1000, chunked: dice.percent(50) },
        10 => Behaviour::NoLength,
        11 => Behaviour::IgnoreRange,
        12 => Behaviour::Announce(after),
        13 => Behaviour::Throttle { bytes_per_second: dice.within(200_000..2_000_000) },
        14 => Behaviour::Circle,
        _ => {
            let statuses = [404, 429, 500, 502, 503];
            let status = statuses[dice.within(0..statuses.len() as u64) as usize];
            let headers = HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_static("1"))]);
            Behaviour::Answer {
                status: StatusCode::from_u16(status).unwrap(),
                headers,
                body: bytes::Bytes::new(),
            }
        }
    }
}

/// Bad weather for a moment: some requests meet a fault, and now and then the registry is away. How often it was away.
pub(crate) async fn gust(registry: &ScriptedRegistry, dice: &mut Dice) -> usize {
    registry.clear_script();
    for _ in 0..dice.within(1..6) {
        let target = if dice.percent(85) { Target::Blob } else { Target::Manifest };
        registry.script(Rule::on(target).times(dice.within(1..4) as usize).does(fault(dice)));
    }
    if !dice.percent(3) {
        tokio::time::sleep(Duration::from_millis(dice.within(5..80))).await;
        return 0;
    }
    registry.stop().await;
    tokio::time::sleep(Duration::from_millis(dice.within(10..300))).await;
    registry.resume().await.unwrap();
    1
}
