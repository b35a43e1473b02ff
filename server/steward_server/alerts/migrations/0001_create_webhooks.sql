CREATE TABLE webhook (
  webhook_id TEXT PRIMARY KEY,
  url TEXT NOT NULL,
  -- Event types, separated by spaces; empty: all.
  events TEXT NOT NULL,
  description TEXT NOT NULL,
  enabled BIGINT NOT NULL,
  disabled_reason TEXT NOT NULL,
  -- Encrypted by the vault; the one before signs until its time is over.
  sealed_secret BLOB NOT NULL,
  previous_secret BLOB,
  previous_until_us BIGINT,
  -- Only what was written into the journal after this is sent.
  since_lsn BIGINT NOT NULL,
  created_at_us BIGINT NOT NULL,
  updated_at_us BIGINT NOT NULL
);

CREATE INDEX webhook_by_creation ON webhook (created_at_us, webhook_id);

CREATE TABLE webhook_delivery (
  delivery_id TEXT PRIMARY KEY,
  webhook_id TEXT NOT NULL REFERENCES webhook (webhook_id),
  -- Of the journal; 0 for a test.
  lsn BIGINT NOT NULL,
  event_type TEXT NOT NULL,
  -- What is not sent twice within the window of repetition.
  topic TEXT NOT NULL,
  body BLOB NOT NULL,
  status TEXT NOT NULL CHECK (status IN ('pending', 'delivered', 'dead')),
  attempts BIGINT NOT NULL,
  created_at_us BIGINT NOT NULL,
  next_attempt_at_us BIGINT NOT NULL,
  delivered_at_us BIGINT,
  last_status_code BIGINT NOT NULL,
  last_error TEXT NOT NULL
);

CREATE UNIQUE INDEX webhook_delivery_once ON webhook_delivery (webhook_id, lsn) WHERE lsn > 0;
CREATE INDEX webhook_delivery_waiting ON webhook_delivery (webhook_id, created_at_us, lsn) WHERE status = 'pending';
CREATE INDEX webhook_delivery_by_topic ON webhook_delivery (webhook_id, topic, created_at_us);
CREATE INDEX webhook_delivery_by_creation ON webhook_delivery (webhook_id, created_at_us, delivery_id);

-- How far the journal has been looked through: one row.
CREATE TABLE alert_cursor (
  only_row BIGINT PRIMARY KEY CHECK (only_row = 1),
  lsn BIGINT NOT NULL
);

INSERT INTO alert_cursor (only_row, lsn) VALUES (1, 0);
