//! One run for several requests: one call, whose answer is told apart again.

use rm_core::id::PoolId;
use rm_core::optimizer::shares;
use rm_core::pool::{Remaining, Retry};
use rm_core::pricing::Parts;
use rm_core::request::{Failure, Usage};
use rm_core::units::Tokens;
use serde_json::value::RawValue;
use worker::Env;

use crate::dispatch::downstream::{ANSWER_MAX_BYTES, Exchange, Outgoing, exchange};
use crate::dispatch::outcome::{failed, limits_by_pool, outcome_of, too_long, usage_by_pool};
use crate::host::clock;
use crate::store::results;
use crate::wire::downstream::{ItemResult, WorkBatch, WorkItem, WorkResults};
use crate::wire::payload::Payload;
use crate::wire::pool::{Order, RunOutcome};
use crate::wire::strict::Object;

/// As long as the answers of so many requests the answer of a common call may be: a Worker has 128 MB, and holds it several
/// times while it is told apart and stored.
const ANSWERS_MAX: usize = 2;

/// Runs several requests by one call. Each has its outcome, in their order.
pub async fn run(env: &Env, items: &[(Order, Box<RawValue>)]) -> (Vec<RunOutcome>, u64) {
    let Some((first, _)) = items.first() else { return (Vec::new(), 0) };
    let name = first.spec.worker.as_ref().map(|name| name.as_str().to_owned()).unwrap_or_default();
    let limit_ms = items.iter().map(|(order, _)| order.run.limit_ms).min().unwrap_or(0);
    match exchange(env, &name, order_for(first, items), limit_ms).await {
        Exchange::Failed(outcome) => (each_by_itself(&outcome, items.len()), 0),
        Exchange::Answered { status: 200..=299, body: Some(body), saved_bytes, .. } => {
            let reserved: Vec<&[(PoolId, Tokens)]> = items.iter().map(|(order, _)| order.reserved.as_slice()).collect();
            (told_apart(&name, &body, &reserved), saved_bytes)
        }
        Exchange::Answered { body: None, .. } => {
            (each_by_itself(&too_long(&name, answer_max_bytes(items.len())), items.len()), 0)
        }
        Exchange::Answered { status, retry_after, body, .. } => {
            let outcome = outcome_of(&name, status, retry_after.as_deref(), body.as_deref(), clock::now());
            (each_by_itself(&outcome, items.len()), 0)
        }
    }
}

/// What is wrong with all of them may be about one: each is to be tried by itself. A refusal is none of the attempts of each; a
/// failure is, and one of them tells that the worker failed.
fn each_by_itself(outcome: &RunOutcome, items: usize) -> Vec<RunOutcome> {
    let (failure, timed_out) = match outcome {
        RunOutcome::Failed { failure, retry: Retry::No } => {
            return vec![RunOutcome::Failed { failure: failure.clone(), retry: Retry::Alone }; items];
        }
        RunOutcome::Failed { failure, retry: Retry::Failing } => (failure.clone(), false),
        RunOutcome::TimedOut => {
            let message = "the worker did not answer the call for several in time".to_owned();
            (Failure { code: "timed_out".into(), message }, true)
        }
        // It is busy: that is nobody's fault.
        other => return vec![other.clone(); items],
    };
    let apart = |index: usize| RunOutcome::Failed {
        failure: failure.clone(),
        retry: Retry::Apart { tells: index == 0, timed_out },
    };
    (0..items).map(apart).collect()
}

fn order_for(first: &Order, items: &[(Order, Box<RawValue>)]) -> serde_json::Result<Outgoing> {
    let body = WorkBatch {
        template_id: first.spec.template_id.as_ref(),
        model: first.spec.model.as_deref(),
        batch: items.iter().map(|(order, input)| item(order, input)).collect(),
    };
    let ids: Vec<&str> = items.iter().map(|(order, _)| order.run.id.as_str()).collect();
    Ok(Outgoing {
        request_id: first.run.id.to_string(),
        // The same for the same requests, whatever attempt it is.
        idempotency_key: format!("batch-{}", results::key(&ids.join(" "))),
        traceparent: first.spec.traceparent.clone(),
        body: serde_json::to_string(&body)?,
        compress: items.iter().all(|(order, _)| order.spec.compress),
        answer_max_bytes: answer_max_bytes(items.len()),
    })
}

fn answer_max_bytes(items: usize) -> usize {
    ANSWER_MAX_BYTES.saturating_mul(items.min(ANSWERS_MAX))
}

fn item<'a>(order: &'a Order, input: &'a RawValue) -> WorkItem<'a> {
    WorkItem {
        request_id: &order.run.id,
        attempt: order.run.attempt,
        client_id: &order.spec.client_id,
        input,
        parameters: &order.spec.parameters,
        deadline: order.run.deadline,
    }
}

/// One entry of an answer.
struct Entry {
    outcome: RunOutcome,
    /// What it says that it used itself, if it has a result or not.
    own: Vec<Usage>,
}

