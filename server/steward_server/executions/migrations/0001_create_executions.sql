-- Playbooks as they were when runs of them began.
CREATE TABLE execution_playbook (
  digest BLOB PRIMARY KEY,
  text TEXT NOT NULL
);

CREATE TABLE execution (
  execution_id TEXT PRIMARY KEY,
  owner_id TEXT NOT NULL,
  -- The agent that started it; empty if a person did.
  agent_id TEXT NOT NULL,
  -- The API key or token that it was started with; empty if somebody signed in.
  credential_id TEXT NOT NULL,
  playbook_path TEXT NOT NULL,
  playbook_name TEXT NOT NULL,
  playbook_digest BLOB NOT NULL REFERENCES execution_playbook (digest),
  -- Values of its parameters, and what those that refer to credentials refer to. No secrets.
  parameters TEXT NOT NULL,
  gateway_url TEXT NOT NULL,
  credential_name TEXT NOT NULL,
  debug_mode INTEGER NOT NULL,
  -- The run and its step that run this one; empty if somebody started it.
  parent_id TEXT NOT NULL,
  parent_step_id TEXT NOT NULL,
  rerun_of TEXT NOT NULL,
  total_steps INTEGER NOT NULL,
  created_at_us BIGINT NOT NULL,
  -- What its events made of it.
  state TEXT NOT NULL,
  step_index INTEGER NOT NULL,
  started_at_us BIGINT,
  ended_at_us BIGINT
);

CREATE INDEX execution_by_creation ON execution (parent_id, created_at_us, execution_id);
CREATE INDEX execution_by_owner ON execution (owner_id, parent_id, created_at_us, execution_id);
CREATE INDEX execution_unfinished ON execution (created_at_us)
  WHERE state IN ('pending', 'running', 'paused');
CREATE INDEX execution_by_playbook ON execution (playbook_digest);

-- Everything that happened to runs. A run is what its events made of it.
CREATE TABLE execution_event (
  -- Over all runs; never used again.
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  execution_id TEXT NOT NULL REFERENCES execution (execution_id),
  -- In its run, from 1: two writers of one run cannot both succeed.
  ordinal INTEGER NOT NULL,
  at_us BIGINT NOT NULL,
  kind TEXT NOT NULL,
  step_id TEXT NOT NULL,
  text TEXT NOT NULL,
  -- That the run ended in, or is to end in.
  state TEXT,
  is_final INTEGER NOT NULL,
  data TEXT NOT NULL,
  -- Of the run, after it.
  run_state TEXT NOT NULL,
  step_index INTEGER NOT NULL,
  UNIQUE (execution_id, ordinal)
);

CREATE TABLE execution_artifact (
  artifact_id TEXT PRIMARY KEY,
  execution_id TEXT NOT NULL REFERENCES execution (execution_id),
  step_id TEXT NOT NULL,
  name TEXT NOT NULL,
  kind TEXT NOT NULL,
  content_type TEXT NOT NULL,
  size_bytes BIGINT NOT NULL,
  created_at_us BIGINT NOT NULL,
  UNIQUE (execution_id, name)
);
