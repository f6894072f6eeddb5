//! What strategies would have saved on requests that were made: only what the requests themselves show.

use std::collections::BTreeMap;

use crate::optimizer::Strategy;
use crate::pricing::Discount;
use crate::units::{Instant, NanoUsd, Tokens};

/// A request that was made and charged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Past {
    /// Its template.
    pub template: String,
    /// The model that it was done by.
    pub model: String,
    /// When it was made.
    pub at: Instant,
    /// When its result was there, if it has one of its own.
    pub result_at: Option<Instant>,
    /// What it was charged.
    pub cost: NanoUsd,
    /// The cheapest model that its template's quality floor allows, if any is cheaper, and what the same work would have cost
    /// by that one, as far as prices and estimates tell.
    pub by_cheaper_model: Option<(String, NanoUsd)>,
    /// What its run would have cost by itself at any time; `None` if it was not run.
    pub run: Option<NanoUsd>,
    /// What its template's formula expected of it; nothing if that has none.
    pub expected: Tokens,
    /// What requests that are the same have in common, and for how many milliseconds its result could have been kept.
    pub same: Option<(String, i64)>,
    /// What would have been off its price in a window that it did not wait for, in per cent.
    pub percent_off: Option<u8>,
    /// For how many milliseconds it could have waited to be combined with others, if at all.
    pub batch_window_ms: Option<i64>,
    /// What was saved by being combined; `None` if it was not.
    pub saved_by_batching: Option<NanoUsd>,
    /// What it was made for already: that would have saved nothing more of it.
    pub tried: Vec<Strategy>,
}

/// What one strategy would have saved.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WouldHave {
    /// How much.
    pub saved: NanoUsd,
    /// On how many requests.
    pub requests: u64,
    /// The first and the last of them.
    pub span: Option<(Instant, Instant)>,
    /// By template.
    pub templates: BTreeMap<String, u64>,
}

impl WouldHave {
    fn add(&mut self, past: &Past, saved: NanoUsd) {
        if saved <= NanoUsd::ZERO {
            return;
        }
        self.saved = self.saved.saturating_add(saved);
        self.requests = self.requests.saturating_add(1);
        let (first, last) = self.span.unwrap_or((past.at, past.at));
        self.span = Some((first.min(past.at), last.max(past.at)));
        let count = self.templates.entry(past.template.clone()).or_default();
        *count = count.saturating_add(1);
    }
}

/// What each strategy would have saved beyond what was saved, one after the other on what the one before would have left,
/// so that they add up: a repeated request would have had the kept result; else a cheaper model or a window, whichever saves
/// more; and a common call, by what such calls have saved of the same template's requests, if there was another one to be
/// combined with.
#[must_use]
pub fn would_have_saved(requests: &[Past]) -> BTreeMap<Strategy, WouldHave> {
    let mut in_order: Vec<&Past> = requests.iter().collect();
    in_order.sort_by_key(|past| past.at);
    let ratios = batching_ratios(requests);
    let runs = runs_by_model(requests);
    let had = had_before(&in_order);
    let company = in_company(&in_order, &had);
    let mut all: BTreeMap<Strategy, WouldHave> = BTreeMap::new();
    for ((past, had), in_company) in in_order.into_iter().zip(had).zip(company) {
        let mut left = past.cost;
        let mut save = |strategy, left: &mut NanoUsd, to: NanoUsd| {
            if !past.tried.contains(&strategy) {
                all.entry(strategy).or_default().add(past, left.saturating_sub(to));
                *left = to.min(*left);
            }
        };
        if had {
            save(Strategy::Cache, &mut left, NanoUsd::ZERO);
            continue;
        }
        // The windows are those of the dear model's pool: it is the one or the other.
        let could = |strategy| !past.tried.contains(&strategy);
        let cheaper = by_cheaper_model(past, &runs).filter(|_| could(Strategy::ModelDowngrade)).unwrap_or(left);
        let percent_off = past.percent_off.filter(|_| could(Strategy::OffPeak));
        let in_window =
            percent_off.map_or(left, |percent_off| Discount { percent_off, waited_for: true }.applied_to(left));
        if cheaper <= in_window {
            save(Strategy::ModelDowngrade, &mut left, cheaper);
        } else {
            save(Strategy::OffPeak, &mut left, in_window);
        }
        if let Some(permille) =
            ratios.get(past.template.as_str()).filter(|_| in_company && past.saved_by_batching.is_none())
        {
            let saved = i128::from(left.nanos()).saturating_mul(i128::from(*permille)).checked_div(1_000).unwrap_or(0);
            let saved = i64::try_from(saved).ok().and_then(NanoUsd::from_nanos).unwrap_or(NanoUsd::ZERO);
            let to = left.saturating_sub(saved);
            save(Strategy::RequestBatching, &mut left, to);
        }
    }
    all
}

