//! Who may use a route.

use worker::{Env, Request};

use crate::api::routes::Access;
use crate::host::secrets::{accepted, equal};
use crate::wire::problem::{Code, Problem};

const KAM: &str = "KAM_TOKEN";
const INTERNAL: &str = "INTERNAL_TOKEN";
const ADMIN: &str = "ADMIN_TOKEN";

/// Checks the bearer token.
///
/// # Errors
/// No token, one that nobody has, one for something else; or the secret that the route needs is not set, which closes
/// the route.
pub fn check(request: &Request, env: &Env, access: Access) -> Result<(), Problem> {
    let opened_by: &[&str] = match access {
        Access::Open => return Ok(()),
        Access::Api { reads: true } => &[KAM, ADMIN],
        Access::Api { reads: false } => &[KAM],
        Access::Internal => &[INTERNAL],
        Access::Admin => &[ADMIN],
        Access::Any => &[KAM, INTERNAL, ADMIN],
    };
    let secrets = |names: &[&str]| names.iter().filter_map(|name| accepted(env, name)).flatten().collect::<Vec<_>>();
    let opening = secrets(opened_by);
    if opening.is_empty() {
        let names = opened_by.join(" or ");
        return Err(Problem::new(
            Code::NotConfigured,
            format!("the secret {names} is not set, so this route is closed"),
        ));
    }
    let header = request.headers().get("authorization").ok().flatten().unwrap_or_default();
    let token =
        header.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")).map(|(_, t)| t.trim());
    let Some(token) = token.filter(|token| !token.is_empty()) else {
        return Err(Problem::new(Code::Unauthorized, "the header `Authorization: Bearer …` is missing"));
    };
    // No short cut: all are compared, whichever fits.
    let fits = |values: &[String]| values.iter().fold(false, |found, value| equal(token, value) | found);
    if fits(&opening) {
        return Ok(());
    }
    if fits(&secrets(&[KAM, INTERNAL, ADMIN])) {
        return Err(Problem::new(Code::Forbidden, "this token is for another part of the interface"));
    }
    Err(Problem::new(Code::Unauthorized, "the token is not valid"))
}
