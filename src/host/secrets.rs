//! The bearer tokens.

use worker::Env;

/// The accepted values of a secret: two, separated by a comma, are valid at once while a token is rotated. `None` when it
/// is not set.
pub fn accepted(env: &Env, name: &str) -> Option<Vec<String>> {
    let value = env.secret(name).ok()?.to_string();
    let values: Vec<String> =
        value.split(',').map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect();
    (!values.is_empty()).then_some(values)
}

/// Compares in a time that depends on the lengths alone.
pub fn equal(given: &str, accepted: &str) -> bool {
    let (given, accepted) = (given.as_bytes(), accepted.as_bytes());
    let mut difference = u8::from(given.len() != accepted.len());
    for (index, byte) in accepted.iter().enumerate() {
        difference |= byte ^ given.get(index).copied().unwrap_or(0);
    }
    std::hint::black_box(difference) == 0
}

#[cfg(test)]
mod tests {
    use super::equal;

    #[test]
    fn only_the_same_is_equal() {
        assert!(equal("dev-kam-token", "dev-kam-token"));
        for wrong in ["", "dev-kam-toke", "dev-kam-token0", "dev-kam-tokeN"] {
            assert!(!equal(wrong, "dev-kam-token"));
        }
    }
}
