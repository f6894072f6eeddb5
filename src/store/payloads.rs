//! Large inputs and results, in R2. A key has its request's id, which begins with the time it was made: keys sort by time.

use rm_core::id::RequestId;
use rm_core::units::Instant;
use serde_json::value::RawValue;
use worker::{Bucket, Env, Error, Result};

use crate::host::gzip;
use crate::wire::payload::{Payload, StoredPayload};

const BINDING: &str = "PAYLOADS";
/// Longer payloads are in R2.
pub const INLINE_MAX_BYTES: usize = 65_536;
/// The most objects that R2 lists or deletes at once.
const AT_ONCE: u16 = 1_000;
/// How often a sweep lists the objects of one kind at most.
const SWEEPS_MAX: u32 = 10;
const INPUT: &str = "input/";
const RESULT: &str = "result/";

/// The key of a request's input.
pub fn input_key(id: &RequestId) -> String {
    format!("{INPUT}{id}")
}

/// The key of an attempt's result. A late attempt has another, so it never replaces the result that counts.
pub fn result_key(id: &RequestId, grant: u32) -> String {
    format!("{RESULT}{id}/{grant}")
}

fn bucket(env: &Env) -> Result<Bucket> {
    env.bucket(BINDING)
}

/// Stores a payload that is too large to travel; `None` if it is small enough. With `compress` it is stored gzipped, if
/// that makes it shorter.
pub async fn store(env: &Env, key: String, json: &RawValue, compress: bool) -> Result<Option<StoredPayload>> {
    let bytes = json.get().len();
    if bytes <= INLINE_MAX_BYTES {
        return Ok(None);
    }
    match compress.then(|| gzip::pack(json.get().as_bytes())).flatten() {
        Some(packed) => {
            let packed_bytes = Some(packed.len());
            bucket(env)?.put(&key, packed).execute().await?;
            Ok(Some(StoredPayload { key, bytes, packed_bytes }))
        }
        None => {
            bucket(env)?.put(&key, json.get().to_owned()).execute().await?;
            Ok(Some(StoredPayload { key, bytes, packed_bytes: None }))
        }
    }
}

/// What is left of a stored payload.
pub enum Found {
    /// All of it.
    Whole(Box<RawValue>),
    /// Nothing.
    Gone,
    /// Something else than what was stored.
    Damaged,
}

/// Reads a payload back; `None` if it is gone.
pub async fn load(env: &Env, payload: Payload) -> Result<Option<Box<RawValue>>> {
    match payload {
        Payload::Inline(json) => Ok(Some(json)),
        Payload::Stored(stored) => match load_stored(env, &stored).await? {
            Found::Whole(json) => Ok(Some(json)),
            Found::Gone => Ok(None),
            Found::Damaged => Err(Error::RustError(format!("`{}` is damaged", stored.key))),
        },
    }
}

/// Reads a stored payload back.
pub async fn load_stored(env: &Env, stored: &StoredPayload) -> Result<Found> {
    let Some(object) = bucket(env)?.get(&stored.key).execute().await? else { return Ok(Found::Gone) };
    let Some(body) = object.body() else { return Ok(Found::Gone) };
    let text = match stored.packed_bytes {
        None => Some(body.text().await?),
        Some(_) => gzip::unpack(&body.bytes().await?, stored.bytes).and_then(|bytes| String::from_utf8(bytes).ok()),
    };
    Ok(text.and_then(|text| RawValue::from_string(text).ok()).map_or(Found::Damaged, Found::Whole))
}

/// Deletes payloads. One that is not there is no error.
pub async fn delete(env: &Env, keys: Vec<String>) -> Result<()> {
    for some in keys.chunks(usize::from(AT_ONCE)) {
        bucket(env)?.delete_multiple(some.to_vec()).await?;
    }
    Ok(())
}

/// Deletes what was stored for requests made before `before`: what a crash left behind after its request was swept, or
/// before it was submitted.
pub async fn sweep(env: &Env, before: Instant) -> Result<()> {
    for prefix in [INPUT, RESULT] {
        for _ in 0..SWEEPS_MAX {
            let listed = bucket(env)?.list().prefix(prefix).limit(u32::from(AT_ONCE)).execute().await?;
            let keys: Vec<String> = listed.objects().into_iter().map(|object| object.key()).collect();
            let is_old = |key: &String| {
                let id = key.strip_prefix(prefix).and_then(|rest| rest.split('/').next()?.parse::<RequestId>().ok());
                id.is_none_or(|id| id.made_at() < before)
            };
            let old: Vec<String> = keys.into_iter().take_while(is_old).collect();
            let full = old.len() >= usize::from(AT_ONCE);
            delete(env, old).await?;
            if !full {
                break;
            }
        }
    }
    Ok(())
}
