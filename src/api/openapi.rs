//! The description of the HTTP interface (OpenAPI 3.1), made from the route table and the types that the handlers use.
//! It is made natively, by a test that compares it with `openapi.json`, which is what the Worker serves: the description
//! can be read beside the code, cannot drift from it, and weighs nothing at run time. `npm run openapi` writes it anew.

mod operations;

use serde_json::{Map, Value, json};
use utoipa::openapi::{Components, OpenApiBuilder};

use crate::api::routes::{Access, Endpoint, ROUTES};
use operations::{Operation, operation};

/// The whole description.
pub fn document() -> Value {
    let mut document = serde_json::to_value(OpenApiBuilder::new().components(Some(components())).build()).unwrap();
    let mut paths = Map::new();
    for endpoint in ROUTES {
        let Some(described) = operation(&endpoint.method, endpoint.path) else { continue };
        let path = paths.entry(endpoint.path).or_insert_with(|| json!({}));
        path[endpoint.method.to_string().to_lowercase()] = describe(endpoint, &described);
    }
    document["openapi"] = json!("3.1.0");
    document["info"] = json!({
        "title": "Resource Manager",
        "version": env!("CARGO_PKG_VERSION"),
        "description": "The gatekeeper in front of everything that an AI platform has only so much of. Money is in US \
            dollars with at most nine decimals, times are RFC 3339 in UTC, durations are integers named `…Ms` or \
            `…Seconds`. Unknown fields and query parameters are refused. Errors are RFC 9457 problems with a `code`.",
    });
    document["paths"] = Value::Object(paths);
    let bearer = |what: &str| json!({"type": "http", "scheme": "bearer", "description": what});
    document["components"]["securitySchemes"] = json!({
        "kam": bearer("KAM_TOKEN: /api, and what is read of /status and /metrics."),
        "internal": bearer("INTERNAL_TOKEN: /internal."),
        "admin": bearer("ADMIN_TOKEN: /admin, and every GET."),
    });
    let problems = PROBLEMS.into_iter().map(|status| (problem_name(status), problem_response(status)));
    document["components"]["responses"] = Value::Object(problems.collect());
    sharpen(&mut document["components"]["schemas"]);
    document
}

/// What the types cannot say.
fn sharpen(schemas: &mut Value) {
    // A template, or a worker and its resources; never both a template and a worker.
    let named = |field: &str| json!({"required": [field], "properties": {field: {"type": "string"}}});
    let list = json!({"required": ["resources"], "properties": {"resources": {"type": "array"}}});
    schemas["ExecuteBody"]["anyOf"] = json!([
        {"allOf": [named("templateId"), {"not": named("worker")}]},
        {"allOf": [named("worker"), list, {"not": named("templateId")}]},
    ]);
    // A worker and what it needs, or steps that have theirs.
    let some = |field: &str| json!({"required": [field], "properties": {field: {"type": "array", "minItems": 1}}});
    schemas["TemplateBody"]["anyOf"] = json!([
        {"allOf": [named("worker"), some("resources"), {"not": some("steps")}]},
        {"allOf": [
            some("steps"),
            {"not": named("worker")},
            {"not": named("model")},
            {"not": some("resources")},
            {"not": some("downgradeTo")},
            {"not": {"required": ["batch"], "properties": {"batch": {"type": "object"}}}},
        ]},
    ]);
    schemas["TemplateBody"]["allOf"] = json!([{"anyOf": [{"not": named("qualityFloor")}, some("downgradeTo")]}]);
    // The discount is its pool's, whose price it is.
    let discounted = json!({"required": ["discountPercent"], "properties": {"discountPercent": {"type": "integer"}}});
    schemas["TemplateBody"]["properties"]["offPeak"]["oneOf"][0] = json!({
        "description": schemas["TemplateBody"]["properties"]["offPeak"]["oneOf"][0]["description"],
        "allOf": [reference("OffPeak"), {"not": discounted}],
    });
    for (body, list) in [("TemplateBody", "downgradeTo"), ("PoolBody", "models")] {
        schemas[body]["properties"][list]["items"] = json!({"type": "string", "minLength": 1, "maxLength": 200});
        schemas[body]["properties"][list]["uniqueItems"] = json!(true);
    }
    // A part has a price of its own only where a unit has one.
    let priced = |field: &str| json!({"required": [field], "properties": {field: {"type": "number"}}});
    schemas["PoolBody"]["anyOf"] = json!([
        priced("unitPriceUsd"),
        {"allOf": [{"not": priced("cachedInputPriceUsd")}, {"not": priced("outputPriceUsd")}]},
    ]);
    // No pool is named twice, so no item is there twice.
    for (body, list) in [
        ("ExecuteBody", "resources"),
        ("CheckBody", "resources"),
        ("ReserveBody", "resources"),
        ("ConsumeBody", "usage"),
        ("TemplateBody", "resources"),
        ("StepRule", "resources"),
    ] {
        schemas[body]["properties"][list]["uniqueItems"] = json!(true);
    }
    // Stored: the body, and the name that it is stored under.
    for (record, body, name, of) in
        [("Pool", "PoolBody", "pool", "PoolId"), ("Template", "TemplateBody", "templateId", "TemplateId")]
    {
        let mut schema = schemas[body].clone();
        schema["properties"][name] = json!({"$ref": format!("#/components/schemas/{of}")});
        let mut required = vec![json!(name)];
        required.extend(schema["required"].as_array().cloned().unwrap_or_default());
        schema["required"] = Value::Array(required);
        schema["description"] = json!("As stored.");
        for field in ["additionalProperties", "anyOf", "allOf"] {
            schema.as_object_mut().unwrap().remove(field);
        }
        schemas[record] = schema;
    }
    for (list, item) in [
        ("Pools", "Pool"),
        ("Clients", "ClientRecord"),
        ("Templates", "Template"),
        ("Alerts", "AlertView"),
        ("Lanes", "LaneRecord"),
    ] {
        schemas[list] = json!({
            "type": "object",
            "required": ["items"],
            "properties": {
                "items": {"type": "array", "items": {"$ref": format!("#/components/schemas/{item}")}},
                "nextCursor": {"type": "string", "description": "There are more: ask with this as `cursor`."},
            },
        });
    }
}

