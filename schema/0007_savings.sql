-- What the optimiser works by, and what it has saved: for every request baseline − actual = Σ strategies.

-- The models that a pool serves: the list of its PUT, in version 1.
ALTER TABLE pools ADD COLUMN models TEXT NOT NULL DEFAULT '[]';

-- When a model costs less: {discountPercent, windows: [{from, to}]}, on all days, in UTC, version 1; NULL: never.
ALTER TABLE model_prices ADD COLUMN off_peak TEXT;

-- Results of the template that were kept by then are not to be used any more; NULL: never purged.
ALTER TABLE templates ADD COLUMN purged_at INTEGER;

-- What was applied to a request: [{strategy, detail, savedNanoUsd, savedBytes}], version 1.
ALTER TABLE usage_events ADD COLUMN optimizations TEXT NOT NULL DEFAULT '[]';

-- What requests that are the same have in common, a hash; empty where nothing is known of that.
ALTER TABLE usage_events ADD COLUMN same TEXT NOT NULL DEFAULT '';

-- The ledger: a row for each strategy that was applied to a request.
CREATE TABLE savings (
  event TEXT NOT NULL,
  strategy TEXT NOT NULL,
  client_id TEXT NOT NULL,
  at INTEGER NOT NULL,
  saved_nanousd INTEGER NOT NULL,
  saved_bytes INTEGER NOT NULL,
  PRIMARY KEY (event, strategy)
) WITHOUT ROWID;

CREATE TABLE savings_daily (
  client_id TEXT NOT NULL,
  day TEXT NOT NULL,
  strategy TEXT NOT NULL,
  applied INTEGER NOT NULL,
  saved_nanousd INTEGER NOT NULL,
  saved_bytes INTEGER NOT NULL,
  PRIMARY KEY (client_id, day, strategy)
) WITHOUT ROWID;

-- Requests that any strategy was applied to.
CREATE TABLE optimized_daily (
  client_id TEXT NOT NULL,
  day TEXT NOT NULL,
  requests INTEGER NOT NULL,
  PRIMARY KEY (client_id, day)
) WITHOUT ROWID;

CREATE TABLE savings_totals (
  strategy TEXT PRIMARY KEY,
  applied INTEGER NOT NULL,
  saved_nanousd INTEGER NOT NULL,
  saved_bytes INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TRIGGER savings_follow AFTER INSERT ON usage_events WHEN NEW.optimizations <> '[]' BEGIN
  INSERT INTO savings (event, strategy, client_id, at, saved_nanousd, saved_bytes)
  SELECT NEW.event, json_extract(one.value, '$.strategy'), NEW.client_id, NEW.at,
         json_extract(one.value, '$.savedNanoUsd'), json_extract(one.value, '$.savedBytes')
  FROM json_each(NEW.optimizations) AS one;
  INSERT INTO optimized_daily (client_id, day, requests)
  VALUES (NEW.client_id, strftime('%Y-%m-%d', NEW.at / 1000, 'unixepoch'), NEW.event = NEW.request_id)
  ON CONFLICT (client_id, day) DO UPDATE SET requests = requests + excluded.requests;
END;

CREATE TRIGGER savings_roll_up AFTER INSERT ON savings BEGIN
  INSERT INTO savings_daily (client_id, day, strategy, applied, saved_nanousd, saved_bytes)
  VALUES (NEW.client_id, strftime('%Y-%m-%d', NEW.at / 1000, 'unixepoch'), NEW.strategy, 1, NEW.saved_nanousd, NEW.saved_bytes)
  ON CONFLICT (client_id, day, strategy) DO UPDATE SET
    applied = applied + 1,
    saved_nanousd = saved_nanousd + excluded.saved_nanousd,
    saved_bytes = saved_bytes + excluded.saved_bytes;
  INSERT INTO savings_totals (strategy, applied, saved_nanousd, saved_bytes)
  VALUES (NEW.strategy, 1, NEW.saved_nanousd, NEW.saved_bytes)
  ON CONFLICT (strategy) DO UPDATE SET
    applied = applied + 1,
    saved_nanousd = saved_nanousd + excluded.saved_nanousd,
    saved_bytes = saved_bytes + excluded.saved_bytes;
END;
