//! The whole route table. The API's description is made from the same table, so neither has a route that the other lacks.

use rm_core::id::{ClientId, IdError, PoolId, RequestId, TemplateId};
use worker::Method;

use crate::dispatch::RUN_PATH;
use crate::wire::problem::{Code, More, Problem};

/// Where a request goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    Root,
    Health,
    OpenApi,
    Docs(String),
    Run,
    Status,
    Metrics,
    Execute,
    Enqueue,
    Execution(RequestId),
    Cancel(RequestId),
    Dequeue(RequestId),
    QueueStatus,
    QueuePosition(RequestId),
    Availability,
    Check,
    EstimateResources,
    EstimateCost,
    Usage(ClientId),
    CurrentUsage(ClientId),
    Cost(RequestId),
    Analyze,
    OptimizationStats(ClientId),
    Recommendations(ClientId),
    Reserve,
    Consume,
    Release,
    SchedulerStart,
    SchedulerStop,
    Alerts,
    Lanes,
    PutLane(String),
    Pools,
    Pool(PoolId),
    PutPool(PoolId),
    DeletePool(PoolId),
    Clients,
    Client(ClientId),
    PutClient(ClientId),
    DeleteClient(ClientId),
    Templates,
    Template(TemplateId),
    PutTemplate(TemplateId),
    DeleteTemplate(TemplateId),
    PurgeClient(ClientId),
    PurgeTemplate(TemplateId),
}

impl Route {
    /// Whether it is about one client and nothing else.
    pub const fn is_about_a_client(&self) -> bool {
        matches!(self, Self::Client(_) | Self::PutClient(_) | Self::DeleteClient(_) | Self::PurgeClient(_))
    }
}

/// Which tokens open a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// None is needed.
    Open,
    /// KAM's; the operator's too, if nothing is changed.
    Api {
        /// Whether it only reads.
        reads: bool,
    },
    /// The downstream workers'.
    Internal,
    /// The operator's.
    Admin,
    /// Any of the three.
    Any,
}

/// A route of the table.
pub struct Endpoint {
    pub method: Method,
    /// The path, with its parameters in braces.
    pub path: &'static str,
    pub access: Access,
    make: fn(&Parameters) -> Result<Route, Problem>,
}

const READ: Access = Access::Api { reads: true };
const WRITE: Access = Access::Api { reads: false };

const fn endpoint(
    method: Method,
    path: &'static str,
    access: Access,
    make: fn(&Parameters) -> Result<Route, Problem>,
) -> Endpoint {
    Endpoint { method, path, access, make }
}

