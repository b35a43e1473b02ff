CREATE TABLE credential (
  credential_id TEXT PRIMARY KEY,
  owner_id TEXT NOT NULL,
  name TEXT NOT NULL CHECK (length(name) BETWEEN 1 AND 100),
  username TEXT NOT NULL,
  gateway_url TEXT NOT NULL,
  description TEXT NOT NULL,
  -- The password, encrypted by the vault.
  sealed_password BLOB NOT NULL,
  created_at_us BIGINT NOT NULL,
  updated_at_us BIGINT NOT NULL,
  UNIQUE (owner_id, name)
);

CREATE INDEX credential_by_creation ON credential (owner_id, created_at_us, credential_id);
