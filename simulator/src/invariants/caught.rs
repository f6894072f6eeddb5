//! Panics as values: what a check says when something does not hold, without a line on stderr for each try.

use std::cell::RefCell;
use std::fmt;
use std::panic::{self, AssertUnwindSafe, PanicHookInfo};
use std::sync::Once;

/// What a panic said, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caught {
    /// Its message.
    pub message: String,
    /// File and line.
    pub place: String,
}

impl fmt::Display for Caught {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.place)
    }
}

thread_local! {
    /// On a thread that catches, the seed that runs and its last panic; elsewhere `None`, and the usual hook prints it.
    static LAST: RefCell<Option<(u64, Caught)>> = const { RefCell::new(None) };
}

static HOOK: Once = Once::new();

/// Runs `body` for a seed, and gives back what it panicked with, if it did.
pub(crate) fn catch(seed: u64, body: impl FnOnce()) -> Option<Caught> {
    HOOK.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !note(info) {
                usual(info);
            }
        }));
    });
    let nothing = Caught { message: String::new(), place: String::new() };
    LAST.with_borrow_mut(|last| *last = Some((seed, nothing)));
    let outcome = panic::catch_unwind(AssertUnwindSafe(body));
    let caught = LAST.with_borrow_mut(Option::take);
    outcome.err().and(caught).map(|(_, caught)| caught)
}

/// Whether this thread catches; then the panic is kept. Where a panic ends the program, the seed is all that can be told.
fn note(info: &PanicHookInfo<'_>) -> bool {
    LAST.with_borrow_mut(|last| {
        let Some((seed, caught)) = last else { return false };
        if cfg!(panic = "abort") {
            eprintln!("seed {seed} fails:");
            return false;
        }
        caught.message = info.payload_as_str().unwrap_or("a panic without words").to_owned();
        caught.place = info.location().map_or(String::new(), |place| format!("{}:{}", place.file(), place.line()));
        true
    })
}
