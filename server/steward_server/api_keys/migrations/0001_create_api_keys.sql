CREATE TABLE api_key (
  key_id TEXT PRIMARY KEY,
  user_id TEXT NOT NULL,
  kind TEXT NOT NULL CHECK (kind IN ('agentbox', 'itk')),
  public_part TEXT NOT NULL UNIQUE,
  digest BLOB NOT NULL CHECK (length(digest) = 32),
  description TEXT NOT NULL CHECK (length(description) <= 200),
  role TEXT NOT NULL CHECK (role IN ('admin', 'user', 'executor', 'readonly')),
  -- JSON: the words of permissions by environment id.
  permissions TEXT NOT NULL,
  created_at_us BIGINT NOT NULL,
  expires_at_us BIGINT CHECK (expires_at_us > created_at_us),
  last_used_at_us BIGINT,
  revoked_at_us BIGINT
);

CREATE INDEX api_key_by_creation ON api_key (created_at_us, key_id);
CREATE INDEX api_key_by_user ON api_key (user_id, created_at_us);
