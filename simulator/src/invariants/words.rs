//! Messages in words, for the trace of a history that failed.

use std::fmt;

use rm_core::account::{AtHome, SlotAnswer};
use rm_core::id::PoolId;
use rm_core::pool::{LeaseAnswer, Report, Retry};
use rm_core::request::{Demand, Usage};

use super::shell::Message;

pub(crate) fn demands_in_words(demands: &[Demand]) -> String {
    let words: Vec<String> =
        demands.iter().map(|demand| format!("{} of {}", demand.amount.units(), demand.pool)).collect();
    words.join(" and ")
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AcquireSlot(client, pool, id, grant, ..) => {
                write!(f, "{pool} → {client}: a slot for {id}, grant {grant}?")
            }
            Self::RaiseHold(client, id, least) => {
                write!(f, "→ {client}: {} nano-dollars are to be held for {id}", least.nanos())
            }
            Self::SlotAnswer(pool, id, grant, answer) => {
                let answer = match answer {
                    Some(SlotAnswer::Granted) => "given",
                    Some(SlotAnswer::Full) => "all are taken",
                    Some(SlotAnswer::NoHold) => "nothing is held for it",
                    None => "no answer",
                };
                write!(f, "→ {pool}: the slot for {id}, grant {grant}: {answer}")
            }
            Self::ReleaseSlot(client, id, grant, _) => {
                write!(f, "→ {client}: the slot of {id}, grant {grant}, is free")
            }
            Self::AcquireLease(pool, home, id, grant, order) => {
                write!(f, "{home} → {pool}: {} for {id}, grant {grant}?", order.amount.units())
            }
            Self::LeaseAnswer(home, id, grant, pool, answer) => {
                let answer = match answer {
                    LeaseAnswer::Granted { .. } => "granted",
                    LeaseAnswer::Ready => "it would be granted",
                    LeaseAnswer::NotNow { .. } => "not now",
                    LeaseAnswer::LeftAlone { .. } => "its worker is left alone",
                    LeaseAnswer::Never => "never",
                    LeaseAnswer::Unreachable => "no answer",
                };
                write!(f, "{pool} → {home}: tokens for {id}, grant {grant}: {answer}")
            }
            Self::LeaseFree(home, pool, false, _) => write!(f, "{pool} → {home}: tokens were given back"),
            Self::LeaseFree(home, pool, true, _) => write!(f, "{pool} → {home}: a grant came to nothing"),
            Self::OrdersOver(pool, keys) => write!(f, "→ {pool}: nothing is asked any more for {}", keys.join(", ")),
            Self::Standings(pool, home, ..) => write!(f, "{home} → {pool}: how its clients stand"),
            Self::HeldBack(pool, keeper, waiting) if waiting.is_empty() => {
                write!(f, "{keeper} → {pool}: nobody waits any more for what is kept for yours")
            }
            Self::HeldBack(pool, keeper, waiting) => {
                let waiting: Vec<&str> = waiting.iter().map(PoolId::as_str).collect();
                write!(f, "{keeper} → {pool}: {} wait for what is kept for yours", waiting.join(", "))
            }
            Self::SettleLease(pool, key, used, ..) => write!(f, "→ {pool}: the lease {key} used {}", used.units()),
            Self::Settle(pool, event) => write!(f, "{pool} → the account: the settlement of {event}"),
            Self::Settled(pool, event) => write!(f, "→ {pool}: the account has the settlement of {event}"),
            Self::Wake(pool, client) => write!(f, "{client} → {pool}: a slot is free"),
            Self::Woken(client) => write!(f, "→ {client}: it was told"),
            Self::AskHome(client, id, _) => write!(f, "{client} → home: how is {id}?"),
            Self::HomeAnswer(client, id, _, answer) => {
                let answer = match answer {
                    AtHome::Unknown => "unknown here",
                    AtHome::Waiting => "it waits",
                    AtHome::Busy => "it runs or has ended",
                };
                write!(f, "home → {client}: {id}: {answer}")
            }
            Self::Start(pool, id, grant) => write!(f, "{pool} → a worker: run {id}, grant {grant}"),
            Self::Report(pool, id, grant, report) => {
                write!(f, "a worker → {pool}: {id}, grant {grant}: {}", report_in_words(report))
            }
        }
    }
}

fn report_in_words(report: &Report) -> String {
    match report {
        Report::Succeeded { usage, .. } if usage.is_empty() => "done, used what was reserved".into(),
        Report::Succeeded { usage, .. } => {
            let used = |usage: &Usage| format!("{} of {}", usage.amount.units(), usage.pool);
            format!("done, used {}", usage.iter().map(used).collect::<Vec<_>>().join(" and "))
        }
        Report::Failed { retry: Retry::No, .. } => "failed for good".into(),
        Report::Failed { retry: Retry::Alone, .. } => "refused together with others".into(),
        Report::Failed { retry: Retry::Apart { .. }, .. } => "failed together with others".into(),
        Report::Failed { retry: Retry::Backoff, .. } => "failed on the way".into(),
        Report::Failed { retry: Retry::Failing, .. } => "failed".into(),
        Report::Failed { retry: Retry::Busy { pause_ms: None }, .. } => "is busy".into(),
        Report::Failed { retry: Retry::Busy { pause_ms: Some(pause_ms) }, .. } => {
            format!("is busy, and wants {pause_ms} ms of peace")
        }
        Report::TimedOut => "timed out".into(),
    }
}
