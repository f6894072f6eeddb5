-- What the scheduler keeps to: parts of pools, off-peak windows, limits of lanes.

-- The list of the pool's PUT, in version 1.
ALTER TABLE pools ADD COLUMN partitions TEXT NOT NULL DEFAULT '[]';
-- The rule of the pool's PUT, in version 1; NULL: deferred work may run at any time.
ALTER TABLE pools ADD COLUMN off_peak TEXT;

-- NULL: no limit.
ALTER TABLE urgencies ADD COLUMN max_wait_ms INTEGER CHECK (max_wait_ms > 0);
ALTER TABLE urgencies ADD COLUMN queue_cap INTEGER CHECK (queue_cap >= 0);
UPDATE urgencies SET max_wait_ms = 30000 WHERE urgency = 'immediate';

-- The last revision of each pool that was deleted. One that is made again goes on from there, so that a price's name
-- (the pool and its revision) is never that of another price.
CREATE TABLE deleted_pools (
  pool TEXT PRIMARY KEY,
  revision INTEGER NOT NULL
) WITHOUT ROWID;

CREATE INDEX template_totals_by_cost ON template_totals (cost_nanousd);
