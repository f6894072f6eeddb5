//! Delivery to the operator's webhook, in the form of the Standard Webhooks specification: an id that stays the same
//! however often a delivery is tried, a timestamp, and an HMAC-SHA-256 over both and the body.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
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
/// The most deliveries of one tick: each is a subrequest.
const DUE_MAX: u32 = 10;
/// What is being delivered is taken by nobody else for this long.
const TAKEN_MS: i64 = 60_000;

/// Delivers what the receiver does not know yet. Without a URL nothing is; it stays in the list of alerts.
pub async fn deliver(env: &Env) -> Result<()> {
    let Some(url) = configured(env, "ALERT_WEBHOOK_URL") else { return Ok(()) };
    let Some(secret) = configured(env, "ALERT_WEBHOOK_SECRET") else {
        log::warn("alerts_not_delivered", "ALERT_WEBHOOK_SECRET", "the secret to sign them with is not set");
        return Ok(());
    };
    let now = clock::now();
    for Due { alert, tries } in alerts::take_due(env, now, now.plus(TAKEN_MS), DUE_MAX).await? {
        match within(LIMIT_MS, send(&url, &secret, &alert, now)).await {
            Ok(Ok(200..=299)) => alerts::delivered(env, &alert).await?,
            other => {
                let detail = match other {
                    Ok(Ok(status)) => format!("it answered {status}"),
                    Ok(Err(error)) => error.to_string(),
                    Err(_) => "it did not answer in time".into(),
                };
                log::warn("alert_not_delivered", &alert.alert_id.to_string(), &detail);
                let next = delivery_retry_ms(tries).map(|wait| clock::now().plus(wait));
                alerts::retry_at(env, &alert, next).await?;
            }
        }
    }
    Ok(())
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
