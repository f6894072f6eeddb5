//! What each route does, takes and answers, in words and by the names of its types.

use serde_json::{Value, json};
use worker::Method;

use super::reference;

/// An answer: its status, what it means, and the name of its schema.
type Answer = (u16, &'static str, Option<&'static str>);

/// An operation.
pub struct Operation {
    pub id: &'static str,
    pub tag: &'static str,
    pub summary: &'static str,
    pub parameters: Vec<Value>,
    pub body: Option<Value>,
    pub answers: Vec<Answer>,
    /// Headers of an answer: its status, the header's name, and what it says.
    pub headers: Vec<(u16, &'static str, &'static str)>,
    /// Problems besides those that every route of its kind has.
    pub problems: Vec<u16>,
    /// The media type of the answer, if it can be asked for as something else than JSON.
    pub text: Option<&'static str>,
}

impl Operation {
    fn new(id: &'static str, tag: &'static str, summary: &'static str) -> Self {
        Self {
            id,
            tag,
            summary,
            parameters: Vec::new(),
            body: None,
            answers: Vec::new(),
            headers: Vec::new(),
            problems: Vec::new(),
            text: None,
        }
    }

    fn takes(mut self, schema: &str) -> Self {
        self.body = Some(reference(schema));
        self
    }

    fn takes_any_of(mut self, schemas: &[&str]) -> Self {
        let schemas: Vec<Value> = schemas.iter().map(|schema| reference(schema)).collect();
        self.body = Some(json!({"anyOf": schemas}));
        self
    }

    fn answers(mut self, status: u16, what: &'static str, schema: &'static str) -> Self {
        self.answers.push((status, what, Some(schema)));
        self
    }

    fn empty(mut self, status: u16, what: &'static str) -> Self {
        self.answers.push((status, what, None));
        self
    }

    fn header(mut self, status: u16, name: &'static str, what: &'static str) -> Self {
        self.headers.push((status, name, what));
        self
    }

    fn fails(mut self, problems: &[u16]) -> Self {
        self.problems.extend(problems);
        self
    }

    fn query(mut self, name: &str, what: &str, schema: Value) -> Self {
        self.parameters.push(json!({"name": name, "in": "query", "description": what, "schema": schema}));
        self
    }

    fn idempotent(mut self) -> Self {
        self.parameters.push(json!({
            "name": "Idempotency-Key", "in": "header",
            "description": "The same key and body give the same answer for 24 hours, however many arrive at once.",
            "schema": {"type": "string", "pattern": "^[!-~]{1,255}$"},
        }));
        self
    }

    fn paged(self) -> Self {
        let limit = json!({"type": "integer", "minimum": 1, "maximum": 1000, "default": 100});
        self.query("limit", "How many rows.", limit).query(
            "cursor",
            "`nextCursor` of the page before.",
            json!({"type": "string", "pattern": "^[0-9a-f]{8}([0-9a-f]{2}){0,70}$"}),
        )
    }

    fn spanned(self) -> Self {
        // Either form; a format in JSON Schema is one or the other.
        let moment = || json!({"type": "string", "examples": ["2026-11-24T06:00:00.000Z", "2026-11-24"]});
        let from = "The first moment or day, in UTC; the first of the month if it is left out.";
        let to = "The first moment that is not covered, or the last day that is; now if it is left out.";
        self.query("from", from, moment()).query("to", to, moment())
    }
}

