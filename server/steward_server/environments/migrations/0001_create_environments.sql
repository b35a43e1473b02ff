CREATE TABLE environment (
  environment_id TEXT PRIMARY KEY,
  name TEXT NOT NULL CHECK (length(name) BETWEEN 1 AND 63),
  owner_id TEXT NOT NULL,
  image TEXT NOT NULL,
  state TEXT NOT NULL CHECK (state IN ('pending', 'running', 'terminating', 'terminated', 'failed')),
  cpu_millicores BIGINT NOT NULL,
  memory_bytes BIGINT NOT NULL,
  storage_bytes BIGINT NOT NULL,
  -- JSON: everything else that was asked for, but its variables.
  spec TEXT NOT NULL,
  -- JSON of its variables, sealed; NULL: none, or it is gone.
  sealed_env BLOB,
  created_at_us BIGINT NOT NULL,
  expires_at_us BIGINT,
  idle_timeout_s BIGINT,
  started_at_us BIGINT,
  ended_at_us BIGINT,
  last_used_at_us BIGINT,
  paused INTEGER NOT NULL DEFAULT 0 CHECK (paused IN (0, 1)),
  reason TEXT NOT NULL DEFAULT '',
  exit_code BIGINT,
  version BIGINT NOT NULL DEFAULT 1,
  -- Somebody asked for its end: it is hidden once nothing is left of it.
  delete_wanted INTEGER NOT NULL DEFAULT 0 CHECK (delete_wanted IN (0, 1)),
  -- Somebody deleted it: its row stays a while, since events name it.
  deleted_at_us BIGINT
);

CREATE INDEX environment_by_creation ON environment (created_at_us, environment_id);
CREATE INDEX environment_by_owner ON environment (owner_id, created_at_us);
CREATE INDEX environment_by_state ON environment (state);

CREATE TABLE environment_label (
  environment_id TEXT NOT NULL,
  key TEXT NOT NULL,
  value TEXT NOT NULL,
  PRIMARY KEY (environment_id, key)
);

CREATE INDEX environment_label_by_value ON environment_label (key, value);

-- What somebody who is not the owner may do with one.
CREATE TABLE environment_share (
  environment_id TEXT NOT NULL,
  user_id TEXT NOT NULL,
  permission TEXT NOT NULL CHECK (permission IN ('read', 'write', 'admin')),
  created_at_us BIGINT NOT NULL,
  PRIMARY KEY (environment_id, user_id)
);

CREATE INDEX environment_share_by_user ON environment_share (user_id);

-- The last lines of one that is over: its machine took the others with it.
CREATE TABLE environment_last_log (
  environment_id TEXT PRIMARY KEY,
  -- JSON: [sequence, at_us, stream, message] for each.
  lines TEXT NOT NULL
);
