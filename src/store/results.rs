//! Results that are kept in KV for the same request of the same client. The key is a hash of all that the result depends
//! on, the client among it. KV forgets an entry after its time; what was purged before is told by the entry's own time.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rm_core::id::RequestId;
use rm_core::request::Usage;
use rm_core::units::Instant;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use worker::{Env, Result};

use crate::host::gzip;
use crate::store::payloads::INLINE_MAX_BYTES;
use crate::wire::execution::Keep;

/// The version of the stored JSON; part of the key.
const VERSION: u32 = 1;
/// KV keeps nothing for less than a minute.
const TTL_MIN_SECONDS: u64 = 60;
/// How what is gzipped begins (RFC 1952, 2.3.1); JSON does not.
const GZIP: [u8; 2] = [0x1f, 0x8b];
/// More is not unpacked: KV keeps no more either.
const BYTES_MAX: usize = 25 << 20;

/// A result that was kept.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KeptResult {
    /// When.
    pub at: Instant,
    /// Of which request.
    pub request: RequestId,
    /// What that has used.
    pub usage: Vec<Usage>,
    /// The result.
    pub result: Box<RawValue>,
}

impl KeptResult {
    /// Where it is from, for people.
    pub fn detail(&self) -> String {
        format!("the result of {} was kept", self.request)
    }
}

/// The name of what depends on this text.
pub fn key(text: &str) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(text))
}

fn kv_key(key: &str) -> String {
    format!("result:v{VERSION}:{key}")
}

/// A result that was kept within its time; `None` if there is none, or it cannot be read.
pub async fn find(env: &Env, keep: &Keep, now: Instant) -> Result<Option<KeptResult>> {
    let Some(stored) = env.kv("KV")?.get(&kv_key(&keep.key)).bytes().await? else { return Ok(None) };
    let json = if stored.starts_with(&GZIP) { gzip::unpack(&stored, BYTES_MAX) } else { Some(stored) };
    let Some(kept) = json.and_then(|json| serde_json::from_slice::<KeptResult>(&json).ok()) else { return Ok(None) };
    let ttl_ms = i64::from(keep.ttl_seconds).saturating_mul(1_000);
    Ok(Some(kept).filter(|kept| now.since(kept.at) < ttl_ms))
}

/// Keeps a result; with `compress` a long one is gzipped.
pub async fn put(env: &Env, keep: &Keep, kept: &KeptResult, compress: bool) -> Result<()> {
    let ttl = u64::from(keep.ttl_seconds).max(TTL_MIN_SECONDS);
    let json = serde_json::to_string(kept)?;
    let is_long = compress && json.len() > INLINE_MAX_BYTES;
    let stored = is_long.then(|| gzip::pack(json.as_bytes())).flatten().unwrap_or_else(|| json.into_bytes());
    env.kv("KV")?.put_bytes(&kv_key(&keep.key), &stored)?.expiration_ttl(ttl).execute().await?;
    Ok(())
}
