//! The tiers of clients, as their accounts said lately. A client's tier decides only how its request would rank if it came
//! now; what counts is that of its hold.

use std::cell::RefCell;
use std::collections::BTreeMap;

use rm_core::id::ClientId;
use rm_core::priority::Tier;
use rm_core::units::Instant;
use worker::Env;

use crate::host::object::call;
use crate::wire::account::ViewCall;

/// How long one is remembered.
const FRESH_MS: i64 = 60_000;
/// How many are.
const KEPT_MAX: usize = 1_000;

thread_local! {
    static KNOWN: RefCell<BTreeMap<ClientId, (Instant, Tier)>> = const { RefCell::new(BTreeMap::new()) };
}

/// Remembers a tier.
pub fn note(client: &ClientId, tier: Tier, now: Instant) {
    KNOWN.with_borrow_mut(|known| {
        if known.len() >= KEPT_MAX {
            known.clear();
        }
        known.insert(client.clone(), (now, tier));
    });
}

/// A client's tier; `None` if there is no such client, or its account does not answer.
pub async fn of(env: &Env, client: &ClientId, now: Instant) -> Option<Tier> {
    let fresh = |(at, tier): &(Instant, Tier)| (now.since(*at) < FRESH_MS).then_some(*tier);
    let known = KNOWN.with_borrow(|known| known.get(client).and_then(fresh));
    if known.is_some() {
        return known;
    }
    let tier = call(env, client.as_str(), &ViewCall {}).await.ok()??.tier;
    note(client, tier, now);
    Some(tier)
}
