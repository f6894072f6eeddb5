-- The strategies that a request was made for already, by their names, separated by commas: following a recommendation of
-- one of them would have changed nothing.
ALTER TABLE usage_events ADD COLUMN tried TEXT NOT NULL DEFAULT '';
