CREATE TABLE provider (
  provider_id TEXT PRIMARY KEY,
  name TEXT NOT NULL UNIQUE CHECK (length(name) BETWEEN 1 AND 50),
  kind TEXT NOT NULL CHECK (kind IN ('openai', 'anthropic')),
  base_url TEXT NOT NULL,
  -- The key, encrypted by the vault.
  sealed_key BLOB NOT NULL,
  masked_key TEXT NOT NULL,
  created_at_us BIGINT NOT NULL,
  last_used_at_us BIGINT
);

CREATE INDEX provider_by_creation ON provider (created_at_us, provider_id);
