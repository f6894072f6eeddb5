//! Delivery to the operator's webhook, in the form of the Standard Webhooks specification: an id that stays the same
//! however often a delivery is tried, a timestamp, and an HMAC-SHA-256 over both and the body.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_util::future::join_all;
use hmac::{Hmac, KeyInit, Mac};
use rm_core::alert::delivery_retry_ms;
use rm_core::units::Instant;
use serde::Serialize;
use sha2::Sha256;
use worker::{Env, Fetch, Headers, Method, Request, RequestInit, RequestRedirect, Result};

use crate::host::time_limit::within;
use crate::host::{clock, log};
use crate::store::alerts::{self, Due};
use crate::wire::alert::AlertView;

/// How long the receiver may take.
const LIMIT_MS: i64 = 5_000;
/// How many deliveries are made at once, and how often at most in a tick.
const AT_ONCE: u32 = 10;
const ROUNDS_MAX: u32 = 10;
/// What is being delivered is taken by nobody else for this long.
const TAKEN_MS: i64 = 60_000;

/// Delivers what the receiver does not know yet. Without a URL nothing is; it stays in the list of alerts.
pub async fn deliver(env: &Env) -> Result<()> {
    let Some(url) = configured(env, "ALERT_WEBHOOK_URL") else { return Ok(()) };
    let Some(secret) = configured(env, "ALERT_WEBHOOK_SECRET") else {
        log::warn("alerts_not_delivered", "ALERT_WEBHOOK_SECRET", "the secret to sign them with is not set");
        return Ok(());
    };
    for _ in 0..ROUNDS_MAX {
        let now = clock::now();
        let due = alerts::take_due(env, now, now.plus(TAKEN_MS), AT_ONCE).await?;
        if due.is_empty() {
            break;
        }
        let delivered = due.into_iter().map(|due| deliver_one(env, &url, &secret, due, now));
        join_all(delivered).await.into_iter().collect::<Result<()>>()?;
    }
    Ok(())
}

/// Delivers one alert's state. A receiver that was out of reach while the alert opened and was over is told of both.
async fn deliver_one(env: &Env, url: &str, secret: &str, due: Due, now: Instant) -> Result<()> {
    let Due { alert, tries, delivered } = due;
    let opened = alert.sequence.saturating_sub(1);
    if alert.status == "resolved" && delivered < opened {
        let missed = AlertView { status: "open".into(), resolved_at: None, sequence: opened, ..alert.clone() };
        if !take(env, url, secret, &missed, tries, now).await? {
            return alerts::retry_at(env, &alert, next_try(tries)).await;
        }
    }
    match take(env, url, secret, &alert, tries, now).await? {
        true => Ok(()),
        false => alerts::retry_at(env, &alert, next_try(tries)).await,
    }
}

fn next_try(tries: u32) -> Option<Instant> {
    delivery_retry_ms(tries).map(|wait| clock::now().plus(wait))
}

/// Sends one state; whether the receiver took it.
async fn take(env: &Env, url: &str, secret: &str, alert: &AlertView, tries: u32, now: Instant) -> Result<bool> {
    let detail = match within(LIMIT_MS, send(url, secret, alert, now)).await {
        Ok(Ok(200..=299)) => {
            alerts::delivered(env, alert).await?;
            return Ok(true);
        }
        Ok(Ok(status)) => format!("it answered {status}"),
        Ok(Err(error)) => error.to_string(),
        Err(_) => "it did not answer in time".into(),
    };
    log::warn("alert_not_delivered", &alert.alert_id.to_string(), &format!("try {tries}: {detail}"));
    Ok(false)
}

/// A variable or secret that is set and not empty.
fn configured(env: &Env, name: &str) -> Option<String> {
    let value = env.var(name).ok()?.to_string();
    (!value.is_empty()).then_some(value)
}

#[derive(Serialize)]
struct Event<'a> {
    r#type: &'static str,
    timestamp: String,
    data: &'a AlertView,
}

async fn send(url: &str, secret: &str, alert: &AlertView, now: Instant) -> Result<u16> {
    let r#type = if alert.status == "open" { "alert.opened" } else { "alert.resolved" };
    let body = serde_json::to_string(&Event { r#type, timestamp: rm_core::period::rfc3339(now), data: alert })?;
    let id = format!("alert-{}-{}", alert.alert_id, alert.sequence);
    let seconds = now.millis().checked_div(1_000).unwrap_or(0);
    let headers = Headers::new();
    headers.set("content-type", "application/json")?;
    headers.set("webhook-id", &id)?;
    headers.set("webhook-timestamp", &seconds.to_string())?;
    headers.set("webhook-signature", &signature(secret, &id, seconds, &body))?;
    let mut init = RequestInit::new();
    init.with_method(Method::Post).with_headers(headers).with_body(Some(body.into()));
    init.with_redirect(RequestRedirect::Manual);
    let response = Fetch::Request(Request::new_with_init(url, &init)?).send().await?;
    Ok(response.status_code())
}

/// `v1,` and the signature in base 64. A secret that begins with `whsec_` is base 64 after that, as the specification has
/// it; any other is taken as it is.
fn signature(secret: &str, id: &str, seconds: i64, body: &str) -> String {
    let decoded = secret.strip_prefix("whsec_").and_then(|encoded| STANDARD.decode(encoded).ok());
    let key = decoded.unwrap_or_else(|| secret.as_bytes().to_vec());
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&key) else { return String::new() };
    mac.update(format!("{id}.{seconds}.{body}").as_bytes());
    format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
}

#[cfg(test)]
mod tests {
    use super::signature;

    /// The example of the Standard Webhooks specification's reference libraries.
    #[test]
    fn signs_as_the_specification_has_it() {
        let signed = signature(
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1_614_265_330,
            r#"{"test": 2432232314}"#,
        );
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }
}
