//! Randomness from the runtime.

/// Random bytes; `None` if the runtime has none to give.
pub fn bytes<const N: usize>() -> Option<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).ok()?;
    Some(bytes)
}

/// A text of `N` random bytes in hexadecimal.
pub fn hex<const N: usize>() -> Option<String> {
    Some(bytes::<N>()?.iter().map(|byte| format!("{byte:02x}")).collect())
}
