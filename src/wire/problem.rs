//! Errors as RFC 9457 problems: the one place that knows their codes and statuses.

use rm_core::units::Instant;
use serde::Serialize;
use utoipa::ToSchema;

/// A field that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct FieldError {
    /// Its JSON pointer (RFC 6901); a query parameter's or header's name otherwise.
    pub pointer: String,
    /// What is wrong with it.
    pub detail: String,
}

/// The kinds of problems.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    InvalidRequest,
    Unauthorized,
    Forbidden,
    BudgetExceeded,
    NotFound,
    MethodNotAllowed,
    Conflict,
    PayloadTooLarge,
    UnsupportedMediaType,
    Unsatisfiable,
    IdempotencyMismatch,
    InsufficientResources,
    QueueFull,
    NotConfigured,
    Unavailable,
}

impl Code {
    /// The code, the status and the title.
    pub const fn parts(self) -> (&'static str, u16, &'static str) {
        match self {
            Self::InvalidRequest => ("invalid_request", 400, "The request is not valid"),
            Self::Unauthorized => ("unauthorized", 401, "A valid token is needed"),
            Self::Forbidden => ("forbidden", 403, "This token may not do that"),
            Self::BudgetExceeded => ("budget_exceeded", 402, "The client's budget does not cover it"),
            Self::NotFound => ("not_found", 404, "There is no such thing"),
            Self::MethodNotAllowed => ("method_not_allowed", 405, "The method is not allowed here"),
            Self::Conflict => ("conflict", 409, "The state does not allow it"),
            Self::PayloadTooLarge => ("payload_too_large", 413, "The body is too large"),
            Self::UnsupportedMediaType => ("unsupported_media_type", 415, "The body must be JSON"),
            Self::Unsatisfiable => ("unsatisfiable", 422, "It can never be granted"),
            Self::IdempotencyMismatch => {
                ("idempotency_mismatch", 422, "The idempotency key belongs to another request")
            }
            Self::InsufficientResources => ("insufficient_resources", 429, "Not now"),
            Self::QueueFull => ("queue_full", 429, "The queue is full"),
            Self::NotConfigured => ("not_configured", 503, "The service is not configured for this"),
            Self::Unavailable => ("unavailable", 503, "A part of the service is out of reach"),
        }
    }
}

/// What a caller is told when a part of the service does not answer.
const UNAVAILABLE: &str = "a part of the service did not answer: send the request again, with the same Idempotency-Key";

/// A problem as JSON (RFC 9457).
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Problem)]
pub struct ProblemBody<'a> {
    r#type: String,
    title: &'a str,
    status: u16,
    detail: &'a str,
    code: &'a str,
    request_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<i64>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    errors: &'a [FieldError],
}

/// A problem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub code: Code,
    pub detail: String,
    pub errors: Vec<FieldError>,
    pub retry_after_ms: Option<i64>,
    pub more: Option<Box<More>>,
}

/// What only some problems have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum More {
    /// The methods that a route takes.
    Allow(String),
    /// What has no price: `pool` or `model`, and its name.
    UnknownPrice(&'static str, String),
}

impl Problem {
    /// A problem with its explanation.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into(), errors: Vec::new(), retry_after_ms: None, more: None }
    }

    /// A field that is wrong.
    pub fn field(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        let (pointer, detail) = (pointer.into(), detail.into());
        let mut problem = Self::new(Code::InvalidRequest, format!("{pointer}: {detail}"));
        problem.errors.push(FieldError { pointer, detail });
        problem
    }

    /// With a moment to come back at.
    pub fn retry_at(mut self, at: Instant, now: Instant) -> Self {
        self.retry_after_ms = Some(at.since(now).max(1));
        self
    }

    /// With a time to come back after.
    pub const fn retry_after(mut self, millis: i64) -> Self {
        self.retry_after_ms = Some(millis);
        self
    }

    /// With what only some problems have.
    pub fn with(mut self, more: More) -> Self {
        self.more = Some(Box::new(more));
        self
    }

    /// A part of the service did not answer.
    pub fn unavailable(detail: impl Into<String>) -> Self {
        Self::new(Code::Unavailable, detail).retry_after(1_000)
    }

    /// Nothing by that name, or nothing that this caller may know of.
    pub fn not_found(what: &str) -> Self {
        Self::new(Code::NotFound, format!("there is no such {what}"))
    }

    /// The problem as JSON.
    pub fn body(&self, request_id: &str) -> String {
        let (code, status, title) = self.code.parts();
        let body = ProblemBody {
            r#type: format!("urn:resource-manager:problem:{code}"),
            title,
            status,
            // What is out of order inside is for the log.
            detail: if self.code == Code::Unavailable { UNAVAILABLE } else { &self.detail },
            code,
            request_id,
            retry_after_ms: self.retry_after_ms,
            errors: &self.errors,
        };
        serde_json::to_string(&body).unwrap_or_default()
    }
}
