-- The project an agent belonged to when it was lent or used: what was used there stays there.
ALTER TABLE allotment ADD COLUMN project_id TEXT NOT NULL DEFAULT '';
ALTER TABLE recent_use ADD COLUMN project_id TEXT NOT NULL DEFAULT '';

CREATE TABLE new_agent_use (
  period TEXT NOT NULL,
  agent_id TEXT NOT NULL,
  owner_id TEXT NOT NULL,
  project_id TEXT NOT NULL,
  requests BIGINT NOT NULL,
  tokens BIGINT NOT NULL,
  cost_nanousd BIGINT NOT NULL,
  PRIMARY KEY (period, agent_id, project_id)
);

INSERT INTO new_agent_use (period, agent_id, owner_id, project_id, requests, tokens, cost_nanousd)
  SELECT period, agent_id, owner_id, '', requests, tokens, cost_nanousd FROM agent_use;

DROP TABLE agent_use;
ALTER TABLE new_agent_use RENAME TO agent_use;