/// Of each request, in the order of time, whether the result of one before it was there, and could have been its own. One
/// that was to be kept already was not had for a reason, as that its caller wanted a new one.
fn had_before(in_order: &[&Past]) -> Vec<bool> {
    let mut kept: BTreeMap<&str, Instant> = BTreeMap::new();
    let had = in_order.iter().map(|past| {
        let Some((same, ttl_ms)) = &past.same else { return false };
        let before = kept.get(same.as_str()).copied();
        let is_there = before.is_some_and(|at| at <= past.at && past.at.since(at) < *ttl_ms);
        if is_there && !past.tried.contains(&Strategy::Cache) {
            return true;
        }
        // Of those in flight the first to be done is the one whose result is had next.
        let in_flight = before.filter(|at| *at > past.at);
        if let Some(at) = [in_flight, past.result_at].into_iter().flatten().min() {
            kept.insert(same, at);
        }
        false
    });
    had.collect()
}

/// Of each request, in the order of time, whether it could have been combined with the one before it or after it, of those
/// that are run: none that had another one's result, or would have had.
fn in_company(in_order: &[&Past], had: &[bool]) -> Vec<bool> {
    let mut company = vec![false; in_order.len()];
    let mut last: BTreeMap<(&str, &str), (usize, Instant)> = BTreeMap::new();
    let are_run = in_order.iter().zip(had).map(|(past, had)| !had && past.cost > NanoUsd::ZERO);
    for ((index, past), is_run) in in_order.iter().enumerate().zip(are_run) {
        let Some(window_ms) = past.batch_window_ms.filter(|_| is_run) else { continue };
        let before = last.insert((past.template.as_str(), past.model.as_str()), (index, past.at));
        if let Some((before, at)) = before
            && past.at.since(at) <= window_ms
        {
            for one in [before, index] {
                company.get_mut(one).into_iter().for_each(|with_others| *with_others = true);
            }
        }
    }
    company
}

/// What the runs of a template by one model have cost.
#[derive(Debug, Clone, Copy, Default)]
struct Runs {
    cost: i128,
    runs: i128,
    /// What was expected of all of them together; nothing if that is not known of one.
    expected: i128,
}

/// What the runs of each template have cost by each model.
fn runs_by_model(requests: &[Past]) -> BTreeMap<(&str, &str), Runs> {
    let mut all: BTreeMap<(&str, &str), Runs> = BTreeMap::new();
    for (past, cost) in requests.iter().filter_map(|past| Some((past, past.run?))) {
        let known = all.entry((past.template.as_str(), past.model.as_str())).or_default();
        let is_known = !past.expected.is_zero() && (known.runs == 0 || known.expected > 0);
        let expected = if is_known { i128::from(past.expected.micros()) } else { 0 };
        *known = Runs {
            cost: known.cost.saturating_add(i128::from(cost.nanos())),
            runs: known.runs.saturating_add(1),
            expected: if is_known { known.expected.saturating_add(expected) } else { 0 },
        };
    }
    all
}

/// What a request would have cost by the cheaper model: by what runs by that one have really cost and by what those by its own
/// did, for as much work where formulas tell how much that is, else a run for a run. Where there are no such runs, as far as
/// prices and estimates tell.
fn by_cheaper_model(past: &Past, runs: &BTreeMap<(&str, &str), Runs>) -> Option<NanoUsd> {
    let (model, by_price) = past.by_cheaper_model.as_ref()?;
    let of = |model: &str| runs.get(&(past.template.as_str(), model)).copied();
    let (Some(cheap), Some(own)) = (of(model), of(&past.model)) else { return Some(*by_price) };
    let (cheap_work, own_work) = match cheap.expected > 0 && own.expected > 0 {
        true => (cheap.expected, own.expected),
        false => (cheap.runs, own.runs),
    };
    // By units of work that are small enough for a quotient to tell them apart.
    let each = |cost: i128, work: i128| cost.saturating_mul(1_000_000_000).checked_div(work).unwrap_or(0);
    let (cheap, own) = (each(cheap.cost, cheap_work), each(own.cost, own_work));
    let nanos = i128::from(past.cost.nanos()).checked_mul(cheap)?.checked_div(own)?;
    i64::try_from(nanos).ok().and_then(NanoUsd::from_nanos)
}

