-- The project an agent belongs to; empty: right below the organisation.
ALTER TABLE agent ADD COLUMN project_id TEXT NOT NULL DEFAULT '';

CREATE INDEX agent_by_project ON agent (project_id, created_at_us, agent_id);
