//! Reading a body that may be too long.

use futures_util::StreamExt;
use worker::{ByteStream, Result};

/// The bytes; `None` as soon as there are more than `limit`: the rest is not read.
pub async fn read_limited(mut stream: ByteStream, expected: usize, limit: usize) -> Result<Option<Vec<u8>>> {
    let mut bytes = Vec::with_capacity(expected.min(limit));
    while let Some(chunk) = stream.next().await {
        bytes.extend_from_slice(&chunk?);
        if bytes.len() > limit {
            return Ok(None);
        }
    }
    Ok(Some(bytes))
}
