CREATE TABLE ic_token (
  token_id TEXT PRIMARY KEY,
  agent_id TEXT NOT NULL,
  name TEXT NOT NULL,
  public_part TEXT NOT NULL UNIQUE,
  digest BLOB NOT NULL CHECK (length(digest) = 32),
  scopes TEXT NOT NULL,
  created_at_us BIGINT NOT NULL,
  expires_at_us BIGINT CHECK (expires_at_us > created_at_us),
  last_used_at_us BIGINT,
  rotated_at_us BIGINT,
  revoked_at_us BIGINT,
  -- Set when an expired token makes room for another.
  replaced_at_us BIGINT
);

-- An agent has one token that may still be good.
CREATE UNIQUE INDEX ic_token_of_agent ON ic_token (agent_id)
  WHERE revoked_at_us IS NULL AND replaced_at_us IS NULL;

CREATE INDEX ic_token_by_creation ON ic_token (created_at_us, token_id);
CREATE INDEX ic_token_by_agent ON ic_token (agent_id, created_at_us);