/// All routes. One that is not for callers (`/run`, the documentation's files) is not described.
#[rustfmt::skip]
pub static ROUTES: &[Endpoint] = &[
    endpoint(Method::Get, "/", Access::Open, |_| Ok(Route::Root)),
    endpoint(Method::Get, "/health", Access::Open, |_| Ok(Route::Health)),
    endpoint(Method::Get, "/openapi.json", Access::Open, |_| Ok(Route::OpenApi)),
    endpoint(Method::Get, "/docs", Access::Open, |_| Ok(Route::Docs("index.html".into()))),
    endpoint(Method::Get, "/docs/{file}", Access::Open, |p| Ok(Route::Docs(p.text("file").into()))),
    endpoint(Method::Post, RUN_PATH, Access::Open, |_| Ok(Route::Run)),
    endpoint(Method::Get, "/status", Access::Any, |_| Ok(Route::Status)),
    endpoint(Method::Get, "/metrics", Access::Any, |_| Ok(Route::Metrics)),
    endpoint(Method::Post, "/api/execute", WRITE, |_| Ok(Route::Execute)),
    endpoint(Method::Get, "/api/execution/{requestId}", READ, |p| Ok(Route::Execution(p.request()?))),
    endpoint(Method::Post, "/api/execution/{requestId}/cancel", WRITE, |p| Ok(Route::Cancel(p.request()?))),
    endpoint(Method::Post, "/api/queue/enqueue", WRITE, |_| Ok(Route::Enqueue)),
    endpoint(Method::Get, "/api/queue/status", READ, |_| Ok(Route::QueueStatus)),
    endpoint(Method::Get, "/api/queue/position/{requestId}", READ, |p| Ok(Route::QueuePosition(p.request()?))),
    endpoint(Method::Delete, "/api/queue/{requestId}", WRITE, |p| Ok(Route::Dequeue(p.request()?))),
    endpoint(Method::Get, "/api/resources/availability", READ, |_| Ok(Route::Availability)),
    endpoint(Method::Post, "/api/resources/check", WRITE, |_| Ok(Route::Check)),
    endpoint(Method::Post, "/api/resources/estimate", WRITE, |_| Ok(Route::EstimateResources)),
    endpoint(Method::Get, "/api/usage/{clientId}", READ, |p| Ok(Route::Usage(p.client()?))),
    endpoint(Method::Get, "/api/usage/{clientId}/current", READ, |p| Ok(Route::CurrentUsage(p.client()?))),
    endpoint(Method::Post, "/api/cost/estimate", WRITE, |_| Ok(Route::EstimateCost)),
    endpoint(Method::Get, "/api/cost/{requestId}", READ, |p| Ok(Route::Cost(p.request()?))),
    endpoint(Method::Post, "/api/optimize/analyze", WRITE, |_| Ok(Route::Analyze)),
    endpoint(Method::Get, "/api/optimize/stats/{clientId}", READ, |p| Ok(Route::OptimizationStats(p.client()?))),
    endpoint(Method::Get, "/api/optimize/recommendations/{clientId}", READ, |p| Ok(Route::Recommendations(p.client()?))),
    endpoint(Method::Post, "/internal/reserve", Access::Internal, |_| Ok(Route::Reserve)),
    endpoint(Method::Post, "/internal/consume", Access::Internal, |_| Ok(Route::Consume)),
    endpoint(Method::Post, "/internal/release", Access::Internal, |_| Ok(Route::Release)),
    endpoint(Method::Post, "/admin/scheduler/start", Access::Admin, |_| Ok(Route::SchedulerStart)),
    endpoint(Method::Post, "/admin/scheduler/stop", Access::Admin, |_| Ok(Route::SchedulerStop)),
    endpoint(Method::Get, "/admin/alerts", Access::Admin, |_| Ok(Route::Alerts)),
    endpoint(Method::Get, "/admin/lanes", Access::Admin, |_| Ok(Route::Lanes)),
    endpoint(Method::Put, "/admin/lanes/{lane}", Access::Admin, |p| Ok(Route::PutLane(p.text("lane").to_owned()))),
    endpoint(Method::Get, "/admin/pools", Access::Admin, |_| Ok(Route::Pools)),
    endpoint(Method::Get, "/admin/pools/{pool}", Access::Admin, |p| Ok(Route::Pool(p.pool()?))),
    endpoint(Method::Put, "/admin/pools/{pool}", Access::Admin, |p| Ok(Route::PutPool(p.name("pool")?))),
    endpoint(Method::Delete, "/admin/pools/{pool}", Access::Admin, |p| Ok(Route::DeletePool(p.pool()?))),
    endpoint(Method::Get, "/admin/clients", Access::Admin, |_| Ok(Route::Clients)),
    endpoint(Method::Get, "/admin/clients/{clientId}", Access::Admin, |p| Ok(Route::Client(p.client()?))),
    endpoint(Method::Put, "/admin/clients/{clientId}", Access::Admin, |p| Ok(Route::PutClient(p.name("clientId")?))),
    endpoint(Method::Delete, "/admin/clients/{clientId}", Access::Admin, |p| Ok(Route::DeleteClient(p.client()?))),
    endpoint(Method::Get, "/admin/templates", Access::Admin, |_| Ok(Route::Templates)),
    endpoint(Method::Get, "/admin/templates/{templateId}", Access::Admin, |p| Ok(Route::Template(p.template()?))),
    endpoint(Method::Put, "/admin/templates/{templateId}", Access::Admin, |p| Ok(Route::PutTemplate(p.name("templateId")?))),
    endpoint(Method::Delete, "/admin/templates/{templateId}", Access::Admin, |p| Ok(Route::DeleteTemplate(p.template()?))),
    endpoint(Method::Delete, "/admin/cache/clients/{clientId}", Access::Admin, |p| Ok(Route::PurgeClient(p.client()?))),
    endpoint(Method::Delete, "/admin/cache/templates/{templateId}", Access::Admin, |p| Ok(Route::PurgeTemplate(p.template()?))),
];

/// What stands in a path for its parameters.
struct Parameters<'a>(Vec<(&'static str, &'a str)>);

impl Parameters<'_> {
    fn text(&self, name: &str) -> &str {
        self.0.iter().find(|(of, _)| *of == name).map_or("", |(_, value)| value)
    }

    /// A name that must be one, for something that may not be there yet.
    fn name<T: std::str::FromStr<Err = IdError>>(&self, name: &str) -> Result<T, Problem> {
        self.text(name).parse().map_err(|error: IdError| Problem::field(name, error.to_string()))
    }

    fn found<T: std::str::FromStr>(&self, name: &str, what: &str) -> Result<T, Problem> {
        self.text(name).parse().map_err(|_| Problem::not_found(what))
    }

    fn request(&self) -> Result<RequestId, Problem> {
        self.found("requestId", "request")
    }

    fn client(&self) -> Result<ClientId, Problem> {
        self.found("clientId", "client")
    }

    fn pool(&self) -> Result<PoolId, Problem> {
        self.found("pool", "pool")
    }

    fn template(&self) -> Result<TemplateId, Problem> {
        self.found("templateId", "template")
    }
}

/// Matches a path against a route's.
fn matches<'a>(path: &'static str, segments: &'a [String]) -> Option<Parameters<'a>> {
    let mut parameters = Vec::new();
    let mut given = segments.iter();
    for wanted in path.strip_prefix('/').unwrap_or(path).split('/') {
        let given = given.next()?;
        match wanted.strip_prefix('{').and_then(|name| name.strip_suffix('}')) {
            Some(name) => parameters.push((name, given.as_str())),
            None if wanted == given => {}
            None => return None,
        }
    }
    given.next().is_none().then_some(Parameters(parameters))
}

