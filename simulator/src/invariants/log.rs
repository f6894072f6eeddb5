//! What happened, in words. Nothing is written, or even formatted, unless somebody wants to read it.

use rm_core::id::RequestId;
use rm_core::units::Instant;

/// The words of one history.
#[derive(Debug)]
pub struct Log {
    began: Instant,
    lines: Option<Vec<String>>,
    /// Requests by the order in which they came.
    requests: Vec<RequestId>,
}

impl Log {
    /// A log that nobody reads.
    #[must_use]
    pub const fn unread(began: Instant) -> Self {
        Self { began, lines: None, requests: Vec::new() }
    }

    /// A log that is kept.
    #[must_use]
    pub const fn kept(began: Instant) -> Self {
        Self { began, lines: Some(Vec::new()), requests: Vec::new() }
    }

    /// A line of its own.
    pub fn heading(&mut self, words: impl FnOnce() -> String) {
        if let Some(lines) = &mut self.lines {
            lines.push(words());
        }
    }

    /// Something that happened at a moment.
    pub fn say(&mut self, now: Instant, words: impl FnOnce() -> String) {
        if let Some(lines) = &mut self.lines {
            let millis = now.since(self.began);
            lines.push(format!("{:>8}.{:03} s  {}", millis / 1_000, millis % 1_000, words()));
        }
    }

    /// A request that has not been named before.
    pub fn name(&mut self, id: &RequestId) {
        if self.lines.is_some() {
            self.requests.push(id.clone());
        }
    }

    /// All lines, with the requests called r1, r2 and so on.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let shorten = |line: &String| {
            let mut line = line.clone();
            for (index, id) in self.requests.iter().enumerate() {
                if line.contains(id.as_str()) {
                    line = line.replace(id.as_str(), &format!("r{}", index + 1));
                }
            }
            line
        };
        self.lines.iter().flatten().map(shorten).collect()
    }
}
