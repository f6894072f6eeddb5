//! What a request is expected to need: from its template and the size of its input, and from what requests of that
//! template turned out to use.
//!
//! The formula `base + perInputToken × input + perOutputToken × output` is a guess, and the output's limit an upper
//! bound of it. What was really used, divided by what the formula said, is learnt for each template and pool, as a
//! quantile and not as a mean: a hold that covers the middle of all requests is too small for half of them.

use serde::{Deserialize, Serialize};

use crate::id::PoolId;
use crate::units::{MICROS_PER_UNIT, Tokens};

/// Bytes of JSON to a token of a language model: the usual ratio for English text. A tokeniser would be more exact, and
/// takes megabytes of code.
const BYTES_PER_TOKEN: u64 = 4;
/// What a template is expected to write when the request does not limit it.
pub const DEFAULT_OUTPUT_TOKENS: u64 = 500;

/// How much of one pool a template needs: `base + perInputToken × input + perOutputToken × output`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Rate {
    /// Which pool.
    pub pool: PoolId,
    /// Units for every request.
    #[serde(default)]
    pub base: Tokens,
    /// Units for each token of the input.
    #[serde(default)]
    pub per_input_token: Tokens,
    /// Units for each token of the output.
    #[serde(default)]
    pub per_output_token: Tokens,
}

/// What the formula says of one pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Formula {
    /// In whole units, at least one.
    pub amount: Tokens,
    /// How much of it is output.
    pub output: Tokens,
}

/// The formula for one pool.
#[must_use]
pub fn formula(rate: &Rate, input_bytes: u64, max_output_tokens: Option<u64>) -> Formula {
    let input = input_bytes.div_ceil(BYTES_PER_TOKEN);
    let output = max_output_tokens.unwrap_or(DEFAULT_OUTPUT_TOKENS);
    let times = |per: Tokens, n: u64| i128::from(per.micros()).saturating_mul(i128::from(n));
    let clamped = |micros: i128| Tokens::clamped(i64::try_from(micros).unwrap_or(i64::MAX)).ceil();
    let output = times(rate.per_output_token, output);
    let micros =
        i128::from(rate.base.micros()).saturating_add(times(rate.per_input_token, input)).saturating_add(output);
    let amount = clamped(micros.max(i128::from(MICROS_PER_UNIT)));
    Formula { amount, output: clamped(output).min(amount) }
}

/// Ratios of use to formula, in thousandths: the upper edges of the classes that are counted. One is an edge, so that a
/// template whose formula is exact keeps it.
const EDGES: [u32; 32] = [
    50, 100, 150, 200, 250, 300, 350, 400, 450, 500, 550, 600, 650, 700, 750, 800, 850, 900, 950, 1_000, 1_050, 1_100,
    1_200, 1_300, 1_500, 1_750, 2_000, 2_500, 3_000, 4_000, 6_000, 8_000,
];
/// What a new observation weighs. Each one takes a 64th of what the earlier ones weigh, so that about the last hundred
/// count.
const WEIGHT: u64 = 1 << 16;
const DECAY_SHIFT: u32 = 6;
/// So many observations are needed before they change an estimate.
pub const SAMPLES_MIN: u64 = 20;
/// The quantile, in thousandths: nine requests of ten use no more than their estimate.
const QUANTILE: u64 = 900;

/// What was learnt of one template in one pool: an exponentially weighted histogram of ratios.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Learnt {
    weights: Vec<u64>,
    /// How many uses were observed.
    pub samples: u64,
    /// How many of them were within their estimate.
    pub covered: u64,
    /// The sum over all of |use − estimate| ÷ estimate, in thousandths; one counts for 8 at most.
    pub error_permille: u64,
}

impl Learnt {
    /// Takes one settled use into account.
    pub fn observe(&mut self, formula: Tokens, estimated: Tokens, actual: Tokens) {
        self.weights.resize(EDGES.len(), 0);
        for weight in &mut self.weights {
            *weight = weight.saturating_sub(*weight >> DECAY_SHIFT);
        }
        let ratio = permille_up(actual, formula);
        let class = EDGES.iter().position(|edge| u64::from(*edge) >= ratio).unwrap_or(EDGES.len().saturating_sub(1));
        if let Some(weight) = self.weights.get_mut(class) {
            *weight = weight.saturating_add(WEIGHT);
        }
        self.samples = self.samples.saturating_add(1);
        if actual <= estimated {
            self.covered = self.covered.saturating_add(1);
        }
        let off = actual.saturating_sub(estimated).max(estimated.saturating_sub(actual));
        self.error_permille = self.error_permille.saturating_add(permille_up(off, estimated).min(8_000));
    }

    /// The factor that estimates are multiplied by, in thousandths; 1 000 until enough is known.
    #[must_use]
    pub fn factor_permille(&self) -> u32 {
        if self.samples < SAMPLES_MIN {
            return 1_000;
        }
        let total: u64 = self.weights.iter().sum();
        let mut below = 0_u64;
        for (edge, weight) in EDGES.iter().zip(&self.weights) {
            below = below.saturating_add(*weight);
            if below.saturating_mul(1_000) >= total.saturating_mul(QUANTILE) {
                return *edge;
            }
        }
        1_000
    }

