//! Changes to a workload: `pool.openai-gpt-4.capacity=x2`.

use rm_core::decimal;
use rm_core::id::PoolId;
use rm_core::units::{NanoUsd, Tokens};

use super::workload::{Senseless, Workload, require};

/// What can be changed, for the help.
pub const WHAT_CAN_BE_CHANGED: &str =
    "  pool.NAME=x2                     capacity and refill together: the pool twice over
  pool.NAME.capacity=x2, =90000    likewise refillPerSecond, unitPriceUsd and queueCap; windowCap=true
  client.NAME.maxConcurrent=x2     likewise monthlyBudgetUsd; tier=premium
  load=x1.5                        all rates of arrival; bursts stay";

/// A factor or a value, as it was written.
enum New<'a> {
    Factor(i64),
    Value(&'a str),
}

/// Factors have as many decimals as tokens have.
const FACTOR_SCALE: u32 = 6;
const FACTOR_ONE: i128 = 1_000_000;

/// The workload with all changes made.
///
/// # Errors
/// A change that makes no sense, by name.
pub fn apply<S: AsRef<str>>(workload: &Workload, changes: &[S]) -> Result<Workload, Senseless> {
    let mut changed = workload.clone();
    for change in changes {
        change_one(&mut changed, change.as_ref())?;
    }
    changed.check()?;
    Ok(changed)
}

fn change_one(workload: &mut Workload, change: &str) -> Result<(), Senseless> {
    let malformed = || Senseless::new(change, "expected NAME=VALUE, as in pool.openai-gpt-4.capacity=x2");
    let (target, value) = change.split_once('=').ok_or_else(malformed)?;
    let new = match value.strip_prefix('x') {
        Some(factor) => New::Factor(parse(target, factor, FACTOR_SCALE)?),
        None => New::Value(value),
    };
    if target == "load" {
        let New::Factor(factor) = new else {
            return Err(Senseless::new(target, "takes a factor, as in load=x1.5"));
        };
        require(!workload.arrivals.is_empty(), target, "there are no arrivals whose rate it could change")?;
        for arrivals in &mut workload.arrivals {
            arrivals.per_minute *= crate::numbers::real(factor) / 1e6;
        }
        return Ok(());
    }
    match target.split_once('.') {
        Some(("pool", rest)) => change_pool(workload, target, rest, &new),
        Some(("client", rest)) => change_client(workload, target, rest, &new),
        _ => Err(Senseless::new(target, "is nothing that can be changed: a pool., a client. or the load can")),
    }
}

fn change_pool(workload: &mut Workload, target: &str, rest: &str, new: &New<'_>) -> Result<(), Senseless> {
    // A pool's name may have dots itself.
    let is_pool = |name: &str| name.parse::<PoolId>().is_ok_and(|name| workload.pools.contains_key(&name));
    let (name, field) = match rest.rsplit_once('.') {
        _ if is_pool(rest) => (rest, None),
        Some((name, field)) => (name, Some(field)),
        None => (rest, None),
    };
    let pool = name.parse::<PoolId>().ok().and_then(|name| workload.pools.get_mut(&name));
    let Some(pool) = pool else {
        let known: Vec<&str> = workload.pools.keys().map(PoolId::as_str).collect();
        return Err(Senseless::new(target, format!("there is no pool `{name}`; there are {}", known.join(", "))));
    };
    match field {
        None => {
            require(matches!(new, New::Factor(_)), target, "takes a factor, as in x2, or the name of a field")?;
            pool.capacity = tokens(target, pool.capacity, new)?;
            pool.refill_per_second = tokens(target, pool.refill_per_second, new)?;
        }
        Some("capacity") => pool.capacity = tokens(target, pool.capacity, new)?,
        Some("refillPerSecond") => pool.refill_per_second = tokens(target, pool.refill_per_second, new)?,
        Some("unitPriceUsd") => pool.unit_price_usd = money(target, pool.unit_price_usd, new)?,
        Some("queueCap") => pool.queue_cap = count(target, pool.queue_cap, new)?,
        Some("windowCap") => {
            pool.window_cap = match new {
                New::Value("true") => true,
                New::Value("false") => false,
                _ => return Err(Senseless::new(target, "takes true or false")),
            };
        }
        Some(other) => return Err(Senseless::new(target, format!("a pool has no `{other}` that can be changed"))),
    }
    Ok(())
}

fn change_client(workload: &mut Workload, target: &str, rest: &str, new: &New<'_>) -> Result<(), Senseless> {
    let (name, field) = rest.rsplit_once('.').ok_or_else(|| Senseless::new(target, "names no field of the client"))?;
    let client = workload.clients.iter_mut().find(|client| client.client.as_str() == name);
    let client = client.ok_or_else(|| Senseless::new(target, format!("there is no client `{name}`")))?;
    match field {
        "maxConcurrent" => client.max_concurrent = count(target, client.max_concurrent, new)?,
        "monthlyBudgetUsd" => client.monthly_budget_usd = money(target, client.monthly_budget_usd, new)?,
        "tier" => {
            let tier = if let New::Value(name) = new { name.parse().ok() } else { None };
            client.tier = tier.ok_or_else(|| Senseless::new(target, "takes a tier's name"))?;
        }
        other => return Err(Senseless::new(target, format!("a client has no `{other}` that can be changed"))),
    }
    Ok(())
}

fn parse(target: &str, text: &str, scale: u32) -> Result<i64, Senseless> {
    let number = decimal::parse(text, scale);
    let number = number.map_err(|error| Senseless::new(target, format!("`{text}`: {error}")))?;
    require(number >= 0, target, &format!("`{text}` must not be negative"))?;
    Ok(number)
}

/// What a number becomes; a product is rounded down to the number's own step.
fn changed(target: &str, before: i64, scale: u32, new: &New<'_>) -> Result<i64, Senseless> {
    match new {
        New::Value(text) => parse(target, text, scale),
        New::Factor(factor) => {
            let product = i128::from(before).saturating_mul(i128::from(*factor)) / FACTOR_ONE;
            let in_range = i64::try_from(product).ok().filter(|product| *product <= decimal::MAX_EXACT);
            in_range.ok_or_else(|| Senseless::new(target, "is out of range"))
        }
    }
}

fn tokens(target: &str, before: Tokens, new: &New<'_>) -> Result<Tokens, Senseless> {
    changed(target, before.micros(), 6, new).map(Tokens::clamped)
}

fn money(target: &str, before: NanoUsd, new: &New<'_>) -> Result<NanoUsd, Senseless> {
    let nanos = changed(target, before.nanos(), 9, new)?;
    NanoUsd::from_nanos(nanos).ok_or_else(|| Senseless::new(target, "is out of range"))
}

fn count(target: &str, before: u32, new: &New<'_>) -> Result<u32, Senseless> {
    let number = changed(target, before.into(), 0, new)?;
    u32::try_from(number).map_err(|_| Senseless::new(target, "is out of range"))
}
