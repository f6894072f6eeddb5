//! The HTTP interface: a route, the right to use it, the handler, the answer.

mod admin;
mod admission;
mod auth;
mod body;
mod executions;
mod health;
mod internal;
mod queue;
mod reply;
mod resources;
mod routes;
mod usage;

use std::rc::Rc;

use rm_core::id::{ClientId, PoolId, RequestId};
use worker::{Context, Env, Request, Response, Result};

use crate::dispatch;
use crate::host::{log, random};
use crate::store::catalog;
use crate::wire::problem::{Code, Problem};
use reply::Reply;
use routes::{Route, route};

/// The header that limits a request to one client.
const CLIENT_HEADER: &str = "x-client-id";

/// What a handler knows of the request.
struct Call {
    request: Request,
    env: Env,
    context: Rc<Context>,
    /// The client that the request is limited to.
    only_client: Option<ClientId>,
}

impl Call {
    /// Refuses when the request is limited to another client.
    fn may_touch(&self, client: &ClientId) -> std::result::Result<(), Problem> {
        match &self.only_client {
            Some(only) if only != client => {
                Err(Problem::new(Code::Forbidden, format!("X-Client-Id limits this request to `{only}`")))
            }
            _ => Ok(()),
        }
    }

    /// The pool that keeps a request. A name that no pool has is not asked: each object that is asked begins to exist.
    async fn home_of(&self, id: &RequestId, what: &str) -> std::result::Result<PoolId, Problem> {
        let home = id.home().ok_or_else(|| Problem::not_found(what))?;
        match catalog::current(&self.env).await {
            Ok(catalog) if !catalog.pools.contains_key(&home) => Err(Problem::not_found(what)),
            _ => Ok(home),
        }
    }

    fn header(&self, name: &str) -> Option<String> {
        self.request.headers().get(name).ok().flatten()
    }
}

/// Answers a request.
pub async fn handle(request: Request, env: Env, context: Context) -> Result<Response> {
    let incoming = request.headers().get("x-request-id")?.filter(|id| is_request_id(id));
    let request_id = incoming.or_else(random::hex::<16>).unwrap_or_default();
    let answer = answer(request, env, context).await;
    let reply = answer.unwrap_or_else(|problem| {
        if problem.code == Code::Unavailable {
            log::warn("unavailable", &request_id, &problem.detail);
        }
        Reply::problem(&problem, &request_id)
    });
    reply.into_response(&request_id)
}

fn is_request_id(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}

async fn answer(mut request: Request, env: Env, context: Context) -> std::result::Result<Reply, Problem> {
    let route = route(&request.method(), &request.path())?;
    if route == Route::Run {
        let body = body::read_text(&mut request).await?;
        return match dispatch::take_over(&env, &body).await.map_err(executions::unavailable)? {
            true => Ok(Reply::empty()),
            // To anybody else this route is not there.
            false => Err(Problem::not_found("route")),
        };
    }
    auth::check(&request, &env, &route)?;
    let only_client = match request.headers().get(CLIENT_HEADER).ok().flatten() {
        Some(text) => Some(text.parse().map_err(|error| Problem::field("X-Client-Id", format!("{error}")))?),
        None => None,
    };
    let call = Call { request, env, context: Rc::new(context), only_client };
    match route {
        Route::Run => Err(Problem::not_found("route")),
        Route::Root => health::root(),
        Route::Health => health::health(&call).await,
        Route::Execute => executions::execute(call, executions::Kind::Execute).await,
        Route::Enqueue => executions::execute(call, executions::Kind::Enqueue).await,
        Route::Execution(id) => executions::get(&call, &id).await,
        Route::Cancel(id) => executions::cancel(&call, &id, false).await,
        Route::Dequeue(id) => executions::cancel(&call, &id, true).await,
        Route::QueueStatus => queue::status(&call).await,
        Route::QueuePosition(id) => queue::position(&call, &id).await,
        Route::Availability => resources::availability(&call).await,
        Route::Check => resources::check(call).await,
        Route::CurrentUsage(client) => usage::current(&call, &client).await,
        Route::Cost(id) => usage::cost(&call, &id).await,
        Route::Reserve => internal::reserve(call).await,
        Route::Consume => internal::consume(call).await,
        Route::Release => internal::release(call).await,
        Route::SchedulerStart => admin::set_scheduler(&call, true).await,
        Route::SchedulerStop => admin::set_scheduler(&call, false).await,
        Route::Pools => admin::pools(&call).await,
        Route::Pool(pool) => admin::pool(&call, &pool).await,
        Route::PutPool(pool) => admin::put_pool(call, &pool).await,
        Route::Clients => admin::clients(&call).await,
        Route::Client(client) => admin::client(&call, &client).await,
        Route::PutClient(client) => admin::put_client(call, &client).await,
        Route::Templates => admin::templates(&call).await,
        Route::Template(template) => admin::template(&call, &template).await,
        Route::PutTemplate(template) => admin::put_template(call, &template).await,
    }
}
