//! The whole route table.

use rm_core::id::{ClientId, PoolId, RequestId, TemplateId};
use worker::Method;

use crate::dispatch::RUN_PATH;
use crate::wire::problem::{Code, Problem};

/// Where a request goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    Root,
    Health,
    Run,
    Execute,
    Enqueue,
    Execution(RequestId),
    Cancel(RequestId),
    Dequeue(RequestId),
    QueueStatus,
    QueuePosition(RequestId),
    Availability,
    Check,
    CurrentUsage(ClientId),
    Cost(RequestId),
    Reserve,
    Consume,
    Release,
    SchedulerStart,
    SchedulerStop,
    Pools,
    Pool(PoolId),
    PutPool(PoolId),
    Clients,
    Client(ClientId),
    PutClient(ClientId),
    Templates,
    Template(TemplateId),
    PutTemplate(TemplateId),
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
}

impl Route {
    /// Which tokens open it.
    pub const fn access(&self) -> Access {
        match self {
            Self::Root | Self::Health | Self::Run => Access::Open,
            Self::Execution(_)
            | Self::QueueStatus
            | Self::QueuePosition(_)
            | Self::Availability
            | Self::CurrentUsage(_)
            | Self::Cost(_) => Access::Api { reads: true },
            Self::Execute | Self::Enqueue | Self::Cancel(_) | Self::Dequeue(_) | Self::Check => {
                Access::Api { reads: false }
            }
            Self::Reserve | Self::Consume | Self::Release => Access::Internal,
            Self::SchedulerStart
            | Self::SchedulerStop
            | Self::Pools
            | Self::Pool(_)
            | Self::PutPool(_)
            | Self::Clients
            | Self::Client(_)
            | Self::PutClient(_)
            | Self::Templates
            | Self::Template(_)
            | Self::PutTemplate(_) => Access::Admin,
        }
    }
}

/// Finds the route.
///
/// # Errors
/// No such route, a method that it does not have, or a name in the path that cannot be one.
pub fn route(method: &Method, path: &str) -> Result<Route, Problem> {
    let segments: Vec<String> =
        path.strip_prefix('/').unwrap_or(path).split('/').map(decode).collect::<Option<_>>().ok_or_else(no_route)?;
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    let method = if *method == Method::Head { Method::Get } else { method.clone() };
    let request = |text: &str| text.parse::<RequestId>().map_err(|_| Problem::not_found("request"));
    let client = |text: &str| text.parse::<ClientId>().map_err(|_| Problem::not_found("client"));
    let pool = |text: &str| text.parse::<PoolId>();
    let template = |text: &str| text.parse::<TemplateId>();
    let no_pool = |_| Problem::not_found("pool");
    let no_template = |_| Problem::not_found("template");
    let bad_name = |error: rm_core::id::IdError| Problem::field("path", error.to_string());
    use Method::{Delete, Get, Post, Put};
    Ok(match (segments.as_slice(), method) {
        ([""], Get) => Route::Root,
        ([""], _) => return Err(not_allowed("GET, HEAD")),
        (["health"], Get) => Route::Health,
        (["health"], _) => return Err(not_allowed("GET, HEAD")),
        ([run], Post) if RUN_PATH.strip_prefix('/') == Some(run) => Route::Run,
        (["api", "execute"], Post) => Route::Execute,
        (["api", "queue", "enqueue"], Post) => Route::Enqueue,
        (["api", "resources", "check"], Post) => Route::Check,
        (["api", "execute"] | ["api", "queue", "enqueue"] | ["api", "resources", "check"], _) => {
            return Err(not_allowed("POST"));
        }
        (["api", "execution", id], Get) => Route::Execution(request(id)?),
        (["api", "execution", _], _) => return Err(not_allowed("GET, HEAD")),
        (["api", "execution", id, "cancel"], Post) => Route::Cancel(request(id)?),
        (["api", "execution", _, "cancel"], _) => return Err(not_allowed("POST")),
        (["api", "queue", "status"], Get) => Route::QueueStatus,
        (["api", "queue", "status"], _) => return Err(not_allowed("GET, HEAD")),
        (["api", "queue", "position", id], Get) => Route::QueuePosition(request(id)?),
        (["api", "queue", "position", _], _) => return Err(not_allowed("GET, HEAD")),
        (["api", "queue", id], Delete) => Route::Dequeue(request(id)?),
        (["api", "queue", _], _) => return Err(not_allowed("DELETE")),
        (["api", "resources", "availability"], Get) => Route::Availability,
        (["api", "resources", "availability"], _) => return Err(not_allowed("GET, HEAD")),
        (["api", "usage", id, "current"], Get) => Route::CurrentUsage(client(id)?),
        (["api", "usage", _, "current"], _) => return Err(not_allowed("GET, HEAD")),
        (["api", "cost", id], Get) => Route::Cost(request(id)?),
        (["api", "cost", _], _) => return Err(not_allowed("GET, HEAD")),
        (["internal", "reserve"], Post) => Route::Reserve,
        (["internal", "consume"], Post) => Route::Consume,
        (["internal", "release"], Post) => Route::Release,
        (["internal", "reserve" | "consume" | "release"], _) => return Err(not_allowed("POST")),
        (["admin", "scheduler", "start"], Post) => Route::SchedulerStart,
        (["admin", "scheduler", "stop"], Post) => Route::SchedulerStop,
        (["admin", "scheduler", "start" | "stop"], _) => return Err(not_allowed("POST")),
        (["admin", "pools"], Get) => Route::Pools,
        (["admin", "pools", id], Get) => Route::Pool(pool(id).map_err(no_pool)?),
        (["admin", "pools", id], Put) => Route::PutPool(pool(id).map_err(bad_name)?),
        (["admin", "clients"], Get) => Route::Clients,
        (["admin", "clients", id], Get) => Route::Client(client(id)?),
        (["admin", "clients", id], Put) => Route::PutClient(id.parse().map_err(bad_name)?),
        (["admin", "templates"], Get) => Route::Templates,
        (["admin", "templates", id], Get) => Route::Template(template(id).map_err(no_template)?),
        (["admin", "templates", id], Put) => Route::PutTemplate(template(id).map_err(bad_name)?),
        (["admin", "pools" | "clients" | "templates"], _) => return Err(not_allowed("GET, HEAD")),
        (["admin", "pools" | "clients" | "templates", _], _) => return Err(not_allowed("GET, HEAD, PUT")),
        _ => return Err(no_route()),
    })
}

fn no_route() -> Problem {
    Problem::not_found("route")
}

fn not_allowed(allow: &'static str) -> Problem {
    let mut problem = Problem::new(Code::MethodNotAllowed, format!("this route takes {allow}"));
    problem.allow = Some(allow);
    problem
}

/// Decodes a path segment (RFC 3986, 2.1); `None` if it is not UTF-8 or not encoded as it should be.
fn decode(segment: &str) -> Option<String> {
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

    use super::{Route, decode, route};
    use crate::wire::problem::Code;

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
        assert!(matches!(route(&Method::Get, "/api/usage/a%40b/current").unwrap(), Route::CurrentUsage(_)));
    }

    #[test]
    fn decodes_segments() {
        assert_eq!(decode("a%40b").as_deref(), Some("a@b"));
        assert_eq!(decode("%ff"), None);
        assert_eq!(decode("%4"), None);
    }
}
