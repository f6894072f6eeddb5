//! Calls to Durable Objects: JSON over `fetch`, with a time limit.

use serde::{Serialize, de::DeserializeOwned};
use thiserror::Error;
use worker::{Env, Headers, Method, Request, RequestInit, Response};

use crate::host::time_limit::within;

/// Why a call has no answer.
#[derive(Debug, Error)]
pub enum CallError {
    /// It did not come in time.
    #[error("{0} did not answer in time")]
    TimeUp(String),
    /// The object, or the way to it, failed.
    #[error("{0}: {1}")]
    Failed(String, String),
}

/// An operation of an object: its path, what it takes and what it answers. Shared by the caller and the object.
pub trait Operation: Serialize + DeserializeOwned {
    /// The binding of the object's namespace.
    const BINDING: &'static str;
    /// The operation's path, with its slash.
    const PATH: &'static str;
    /// The answer.
    type Answer: Serialize + DeserializeOwned;
}

/// Makes a type an [`Operation`] of the namespace whose binding is `BINDING` in the module that uses this.
macro_rules! operation {
    ($type:ident, $path:literal, $answer:ty) => {
        impl $crate::host::object::Operation for $type {
            const BINDING: &'static str = BINDING;
            const PATH: &'static str = $path;
            type Answer = $answer;
        }
    };
}
pub(crate) use operation;

/// How long an object may take for an operation that does not wait for anything.
pub const CALL_LIMIT_MS: i64 = 10_000;

/// Calls the object called `name`.
pub async fn call<O: Operation>(env: &Env, name: &str, operation: &O) -> Result<O::Answer, CallError> {
    call_waiting(env, name, operation, 0).await
}

/// As [`call`], for an operation that may itself wait for `wait_ms`.
pub async fn call_waiting<O: Operation>(
    env: &Env,
    name: &str,
    operation: &O,
    wait_ms: i64,
) -> Result<O::Answer, CallError> {
    call_noting(env, name, operation, wait_ms).await.map(|(answer, _)| answer)
}

/// As [`call_waiting`], together with the object's note about itself, if it made one.
pub async fn call_noting<O: Operation>(
    env: &Env,
    name: &str,
    operation: &O,
    wait_ms: i64,
) -> Result<(O::Answer, Option<String>), CallError> {
    let subject = || format!("{}/{name}{}", O::BINDING, O::PATH);
    let failed = |error: worker::Error| CallError::Failed(subject(), error.to_string());
    let exchange = async {
        let stub = env.durable_object(O::BINDING)?.id_from_name(name)?.get_stub()?;
        let mut response = stub.fetch_with_request(post(name, O::PATH, operation)?).await?;
        let text = response.text().await?;
        let note = response.headers().get(NOTE_HEADER)?;
        Ok::<_, worker::Error>((response.status_code(), text, note))
    };
    let limit = CALL_LIMIT_MS.saturating_add(wait_ms);
    let (status, text, note) =
        within(limit, exchange).await.map_err(|_| CallError::TimeUp(subject()))?.map_err(failed)?;
    if status != 200 {
        return Err(CallError::Failed(subject(), text));
    }
    let answer = serde_json::from_str(&text).map_err(|error| CallError::Failed(subject(), error.to_string()))?;
    Ok((answer, note))
}

/// The header in which an object says something of itself, whatever it was asked.
pub const NOTE_HEADER: &str = "x-object-note";
/// The header that tells an object its name: the runtime does not.
pub const NAME_HEADER: &str = "x-object-name";

fn post<O: Operation>(name: &str, path: &str, operation: &O) -> worker::Result<Request> {
    let body = serde_json::to_string(operation)?;
    let headers = Headers::new();
    headers.set(NAME_HEADER, name)?;
    headers.set("content-type", "application/json")?;
    let mut init = RequestInit::new();
    init.with_method(Method::Post).with_headers(headers).with_body(Some(body.into()));
    Request::new_with_init(&format!("https://object{path}"), &init)
}

/// Reads an operation in the object.
pub fn read<O: Operation>(body: &str) -> worker::Result<O> {
    Ok(serde_json::from_str(body)?)
}

/// Answers an operation in the object.
pub fn answer<O: Operation>(answer: &O::Answer) -> worker::Result<Response> {
    let headers = Headers::new();
    headers.set("content-type", "application/json")?;
    Ok(Response::ok(serde_json::to_string(answer)?)?.with_headers(headers))
}
