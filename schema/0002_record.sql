-- The record: what was used, by whom, at what cost. An account sends each charge under a name of its own, at least
-- once; a repetition is ignored, and the roll-ups follow the insertions by triggers, in the same transaction. So
-- delivery is at least once and effect exactly once.

CREATE TABLE usage_events (
  event TEXT PRIMARY KEY,
  request_id TEXT NOT NULL,
  client_id TEXT NOT NULL,
  kind TEXT NOT NULL,
  status TEXT NOT NULL,
  template_id TEXT NOT NULL DEFAULT '',
  worker TEXT NOT NULL DEFAULT '',
  model TEXT NOT NULL DEFAULT '',
  created_at INTEGER NOT NULL,
  at INTEGER NOT NULL,
  period_start INTEGER NOT NULL,
  cost_nanousd INTEGER NOT NULL,
  baseline_nanousd INTEGER NOT NULL,
  uncertain INTEGER NOT NULL,
  -- [{pool, estimated, actual, unitPrice, cost}], version 1.
  lines TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX usage_events_by_client ON usage_events (client_id, at, event);
CREATE INDEX usage_events_by_request ON usage_events (request_id);

-- Days are in UTC.
CREATE TABLE usage_daily (
  client_id TEXT NOT NULL,
  day TEXT NOT NULL,
  template_id TEXT NOT NULL,
  model TEXT NOT NULL,
  requests INTEGER NOT NULL,
  cost_nanousd INTEGER NOT NULL,
  baseline_nanousd INTEGER NOT NULL,
  PRIMARY KEY (client_id, day, template_id, model)
) WITHOUT ROWID;

CREATE TABLE budget_periods (
  client_id TEXT NOT NULL,
  period_start INTEGER NOT NULL,
  spent_nanousd INTEGER NOT NULL,
  requests INTEGER NOT NULL,
  PRIMARY KEY (client_id, period_start)
) WITHOUT ROWID;

-- Use that was reported after the end of its request is the same request.
CREATE TRIGGER usage_daily_follows AFTER INSERT ON usage_events BEGIN
  INSERT INTO usage_daily (client_id, day, template_id, model, requests, cost_nanousd, baseline_nanousd)
  VALUES (NEW.client_id, strftime('%Y-%m-%d', NEW.at / 1000, 'unixepoch'), NEW.template_id, NEW.model,
          NEW.event = NEW.request_id, NEW.cost_nanousd, NEW.baseline_nanousd)
  ON CONFLICT (client_id, day, template_id, model) DO UPDATE SET
    requests = requests + excluded.requests,
    cost_nanousd = cost_nanousd + excluded.cost_nanousd,
    baseline_nanousd = baseline_nanousd + excluded.baseline_nanousd;
END;

CREATE TRIGGER budget_periods_follow AFTER INSERT ON usage_events BEGIN
  INSERT INTO budget_periods (client_id, period_start, spent_nanousd, requests)
  VALUES (NEW.client_id, NEW.period_start, NEW.cost_nanousd, NEW.event = NEW.request_id)
  ON CONFLICT (client_id, period_start) DO UPDATE SET
    spent_nanousd = spent_nanousd + excluded.spent_nanousd,
    requests = requests + excluded.requests;
END;
