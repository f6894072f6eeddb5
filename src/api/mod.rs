//! The HTTP interface: a route, the right to use it, the handler, the answer.

mod admin;
mod admission;
mod auth;
mod batching;
mod body;
mod choosing;
mod demands;
mod docs;
mod downgrade;
mod estimates;
mod executions;
mod foretelling;
mod health;
mod intake;
mod internal;
mod kept;
mod lanes;
mod metrics;
#[cfg(test)]
mod openapi;
mod opportunities;
mod optimize;
mod patience;
mod query;
mod queue;
mod rate_limit;
mod reply;
mod resources;
mod routes;
mod status;
mod submission;
mod usage;

use std::cell::RefCell;
use std::rc::Rc;

use rm_core::id::{ClientId, PoolId, RequestId};
use worker::{Context, Env, Request, Response, Result};

use crate::dispatch;
use crate::host::object::{CallError, Operation, call_noting};
use crate::host::{clock, log, random};
use crate::store::catalog;
use crate::wire::pool::RateLimit;
use crate::wire::problem::{Code, More, Problem};
use reply::Reply;
use routes::{Route, route};

/// The header that limits a request to one client.
const CLIENT_HEADER: &str = "x-client-id";

/// What is noted of a request while it is handled.
#[derive(Default)]
struct Notes {
    /// The route, with its parameters' names.
    path: RefCell<&'static str>,
    /// Whose request it is.
    client: RefCell<Option<ClientId>>,
    /// The bucket of the pool that it is about.
    rate_limit: RefCell<Option<RateLimit>>,
}

/// What a handler knows of the request.
struct Call {
    request: Request,
    env: Env,
    context: Rc<Context>,
    /// The client that the request is limited to.
    only_client: Option<ClientId>,
    notes: Rc<Notes>,
}

impl Call {
    /// Refuses when the request is limited to another client.
    fn may_touch(&self, client: &ClientId) -> std::result::Result<(), Problem> {
        *self.notes.client.borrow_mut() = Some(client.clone());
        match &self.only_client {
            Some(only) if only != client => {
                Err(Problem::new(Code::Forbidden, format!("X-Client-Id limits this request to `{only}`")))
            }
            _ => Ok(()),
        }
    }

    /// The pool that keeps a request, if it is there: each object that is asked begins to exist, so a name that no pool
    /// has is not asked.
    async fn home_of(&self, id: &RequestId) -> Option<PoolId> {
        let home = id.home()?;
        match catalog::current(&self.env).await {
            Ok(catalog) if !catalog.pools.contains_key(&home) => None,
            _ => Some(home),
        }
    }

    /// Calls the pool that the answer is about, and notes how it is.
    async fn pool<O: Operation>(
        &self,
        pool: &PoolId,
        operation: &O,
        wait_ms: i64,
    ) -> std::result::Result<O::Answer, CallError> {
        let (answer, note) = call_noting(&self.env, pool.as_str(), operation, wait_ms).await?;
        if let Some(limit) = note.and_then(|note| serde_json::from_str(&note).ok()) {
            *self.notes.rate_limit.borrow_mut() = Some(limit);
        }
        Ok(answer)
    }

    fn header(&self, name: &str) -> Option<String> {
        self.request.headers().get(name).ok().flatten()
    }
}

/// Answers a request, and logs it in one line.
pub async fn handle(request: Request, env: Env, context: Context) -> Result<Response> {
    let began = clock::now();
    let incoming = request.headers().get("x-request-id")?.filter(|id| is_request_id(id));
    let request_id = incoming.or_else(random::hex::<16>).unwrap_or_default();
    let (method, trace_id) = (request.inner().method(), trace_id(&request));
    let notes = Rc::new(Notes::default());
    let answer = answer(request, env, Rc::new(context), Rc::clone(&notes)).await;
    let (reply, problem) = match answer {
        Ok(reply) => (reply, None),
        Err(problem) => (Reply::problem(&problem, &request_id), Some(problem)),
    };
    let reply = match notes.rate_limit.borrow().as_ref() {
        Some(limit) => rate_limit::with_headers(reply, limit),
        None => reply,
    };
    // A hand-over is no caller's request.
    if *notes.path.borrow() == dispatch::RUN_PATH {
        return reply.into_response(&request_id);
    }
    log::request(&log::RequestLine {
        request_id: &request_id,
        method: &method,
        path: *notes.path.borrow(),
        status: reply.status(),
        code: problem.as_ref().map(|problem| problem.code.parts().0),
        // What a caller did wrong is its own business, and may say what it sent.
        detail: problem.as_ref().filter(|problem| problem.code.parts().1 >= 500).map(|problem| problem.detail.as_str()),
        duration_ms: clock::now().since(began),
        client: notes.client.borrow().as_ref().map(ClientId::as_str),
        trace_id: trace_id.as_deref(),
    });
    reply.into_response(&request_id)
}

fn is_request_id(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}

