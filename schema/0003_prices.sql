-- Prices and estimates. A pool may leave its price to the model: then it is looked up in model_prices, and a request
-- whose model is not there is refused.

CREATE TABLE pools_with_prices (
  pool TEXT PRIMARY KEY,
  unit TEXT NOT NULL,
  capacity_micros INTEGER NOT NULL CHECK (capacity_micros > 0),
  refill_micros_per_second INTEGER NOT NULL CHECK (refill_micros_per_second >= 0),
  -- NULL: that of the model.
  unit_price_nanousd INTEGER CHECK (unit_price_nanousd >= 0),
  -- NULL: the same as any unit.
  cached_input_price_nanousd INTEGER CHECK (cached_input_price_nanousd >= 0),
  output_price_nanousd INTEGER CHECK (output_price_nanousd >= 0),
  low_water_percent INTEGER NOT NULL DEFAULT 10 CHECK (low_water_percent BETWEEN 0 AND 100),
  queue_cap INTEGER NOT NULL DEFAULT 10000 CHECK (queue_cap >= 0),
  window_cap INTEGER NOT NULL DEFAULT 0 CHECK (window_cap IN (0, 1)),
  revision INTEGER NOT NULL DEFAULT 1
) WITHOUT ROWID;
INSERT INTO pools_with_prices (pool, unit, capacity_micros, refill_micros_per_second, unit_price_nanousd, low_water_percent,
  queue_cap, window_cap, revision)
SELECT pool, unit, capacity_micros, refill_micros_per_second, unit_price_nanousd, low_water_percent, queue_cap, window_cap,
  revision FROM pools;
DROP TABLE pools;
ALTER TABLE pools_with_prices RENAME TO pools;

-- A maintained table of what a token of a model costs. `version` names the table and its edition.
CREATE TABLE model_prices (
  model TEXT PRIMARY KEY,
  input_nanousd INTEGER NOT NULL CHECK (input_nanousd >= 0),
  -- NULL: the same as other input.
  cached_input_nanousd INTEGER CHECK (cached_input_nanousd >= 0),
  output_nanousd INTEGER NOT NULL CHECK (output_nanousd >= 0),
  version TEXT NOT NULL
) WITHOUT ROWID;

-- What was learnt of each template's estimates; `learnt` is JSON, version 1.
CREATE TABLE estimate_factors (
  template_id TEXT NOT NULL,
  pool TEXT NOT NULL,
  version INTEGER NOT NULL DEFAULT 1,
  learnt TEXT NOT NULL,
  PRIMARY KEY (template_id, pool)
) WITHOUT ROWID;

-- Settled uses that nothing was learnt from yet; the tick takes them out.
CREATE TABLE estimate_feed (
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  template_id TEXT NOT NULL,
  pool TEXT NOT NULL,
  formula_micros INTEGER NOT NULL,
  estimated_micros INTEGER NOT NULL,
  actual_micros INTEGER NOT NULL
);
