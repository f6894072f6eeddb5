//! `/openapi.json`, and the page at `/docs` that shows it.

use crate::api::Call;
use crate::api::reply::Reply;
use crate::wire::problem::{Code, Problem};

/// `GET /openapi.json`.
pub fn openapi() -> Result<Reply, Problem> {
    Err(Problem::not_found("route"))
}

/// `GET /docs` and its files.
pub async fn file(_call: &Call, _file: &str) -> Result<Reply, Problem> {
    Err(Problem::new(Code::NotFound, "no docs"))
}
