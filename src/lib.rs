//! The Resource Manager as a Cloudflare Worker: the entry points, and nothing else.
//!
//! `api` takes requests in, `objects` keep the two Durable Objects, `dispatch` runs one attempt, `store` is D1 and the
//! objects' SQLite, `wire` is every type that crosses a boundary, `host` is the only place that reads the clock,
//! randomness and bindings. Every decision is made in the core crate.

mod alerts;
mod api;
mod cron;
mod dispatch;
mod host;
mod objects;
mod store;
mod views;
mod wire;

use worker::{Context, Env, Request, Response, Result, ScheduleContext, ScheduledEvent, event};

pub use objects::{ClientAccount, ResourcePool};

#[event(fetch)]
async fn fetch(request: Request, env: Env, context: Context) -> Result<Response> {
    api::handle(request, env, context).await
}

#[event(scheduled)]
async fn scheduled(_event: ScheduledEvent, env: Env, _context: ScheduleContext) {
    cron::tick(&env).await;
}
