//! Objects that must be written as objects. Serde's derived types also take an array of their fields' values in order,
//! which nobody means.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};

/// A `T` that was written as an object.
pub struct Object<T>(pub T);

struct ObjectVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
    type Value = Object<T>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Object<T>, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(Object)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor(PhantomData))
    }
}

/// For a list of objects.
pub fn list<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    Ok(Vec::<Object<T>>::deserialize(deserializer)?.into_iter().map(|object| object.0).collect())
}

/// For a list of objects that may be missing.
pub fn optional_list<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Vec<T>>, D::Error> {
    let list = Option::<Vec<Object<T>>>::deserialize(deserializer)?;
    Ok(list.map(|objects| objects.into_iter().map(|object| object.0).collect()))
}

/// For an object that may be missing.
pub fn optional<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    Ok(Option::<Object<T>>::deserialize(deserializer)?.map(|object| object.0))
}

/// For what has a value of its own where it is missing or `null`.
pub fn or_default<'de, T: Deserialize<'de> + Default, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// A whole number, in any form that JSON has for it: `1000`, `1000.0` and `1e3` are the same.
struct Whole<T>(T);

struct WholeVisitor<T>(PhantomData<T>);

impl<T: TryFrom<i128>> WholeVisitor<T> {
    fn checked<E: serde::de::Error>(value: i128) -> Result<Whole<T>, E> {
        T::try_from(value).map(Whole).map_err(|_| E::custom("is out of range"))
    }
}

impl<T: TryFrom<i128>> Visitor<'_> for WholeVisitor<T> {
    type Value = Whole<T>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a whole number")
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Whole<T>, E> {
        Self::checked(value.into())
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Whole<T>, E> {
        Self::checked(value.into())
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Whole<T>, E> {
        // Beyond 2^53 a float does not say which whole number it is.
        if value.fract() != 0.0 || value.abs() > 9_007_199_254_740_991.0 {
            let unexpected = serde::de::Unexpected::Float(value);
            return Err(E::invalid_type(unexpected, &self));
        }
        #[expect(clippy::as_conversions, clippy::cast_possible_truncation, reason = "a whole number within ±2^53")]
        let whole = value as i64;
        Self::checked(whole.into())
    }
}

impl<'de, T: TryFrom<i128>> Deserialize<'de> for Whole<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(WholeVisitor(PhantomData))
    }
}

/// For a whole number.
pub fn whole<'de, T: TryFrom<i128>, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    Whole::deserialize(deserializer).map(|whole| whole.0)
}

/// For a whole number that may be missing.
pub fn optional_whole<'de, T: TryFrom<i128>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    Ok(Option::<Whole<T>>::deserialize(deserializer)?.map(|whole| whole.0))
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    #[derive(Debug, PartialEq, Deserialize)]
    struct Numbers {
        #[serde(deserialize_with = "super::whole")]
        a: u64,
        #[serde(default, deserialize_with = "super::optional_whole")]
        b: Option<u8>,
    }

    #[test]
    fn a_whole_number_may_be_written_in_any_form() {
        let read = |json: &str| serde_json::from_str::<Numbers>(json);
        assert_eq!(read(r#"{"a":1000.0,"b":2e0}"#).unwrap(), Numbers { a: 1_000, b: Some(2) });
        assert_eq!(read(r#"{"a":9007199254740993,"b":null}"#).unwrap(), Numbers { a: 9_007_199_254_740_993, b: None });
        for bad in
            [r#"{"a":1.5}"#, r#"{"a":-1}"#, r#"{"a":"1"}"#, r#"{"a":1e300}"#, r#"{"a":1,"b":256}"#, r#"{"a":null}"#]
        {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
