//! Structured logs: one JSON object a line. Inputs, results and tokens never go in.

use serde::Serialize;

#[derive(Serialize)]
struct Line<'a> {
    level: &'static str,
    event: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    subject: &'a str,
    detail: &'a str,
}

/// Something went wrong that somebody should look at. `event` is a constant to search for, `subject` what it is about.
pub fn error(event: &'static str, subject: &str, detail: &str) {
    let line = line("error", event, subject, detail);
    if IN_WORKER {
        worker::console_error!("{line}");
    }
}

/// Something is not as it should be and mends itself.
pub fn warn(event: &'static str, subject: &str, detail: &str) {
    let line = line("warn", event, subject, detail);
    if IN_WORKER {
        worker::console_warn!("{line}");
    }
}

/// One request, for the log: neither inputs, results nor tokens.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RequestLine<'a> {
    pub request_id: &'a str,
    pub method: &'a str,
    /// The route, with its parameters' names; empty if there is none.
    pub path: &'a str,
    pub status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<&'a str>,
    pub duration_ms: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<&'a str>,
}

/// A request was answered.
pub fn request(line: &RequestLine<'_>) {
    #[derive(Serialize)]
    struct Logged<'a> {
        level: &'static str,
        event: &'static str,
        #[serde(flatten)]
        line: &'a RequestLine<'a>,
    }
    if IN_WORKER {
        let level = if line.status >= 500 { "error" } else { "info" };
        let text = serde_json::to_string(&Logged { level, event: "request", line }).unwrap_or_default();
        worker::console_log!("{text}");
    }
}

/// Native tests have no console.
const IN_WORKER: bool = cfg!(target_arch = "wasm32");

fn line(level: &'static str, event: &'static str, subject: &str, detail: &str) -> String {
    serde_json::to_string(&Line { level, event, subject, detail }).unwrap_or_default()
}