/// What common calls have saved of the requests of each template that they were for, in thousandths: also of those that they
/// saved nothing of. One that was not run had the result of another one: that tells nothing of calls.
fn batching_ratios(requests: &[Past]) -> BTreeMap<&str, u64> {
    let mut sums: BTreeMap<&str, (i128, i128)> = BTreeMap::new();
    for past in requests.iter().filter(|past| past.run.is_some()) {
        let Some(by_batching) = past.saved_by_batching else { continue };
        let (saved, baseline) = sums.entry(past.template.as_str()).or_default();
        *saved = saved.saturating_add(i128::from(by_batching.nanos()));
        *baseline = baseline.saturating_add(i128::from(by_batching.saturating_add(past.cost).nanos()));
    }
    let ratio = |(template, (saved, baseline)): (_, (i128, i128))| {
        let permille = saved.saturating_mul(1_000).checked_div(baseline)?;
        Some((template, u64::try_from(permille).ok()?.min(1_000)))
    };
    sums.into_iter().filter_map(ratio).collect()
}

#[cfg(test)]
mod tests {
    use super::{Past, would_have_saved};
    use crate::optimizer::Strategy;
    use crate::units::{Instant, NanoUsd, Tokens};

    fn nanos(n: i64) -> NanoUsd {
        NanoUsd::from_nanos(n).unwrap()
    }

    fn past(at: i64, cost: i64) -> Past {
        Past {
            template: "t".into(),
            model: "m".into(),
            at: Instant::from_millis(at),
            result_at: Some(Instant::from_millis(at)),
            cost: nanos(cost),
            by_cheaper_model: None,
            run: Some(nanos(cost)),
            expected: Tokens::ZERO,
            same: None,
            percent_off: None,
            batch_window_ms: None,
            saved_by_batching: None,
            tried: Vec::new(),
        }
    }

    fn cheaper(cost: i64) -> Option<(String, NanoUsd)> {
        Some(("cheap".into(), nanos(cost)))
    }

    fn told(requests: &[Past]) -> Vec<(Strategy, i64, u64)> {
        let all = would_have_saved(requests);
        all.into_iter()
            .filter(|(_, would)| would.requests > 0)
            .map(|(of, would)| (of, would.saved.nanos(), would.requests))
            .collect()
    }

    #[test]
    fn a_repetition_within_its_time_would_have_had_the_result() {
        let same = |at| Past { same: Some(("x".into(), 100)), ..past(at, 10) };
        assert_eq!(told(&[same(150), same(0), same(50), past(60, 10)]), [(Strategy::Cache, 10, 1)]);
        let again = [same(0), same(50), same(110)];
        assert_eq!(told(&again), [(Strategy::Cache, 10, 1)], "one that is had is not kept for longer");
        let cheap = Past { by_cheaper_model: cheaper(1), ..same(50) };
        assert_eq!(told(&[same(0), cheap]), [(Strategy::Cache, 10, 1)], "it would not have been run at all");
        let later = |at, done| Past { result_at: Some(Instant::from_millis(done)), ..same(at) };
        assert_eq!(told(&[later(0, 60), later(0, 50), same(40), same(55)]), [(Strategy::Cache, 10, 1)]);
        assert_eq!(told(&[later(0, 60), later(10, 70), same(159)]), [(Strategy::Cache, 10, 1)]);
        let tried = |at| Past { tried: vec![Strategy::Cache], ..same(at) };
        assert_eq!(told(&[same(0), tried(50), same(120)]), [(Strategy::Cache, 10, 1)], "a new one was wanted at 50");
        let failed = Past { result_at: None, ..same(0) };
        assert_eq!(told(&[failed, same(50)]), [], "there was no result");
        let would = would_have_saved(&[same(0), same(50), same(99)]).remove(&Strategy::Cache).unwrap();
        assert_eq!(would.span, Some((Instant::from_millis(50), Instant::from_millis(99))));
    }

    #[test]
    fn strategies_come_one_after_the_other_so_that_they_add_up() {
        let both = Past { by_cheaper_model: cheaper(40), percent_off: Some(50), ..past(0, 100) };
        assert_eq!(told(std::slice::from_ref(&both)), [(Strategy::ModelDowngrade, 60, 1)]);
        let deep = Past { percent_off: Some(70), ..both.clone() };
        assert_eq!(told(&[deep]), [(Strategy::OffPeak, 70, 1)]);
        let tried = Past { tried: vec![Strategy::ModelDowngrade], ..both };
        assert_eq!(told(&[tried]), [(Strategy::OffPeak, 50, 1)], "what it was made for is not in its way");
        let dearer = Past { by_cheaper_model: cheaper(140), ..past(0, 100) };
        assert_eq!(told(&[dearer]), []);
    }

