//! Answers.

use serde::Serialize;
use worker::{Headers, Response, ResponseBody, Result};

use crate::wire::problem::{More, Problem};

/// An answer before it is sent.
pub struct Reply {
    status: u16,
    content_type: &'static str,
    body: String,
    headers: Vec<(&'static str, String)>,
}

impl Reply {
    /// JSON.
    pub fn json(status: u16, body: &impl Serialize) -> std::result::Result<Self, Problem> {
        let body = serde_json::to_string(body).map_err(|error| Problem::unavailable(error.to_string()))?;
        Ok(Self { status, content_type: "application/json", body, headers: Vec::new() })
    }

    /// An answer that is no JSON.
    pub const fn text(content_type: &'static str, body: String) -> Self {
        Self { status: 200, content_type, body, headers: Vec::new() }
    }

    /// An empty answer.
    pub const fn empty(status: u16) -> Self {
        Self { status, content_type: "", body: String::new(), headers: Vec::new() }
    }

    /// The status.
    pub const fn status(&self) -> u16 {
        self.status
    }

    /// A problem.
    pub fn problem(problem: &Problem, request_id: &str) -> Self {
        let (_, status, _) = problem.code.parts();
        let body = problem.body(request_id);
        let mut reply = Self { status, content_type: "application/problem+json", body, headers: Vec::new() };
        if let Some(millis) = problem.retry_after_ms {
            let seconds = millis.saturating_add(999).checked_div(1_000).unwrap_or(1).max(1);
            reply.headers.push(("retry-after", seconds.to_string()));
        }
        if let Some(More::Allow(allow)) = problem.more.as_deref() {
            reply.headers.push(("allow", allow.clone()));
        }
        if status == 401 {
            reply.headers.push(("www-authenticate", "Bearer".into()));
        }
        reply
    }

    /// With one more header.
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// The response.
    pub fn into_response(self, request_id: &str) -> Result<Response> {
        let headers = Headers::new();
        if !self.content_type.is_empty() {
            headers.set("content-type", self.content_type)?;
        }
        headers.set("cache-control", "no-store")?;
        headers.set("x-content-type-options", "nosniff")?;
        headers.set("x-request-id", request_id)?;
        for (name, value) in &self.headers {
            headers.set(name, value)?;
        }
        let body = if self.body.is_empty() { ResponseBody::Empty } else { ResponseBody::Body(self.body.into_bytes()) };
        let response = Response::from_body(body)?;
        Ok(response.with_headers(headers).with_status(self.status))
    }
}
