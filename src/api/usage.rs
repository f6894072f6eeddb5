//! `/api/usage/…` and `/api/cost/…`.

use rm_core::id::{ClientId, RequestId};
use rm_core::period::{Period, rfc3339};
use rm_core::units::{Instant, NanoUsd};

use crate::api::Call;
use crate::api::executions::unavailable;
use crate::api::query::{Cursor, Query};
use crate::api::reply::Reply;
use crate::host::clock;
use crate::host::object::call;
use crate::store::usage::{Days, Sum};
use crate::store::{catalog, record, usage};
use crate::views::recorded_bill;
use crate::wire::account::ViewCall;
use crate::wire::pool::BillCall;
use crate::wire::problem::Problem;
use crate::wire::usage::{CurrentUsage, GroupBy, UsageHistory, UsageRow, UsageSum};

const DAY_MS: i64 = 86_400_000;
/// The longest history at once: what one answer adds up is bounded.
const DAYS_MAX: i64 = 400;

fn d1(error: worker::Error) -> Problem {
    Problem::unavailable(error.to_string())
}

/// `GET /api/usage/{clientId}`: sums over whole days in UTC.
pub async fn history(call: &Call, client: &ClientId) -> Result<Reply, Problem> {
    call.may_touch(client)?;
    let query = Query::of(call, &["from", "to", "groupBy", "limit", "cursor"])?;
    let group_by = match query.text("groupBy") {
        None => GroupBy::Day,
        Some(name) => GroupBy::ALL
            .into_iter()
            .find(|group| group.as_str() == name)
            .ok_or_else(|| Problem::field("groupBy", "must be day, template, pool or model"))?,
    };
    let (from, to) = span(&query, clock::now())?;
    let limit = query.limit()?;
    let days = Days { first: day(from), last: day(to.plus(-1)) };
    let list = format!("usage {client} {} {} {}", days.first, days.last, group_by.as_str());
    let after = Cursor::read(&list, query.text("cursor"))?;
    known(call, client).await?;
    let rows = usage::by_group(&call.env, client, &days, group_by, after.as_deref(), limit.saturating_add(1));
    let (totals, rows) = futures_util::join!(usage::totals(&call.env, client, &days), rows);
    let (totals, mut rows) = (totals.map_err(d1)?, rows.map_err(d1)?);
    let size = usize::try_from(limit).unwrap_or(usize::MAX);
    let more = rows.len() > size;
    rows.truncate(size);
    let next_cursor = rows.last().filter(|_| more).map(|(name, _)| Cursor::write(&list, name));
    let rows = rows.into_iter().map(|(name, sum)| row(group_by, name, &sum)).collect();
    Reply::json(
        200,
        &UsageHistory { client_id: client.clone(), from, to, group_by, totals: usage_sum(&totals), rows, next_cursor },
    )
}

/// The days of a query: those of this month until now, if it says nothing else.
pub fn span(query: &Query, now: Instant) -> Result<(Instant, Instant), Problem> {
    let midnight = |at: Instant| at.plus(at.millis().rem_euclid(DAY_MS).saturating_neg());
    let to = query.moment("to", 1)?.unwrap_or_else(|| now.plus(1));
    let from = match query.moment("from", 0)? {
        Some(from) => from,
        None => Period::month_of(to.plus(-1)).start,
    };
    if from >= to {
        return Err(Problem::field("from", "must be before `to`"));
    }
    let (from, to) = (midnight(from), midnight(to.plus(DAY_MS).plus(-1)));
    if to.since(from) > DAYS_MAX.saturating_mul(DAY_MS) {
        return Err(Problem::field("from", format!("must be at most {DAYS_MAX} days before `to`")));
    }
    Ok((from, to))
}

/// A moment's day, as the roll-ups name it.
pub fn day(at: Instant) -> String {
    rfc3339(at).chars().take_while(|c| *c != 'T').collect()
}

/// A client that is there, or was and has a record.
async fn known(call: &Call, client: &ClientId) -> Result<(), Problem> {
    if catalog::client(&call.env, client).await.map_err(d1)?.is_some() {
        return Ok(());
    }
    if usage::has_any(&call.env, client).await.map_err(d1)? { Ok(()) } else { Err(Problem::not_found("client")) }
}

fn usage_sum(sum: &Sum) -> UsageSum {
    UsageSum { cost_usd: sum.cost, requests: sum.requests, saved_usd: saved(sum) }
}

fn saved(sum: &Sum) -> NanoUsd {
    sum.baseline.saturating_sub(sum.cost)
}

fn row(group_by: GroupBy, name: String, sum: &Sum) -> UsageRow {
    let named = |group| (group_by == group).then(|| name.clone());
    UsageRow {
        day: named(GroupBy::Day),
        template: named(GroupBy::Template),
        pool: named(GroupBy::Pool),
        model: named(GroupBy::Model),
        cost_usd: sum.cost,
        requests: sum.requests,
        saved_usd: saved(sum),
    }
}

/// `GET /api/usage/{clientId}/current`: from the account itself, so exact.
pub async fn current(call: &Call, client: &ClientId) -> Result<Reply, Problem> {
    call.may_touch(client)?;
    let view = self::call(&call.env, client.as_str(), &ViewCall {}).await.map_err(unavailable)?;
    let view = view.ok_or_else(|| Problem::not_found("client"))?;
    Reply::json(200, &CurrentUsage::from(view))
}

/// `GET /api/cost/{requestId}`: from the pool, or from the record once that has let go of the request.
pub async fn cost(call: &Call, id: &RequestId) -> Result<Reply, Problem> {
    let live = match call.home_of(id).await {
        Some(home) => call.pool(&home, &BillCall { id: id.clone() }, 0).await.map_err(unavailable)?,
        None => None,
    };
    if let Some(answer) = live {
        call.may_touch(&answer.client)?;
        return Reply::json(200, &answer.bill);
    }
    let recorded = record::find(&call.env, id).await.map_err(d1)?.ok_or_else(|| Problem::not_found("request"))?;
    call.may_touch(&recorded.end.client_id)?;
    Reply::json(200, &recorded_bill(&recorded))
}
