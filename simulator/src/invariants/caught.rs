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
    /// On a thread that catches, the last panic; elsewhere `None`, and the usual hook prints it.
    static LAST: RefCell<Option<Caught>> = const { RefCell::new(None) };
}

static HOOK: Once = Once::new();

/// Runs `body`, and gives back what it panicked with, if it did.
pub(crate) fn catch(body: impl FnOnce()) -> Option<Caught> {
    HOOK.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !note(info) {
                usual(info);
            }
        }));
    });
    let nothing = Caught { message: String::new(), place: String::new() };
    LAST.with_borrow_mut(|last| *last = Some(nothing));
    let outcome = panic::catch_unwind(AssertUnwindSafe(body));
    let caught = LAST.with_borrow_mut(Option::take);
    outcome.err().and(caught)
}

/// Whether this thread catches; then the panic is kept.
fn note(info: &PanicHookInfo<'_>) -> bool {
    LAST.with_borrow_mut(|last| {
        let Some(caught) = last else { return false };
        caught.message = info.payload_as_str().unwrap_or("a panic without words").to_owned();
        caught.place = info.location().map_or(String::new(), |place| format!("{}:{}", place.file(), place.line()));
        true
    })
}
