//! Inputs and results: small ones travel and are stored with their request, large ones are in R2 and only named.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// An input or a result.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Payload {
    /// The JSON itself.
    Inline(Box<RawValue>),
    /// Where it is.
    Stored(StoredPayload),
}

/// A payload in R2.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StoredPayload {
    /// The object's key.
    pub key: String,
    /// Its length.
    pub bytes: usize,
    /// Its length as it is stored, if it is gzipped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packed_bytes: Option<usize>,
}

impl StoredPayload {
    /// How many bytes its compression has saved.
    pub fn saved_bytes(&self) -> u64 {
        let saved = self.packed_bytes.map_or(0, |packed| self.bytes.saturating_sub(packed));
        u64::try_from(saved).unwrap_or(0)
    }
}

/// No JSON begins with this: what follows says where a payload is.
const STORED: &str = "@r2:";

impl Payload {
    /// As a column of an object's SQLite.
    pub fn to_column(&self) -> serde_json::Result<String> {
        match self {
            Self::Inline(json) => Ok(json.get().to_owned()),
            Self::Stored(stored) => Ok(format!("{STORED}{}", serde_json::to_string(stored)?)),
        }
    }

    /// From a column of an object's SQLite.
    pub fn from_column(column: String) -> serde_json::Result<Self> {
        match column.strip_prefix(STORED) {
            Some(stored) => serde_json::from_str(stored).map(Self::Stored),
            None => RawValue::from_string(column).map(Self::Inline),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::value::RawValue;

    use super::{Payload, StoredPayload};

    #[test]
    fn a_column_is_the_json_or_where_it_is() {
        let inline = Payload::Inline(RawValue::from_string(r#"{"a":1.0}"#.into()).unwrap());
        assert_eq!(inline.to_column().unwrap(), r#"{"a":1.0}"#);
        let stored = StoredPayload { key: "input/x".into(), bytes: 70_000, packed_bytes: Some(900) };
        let column = Payload::Stored(stored.clone()).to_column().unwrap();
        assert!(matches!(Payload::from_column(column).unwrap(), Payload::Stored(found) if found == stored));
        assert!(matches!(Payload::from_column("[1]".into()).unwrap(), Payload::Inline(json) if json.get() == "[1]"));
        // As the objects' operations send it.
        let sent: Payload = serde_json::from_str(&serde_json::to_string(&inline).unwrap()).unwrap();
        assert!(matches!(sent, Payload::Inline(json) if json.get() == r#"{"a":1.0}"#));
    }
}
