CREATE TABLE environment_snapshot (
  snapshot_id TEXT PRIMARY KEY,
  name TEXT NOT NULL CHECK (length(name) BETWEEN 1 AND 63),
  owner_id TEXT NOT NULL,
  -- The agent that made it; empty: somebody else did.
  agent_id TEXT NOT NULL,
  environment_id TEXT NOT NULL,
  -- What the environment was made of.
  base_image TEXT NOT NULL,
  -- NULL: it is being made, or removed; nobody sees it.
  size_bytes BIGINT,
  created_at_us BIGINT NOT NULL
);

CREATE INDEX environment_snapshot_by_owner ON environment_snapshot (owner_id, created_at_us);
