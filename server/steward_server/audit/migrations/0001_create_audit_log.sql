-- Appended to and read, never changed: each hash covers the row and the hash before it.
CREATE TABLE audit_entry (
  number BIGINT PRIMARY KEY,
  at_us BIGINT NOT NULL,
  action TEXT NOT NULL,
  resource_type TEXT NOT NULL,
  resource_id TEXT NOT NULL,
  actor_kind TEXT NOT NULL,
  actor_id TEXT NOT NULL,
  actor_role TEXT NOT NULL,
  credential TEXT NOT NULL,
  address TEXT NOT NULL,
  user_agent TEXT NOT NULL,
  request_id TEXT NOT NULL,
  method TEXT NOT NULL,
  before TEXT,
  after TEXT,
  reason TEXT NOT NULL,
  hash BLOB NOT NULL CHECK (length(hash) = 32)
);

CREATE INDEX audit_entry_by_resource ON audit_entry (resource_type, resource_id, number);
CREATE INDEX audit_entry_by_actor ON audit_entry (actor_id, number);
