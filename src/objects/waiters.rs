//! Callers that wait for a request, woken by the event and not by polling.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use futures_channel::oneshot;
use rm_core::id::RequestId;
use rm_core::units::Instant;

use crate::host::time_limit::within;

/// What a caller is woken with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wake {
    /// The request ended.
    Finished,
    /// The reservation was granted.
    Reserved { expires_at: Instant },
    /// The reservation was refused.
    Refused { retry_at: Option<Instant> },
}

type Waiting = Rc<RefCell<BTreeMap<RequestId, Vec<oneshot::Sender<Wake>>>>>;

/// All that wait at one object. They are lost with its memory; their callers then see their time limit.
#[derive(Default)]
pub struct Waiters {
    waiting: Waiting,
}

/// A wait that has been announced. Dropped, it is forgotten.
pub struct Waiter {
    id: RequestId,
    receiver: oneshot::Receiver<Wake>,
    waiting: Waiting,
}

impl Waiters {
    /// Announces a wait. Do it before anything that may end it.
    pub fn announce(&self, id: &RequestId) -> Waiter {
        let (sender, receiver) = oneshot::channel();
        self.waiting.borrow_mut().entry(id.clone()).or_default().push(sender);
        Waiter { id: id.clone(), receiver, waiting: Rc::clone(&self.waiting) }
    }

    /// Wakes all that wait for a request.
    pub fn wake(&self, id: &RequestId, wake: Wake) {
        let senders = self.waiting.borrow_mut().remove(id).unwrap_or_default();
        for sender in senders {
            // One that is gone need not be told.
            let _gone = sender.send(wake);
        }
    }
}

impl Waiter {
    /// Waits, at most `limit_ms`; `None` when the time is up.
    pub async fn wait(mut self, limit_ms: i64) -> Option<Wake> {
        within(limit_ms, &mut self.receiver).await.ok()?.ok()
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        self.receiver.close();
        let mut waiting = self.waiting.borrow_mut();
        if let Some(senders) = waiting.get_mut(&self.id) {
            senders.retain(|sender| !sender.is_canceled());
            if senders.is_empty() {
                waiting.remove(&self.id);
            }
        }
    }
}
