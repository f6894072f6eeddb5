//! `/openapi.json`, and the page at `/docs` that shows it. The page is the project's own: it is small enough to be part of
//! the Worker, and loads nothing from elsewhere.

use crate::api::reply::Reply;
use crate::wire::problem::Problem;

/// See `api::openapi`, which makes it and keeps it true.
const OPENAPI: &str = include_str!("../../openapi.json");
/// The page loads its own files and nothing else, and may call the service that it describes.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; \
    form-action 'none'; frame-ancestors 'none'";

/// `GET /openapi.json`.
pub fn openapi() -> Reply {
    Reply::text("application/json", OPENAPI.to_owned())
}

/// `GET /docs` and its files.
pub fn file(name: &str) -> Result<Reply, Problem> {
    let (content_type, text) = match name {
        "index.html" => ("text/html; charset=utf-8", include_str!("docs/index.html")),
        "page.css" => ("text/css; charset=utf-8", include_str!("docs/page.css")),
        "page.js" => ("text/javascript; charset=utf-8", include_str!("docs/page.js")),
        _ => return Err(Problem::not_found("route")),
    };
    Ok(Reply::text(content_type, text.to_owned()).with("content-security-policy", POLICY))
}