/// A `traceparent` that is one (W3C Trace Context).
fn traceparent(request: &Request) -> Option<String> {
    request.headers().get("traceparent").ok().flatten().filter(|text| {
        let lengths: Vec<usize> = text.split('-').map(str::len).collect();
        lengths == [2, 32, 16, 2] && text.bytes().all(|b| b == b'-' || b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    })
}

fn trace_id(request: &Request) -> Option<String> {
    traceparent(request)?.split('-').nth(1).map(ToOwned::to_owned)
}

async fn answer(
    mut request: Request,
    env: Env,
    context: Rc<Context>,
    notes: Rc<Notes>,
) -> std::result::Result<Reply, Problem> {
    let (route, endpoint) = route(&request.inner().method(), &request.path())?;
    *notes.path.borrow_mut() = endpoint.path;
    if route == Route::Run {
        let body = body::read_text(&mut request).await?;
        return match dispatch::take_over(&env, &body).await.map_err(executions::unavailable)? {
            true => Ok(Reply::empty(200)),
            // To anybody else this route is not there.
            false => Err(Problem::not_found("route")),
        };
    }
    auth::check(&request, &env, endpoint.access)?;
    let only_client: Option<ClientId> = match request.headers().get(CLIENT_HEADER).ok().flatten() {
        Some(text) => Some(text.parse().map_err(|error| Problem::field("X-Client-Id", format!("{error}")))?),
        None => None,
    };
    notes.client.borrow_mut().clone_from(&only_client);
    let changes_all = endpoint.access == routes::Access::Admin
        && endpoint.method != worker::Method::Get
        && !route.is_about_a_client();
    if only_client.is_some() && changes_all {
        let detail = "limited to a client, a request may not change what clients share: leave X-Client-Id out";
        return Err(Problem::new(Code::Forbidden, detail));
    }
    let call = Call { request, env: env.clone(), context: Rc::clone(&context), only_client, notes };
    let answer = serve(call, route).await;
    if let Err(problem) = &answer
        && let Some(More::UnknownPrice(what, name)) = problem.more.as_deref()
    {
        demands::tell_unknown_price(env, &context, what, name.clone(), clock::now());
    }
    answer
}

async fn serve(call: Call, route: Route) -> std::result::Result<Reply, Problem> {
    match route {
        Route::Run => Err(Problem::not_found("route")),
        Route::Root => health::root(),
        Route::Health => health::health(&call).await,
        Route::OpenApi => Ok(docs::openapi()),
        Route::Docs(file) => docs::file(&file),
        Route::Status => status::status(&call).await,
        Route::Metrics => metrics::metrics(&call).await,
        Route::Execute => executions::execute(call, executions::Kind::Execute).await,
        Route::Enqueue => executions::execute(call, executions::Kind::Enqueue).await,
        Route::Execution(id) => executions::get(&call, &id).await,
        Route::Cancel(id) => executions::cancel(&call, &id, false).await,
        Route::Dequeue(id) => executions::cancel(&call, &id, true).await,
        Route::QueueStatus => queue::status(&call).await,
        Route::QueuePosition(id) => queue::position(&call, &id).await,
        Route::Availability => resources::availability(&call).await,
        Route::Check => resources::check(call).await,
        Route::EstimateResources => estimates::resources(call).await,
        Route::EstimateCost => estimates::cost(call).await,
        Route::Usage(client) => usage::history(&call, &client).await,
        Route::CurrentUsage(client) => usage::current(&call, &client).await,
        Route::Cost(id) => usage::cost(&call, &id).await,
        Route::Analyze => optimize::analyze(call).await,
        Route::OptimizationStats(client) => optimize::stats(&call, &client).await,
        Route::Recommendations(client) => optimize::recommendations(&call, &client).await,
        Route::Reserve => internal::reserve(call).await,
        Route::Consume => internal::consume(call).await,
        Route::Release => internal::release(call).await,
        Route::SchedulerStart => admin::set_scheduler(&call, true).await,
        Route::SchedulerStop => admin::set_scheduler(&call, false).await,
        Route::Alerts => admin::list_alerts(&call).await,
        Route::Lanes => lanes::list(&call).await,
        Route::PutLane(lane) => lanes::put(call, &lane).await,
        Route::Pools => admin::pools(&call).await,
        Route::Pool(pool) => admin::pool(&call, &pool).await,
        Route::PutPool(pool) => admin::put_pool(call, &pool).await,
        Route::DeletePool(pool) => admin::delete_pool(&call, &pool).await,
        Route::Clients => admin::clients(&call).await,
        Route::Client(client) => admin::client(&call, &client).await,
        Route::PutClient(client) => admin::put_client(call, &client).await,
        Route::DeleteClient(client) => admin::delete_client(&call, &client).await,
        Route::Templates => admin::templates(&call).await,
        Route::Template(template) => admin::template(&call, &template).await,
        Route::PutTemplate(template) => admin::put_template(call, &template).await,
        Route::DeleteTemplate(template) => admin::delete_template(&call, &template).await,
        Route::PurgeClient(client) => kept::purge_client(&call, &client).await,
        Route::PurgeTemplate(template) => kept::purge_template(&call, &template).await,
    }
}
