-- Limits by scope: "everyone", "user:<id>", "agent:<id>". NULL is no limit.
CREATE TABLE scope_limit (
  scope TEXT PRIMARY KEY,
  max_requests_per_minute BIGINT CHECK (max_requests_per_minute > 0),
  max_tokens_per_day BIGINT CHECK (max_tokens_per_day > 0),
  max_cost_per_month_nanousd BIGINT CHECK (max_cost_per_month_nanousd > 0),
  created_at_us BIGINT NOT NULL,
  updated_at_us BIGINT NOT NULL
);

-- What agents used in a period of UTC, "2026-11-26" or "2026-11": kept in the transactions that book.
CREATE TABLE agent_use (
  period TEXT NOT NULL,
  agent_id TEXT NOT NULL,
  owner_id TEXT NOT NULL,
  requests BIGINT NOT NULL,
  tokens BIGINT NOT NULL,
  cost_nanousd BIGINT NOT NULL,
  PRIMARY KEY (period, agent_id)
);

-- Calls reported lately, by the second; kept while requests are limited.
CREATE TABLE recent_use (
  slot_s BIGINT NOT NULL,
  lease_id TEXT NOT NULL,
  agent_id TEXT NOT NULL,
  owner_id TEXT NOT NULL,
  requests BIGINT NOT NULL,
  PRIMARY KEY (slot_s, lease_id)
);

-- The share of each open lease, and of those that ended less than a minute ago. NULL is no limit.
CREATE TABLE allotment (
  lease_id TEXT PRIMARY KEY,
  agent_id TEXT NOT NULL,
  owner_id TEXT NOT NULL,
  -- 1: its runtime says when it has given back what it was told to.
  acknowledges BIGINT NOT NULL,
  version BIGINT NOT NULL,
  requests_told BIGINT,
  requests_held BIGINT,
  tokens_told BIGINT,
  tokens_held BIGINT,
  tokens_booked BIGINT NOT NULL,
  opened_at_us BIGINT NOT NULL,
  ended_at_us BIGINT
);

CREATE INDEX allotment_by_agent ON allotment (agent_id);
CREATE INDEX allotment_ended ON allotment (ended_at_us) WHERE ended_at_us IS NOT NULL;
