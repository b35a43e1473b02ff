-- Who has a budget: the organisation, its projects, their agents. What is wanted from now on; what
-- it is in a period stands in the account of that period.
CREATE TABLE scope (
  scope_id TEXT PRIMARY KEY,
  parent_id TEXT REFERENCES scope (scope_id),
  budget_nanousd BIGINT CHECK (budget_nanousd >= 0),
  mode TEXT NOT NULL CHECK (mode IN ('restrictive', 'informative')),
  period TEXT NOT NULL CHECK (period IN ('none', 'day', 'week', 'month')),
  -- The account it has now, and when that is over; nothing before it is first needed.
  account_id TEXT,
  ends_at_us BIGINT,
  -- When the newest period it ever had began.
  since_us BIGINT NOT NULL
);

CREATE INDEX scope_by_parent ON scope (parent_id, scope_id);
CREATE INDEX scope_by_end ON scope (ends_at_us) WHERE ends_at_us IS NOT NULL;

-- One for each scope and period. NULL allocated: no limit.
CREATE TABLE new_account (
  account_id TEXT PRIMARY KEY,
  scope_id TEXT NOT NULL REFERENCES scope (scope_id),
  mode TEXT NOT NULL CHECK (mode IN ('restrictive', 'informative')),
  period TEXT NOT NULL CHECK (period IN ('none', 'day', 'week', 'month')),
  starts_at_us BIGINT NOT NULL,
  ends_at_us BIGINT CHECK (ends_at_us > starts_at_us),
  allocated_nanousd BIGINT CHECK (allocated_nanousd >= 0),
  spent_nanousd BIGINT NOT NULL CHECK (spent_nanousd >= 0),
  leased_nanousd BIGINT NOT NULL CHECK (leased_nanousd >= 0),
  overrun_nanousd BIGINT NOT NULL CHECK (overrun_nanousd >= 0),
  CHECK (mode = 'informative' OR spent_nanousd + leased_nanousd <= allocated_nanousd)
);

CREATE TABLE new_lease (
  lease_id TEXT PRIMARY KEY,
  -- What it draws on. Without an organisation's: opened before there were any.
  account_id TEXT NOT NULL REFERENCES new_account (account_id),
  project_account_id TEXT REFERENCES new_account (account_id),
  organisation_account_id TEXT REFERENCES new_account (account_id),
  agent_id TEXT NOT NULL,
  token_id TEXT NOT NULL,
  provider TEXT NOT NULL,
  provider_kind TEXT NOT NULL,
  runtime_id TEXT NOT NULL,
  request_id TEXT,
  request_digest BLOB NOT NULL,
  requested_nanousd BIGINT NOT NULL,
  granted_nanousd BIGINT NOT NULL CHECK (granted_nanousd >= 0),
  spent_nanousd BIGINT NOT NULL CHECK (spent_nanousd >= 0),
  overrun_nanousd BIGINT NOT NULL CHECK (overrun_nanousd >= 0),
  sequence BIGINT NOT NULL CHECK (sequence >= 0),
  state TEXT NOT NULL CHECK (state IN ('active', 'draining', 'closed', 'expired', 'revoked')),
  ending TEXT CHECK (ending IN ('expired', 'revoked')),
  expires_at_us BIGINT NOT NULL,
  settle_until_us BIGINT NOT NULL,
  period_ends_at_us BIGINT,
  opened_at_us BIGINT NOT NULL,
  opened_lsn BIGINT NOT NULL,
  CHECK (spent_nanousd <= granted_nanousd),
  CHECK (expires_at_us <= period_ends_at_us),
  CHECK (project_account_id IS NULL OR organisation_account_id IS NOT NULL)
);

INSERT INTO scope (scope_id, parent_id, budget_nanousd, mode, period, account_id, ends_at_us,
    since_us)
  VALUES ('organisation', NULL, NULL, 'restrictive', 'none', NULL, NULL, 0);

INSERT INTO scope (scope_id, parent_id, budget_nanousd, mode, period, account_id, ends_at_us,
    since_us)
  SELECT 'agent:' || account_id, 'organisation', allocated_nanousd, 'restrictive', 'none',
    account_id, NULL, 0
  FROM account;

INSERT INTO new_account (account_id, scope_id, mode, period, starts_at_us, ends_at_us,
    allocated_nanousd, spent_nanousd, leased_nanousd, overrun_nanousd)
  SELECT account_id, 'agent:' || account_id, 'restrictive', 'none', 0, NULL,
    allocated_nanousd, spent_nanousd, leased_nanousd, overrun_nanousd
  FROM account;

INSERT INTO new_lease (lease_id, account_id, project_account_id, organisation_account_id, agent_id,
    token_id, provider, provider_kind, runtime_id, request_id, request_digest, requested_nanousd,
    granted_nanousd, spent_nanousd, overrun_nanousd, sequence, state, ending, expires_at_us,
    settle_until_us, period_ends_at_us, opened_at_us, opened_lsn)
  SELECT lease_id, account_id, NULL, NULL, agent_id,
    token_id, provider, provider_kind, runtime_id, request_id, request_digest, requested_nanousd,
    granted_nanousd, spent_nanousd, overrun_nanousd, sequence, state, ending, expires_at_us,
    settle_until_us, NULL, opened_at_us, opened_lsn
  FROM lease;

-- References to a table follow it when it is renamed.
DROP TABLE lease;
DROP TABLE account;
ALTER TABLE new_account RENAME TO account;
ALTER TABLE new_lease RENAME TO lease;

CREATE UNIQUE INDEX lease_once ON lease (agent_id, request_id) WHERE request_id IS NOT NULL;
CREATE INDEX lease_open ON lease (agent_id, state, expires_at_us)
  WHERE state IN ('active', 'draining');
