-- What is kept of an execution after its pool has let go of it, and the roll-ups behind the usage history and the metrics.

ALTER TABLE usage_events ADD COLUMN urgency TEXT NOT NULL DEFAULT 'normal';
ALTER TABLE usage_events ADD COLUMN attempts INTEGER NOT NULL DEFAULT 0;
ALTER TABLE usage_events ADD COLUMN started_at INTEGER;
ALTER TABLE usage_events ADD COLUMN estimated_nanousd INTEGER NOT NULL DEFAULT 0;
-- {code, message}
ALTER TABLE usage_events ADD COLUMN failure TEXT;
-- 2: all numbers are integers, [{pool, estimatedMicros, actualMicros, …, costNanoUsd}].
ALTER TABLE usage_events ADD COLUMN lines_version INTEGER NOT NULL DEFAULT 1;

CREATE TABLE usage_pools_daily (
  client_id TEXT NOT NULL,
  day TEXT NOT NULL,
  pool TEXT NOT NULL,
  requests INTEGER NOT NULL,
  amount_micros INTEGER NOT NULL,
  cost_nanousd INTEGER NOT NULL,
  baseline_nanousd INTEGER NOT NULL,
  PRIMARY KEY (client_id, day, pool)
) WITHOUT ROWID;

CREATE TABLE lane_outcomes (
  urgency TEXT NOT NULL,
  status TEXT NOT NULL,
  requests INTEGER NOT NULL,
  wait_ms INTEGER NOT NULL,
  run_ms INTEGER NOT NULL,
  PRIMARY KEY (urgency, status)
) WITHOUT ROWID;

-- How many started requests waited for at most `up_to_ms`, and longer than for the bound before it.
CREATE TABLE lane_waits (
  urgency TEXT NOT NULL,
  up_to_ms INTEGER NOT NULL,
  requests INTEGER NOT NULL,
  wait_ms INTEGER NOT NULL,
  PRIMARY KEY (urgency, up_to_ms)
) WITHOUT ROWID;

CREATE TABLE template_totals (
  template_id TEXT NOT NULL,
  model TEXT NOT NULL,
  requests INTEGER NOT NULL,
  succeeded INTEGER NOT NULL,
  cost_nanousd INTEGER NOT NULL,
  baseline_nanousd INTEGER NOT NULL,
  PRIMARY KEY (template_id, model)
) WITHOUT ROWID;

CREATE INDEX budget_periods_by_spent ON budget_periods (period_start, spent_nanousd);

CREATE TRIGGER usage_pools_daily_follows AFTER INSERT ON usage_events WHEN NEW.lines_version = 2 BEGIN
  INSERT INTO usage_pools_daily (client_id, day, pool, requests, amount_micros, cost_nanousd, baseline_nanousd)
  SELECT NEW.client_id, strftime('%Y-%m-%d', NEW.at / 1000, 'unixepoch'), json_extract(line.value, '$.pool'),
         NEW.event = NEW.request_id, json_extract(line.value, '$.actualMicros'),
         json_extract(line.value, '$.costNanoUsd'), json_extract(line.value, '$.baselineNanoUsd')
  FROM json_each(NEW.lines) AS line WHERE true
  ON CONFLICT (client_id, day, pool) DO UPDATE SET
    requests = requests + excluded.requests,
    amount_micros = amount_micros + excluded.amount_micros,
    cost_nanousd = cost_nanousd + excluded.cost_nanousd,
    baseline_nanousd = baseline_nanousd + excluded.baseline_nanousd;
END;

CREATE TRIGGER template_totals_follow AFTER INSERT ON usage_events BEGIN
  INSERT INTO template_totals (template_id, model, requests, succeeded, cost_nanousd, baseline_nanousd)
  VALUES (NEW.template_id, NEW.model, NEW.event = NEW.request_id,
          NEW.event = NEW.request_id AND NEW.status = 'succeeded', NEW.cost_nanousd, NEW.baseline_nanousd)
  ON CONFLICT (template_id, model) DO UPDATE SET
    requests = requests + excluded.requests,
    succeeded = succeeded + excluded.succeeded,
    cost_nanousd = cost_nanousd + excluded.cost_nanousd,
    baseline_nanousd = baseline_nanousd + excluded.baseline_nanousd;
END;

CREATE TRIGGER lanes_follow AFTER INSERT ON usage_events
WHEN NEW.kind = 'execution' AND NEW.event = NEW.request_id BEGIN
  INSERT INTO lane_outcomes (urgency, status, requests, wait_ms, run_ms)
  VALUES (NEW.urgency, NEW.status, 1, max(coalesce(NEW.started_at, NEW.at) - NEW.created_at, 0),
          max(NEW.at - coalesce(NEW.started_at, NEW.at), 0))
  ON CONFLICT (urgency, status) DO UPDATE SET
    requests = requests + 1, wait_ms = wait_ms + excluded.wait_ms, run_ms = run_ms + excluded.run_ms;
  INSERT INTO lane_waits (urgency, up_to_ms, requests, wait_ms)
  SELECT NEW.urgency, min(bound.column1), 1, max(NEW.started_at - NEW.created_at, 0)
  FROM (VALUES (10), (50), (100), (500), (1000), (5000), (15000), (30000), (60000), (300000), (600000), (1800000),
               (9007199254740991)) AS bound
  WHERE NEW.started_at IS NOT NULL AND bound.column1 >= NEW.started_at - NEW.created_at
  HAVING count(*) > 0
  ON CONFLICT (urgency, up_to_ms) DO UPDATE SET requests = requests + 1, wait_ms = wait_ms + excluded.wait_ms;
END;

-- Only uses that somebody reported teach anything.
CREATE TRIGGER estimate_feed_follows AFTER INSERT ON usage_events
WHEN NEW.lines_version = 2 AND NEW.status = 'succeeded' AND NEW.template_id <> '' BEGIN
  INSERT INTO estimate_feed (template_id, pool, formula_micros, estimated_micros, actual_micros)
  SELECT NEW.template_id, json_extract(line.value, '$.pool'), json_extract(line.value, '$.formulaMicros'),
         json_extract(line.value, '$.estimatedMicros'), json_extract(line.value, '$.actualMicros')
  FROM json_each(NEW.lines) AS line
  WHERE json_extract(line.value, '$.reported') AND json_extract(line.value, '$.formulaMicros') IS NOT NULL;
END;