    #[test]
    fn a_cheaper_model_would_have_saved_what_its_runs_show() {
        let dear = |at| Past { by_cheaper_model: cheaper(10), ..past(at, 300) };
        let cheap = |cost| Past { model: "cheap".into(), ..past(9, cost) };
        let saved = |saved, requests| vec![(Strategy::ModelDowngrade, saved, requests)];
        assert_eq!(told(&[dear(0), dear(1)]), saved(580, 2), "nothing but prices is known");
        assert_eq!(told(&[dear(0), dear(1), cheap(1_000)]), [], "it takes more for the same work");
        assert_eq!(told(&[dear(0), dear(1), cheap(250), cheap(50)]), saved(300, 2), "half as much a run");
        let of = |past: Past, units| Past { expected: Tokens::from_units(units).unwrap(), ..past };
        let small = [of(dear(0), 10), of(dear(1), 10), of(cheap(50), 1)];
        assert_eq!(told(&small), [], "five hundred for as much work");
        let unknown = [of(dear(0), 10), dear(1), of(cheap(60), 1)];
        assert_eq!(told(&unknown), saved(480, 2), "a run for a run, where one's work is not known");
        let kept = Past { run: None, ..cheap(1_000) };
        let elsewhere = Past { template: "other".into(), ..cheap(1_000) };
        assert_eq!(told(&[dear(0), kept, elsewhere]), saved(290, 1), "those say nothing of it");
    }

    #[test]
    fn a_common_call_would_have_saved_what_such_calls_did() {
        let batched = Past { batch_window_ms: Some(100), saved_by_batching: Some(nanos(30)), ..past(0, 70) };
        let alone = Past { batch_window_ms: Some(100), ..past(100, 200) };
        assert_eq!(told(std::slice::from_ref(&alone)), [], "nothing is known of them");
        let had = Past { saved_by_batching: Some(nanos(200)), run: None, ..past(1_001, 0) };
        let had = Past { batch_window_ms: Some(100), ..had };
        let by_itself = Past { at: Instant::from_millis(1_000), ..alone.clone() };
        assert_eq!(told(&[batched.clone(), by_itself.clone(), had]), [], "that one was not run");
        let same = |at| Past { same: Some(("x".into(), 5_000)), at: Instant::from_millis(at), ..alone.clone() };
        let kept = told(&[batched.clone(), same(500), by_itself, same(1_050)]);
        assert_eq!(kept, [(Strategy::Cache, 200, 1)], "nor would that one have been");
        let tried = Past { tried: vec![Strategy::RequestBatching], ..alone.clone() };
        assert_eq!(told(&[batched.clone(), tried]), [], "it waited for others already");
        let never = Past { template: "other".into(), ..alone.clone() };
        let cannot = Past { batch_window_ms: None, ..alone.clone() };
        let too_late = Past { at: Instant::from_millis(101), ..alone.clone() };
        assert_eq!(told(&[batched.clone(), too_late]), [], "it would have been by itself");
        let other_model = Past { model: "other".into(), ..alone.clone() };
        assert_eq!(told(&[batched.clone(), other_model]), []);
        let not_run = Past { saved_by_batching: Some(nanos(300)), run: None, ..past(0, 0) };
        assert_eq!(told(&[not_run, alone.clone()]), [], "what was not run tells nothing of calls");
        let cheap = Past { by_cheaper_model: cheaper(100), ..alone.clone() };
        assert_eq!(
            told(&[batched.clone(), cheap]),
            [(Strategy::ModelDowngrade, 100, 1), (Strategy::RequestBatching, 30, 1)],
            "of what the cheaper model would have left"
        );
        assert_eq!(told(&[batched, alone, never, cannot]), [(Strategy::RequestBatching, 60, 1)]);
    }

    #[test]
    fn common_calls_that_saved_nothing_are_of_the_record_too() {
        let combined = |saved, cost| Past { saved_by_batching: Some(nanos(saved)), ..past(0, cost) };
        let alone = |at| Past { batch_window_ms: Some(100), ..past(at, 100) };
        let pair = [alone(500), alone(510)];
        assert_eq!(told(&[&[combined(50, 50)], pair.as_slice()].concat()), [(Strategy::RequestBatching, 100, 2)]);
        let mixed = [combined(50, 50), combined(0, 100), combined(0, 200), combined(0, 100)];
        assert_eq!(told(&[&mixed, pair.as_slice()].concat()), [(Strategy::RequestBatching, 20, 2)], "a tenth of all");
        assert_eq!(told(&[&[combined(0, 100)], pair.as_slice()].concat()), [], "it would not have paid");
        assert_eq!(told(&[combined(100, 0), combined(0, 100), alone(500), alone(510)]).len(), 1, "a share of nothing");
    }
}