/// Tells an answer apart. A use that is told for all is divided among all by what was reserved for each. One without a result
/// pays nothing, as when it is run by itself; but its share is not the others' either.
fn told_apart(name: &str, body: &[u8], reserved: &[&[(PoolId, Tokens)]]) -> Vec<RunOutcome> {
    let not_such = |why: String| {
        let message =
            format!("`{name}` answered something that is not {{\"results\": [{} of them]}}: {why}", reserved.len());
        vec![failed("invalid_worker_response", message, Retry::Alone); reserved.len()]
    };
    let WorkResults { results, usage, limits } = match serde_json::from_slice::<Object<WorkResults>>(body) {
        Ok(Object(answer)) if answer.results.len() == reserved.len() => answer,
        Ok(Object(answer)) => return not_such(format!("there are {}", answer.results.len())),
        Err(error) => return not_such(error.to_string()),
    };
    let mut entries: Vec<Entry> = results.into_iter().map(|result| entry(name, &result)).collect();
    for common in usage_by_pool(name, usage) {
        divide(&common, &mut entries, reserved);
    }
    let mut remaining: Vec<Remaining> = limits_by_pool(name, limits);
    let outcome = |Entry { mut outcome, own }| {
        if let RunOutcome::Succeeded { usage, remaining: said, .. } = &mut outcome {
            *usage = own;
            // What is left of a limit is said once.
            said.append(&mut remaining);
        }
        outcome
    };
    entries.into_iter().map(outcome).collect()
}

fn entry(name: &str, item: &RawValue) -> Entry {
    let alone = |outcome| Entry { outcome, own: Vec::new() };
    match serde_json::from_str::<Object<ItemResult>>(item.get()) {
        Ok(Object(ItemResult { result: Some(result), usage, error: None, .. })) => Entry {
            outcome: RunOutcome::Succeeded {
                result: Payload::Inline(result),
                usage: Vec::new(),
                remaining: Vec::new(),
            },
            own: usage_by_pool(name, usage),
        },
        Ok(Object(ItemResult { error, status, usage, .. })) => {
            let said = error.map(|error| format!(": {}", error.get().chars().take(500).collect::<String>()));
            let message = format!("`{name}` has no result for it{}", said.unwrap_or_default());
            let outcome = match status {
                Some(429 | 500..=599) => failed("worker_failed", message, Retry::Backoff),
                _ => failed("worker_refused", message, Retry::No),
            };
            Entry { outcome, own: usage_by_pool(name, usage) }
        }
        Err(error) => {
            let message = format!("`{name}` answered something for it that is not {{\"result\": …}}: {error}");
            alone(failed("invalid_worker_response", message, Retry::No))
        }
    }
}

/// Divides a common use among those that need the pool and did not say their use of it: what those did say is part of it.
fn divide(common: &Usage, entries: &mut [Entry], reserved: &[&[(PoolId, Tokens)]]) {
    let common = rest_of(common, entries);
    let weight = |index: usize| -> Option<Tokens> {
        let needs = reserved.get(index)?.iter().find(|(pool, _)| *pool == common.pool)?;
        Some(needs.1)
    };
    let takes_part = |(index, entry): (usize, &Entry)| {
        let has_own = entry.own.iter().any(|said| said.pool == common.pool);
        weight(index).filter(|_| !has_own).map(|weight| (index, weight))
    };
    let (indices, weights): (Vec<usize>, Vec<Tokens>) = entries.iter().enumerate().filter_map(takes_part).unzip();
    let amounts = shares(common.amount, &weights);
    let part = |of: fn(&Parts) -> Tokens| common.parts.map(|parts| shares(of(&parts), &weights)).unwrap_or_default();
    let (cached, output) = (part(|parts| parts.cached_input), part(|parts| parts.output));
    let at = |shares: &[Tokens], place: usize| shares.get(place).copied().unwrap_or(Tokens::ZERO);
    for (place, index) in indices.into_iter().enumerate() {
        if let Some(entry) = entries.get_mut(index) {
            let amount = at(&amounts, place);
            let parts = common
                .parts
                .map(|_| Parts { cached_input: at(&cached, place), output: at(&output, place) }.within(amount));
            entry.own.push(Usage { pool: common.pool.clone(), amount, parts, is_share: true });
        }
    }
}

/// What is left of a common use besides what some say of their own.
fn rest_of(common: &Usage, entries: &[Entry]) -> Usage {
    let mut rest = common.clone();
    // One that does not tell its own use apart is taken to have had as much of each part as the others.
    let part_of = |part: Tokens, amount: Tokens| {
        let others = common.amount.saturating_sub(amount);
        shares(part, &[amount, others]).first().copied().unwrap_or(Tokens::ZERO)
    };
    for said in entries.iter().flat_map(|entry| &entry.own).filter(|said| said.pool == common.pool) {
        rest.amount = rest.amount.saturating_sub(said.amount);
        if let (Some(parts), Some(all)) = (&mut rest.parts, common.parts) {
            let own = said.parts.unwrap_or_else(|| Parts {
                cached_input: part_of(all.cached_input, said.amount),
                output: part_of(all.output, said.amount),
            });
            parts.cached_input = parts.cached_input.saturating_sub(own.cached_input);
            parts.output = parts.output.saturating_sub(own.output);
        }
    }
    rest
}