fn reference(schema: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{schema}")})
}

fn header(description: &str) -> Value {
    json!({"description": description, "schema": {"type": "string"}})
}

fn describe(endpoint: &Endpoint, operation: &Operation) -> Value {
    let mut described = json!({
        "operationId": operation.id,
        "tags": [operation.tag],
        "summary": operation.summary,
        "responses": responses(endpoint, operation),
    });
    let mut parameters: Vec<Value> = path_parameters(endpoint.path);
    parameters.extend(operation.parameters.iter().cloned());
    if !matches!(endpoint.access, Access::Open) {
        parameters.push(json!({
            "name": "X-Client-Id", "in": "header", "description": "Limits the request to this client.",
            "schema": reference("ClientId"),
        }));
    }
    if !parameters.is_empty() {
        described["parameters"] = json!(parameters);
    }
    if let Some(body) = &operation.body {
        described["requestBody"] = json!({"required": true, "content": {"application/json": {"schema": body}}});
    }
    let security: &[&str] = match endpoint.access {
        Access::Open => &[],
        Access::Api { reads: true } => &["kam", "admin"],
        Access::Api { reads: false } => &["kam"],
        Access::Internal => &["internal"],
        Access::Admin => &["admin"],
        Access::Any => &["kam", "internal", "admin"],
    };
    if !security.is_empty() {
        described["security"] = security.iter().map(|scheme| json!({*scheme: []})).collect();
    }
    described
}

fn path_parameters(path: &str) -> Vec<Value> {
    let names = path.split('/').filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'));
    let parameter = |name: &str| {
        let schema = match name {
            "requestId" => "RequestId",
            "clientId" => "ClientId",
            "pool" => "PoolId",
            "lane" => "Urgency",
            _ => "TemplateId",
        };
        json!({"name": name, "in": "path", "required": true, "schema": reference(schema)})
    };
    names.map(parameter).collect()
}

fn responses(endpoint: &Endpoint, operation: &Operation) -> Value {
    let mut responses = Map::new();
    for (status, what, schema) in &operation.answers {
        let mut response = json!({
            "description": what,
            "headers": {"X-Request-Id": header("The request's name, as sent or made.")},
        });
        if let Some(schema) = schema {
            response["content"] = match operation.text {
                Some(text) => {
                    json!({text: {"schema": {"type": "string"}}, "application/json": {"schema": reference(schema)}})
                }
                None => json!({"application/json": {"schema": reference(schema)}}),
            };
        }
        if endpoint.path.starts_with("/api/") {
            response["headers"]["RateLimit-Policy"] = header("What the pool allows, if the answer is about one pool.");
            response["headers"]["RateLimit"] = header("What is left of it.");
        }
        for (of, name, what) in &operation.headers {
            if of == status {
                response["headers"][*name] = header(what);
            }
        }
        responses.insert(status.to_string(), response);
    }
    let mut problems: Vec<u16> = operation.problems.to_vec();
    if endpoint.access != Access::Open {
        problems.extend([400, 401, 403, 503]);
    }
    if operation.body.is_some() {
        problems.extend([413, 415]);
    }
    problems.sort_unstable();
    problems.dedup();
    for status in problems {
        let problem = json!({"$ref": format!("#/components/responses/{}", problem_name(status))});
        responses.entry(status.to_string()).or_insert(problem);
    }
    Value::Object(responses)
}

/// The statuses of problems.
const PROBLEMS: [u16; 11] = [400, 401, 402, 403, 404, 409, 413, 415, 422, 429, 503];

fn problem_name(status: u16) -> String {
    format!("Problem{status}")
}

