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

/// Native tests have no console.
const IN_WORKER: bool = cfg!(target_arch = "wasm32");

fn line(level: &'static str, event: &'static str, subject: &str, detail: &str) -> String {
    serde_json::to_string(&Line { level, event, subject, detail }).unwrap_or_default()
}
