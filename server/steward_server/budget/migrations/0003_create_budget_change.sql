-- Every change of an agent's allocation, written with it. `lsn` is its entry in the journal.
CREATE TABLE budget_change (
  lsn BIGINT PRIMARY KEY,
  agent_id TEXT NOT NULL,
  at_us BIGINT NOT NULL,
  old_nanousd BIGINT NOT NULL CHECK (old_nanousd >= 0),
  new_nanousd BIGINT NOT NULL CHECK (new_nanousd >= 0),
  cause TEXT NOT NULL CHECK (cause IN ('set', 'raised', 'raise_ended')),
  changed_by TEXT NOT NULL,
  reason TEXT NOT NULL,
  request_id TEXT NOT NULL
);

CREATE INDEX budget_change_by_agent ON budget_change (agent_id, lsn);

-- Raises that are to end. `owed_nanousd` is what is still to be taken back, 0 once that is over.
CREATE TABLE budget_raise (
  request_id TEXT PRIMARY KEY,
  agent_id TEXT NOT NULL,
  ends_at_us BIGINT NOT NULL,
  owed_nanousd BIGINT NOT NULL CHECK (owed_nanousd >= 0)
);

CREATE INDEX budget_raise_by_agent ON budget_raise (agent_id, ends_at_us) WHERE owed_nanousd > 0;
CREATE INDEX budget_raise_by_end ON budget_raise (ends_at_us) WHERE owed_nanousd > 0;
