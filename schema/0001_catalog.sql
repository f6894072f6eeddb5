-- The configuration: what operators set. Money is in billionths of a US dollar (nanousd), token amounts in millionths
-- (micros); both are integers below 2^53. `revision` rises with each change, so that an older copy never replaces a newer.

CREATE TABLE settings (
  key TEXT PRIMARY KEY,
  value TEXT NOT NULL
) WITHOUT ROWID;

-- Points are thousandths of a point of the 0–100 score.
CREATE TABLE tiers (
  tier TEXT PRIMARY KEY CHECK (tier IN ('enterprise', 'premium', 'standard', 'basic')),
  millipoints INTEGER NOT NULL CHECK (millipoints BETWEEN 0 AND 40000),
  -- NULL: custom, to be given for each client.
  monthly_budget_nanousd INTEGER CHECK (monthly_budget_nanousd >= 0),
  max_concurrent INTEGER NOT NULL CHECK (max_concurrent >= 0)
) WITHOUT ROWID;

CREATE TABLE urgencies (
  urgency TEXT PRIMARY KEY CHECK (urgency IN ('immediate', 'fast', 'normal', 'batch', 'deferred')),
  millipoints INTEGER NOT NULL CHECK (millipoints BETWEEN 0 AND 30000)
) WITHOUT ROWID;

CREATE TABLE pools (
  pool TEXT PRIMARY KEY,
  unit TEXT NOT NULL,
  capacity_micros INTEGER NOT NULL CHECK (capacity_micros > 0),
  refill_micros_per_second INTEGER NOT NULL CHECK (refill_micros_per_second >= 0),
  unit_price_nanousd INTEGER NOT NULL CHECK (unit_price_nanousd >= 0),
  low_water_percent INTEGER NOT NULL DEFAULT 10 CHECK (low_water_percent BETWEEN 0 AND 100),
  queue_cap INTEGER NOT NULL DEFAULT 10000 CHECK (queue_cap >= 0),
  window_cap INTEGER NOT NULL DEFAULT 0 CHECK (window_cap IN (0, 1)),
  revision INTEGER NOT NULL DEFAULT 1
) WITHOUT ROWID;

CREATE TABLE clients (
  client_id TEXT PRIMARY KEY,
  name TEXT NOT NULL,
  tier TEXT NOT NULL REFERENCES tiers (tier),
  -- NULL: the tier's.
  monthly_budget_nanousd INTEGER CHECK (monthly_budget_nanousd >= 0),
  max_concurrent INTEGER CHECK (max_concurrent >= 0),
  time_zone TEXT NOT NULL DEFAULT 'UTC',
  status TEXT NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'suspended')),
  revision INTEGER NOT NULL DEFAULT 1
) WITHOUT ROWID;

-- A template's body is the JSON of its PUT, in version 1.
CREATE TABLE templates (
  template_id TEXT PRIMARY KEY,
  version INTEGER NOT NULL DEFAULT 1,
  body TEXT NOT NULL,
  revision INTEGER NOT NULL DEFAULT 1
) WITHOUT ROWID;
