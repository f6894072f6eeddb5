//! The requests of a workload: when each comes, and what it needs.

use rm_core::id::{ClientId, PoolId};
use rm_core::priority::Urgency;
use rm_core::units::{MICROS_PER_UNIT, Tokens};

use super::workload::{Arrivals, Between, Workload};
use crate::numbers::{share, whole};
use crate::rng::Rng;

/// A request that will come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    /// When, in milliseconds from the beginning.
    pub at_ms: i64,
    /// Whose.
    pub client: ClientId,
    /// The lane.
    pub urgency: Urgency,
    /// What it reserves.
    pub needs: Vec<(PoolId, Tokens)>,
    /// What it turns out to use; a pool that is not named was used as reserved.
    pub usage: Vec<(PoolId, Tokens)>,
    /// How long it runs.
    pub run_ms: i64,
    /// Not finished so long after its arrival, it expires.
    pub deadline_ms: Option<i64>,
}

/// All requests of a workload, those of a trace among them, in the order in which they come. The same seed draws the same
/// requests, whatever the pools are.
#[must_use]
pub fn plan(workload: &Workload, trace: Vec<Planned>, seed: u64) -> Vec<Planned> {
    let mut planned = trace;
    for (stream, arrivals) in (0..).zip(&workload.arrivals) {
        Stream { arrivals, rng: Rng::of(seed, stream) }.plan(workload.seconds, &mut planned);
    }
    planned.sort_by_key(|request| request.at_ms);
    planned
}

struct Stream<'a> {
    arrivals: &'a Arrivals,
    rng: Rng,
}

impl Stream<'_> {
    fn plan(mut self, seconds: u32, planned: &mut Vec<Planned>) {
        if let Some(burst) = self.arrivals.burst {
            for _ in 0..burst.count {
                planned.push(self.request(i64::from(burst.at_second) * 1_000));
            }
        }
        if self.arrivals.per_minute <= 0.0 {
            return;
        }
        let end = f64::from(seconds) * 1_000.0;
        let mean_gap = 60_000.0 / self.arrivals.per_minute;
        let mut at = self.gap(mean_gap);
        while at < end {
            planned.push(self.request(whole(at.floor())));
            at += self.gap(mean_gap);
        }
    }

    /// The time to the next one: exponentially distributed, which makes the arrivals a Poisson process.
    fn gap(&mut self, mean: f64) -> f64 {
        -(1.0 - share(self.rng.next())).ln() * mean
    }

    fn request(&mut self, at_ms: i64) -> Planned {
        let arrivals = self.arrivals;
        let needs = arrivals.needs.iter().map(|need| (need.pool.clone(), amount(&mut self.rng, need.amount))).collect();
        let Between { min, max } = arrivals.run_ms;
        Planned {
            at_ms,
            client: arrivals.client.clone(),
            urgency: arrivals.urgency,
            needs,
            usage: Vec::new(),
            run_ms: between(&mut self.rng, min.into(), max.into()),
            deadline_ms: arrivals.deadline_seconds.map(|seconds| i64::from(seconds) * 1_000),
        }
    }
}

/// In whole units, if the bounds are.
fn amount(rng: &mut Rng, Between { min, max }: Between<Tokens>) -> Tokens {
    let is_whole = |tokens: Tokens| tokens == tokens.ceil();
    let step = if is_whole(min) && is_whole(max) { MICROS_PER_UNIT } else { 1 };
    let steps = between(rng, 0, (max.micros() - min.micros()) / step);
    Tokens::clamped(min.micros() + steps * step)
}

fn between(rng: &mut Rng, min: i64, max: i64) -> i64 {
    let count = u64::try_from(max - min).unwrap_or(0) + 1;
    min + i64::try_from(rng.below(count)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::{Planned, plan};
    use crate::capacity::workload::Workload;

    fn planned(seed: u64, per_minute: &str) -> Vec<Planned> {
        let text = format!(
            r#"{{"seconds": 36000, "pools": {{"p": {{"capacity": 9, "refillPerSecond": 1, "unitPriceUsd": 0}}}},
                "clients": [{{"client": "c", "tier": "basic", "monthlyBudgetUsd": 1, "maxConcurrent": 1}}],
                "arrivals": [{{"client": "c", "perMinute": {per_minute}, "urgency": "normal", "runMs": {{"min": 5, "max": 9}},
                               "needs": [{{"pool": "p", "amount": {{"min": 2, "max": 4}}}}]}}]}}"#
        );
        plan(&Workload::read(&text).unwrap(), Vec::new(), seed)
    }

    #[test]
    fn arrivals_are_as_many_as_they_should_be_and_as_irregular() {
        let requests = planned(1, "30");
        assert!((17_400..18_600).contains(&requests.len()), "{}", requests.len());
        // Of a Poisson process with a mean gap of 2 s, e^(-1) of the gaps are longer than that.
        let long = requests.windows(2).filter(|pair| pair[1].at_ms - pair[0].at_ms > 2_000).count();
        assert!((350..385).contains(&(long * 1_000 / requests.len())), "{long} of {}", requests.len());
    }

    #[test]
    fn every_amount_between_is_drawn() {
        let requests = planned(2, "30");
        let mut amounts: Vec<u64> = requests.iter().map(|request| request.needs[0].1.units()).collect();
        amounts.sort_unstable();
        amounts.dedup();
        assert_eq!(amounts, [2, 3, 4]);
        assert!(requests.iter().all(|request| (5..=9).contains(&request.run_ms)));
    }

    #[test]
    fn a_seed_is_a_load() {
        assert_eq!(planned(3, "1.5"), planned(3, "1.5"));
        assert_ne!(planned(3, "1.5"), planned(4, "1.5"));
        assert!(planned(3, "0").is_empty());
    }
}
