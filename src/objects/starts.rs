//! How many runs one event hands over. Cloudflare allows an event 32 calls through service bindings; and what an event
//! begins goes on granting as answers come in, so the core's limit to a single grant is not enough.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

use rm_core::id::RequestId;

/// The most runs that one event hands over.
const MAX_PER_EVENT: usize = 16;

/// A run that is to be handed over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    pub id: RequestId,
    pub grant: u32,
    pub limit_ms: i64,
    /// Those that are run together with it, each with its grant.
    pub with: Vec<(RequestId, u32)>,
}

/// The runs that this event handed over, and those that the next alarm will.
#[derive(Default)]
pub struct Starts {
    handed_over: Cell<usize>,
    put_off: RefCell<VecDeque<Start>>,
}

impl Starts {
    /// A new event has a share of its own.
    pub fn begin_event(&self) {
        self.handed_over.set(0);
    }

    /// The run, if it may be handed over now; else it is put off.
    pub fn admit(&self, start: Start) -> Option<Start> {
        if self.handed_over.get() < MAX_PER_EVENT {
            self.handed_over.set(self.handed_over.get().saturating_add(1));
            return Some(start);
        }
        self.put_off.borrow_mut().push_back(start);
        None
    }

    /// Whether the alarm is needed for some.
    pub fn are_put_off(&self) -> bool {
        !self.put_off.borrow().is_empty()
    }

    /// Those that this event may hand over of what was put off.
    pub fn take_put_off(&self) -> Vec<Start> {
        let room = MAX_PER_EVENT.saturating_sub(self.handed_over.get());
        let mut put_off = self.put_off.borrow_mut();
        let count = room.min(put_off.len());
        self.handed_over.set(self.handed_over.get().saturating_add(count));
        put_off.drain(..count).collect()
    }
}

#[cfg(test)]
mod tests {
    use rm_core::id::RequestId;
    use rm_core::units::Instant;

    use super::{Start, Starts};

    #[test]
    fn an_event_hands_over_its_share_and_the_rest_follows_in_order() {
        let starts = Starts::default();
        let start = |n: u32| Start {
            id: RequestId::new(Instant::from_millis(1), [0; 10], &"p".parse().unwrap()),
            grant: n,
            limit_ms: 1,
            with: Vec::new(),
        };
        let admitted = (0..40).filter_map(|n| starts.admit(start(n))).count();
        assert_eq!(admitted, 16);
        let mut later = Vec::new();
        while starts.are_put_off() {
            starts.begin_event();
            let now = starts.take_put_off();
            assert!(now.len() <= 16);
            later.extend(now.into_iter().map(|start| start.grant));
        }
        assert_eq!(later, (16..40).collect::<Vec<_>>());
    }
}