/// Finds the route, and its place in the table.
///
/// # Errors
/// No such route, a method that it does not have, or a name in the path that cannot be one.
pub fn route(method: &str, path: &str) -> Result<(Route, &'static Endpoint), Problem> {
    let segments: Vec<String> =
        path.strip_prefix('/').unwrap_or(path).split('/').map(decode).collect::<Option<_>>().ok_or_else(no_route)?;
    let mut found: Vec<_> =
        ROUTES.iter().filter_map(|endpoint| Some((endpoint, matches(endpoint.path, &segments)?))).collect();
    // A path that is written out goes before one with a parameter in its place.
    if found.iter().any(|(_, parameters)| parameters.0.is_empty()) {
        found.retain(|(_, parameters)| parameters.0.is_empty());
    }
    // By name: the binding takes a method that it does not know for GET.
    let method = if method == "HEAD" { "GET" } else { method };
    match found.iter().find(|(endpoint, _)| endpoint.method.as_ref() == method) {
        Some((endpoint, parameters)) => Ok(((endpoint.make)(parameters)?, endpoint)),
        None if found.is_empty() || found.iter().any(|(endpoint, _)| endpoint.path == RUN_PATH) => Err(no_route()),
        None => Err(not_allowed(found.iter().map(|(endpoint, _)| &endpoint.method))),
    }
}

fn no_route() -> Problem {
    Problem::not_found("route")
}

fn not_allowed<'a>(methods: impl Iterator<Item = &'a Method>) -> Problem {
    let mut allowed = Vec::new();
    for method in methods {
        allowed.push(method.to_string());
        if *method == Method::Get {
            allowed.push("HEAD".into());
        }
    }
    let allow = allowed.join(", ");
    Problem::new(Code::MethodNotAllowed, format!("this route takes {allow}")).with(More::Allow(allow))
}

/// Decodes a path segment (RFC 3986, 2.1); `None` if it is not UTF-8 or not encoded as it should be.
pub fn decode(segment: &str) -> Option<String> {
    let mut bytes = segment.bytes();
    let mut decoded = Vec::with_capacity(segment.len());
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let high = char::from(bytes.next()?).to_digit(16)?;
            let low = char::from(bytes.next()?).to_digit(16)?;
            decoded.push(u8::try_from(high.checked_mul(16)?.checked_add(low)?).ok()?);
        } else {
            decoded.push(byte);
        }
    }
    String::from_utf8(decoded).ok()
}

#[cfg(test)]
mod tests {
    use worker::Method;

    use super::{Route, decode};
    use crate::wire::problem::{Code, More, Problem};

    fn route(method: &Method, path: &str) -> Result<Route, Problem> {
        super::route(method.as_ref(), path).map(|(route, _)| route)
    }

    #[test]
    fn finds_routes_and_tells_methods_from_paths() {
        assert_eq!(route(&Method::Get, "/").unwrap(), Route::Root);
        assert_eq!(route(&Method::Head, "/health").unwrap(), Route::Health);
        assert_eq!(route(&Method::Post, "/api/execute").unwrap(), Route::Execute);
        assert_eq!(route(&Method::Get, "/api/execute").unwrap_err().code, Code::MethodNotAllowed);
        assert_eq!(route(&Method::Get, "/api/executes").unwrap_err().code, Code::NotFound);
        assert_eq!(route(&Method::Get, "//").unwrap_err().code, Code::NotFound);
        assert_eq!(route(&Method::Get, "/api/execute/").unwrap_err().code, Code::NotFound);
        assert_eq!(route(&Method::Get, "/api/execution/nonsense").unwrap_err().code, Code::NotFound);
        assert_eq!(route(&Method::Put, "/admin/pools/Not%20A%20Name").unwrap_err().code, Code::InvalidRequest);
        assert_eq!(route(&Method::Get, "/run").unwrap_err().code, Code::NotFound);
        assert!(matches!(route(&Method::Get, "/api/usage/a%40b/current").unwrap(), Route::CurrentUsage(_)));
    }

    #[test]
    fn says_what_a_path_takes() {
        let allow = |path| *route(&Method::Patch, path).unwrap_err().more.unwrap();
        assert_eq!(allow("/admin/pools/x"), More::Allow("GET, HEAD, PUT, DELETE".into()));
        assert_eq!(allow("/api/queue/status"), More::Allow("GET, HEAD".into()));
        assert_eq!(allow("/api/queue/x"), More::Allow("DELETE".into()));
        assert_eq!(super::route("QUERY", "/health").err().unwrap().code, Code::MethodNotAllowed);
    }

    #[test]
    fn decodes_segments() {
        assert_eq!(decode("a%40b").as_deref(), Some("a@b"));
        assert_eq!(decode("%ff"), None);
        assert_eq!(decode("%4"), None);
    }
}