#[cfg(test)]
mod tests {
    use rm_core::id::PoolId;
    use rm_core::pool::Retry;
    use rm_core::units::Tokens;

    use super::{each_by_itself, failed, told_apart};
    use crate::wire::pool::RunOutcome;

    fn answer(json: &str) -> Vec<RunOutcome> {
        let needs = |n| vec![("p".parse::<PoolId>().unwrap(), Tokens::from_units(n).unwrap())];
        let reserved = [needs(1), needs(2), needs(1)];
        told_apart("W", json.as_bytes(), &reserved.iter().map(Vec::as_slice).collect::<Vec<_>>())
    }

    fn used(outcome: &RunOutcome) -> Option<u64> {
        match outcome {
            RunOutcome::Succeeded { usage, .. } => usage.first().map(|usage| usage.amount.units()),
            _ => None,
        }
    }

    #[test]
    fn a_common_use_is_divided_by_what_was_reserved() {
        let all = answer(r#"{"results":[{"result":1},{"result":null},{"result":{}}],"usage":{"p":9}}"#);
        assert_eq!(all.iter().map(used).collect::<Vec<_>>(), [Some(2), Some(5), Some(2)]);
    }

    #[test]
    fn what_one_without_a_result_has_used_is_not_the_others() {
        let all = answer(r#"{"results":[{"result":1},{"error":"bad","status":400},{"result":3}],"usage":{"p":8}}"#);
        assert_eq!(all.iter().map(used).collect::<Vec<_>>(), [Some(2), None, Some(2)], "half was reserved for it");
        let told = answer(
            r#"{"results":[{"result":1},{"error":"bad","status":400,"usage":{"p":20}},{"result":3}],"usage":{"p":22}}"#,
        );
        assert_eq!(told.iter().map(used).collect::<Vec<_>>(), [Some(1), None, Some(1)]);
        let bad = answer(r#"{"results":[{"result":1},"bad",{"result":3}],"usage":{"p":8}}"#);
        assert_eq!(bad.iter().map(used).collect::<Vec<_>>(), [Some(2), None, Some(2)]);
    }

    #[test]
    fn one_that_says_its_use_has_that() {
        let all = answer(
            r#"{"results":[{"result":1,"usage":{"p":7}},{"error":"bad","status":503},{"result":3}],"usage":{"p":4}}"#,
        );
        assert_eq!(all.iter().map(used).collect::<Vec<_>>(), [Some(7), None, Some(0)], "it is more than that of all");
        let rest = answer(r#"{"results":[{"result":1,"usage":{"p":2}},{"result":2},{"result":3}],"usage":{"p":8}}"#);
        assert_eq!(rest.iter().map(used).collect::<Vec<_>>(), [Some(2), Some(4), Some(2)], "eight in all");
        let parts = answer(
            r#"{"results":[{"result":1,"usage":{"p":60}},{"result":2},{"result":3}],"usage":{"p":{"amount":100,"output":50}}}"#,
        );
        let outputs = parts.iter().skip(1).filter_map(|outcome| match outcome {
            RunOutcome::Succeeded { usage, .. } => usage.first().and_then(|usage| usage.parts),
            _ => None,
        });
        assert_eq!(outputs.map(|parts| parts.output.units()).sum::<u64>(), 20, "thirty are taken to be its own");
        assert!(matches!(all[1], RunOutcome::Failed { retry: Retry::Backoff, .. }));
        let refused = answer(r#"{"results":[{"result":1},{"error":{"code":"x"}},7]}"#);
        for bad in &refused[1..] {
            assert!(matches!(bad, RunOutcome::Failed { retry: Retry::No, .. }));
        }
    }

    #[test]
    fn only_a_refusal_of_all_of_them_is_no_attempt_of_each() {
        let retries = |outcome: &RunOutcome| -> Vec<Retry> {
            let of = |one| match one {
                RunOutcome::Failed { retry, .. } => retry,
                _ => panic!("each is told that it failed"),
            };
            each_by_itself(outcome, 2).into_iter().map(of).collect()
        };
        let apart = |timed_out| [true, false].map(|tells| Retry::Apart { tells, timed_out });
        assert_eq!(retries(&failed("x", "", Retry::No)), [Retry::Alone; 2]);
        assert_eq!(retries(&failed("x", "", Retry::Failing)), apart(false));
        assert_eq!(retries(&RunOutcome::TimedOut), apart(true));
        let busy = Retry::Busy { pause_ms: Some(7) };
        assert_eq!(retries(&failed("x", "", busy)), [busy; 2]);
    }

    #[test]
    fn an_answer_that_cannot_be_told_apart_has_each_tried_by_itself() {
        for json in ["<html>", "[]", r#"{"results":[]}"#, r#"{"results":[{"result":1}]}"#, r#"{"result":1}"#] {
            let all = answer(json);
            assert_eq!(all.len(), 3);
            assert!(all.iter().all(|one| matches!(one, RunOutcome::Failed { retry: Retry::Alone, .. })), "{json}");
        }
    }
}
