-- The default tiers, lanes, pools, clients and templates. Seeding again changes nothing that is there.

INSERT INTO settings (key, value) VALUES ('scheduler', 'running') ON CONFLICT DO NOTHING;

INSERT INTO tiers (tier, millipoints, monthly_budget_nanousd, max_concurrent) VALUES
  ('enterprise', 40000, NULL,         100),
  ('premium',    30000, 500000000000, 50),
  ('standard',   20000, 100000000000, 20),
  ('basic',      10000, 10000000000,  5)
ON CONFLICT DO NOTHING;

INSERT INTO urgencies (urgency, millipoints, max_wait_ms) VALUES
  ('immediate', 30000, 30000),
  ('fast',      22000, NULL),
  ('normal',    15000, NULL),
  ('batch',     7000,  NULL),
  ('deferred',  0,     NULL)
ON CONFLICT DO NOTHING;

-- A capacity is about a minute's refill.
INSERT INTO pools (pool, unit, capacity_micros, refill_micros_per_second, unit_price_nanousd, models) VALUES
  ('openai-gpt-4',   'token', 40000000000, 666666666,  30000,   '["gpt-4"]'),
  ('openai-gpt-3.5', 'token', 90000000000, 1500000000, 1500,    '["gpt-3.5"]'),
  ('email-sendgrid', 'email', 100000000,   1666666,    1000000, '[]'),
  ('sms-twilio',     'sms',   60000000,    1000000,    7500000, '[]'),
  ('database-d1',    'query', 3000000000,  50000000,   1000,    '[]'),
  ('kv-storage',     'operation', 6000000000, 100000000, 500,  '[]')
ON CONFLICT DO NOTHING;

INSERT INTO clients (client_id, name, tier, monthly_budget_nanousd) VALUES
  ('demo-enterprise', 'Demo Enterprise', 'enterprise', 5000000000000),
  ('demo-premium',    'Demo Premium',    'premium',    NULL),
  ('demo-standard',   'Demo Standard',   'standard',   NULL),
  ('demo-basic',      'Demo Basic',      'basic',      NULL)
ON CONFLICT DO NOTHING;

INSERT INTO templates (template_id, body) VALUES
  ('chat-completion', '{"worker":"OPENAI","model":"gpt-4","resources":[{"pool":"openai-gpt-4","perInputToken":1,"perOutputToken":1}],"downgradeTo":["gpt-3.5"],"cacheTtlSeconds":3600,"defaultUrgency":"fast"}'),
  ('summarize',       '{"worker":"OPENAI","model":"gpt-3.5","resources":[{"pool":"openai-gpt-3.5","perInputToken":1,"perOutputToken":1}],"cacheTtlSeconds":86400,"defaultUrgency":"normal"}'),
  ('send-email',      '{"worker":"EMAIL","resources":[{"pool":"email-sendgrid","base":1}],"defaultUrgency":"normal"}'),
  ('send-sms',        '{"worker":"SMS","resources":[{"pool":"sms-twilio","base":1}],"defaultUrgency":"fast"}'),
  ('echo',            '{"worker":"ECHO","resources":[{"pool":"database-d1","base":1}],"defaultUrgency":"normal"}')
ON CONFLICT DO NOTHING;
