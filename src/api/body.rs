//! Reading a JSON body, and naming the field that is wrong.

use serde::de::DeserializeOwned;
use serde_path_to_error::Segment;
use worker::Request;

use crate::host::stream::read_limited;
use crate::wire::problem::{Code, Problem};
use crate::wire::strict::Object;

/// The longest body.
pub const BODY_MAX_BYTES: usize = 10 * 1_048_576;

fn too_large() -> Problem {
    Problem::new(Code::PayloadTooLarge, format!("the body has more than {BODY_MAX_BYTES} bytes"))
}

/// The body's bytes. One that is too long is not read to its end.
async fn read_bytes(request: &mut Request) -> Result<Vec<u8>, Problem> {
    let unreadable =
        |error: worker::Error| Problem::new(Code::InvalidRequest, format!("the body cannot be read: {error}"));
    let announced = request.headers().get("content-length").ok().flatten().and_then(|text| text.parse::<usize>().ok());
    if announced.is_some_and(|length| length > BODY_MAX_BYTES) {
        return Err(too_large());
    }
    if request.inner().body().is_none() {
        return Ok(Vec::new());
    }
    let stream = request.stream().map_err(unreadable)?;
    let bytes = read_limited(stream, announced.unwrap_or(0), BODY_MAX_BYTES).await.map_err(unreadable)?;
    bytes.ok_or_else(too_large)
}

/// The body as text.
pub async fn read_text(request: &mut Request) -> Result<String, Problem> {
    String::from_utf8(read_bytes(request).await?).map_err(|_| Problem::field("", "the body is not UTF-8"))
}

/// A body that was read: its text, for a fingerprint, and what it says.
pub struct Parsed<T> {
    pub text: String,
    pub value: T,
}

/// The text of a body that must be JSON.
pub async fn read_value(request: &mut Request) -> Result<String, Problem> {
    let content_type = request.headers().get("content-type").ok().flatten().unwrap_or_default();
    let media_type = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if media_type != "application/json" && !media_type.ends_with("+json") {
        let detail = format!("expected `Content-Type: application/json`, not `{media_type}`");
        return Err(Problem::new(Code::UnsupportedMediaType, detail));
    }
    let coding = request.headers().get("content-encoding").ok().flatten().unwrap_or_default();
    if !matches!(coding.trim().to_ascii_lowercase().as_str(), "" | "identity") {
        let detail = format!("expected a body without `Content-Encoding`, not `{coding}`");
        return Err(Problem::new(Code::UnsupportedMediaType, detail));
    }
    read_text(request).await
}

/// The body as JSON of a known shape.
pub async fn read_json<T: DeserializeOwned>(request: &mut Request) -> Result<Parsed<T>, Problem> {
    let text = read_value(request).await?;
    let value = parse(&text)?;
    Ok(Parsed { text, value })
}

/// Parses JSON of a known shape.
pub fn parse<T: DeserializeOwned>(text: &str) -> Result<T, Problem> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let value: Object<T> = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let path = error.path().clone();
        let message = error.into_inner().to_string();
        Problem::field(pointer(path.iter(), &message), without_place(&message))
    })?;
    deserializer.end().map_err(|error| Problem::field("", format!("{error}")))?;
    Ok(value.0)
}

/// The JSON pointer of what an error is about. A field that is unknown or missing is named by the message alone.
fn pointer<'a>(path: impl Iterator<Item = &'a Segment>, message: &str) -> String {
    let mut pointer = String::new();
    for segment in path {
        match segment {
            Segment::Map { key } => push(&mut pointer, key),
            Segment::Seq { index } => push(&mut pointer, &index.to_string()),
            Segment::Enum { .. } | Segment::Unknown => {}
        }
    }
    let named = ["unknown field `", "missing field `", "duplicate field `"]
        .iter()
        .find_map(|prefix| message.strip_prefix(prefix)?.split('`').next());
    if let Some(field) = named {
        let escaped = escape(field);
        if !pointer.ends_with(&format!("/{escaped}")) {
            push(&mut pointer, field);
        }
    }
    pointer
}

fn escape(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

fn push(pointer: &mut String, key: &str) {
    pointer.push('/');
    pointer.push_str(&escape(key));
}

/// Leaves out the line and column, which the pointer makes needless, unless it is the syntax that is wrong.
fn without_place(message: &str) -> &str {
    match message.rsplit_once(" at line ") {
        Some((text, _)) if !text.starts_with("EOF") && !text.starts_with("expected") => text,
        _ => message,
    }
}

#[cfg(test)]
mod tests {
    use super::parse;
    use crate::wire::admin::PoolBody;
    use crate::wire::api::{ConsumeBody, ExecuteBody};

    fn pointer_of<T: serde::de::DeserializeOwned>(json: &str) -> String {
        let problem = parse::<T>(json).err().unwrap();
        problem.errors[0].pointer.clone()
    }

    #[test]
    fn names_the_field_that_is_wrong() {
        assert_eq!(pointer_of::<ExecuteBody>("{}"), "/clientId");
        assert_eq!(pointer_of::<ExecuteBody>(r#"{"clientId":"a","inputs":1}"#), "/inputs");
        assert_eq!(pointer_of::<ExecuteBody>(r#"{"clientId":7}"#), "/clientId");
        assert_eq!(pointer_of::<ExecuteBody>(r#"{"clientId":"a","clientId":"a"}"#), "/clientId");
        assert_eq!(pointer_of::<ExecuteBody>(r#"{"clientId":"a","deadline":"tomorrow"}"#), "/deadline");
        let resources = r#"{"clientId":"a","resources":[{"pool":"p","amount":1},{"pool":"p","amount":-1}]}"#;
        assert_eq!(pointer_of::<ExecuteBody>(resources), "/resources/1/amount");
        assert_eq!(pointer_of::<ExecuteBody>(r#"["a"]"#), "");
        assert_eq!(pointer_of::<ExecuteBody>(r#"{"clientId":"a","resources":[["p",1]]}"#), "/resources/0");
        let nested = r#"{"clientId":"a","resources":[{"pool":"p","amount":1,"unit":"x"}]}"#;
        assert_eq!(pointer_of::<ExecuteBody>(nested), "/resources/0/unit");
        assert_eq!(
            pointer_of::<ExecuteBody>(r#"{"clientId":"a","optimization":{"level":"max"}}"#),
            "/optimization/level"
        );
        assert_eq!(pointer_of::<ConsumeBody>("[]"), "");
        assert_eq!(pointer_of::<ExecuteBody>(r#"{"clientId":"a"} x"#), "");
        assert_eq!(pointer_of::<ExecuteBody>(""), "");
        let price = r#"{"unit":"u","capacity":1,"refillPerSecond":1,"unitPriceUsd":0.0000000001}"#;
        assert_eq!(pointer_of::<PoolBody>(price), "/unitPriceUsd");
    }

    #[test]
    fn input_passes_through_byte_for_byte() {
        let body: ExecuteBody = parse(r#"{"clientId":"a","input":{"b":1.0,"a":12345678901234567890123}}"#).unwrap();
        assert_eq!(body.input.unwrap().get(), r#"{"b":1.0,"a":12345678901234567890123}"#);
    }
}
