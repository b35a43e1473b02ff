CREATE TABLE budget_request (
  request_id TEXT PRIMARY KEY,
  agent_id TEXT NOT NULL,
  agent_name TEXT NOT NULL,
  -- Of the agent, when it was asked.
  owner_id TEXT NOT NULL,
  requester_id TEXT NOT NULL,
  requester_name TEXT NOT NULL,
  requester_kind TEXT NOT NULL CHECK (requester_kind IN ('person', 'agent')),
  current_nanousd BIGINT NOT NULL CHECK (current_nanousd >= 0),
  requested_nanousd BIGINT NOT NULL CHECK (requested_nanousd > current_nanousd),
  justification TEXT NOT NULL CHECK (length(justification) BETWEEN 20 AND 500),
  expires_in_s BIGINT CHECK (expires_in_s > 0),
  created_at_us BIGINT NOT NULL,
  updated_at_us BIGINT NOT NULL,
  status TEXT NOT NULL CHECK (status IN ('pending', 'approved', 'rejected', 'cancelled')),
  reviewer_id TEXT,
  reviewed_at_us BIGINT,
  notes TEXT,
  previous_nanousd BIGINT,
  approved_nanousd BIGINT CHECK (approved_nanousd <= requested_nanousd),
  ends_at_us BIGINT,
  CHECK ((status = 'pending') = (reviewer_id IS NULL)),
  CHECK ((status = 'pending') = (reviewed_at_us IS NULL)),
  CHECK ((status = 'approved') = (approved_nanousd IS NOT NULL)),
  CHECK (approved_nanousd IS NULL OR approved_nanousd > previous_nanousd)
);

CREATE INDEX budget_request_by_creation ON budget_request (created_at_us, request_id);
CREATE INDEX budget_request_by_agent ON budget_request (agent_id, created_at_us, request_id);
CREATE INDEX budget_request_by_owner ON budget_request (owner_id, created_at_us, request_id);
CREATE INDEX budget_request_by_requester ON budget_request (requester_id, created_at_us, request_id);
CREATE INDEX budget_request_pending ON budget_request (agent_id) WHERE status = 'pending';
