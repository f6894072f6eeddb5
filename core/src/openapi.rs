//! How the core's types look in JSON, for the description of the HTTP interface. Only with the feature `openapi`.

use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, Schema, SchemaFormat, SchemaType, Type};
use utoipa::{PartialSchema, ToSchema};

use crate::account::ClientStatus;
use crate::alert::AlertKind;
use crate::id::{ClientId, PoolId, RequestId, TemplateId, WorkerBinding};
use crate::pool::Blocked;
use crate::priority::{Points, Tier, Urgency};
use crate::units::{NanoUsd, Tokens};

/// 2^53 − 1 steps of a millionth.
const TOKENS_MAX: f64 = 9_007_199_254.0;
/// 2^53 − 1 nano-dollars.
const USD_MAX: f64 = 9_007_199.0;

fn text(description: &str, pattern: &str) -> RefOr<Schema> {
    let object = ObjectBuilder::new().schema_type(SchemaType::new(Type::String)).description(Some(description));
    object.pattern(Some(pattern)).into()
}

fn number(description: &str, minimum: f64, maximum: f64) -> RefOr<Schema> {
    let object = ObjectBuilder::new().schema_type(SchemaType::new(Type::Number)).description(Some(description));
    let format = SchemaFormat::KnownFormat(KnownFormat::Double);
    object.minimum(Some(minimum)).maximum(Some(maximum)).format(Some(format)).into()
}

macro_rules! schemas {
    ($($type:ident => $schema:expr;)*) => {$(
        impl PartialSchema for $type {
            fn schema() -> RefOr<Schema> {
                $schema
            }
        }

        impl ToSchema for $type {}
    )*};
}

fn one_of(description: &str, names: impl IntoIterator<Item = &'static str>) -> RefOr<Schema> {
    let object = ObjectBuilder::new().schema_type(SchemaType::new(Type::String)).description(Some(description));
    object.enum_values(Some(names)).into()
}

schemas! {
    PoolId => text("A resource pool.", "^[a-z0-9][a-z0-9.\\-]{0,63}$");
    ClientId => text("A client of the platform.", "^[A-Za-z0-9][A-Za-z0-9_.:@\\-]{0,63}$");
    TemplateId => text("A request template.", "^[A-Za-z0-9][A-Za-z0-9_.\\-]{0,63}$");
    WorkerBinding => text("The service binding of a downstream worker.", "^[A-Z0-9][A-Z0-9_]{0,63}$");
    RequestId => text(
        "A request or reservation: a sortable unique part, and the pool that keeps it.",
        "^[0-9abcdefghjkmnpqrstvwxyz]{26}_[a-z0-9][a-z0-9.\\-]{0,63}$"
    );
    Tokens => number("An amount of a pool's unit, with at most six decimals.", 0.0, TOKENS_MAX);
    NanoUsd => number("US dollars, with at most nine decimals.", -USD_MAX, USD_MAX);
    Points => number("With at most three decimals.", 0.0, 100.0);
    Tier => one_of("A client's tier.", Tier::ALL.map(Tier::as_str));
    Urgency => one_of("A lane of the queue.", Urgency::ALL.map(Urgency::as_str));
    ClientStatus => one_of("Whether a client may begin anything.", ["active", "suspended"]);
    Blocked => one_of("What holds a request.", Blocked::ALL.map(Blocked::as_str));
    AlertKind => one_of("What an alert is about.", AlertKind::ALL.map(AlertKind::as_str));
}
