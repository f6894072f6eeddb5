-- By when a request was to be finished, in milliseconds: whether it could have waited for a window; NULL: whenever.
ALTER TABLE usage_events ADD COLUMN deadline INTEGER;