/// The operation of a route; `None` for those that are not for callers.
#[expect(clippy::too_many_lines, reason = "a table")]
pub fn operation(method: &Method, path: &str) -> Option<Operation> {
    let new = Operation::new;
    let replayed = "The key was used before: this is that request, as it stands now.";
    let of_then = "The key was used before: this is the answer of then.";
    Some(match (method, path) {
        (Method::Get, "/") => new("getRoot", "Health", "What this is.").answers(200, "It runs.", "RootView"),
        (Method::Get, "/health") => new("getHealth", "Health", "Whether each part is well; each is really asked.")
            .answers(200, "All is well, or something that requests do not need is not.", "HealthView")
            .answers(503, "Nothing works.", "HealthView"),
        (Method::Get, "/status") => new(
            "getStatus",
            "Health",
            "Pools, queue, scheduler and open alerts at one glance.",
        )
        .answers(200, "As it is.", "StatusView"),
        (Method::Get, "/metrics") => {
            let mut operation = new("getMetrics", "Health", "Metrics, as Prometheus text or as JSON.").answers(
                200,
                "As it is.",
                "Metrics",
            );
            operation.text = Some("text/plain");
            operation
        }
        (Method::Post, "/api/execute") => {
            let mut operation = new("execute", "Execution", "Take a request, and wait for its end if that is wanted.")
                .takes("ExecuteBody")
                .idempotent()
                .answers(200, "It ended within the wait.", "ExecutionView")
                .answers(202, "It is taken.", "AcceptedView")
                .header(202, "Location", "Where the execution is.")
                .header(200, "Idempotency-Replayed", replayed)
                .header(202, "Idempotency-Replayed", replayed)
                .fails(&[402, 404, 422, 429]);
            operation.parameters.push(json!({
                "name": "Prefer", "in": "header", "description": "`wait=N`: wait for the end, at most N (60) seconds.",
                "schema": {"type": "string", "examples": ["wait=10"]},
            }));
            operation.parameters.push(json!({
                "name": "Cache-Control", "in": "header",
                "description": "`no-cache`: no kept result, and none of another request in flight; `no-store`: nor keep one.",
                "schema": {"type": "string", "examples": ["no-cache"]},
            }));
            operation
        }
        (Method::Post, "/api/queue/enqueue") => new("enqueue", "Queue", "Take a request; always answered at once.")
            .takes("ExecuteBody")
            .idempotent()
            .answers(202, "It is taken.", "AcceptedView")
            .header(202, "Location", "Where the execution is.")
            .header(202, "Idempotency-Replayed", replayed)
            .fails(&[402, 404, 422, 429]),
        (Method::Get, "/api/execution/{requestId}") => {
            new("getExecution", "Execution", "An execution: status, result, cost. Kept without its result for good.")
                .answers(200, "As it is.", "ExecutionView")
                .fails(&[404])
        }
        (Method::Post, "/api/execution/{requestId}/cancel") => {
            new("cancelExecution", "Execution", "Cancel a request, waiting or running.")
                .answers(200, "It is cancelled, now or before.", "ExecutionView")
                .fails(&[404, 409])
        }
        (Method::Get, "/api/queue/status") => new(
            "getQueueStatus",
            "Queue",
            "How many wait, how long, and what comes next.",
        )
        .answers(200, "As it is.", "QueueStatus"),
        (Method::Get, "/api/queue/position/{requestId}") => {
            new("getQueuePosition", "Queue", "A request's place, its score by parts, and what blocks it.")
                .answers(200, "As it is.", "PositionBody")
                .fails(&[404])
        }
        (Method::Delete, "/api/queue/{requestId}") => new("dequeue", "Queue", "Cancel a request that has not started.")
            .answers(200, "It is cancelled, now or before.", "ExecutionView")
            .fails(&[404, 409]),
        (Method::Get, "/api/resources/availability") => new(
            "getAvailability",
            "Resources",
            "All pools, from snapshots at most a second behind.",
        )
        .answers(200, "As of `asOf`.", "Availability"),
        (Method::Post, "/api/resources/check") => {
            new("checkResources", "Resources", "Whether and when amounts could be taken now; takes nothing.")
                .takes("CheckBody")
                .answers(200, "As it is.", "CheckView")
                .fails(&[404, 422])
        }
        (Method::Post, "/api/resources/estimate") => {
            new("estimateResources", "Resources", "What a request is expected to need; takes nothing.")
                .takes("ExecuteBody")
                .answers(200, "The estimate.", "ResourceEstimate")
                .fails(&[404, 422])
        }
        (Method::Get, "/api/usage/{clientId}") => {
            new("getUsage", "Usage", "What a client used, by day, template, pool or model; whole days in UTC.")
                .spanned()
                .query("groupBy", "By what.", reference("GroupBy"))
                .paged()
                .answers(200, "A page.", "UsageHistory")
                .fails(&[404])
        }
        (Method::Get, "/api/usage/{clientId}/current") => {
            new("getCurrentUsage", "Usage", "Budget, spent, held and running; exact.")
                .answers(200, "As it is.", "CurrentUsage")
                .fails(&[404])
        }
        (Method::Post, "/api/cost/estimate") => {
            new("estimateCost", "Usage", "What a request would cost; takes nothing.")
                .takes("ExecuteBody")
                .answers(200, "The estimate.", "CostEstimate")
                .fails(&[404, 422])
        }
        (Method::Get, "/api/cost/{requestId}") => {
            new("getCost", "Usage", "A request's bill.").answers(200, "As it is.", "BillView").fails(&[404])
        }
        (Method::Post, "/api/optimize/analyze") => {
            new("analyze", "Optimization", "What could make a request, or a client's history, cheaper.")
                .takes_any_of(&["ExecuteBody", "HistoryBody"])
                .answers(200, "Strategy by strategy.", "Analysis")
                .fails(&[404, 422])
        }
        (Method::Get, "/api/optimize/stats/{clientId}") => {
            new("getOptimizationStats", "Optimization", "What was saved.")
                .spanned()
                .answers(200, "Strategy by strategy.", "OptimizationStats")
                .fails(&[404])
        }
        (Method::Get, "/api/optimize/recommendations/{clientId}") => {
            new("getRecommendations", "Optimization", "What would have paid on the client's own record.")
                .answers(200, "With the evidence.", "Recommendations")
                .fails(&[404])
        }
        (Method::Post, "/internal/reserve") => {
            new("reserve", "Internal", "Tokens of several pools, all or none, for a worker that does the work itself.")
                .takes("ReserveBody")
                .idempotent()
                .answers(200, "Reserved.", "ReservedView")
                .header(200, "Idempotency-Replayed", replayed)
                .fails(&[402, 404, 422, 429])
        }
        (Method::Post, "/internal/consume") => {
            new("consume", "Internal", "What was used in all so far; `final: false` keeps the reservation open.")
                .takes("ConsumeBody")
                .idempotent()
                .answers(200, "Charged.", "ConsumedView")
                .header(200, "Idempotency-Replayed", of_then)
                .fails(&[404, 409, 422])
        }
        (Method::Post, "/internal/release") => new("release", "Internal", "Give the rest of a reservation back.")
            .takes("ReleaseBody")
            .answers(200, "It is closed.", "ReleasedView")
            .fails(&[404, 409]),
        (Method::Post, "/admin/scheduler/start") => {
            new("startScheduler", "Admin", "Let the scheduler grant.").answers(200, "It runs.", "SchedulerView")
        }
        (Method::Post, "/admin/scheduler/stop") => new("stopScheduler", "Admin", "Keep the scheduler from granting.")
            .answers(200, "It is stopped.", "SchedulerView"),
        (Method::Get, "/admin/alerts") => {
            let states = json!({"type": "string", "enum": ["open", "resolved", "all"], "default": "all"});
            new("listAlerts", "Admin", "Alerts, the newest first.")
                .query("status", "Which.", states)
                .paged()
                .answers(200, "A page.", "Alerts")
        }
        (Method::Get, "/admin/lanes") => {
            new("listLanes", "Admin", "The five lanes, the most urgent first.").answers(200, "All of them.", "Lanes")
        }
        (Method::Put, "/admin/lanes/{lane}") => new(
            "putLane",
            "Admin",
            "Set a lane's points and limits; what waits in it keeps the limit that it came with.",
        )
        .takes("LaneBody")
        .answers(200, "As stored.", "LaneRecord")
        .fails(&[404]),
        (Method::Get, "/admin/pools") => new("listPools", "Admin", "Pools.").paged().answers(200, "A page.", "Pools"),
        (Method::Get, "/admin/clients") => {
            new("listClients", "Admin", "Clients.").paged().answers(200, "A page.", "Clients")
        }
        (Method::Get, "/admin/templates") => {
            new("listTemplates", "Admin", "Templates.").paged().answers(200, "A page.", "Templates")
        }
        (Method::Get, "/admin/pools/{pool}") => {
            new("getPool", "Admin", "A pool.").answers(200, "As stored.", "Pool").fails(&[404])
        }
        (Method::Get, "/admin/clients/{clientId}") => {
            new("getClient", "Admin", "A client.").answers(200, "As stored.", "ClientRecord").fails(&[404])
        }
        (Method::Get, "/admin/templates/{templateId}") => {
            new("getTemplate", "Admin", "A template.").answers(200, "As stored.", "Template").fails(&[404])
        }
        (Method::Put, "/admin/pools/{pool}") => new("putPool", "Admin", "Set a pool; its level and queue stay.")
            .takes("PoolBody")
            .answers(200, "As stored.", "Pool"),
        (Method::Put, "/admin/clients/{clientId}") => {
            new("putClient", "Admin", "Set a client; what it has spent and holds stays.").takes("ClientBody").answers(
                200,
                "As stored, with what its tier adds.",
                "ClientRecord",
            )
        }
        (Method::Put, "/admin/templates/{templateId}") => {
            new("putTemplate", "Admin", "Set a template.").takes("TemplateBody").answers(200, "As stored.", "Template")
        }
        (Method::Delete, "/admin/pools/{pool}") => {
            new("deletePool", "Admin", "Delete a pool that holds no work and that no template needs.")
                .empty(204, "Deleted.")
                .fails(&[404, 409])
        }
        (Method::Delete, "/admin/clients/{clientId}") => {
            new("deleteClient", "Admin", "Delete a client that holds no work; its record stays.")
                .empty(204, "Deleted.")
                .fails(&[404, 409])
        }
        (Method::Delete, "/admin/templates/{templateId}") => {
            new("deleteTemplate", "Admin", "Delete a template; what runs by it goes on.")
                .empty(204, "Deleted.")
                .fails(&[404])
        }
        (Method::Delete, "/admin/cache/clients/{clientId}") => {
            new("purgeClient", "Admin", "No result of a client that was kept until now is used any more.")
                .empty(204, "Purged.")
                .fails(&[404])
        }
        (Method::Delete, "/admin/cache/templates/{templateId}") => {
            new("purgeTemplate", "Admin", "No result of a template that was kept until now is used any more.")
                .empty(204, "Purged.")
                .fails(&[404])
        }
        _ => return None,
    })
}