fn problem_response(status: u16) -> Value {
    let what = match status {
        400 => "The request is not valid: `errors` names the field.",
        401 => "No token, or one that is not valid.",
        402 => "It does not fit in what is left of the client's budget.",
        403 => "The token is for something else, or the request is limited to another client.",
        404 => "There is no such thing.",
        409 => "The state does not allow it.",
        413 => "The body has more than 10 MiB.",
        415 => "The body is not JSON, or is compressed.",
        422 => "It can never be granted, its price is unknown, or the idempotency key was used with another body.",
        429 => "Not now: `Retry-After` and `retryAfterMs` say when.",
        _ => "A part of the service is out of reach, or not configured.",
    };
    let mut response = json!({
        "description": what,
        "headers": {"X-Request-Id": header("The request's name, as sent or made.")},
        "content": {"application/problem+json": {"schema": reference("Problem")}},
    });
    if matches!(status, 402 | 429 | 503) {
        response["headers"]["Retry-After"] = header("After how many seconds to come back.");
    }
    response
}

/// The types that cross the interface, and what they refer to.
fn components() -> Components {
    macro_rules! schemas {
        ($($type:ty),* $(,)?) => {
            utoipa::openapi::ComponentsBuilder::new()$(.schema_from::<$type>())*.build()
        };
    }
    use crate::wire::{admin, alert, api, execution, problem, usage};
    use rm_core::{alert::AlertKind, estimate, id, pool, priority, request, units};
    schemas![
        id::PoolId,
        id::ClientId,
        id::TemplateId,
        id::WorkerBinding,
        id::RequestId,
        units::Tokens,
        units::NanoUsd,
        priority::Points,
        priority::Score,
        priority::Tier,
        priority::Urgency,
        pool::Blocked,
        pool::LaneView,
        pool::PartitionView,
        request::Failure,
        estimate::Rate,
        AlertKind,
        rm_core::account::ClientStatus,
        problem::FieldError,
        problem::ProblemBody<'static>,
        api::RootView,
        api::HealthView,
        api::HealthCheck,
        api::StatusView,
        api::SchedulerView,
        api::Parameters,
        api::ResourceAmount,
        api::OptimizationChoice,
        rm_core::optimizer::Level,
        api::ExecuteBody,
        usage::HistoryBody,
        api::AcceptedView,
        api::PositionBody,
        api::QueueStatus,
        api::PoolQueue,
        api::Availability,
        api::PoolAvailability,
        api::WorkerView,
        api::CheckBody,
        api::CheckView,
        api::CheckLine,
        usage::CurrentUsage,
        usage::PeriodView,
        api::ReserveBody,
        api::ReservedView,
        api::UsedAmount,
        api::ConsumeBody,
        api::PoolAmount,
        api::ConsumedView,
        api::ReleaseBody,
        api::ReleasedView,
        execution::ExecutionStatus,
        execution::ResourceView,
        execution::StepStatus,
        execution::StepView,
        execution::CostView,
        execution::OptimizationView,
        execution::ExecutionView,
        execution::LineKind,
        execution::BillLine,
        execution::BillView,
        usage::GroupBy,
        usage::UsageHistory,
        usage::UsageSum,
        usage::UsageRow,
        usage::ResourceEstimate,
        usage::CostEstimate,
        rm_core::optimizer::Strategy,
        usage::Analysis,
        usage::Opportunity,
        usage::OptimizationStats,
        usage::StrategyStats,
        usage::Recommendations,
        usage::Recommendation,
        admin::LaneBody,
        admin::LaneRecord,
        admin::PoolBody,
        admin::Partition,
        admin::PartitionKind,
        admin::OffPeak,
        admin::Weekday,
        admin::StepRule,
        admin::ClientBody,
        admin::ClientRecord,
        admin::TemplateBody,
        admin::template::BatchRule,
        admin::Isolation,
        alert::Severity,
        alert::AlertView,
        crate::api::metrics::exposition::Json,
        crate::api::metrics::exposition::Family,
        crate::api::metrics::exposition::Sample,
        crate::api::metrics::exposition::Kind,
    ]
}

#[cfg(test)]
mod tests {
    use super::{ROUTES, document, operation};

    const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi.json");

    #[test]
    fn the_served_description_is_that_of_the_code() {
        let made = format!("{}\n", serde_json::to_string_pretty(&document()).unwrap());
        if std::env::var_os("OPENAPI_WRITE").is_some() {
            std::fs::write(FILE, &made).unwrap();
        }
        let served = std::fs::read_to_string(FILE).unwrap_or_default();
        assert!(served == made, "openapi.json is out of date: `npm run openapi` writes it anew");
    }

    #[test]
    fn every_route_for_callers_is_described() {
        for endpoint in ROUTES {
            let hidden = ["/run", "/docs", "/docs/{file}", "/openapi.json"].contains(&endpoint.path);
            let described = operation(&endpoint.method, endpoint.path).is_some();
            assert_eq!(described, !hidden, "{} {}", endpoint.method, endpoint.path);
        }
    }

    #[test]
    fn every_reference_leads_somewhere_and_operations_have_names_of_their_own() {
        let document = document();
        let text = document.to_string();
        for part in text.split("\"#/components/schemas/").skip(1) {
            let name = part.split('"').next().unwrap();
            assert!(document["components"]["schemas"].get(name).is_some(), "no schema {name}");
        }
        let mut ids: Vec<&str> =
            text.split("\"operationId\":\"").skip(1).map(|part| part.split('"').next().unwrap()).collect();
        let count = ids.len();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), count);
    }
}
