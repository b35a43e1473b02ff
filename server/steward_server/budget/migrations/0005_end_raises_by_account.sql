-- A new period may allow an agent less than the one before it, or more.
CREATE TABLE new_budget_change (
  lsn BIGINT PRIMARY KEY,
  agent_id TEXT NOT NULL,
  at_us BIGINT NOT NULL,
  old_nanousd BIGINT NOT NULL CHECK (old_nanousd >= 0),
  new_nanousd BIGINT NOT NULL CHECK (new_nanousd >= 0),
  cause TEXT NOT NULL CHECK (cause IN ('set', 'raised', 'raise_ended', 'period_began')),
  changed_by TEXT NOT NULL,
  reason TEXT NOT NULL,
  request_id TEXT NOT NULL
);

INSERT INTO new_budget_change (lsn, agent_id, at_us, old_nanousd, new_nanousd, cause, changed_by,
    reason, request_id)
  SELECT lsn, agent_id, at_us, old_nanousd, new_nanousd, cause, changed_by, reason, request_id
  FROM budget_change;

DROP TABLE budget_change;
ALTER TABLE new_budget_change RENAME TO budget_change;

CREATE INDEX budget_change_by_agent ON budget_change (agent_id, lsn);

-- The account that a raise which has ended owes to. Empty before that is noted.
ALTER TABLE budget_raise ADD COLUMN ended_in TEXT NOT NULL DEFAULT '';
