-- The agent that created it, which may do anything with it; empty: somebody else did.
ALTER TABLE environment ADD COLUMN agent_id TEXT NOT NULL DEFAULT '';

CREATE INDEX environment_by_agent ON environment (agent_id) WHERE agent_id <> '';
