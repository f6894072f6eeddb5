//! Gzip (RFC 1952) for large payloads.

use std::io::{Read, Write};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;

/// The bytes gzipped; `None` if that would not make them fewer.
pub fn pack(bytes: &[u8]) -> Option<Vec<u8>> {
    // The fastest level: JSON shrinks to a fraction by any, and time in a Worker is counted.
    let mut encoder = GzEncoder::new(Vec::with_capacity(bytes.len() >> 2), Compression::fast());
    encoder.write_all(bytes).ok()?;
    encoder.finish().ok().filter(|packed| packed.len() < bytes.len())
}

/// What was gzipped; `None` if it is not gzip, or there is more of it than `limit`.
pub fn unpack(packed: &[u8], limit: usize) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let most = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    GzDecoder::new(packed).take(most).read_to_end(&mut bytes).ok()?;
    (bytes.len() <= limit).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::{pack, unpack};

    #[test]
    fn what_shrinks_is_packed_and_comes_back() {
        let text = "the same again and again ".repeat(4_000);
        let packed = pack(text.as_bytes()).unwrap();
        assert!(packed.len() < text.len() / 20);
        assert_eq!(unpack(&packed, text.len()).unwrap(), text.as_bytes());
        assert_eq!(unpack(&packed, text.len() - 1), None, "a small packet may be a large text");
        assert_eq!(unpack(b"not gzip", 100), None);
        assert_eq!(unpack(&packed[..packed.len() / 2], text.len()), None);
    }

    #[test]
    fn what_does_not_shrink_stays_as_it_is() {
        assert_eq!(pack(b"{}"), None);
    }
}
