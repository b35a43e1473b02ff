CREATE TABLE agent (
  agent_id TEXT PRIMARY KEY,
  name TEXT NOT NULL CHECK (length(name) BETWEEN 1 AND 100),
  owner_id TEXT NOT NULL,
  provider TEXT NOT NULL,
  desired_state TEXT NOT NULL CHECK (desired_state IN ('running', 'stopped')),
  stop_reason TEXT NOT NULL,
  run_state TEXT NOT NULL CHECK (run_state IN ('none', 'running', 'ended', 'failed')),
  runtime_id TEXT NOT NULL,
  started_at_us BIGINT,
  stopped_at_us BIGINT,
  exit_code INTEGER,
  last_seen_at_us BIGINT,
  created_at_us BIGINT NOT NULL,
  updated_at_us BIGINT NOT NULL,
  deleted_at_us BIGINT
);

CREATE INDEX agent_by_creation ON agent (created_at_us, agent_id);
CREATE INDEX agent_by_owner ON agent (owner_id, created_at_us, agent_id);
CREATE INDEX agent_by_provider ON agent (provider);