    /// How sure an estimate is, in thousandths: the share of recent uses that were between half of it and it, weighed
    /// down while there are few. `None` until enough is known.
    #[must_use]
    pub fn confidence_permille(&self) -> Option<u32> {
        if self.samples < SAMPLES_MIN {
            return None;
        }
        let factor = self.factor_permille();
        let total: u64 = self.weights.iter().sum();
        let near =
            EDGES.iter().zip(&self.weights).filter(|(edge, _)| **edge <= factor && edge.saturating_mul(2) > factor);
        let near = near.fold(0_u64, |sum, (_, weight)| sum.saturating_add(*weight));
        let share = near.saturating_mul(1_000).checked_div(total).unwrap_or(0);
        let known =
            self.samples.saturating_mul(1_000).checked_div(self.samples.saturating_add(SAMPLES_MIN)).unwrap_or(0);
        u32::try_from(share.saturating_mul(known).checked_div(1_000).unwrap_or(0)).ok()
    }
}

/// `part ÷ whole` in thousandths, rounded up.
fn permille_up(part: Tokens, whole: Tokens) -> u64 {
    let whole = i128::from(whole.micros().max(1));
    let part = i128::from(part.micros()).saturating_mul(1_000);
    let ratio = part.saturating_add(whole.saturating_sub(1)).checked_div(whole).unwrap_or(0);
    u64::try_from(ratio).unwrap_or(u64::MAX)
}

/// An estimate: `formula × factor`, in whole units from one to what the pool can ever grant.
#[must_use]
pub fn estimate(formula: Tokens, factor_permille: u32, capacity: Tokens) -> Tokens {
    let micros =
        i128::from(formula.micros()).saturating_mul(i128::from(factor_permille)).checked_div(1_000).unwrap_or(0);
    let micros = i64::try_from(micros).unwrap_or(i64::MAX).max(MICROS_PER_UNIT);
    Tokens::clamped(micros).ceil().min(capacity)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert, proptest};

    use super::{Formula, Learnt, Rate, SAMPLES_MIN, estimate, formula};
    use crate::units::Tokens;

    fn rate(json: &str) -> Rate {
        serde_json::from_str(json).unwrap()
    }

    fn units(n: u64) -> Tokens {
        Tokens::from_units(n).unwrap()
    }

    #[test]
    fn counts_input_and_output() {
        let chat = rate(r#"{"pool":"p","base":10,"perInputToken":1,"perOutputToken":1.5}"#);
        assert_eq!(formula(&chat, 401, Some(100)), Formula { amount: units(10 + 101 + 150), output: units(150) });
        assert_eq!(formula(&rate(r#"{"pool":"p"}"#), 0, None), Formula { amount: units(1), output: units(0) });
        assert_eq!(formula(&chat, u64::MAX, Some(u64::MAX)).amount, Tokens::MAX.ceil());
    }

    #[test]
    fn a_factor_is_a_quantile_of_what_was_used_lately() {
        let mut learnt = Learnt::default();
        let observe = |learnt: &mut Learnt, n: u64, actual: u64| {
            (0..n).for_each(|_| learnt.observe(units(1_000), units(1_000), units(actual)))
        };
        observe(&mut learnt, SAMPLES_MIN - 1, 300);
        assert_eq!((learnt.factor_permille(), learnt.confidence_permille()), (1_000, None));
        observe(&mut learnt, 1, 300);
        assert_eq!(learnt.factor_permille(), 300);
        // One in five uses much more: the mean would be 440, and too small for those.
        for _ in 0..100 {
            observe(&mut learnt, 4, 300);
            observe(&mut learnt, 1, 1_000);
        }
        assert_eq!(learnt.factor_permille(), 1_000);
        assert!(learnt.confidence_permille().unwrap() < 300, "most use far less");
        // What was long ago is forgotten.
        observe(&mut learnt, 300, 1_500);
        assert_eq!(learnt.factor_permille(), 1_500);
        assert!(learnt.confidence_permille().unwrap() > 900);
    }

    #[test]
    fn an_exact_formula_stays_exact_and_accuracy_is_counted() {
        let mut learnt = Learnt::default();
        (0..100).for_each(|_| learnt.observe(units(7), units(7), units(7)));
        assert_eq!((learnt.factor_permille(), learnt.covered, learnt.error_permille), (1_000, 100, 0));
        learnt.observe(units(10), units(10), units(15));
        learnt.observe(units(10), units(10), units(5));
        assert_eq!((learnt.samples, learnt.covered, learnt.error_permille), (102, 101, 1_000));
    }

    proptest! {
        /// An estimate is never nothing, and never more than the pool can grant.
        #[test]
        fn an_estimate_can_be_granted(formula in 1_u64..1_000_000_000, factor in any::<u16>(), capacity in 1_u64..1_000_000) {
            let amount = estimate(units(formula), factor.into(), units(capacity));
            prop_assert!(amount >= units(1) && amount <= units(capacity));
        }

        /// Whatever was observed, the factor covers nine recent uses of ten and stays within the classes.
        #[test]
        fn a_factor_stays_in_range(uses in proptest::collection::vec(any::<u32>(), 20..200)) {
            let mut learnt = Learnt::default();
            for used in uses {
                learnt.observe(units(1_000), units(1_000), units(used.into()));
            }
            prop_assert!((50..=8_000).contains(&learnt.factor_permille()));
            prop_assert!(learnt.confidence_permille().unwrap() <= 1_000);
        }
    }
}
