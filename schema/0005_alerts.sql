-- Alerts. A cause (kind, subject, threshold) has one row a window; within it the row opens and resolves. `sequence` rises
-- with each change of state, and `delivered` is the last one that the webhook took.

CREATE TABLE alerts (
  alert_id INTEGER PRIMARY KEY AUTOINCREMENT,
  kind TEXT NOT NULL,
  -- pool:…, client:…, worker:…, model:…
  subject TEXT NOT NULL,
  threshold INTEGER NOT NULL,
  window_start INTEGER NOT NULL,
  status TEXT NOT NULL CHECK (status IN ('open', 'resolved')),
  severity TEXT NOT NULL CHECK (severity IN ('warning', 'critical')),
  message TEXT NOT NULL,
  opened_at INTEGER NOT NULL,
  resolved_at INTEGER,
  -- When its cause was last seen, for causes that are events.
  seen_at INTEGER,
  sequence INTEGER NOT NULL DEFAULT 1,
  delivered INTEGER NOT NULL DEFAULT 0,
  delivery_tries INTEGER NOT NULL DEFAULT 0,
  -- NULL: nothing to deliver, or given up.
  deliver_at INTEGER
);
CREATE UNIQUE INDEX alerts_by_cause ON alerts (kind, subject, threshold, window_start);
CREATE UNIQUE INDEX alerts_open ON alerts (kind, subject, threshold) WHERE status = 'open';
CREATE INDEX alerts_by_status ON alerts (status, alert_id);
CREATE INDEX alerts_to_deliver ON alerts (deliver_at) WHERE deliver_at IS NOT NULL;
