-- Balances in nano-dollars: a cache of the journal, kept in the transactions that write it.
CREATE TABLE account (
  account_id TEXT PRIMARY KEY,
  parent_id TEXT REFERENCES account (account_id),
  allocated_nanousd INTEGER NOT NULL CHECK (allocated_nanousd >= 0),
  spent_nanousd INTEGER NOT NULL CHECK (spent_nanousd >= 0),
  leased_nanousd INTEGER NOT NULL CHECK (leased_nanousd >= 0),
  overrun_nanousd INTEGER NOT NULL CHECK (overrun_nanousd >= 0),
  CHECK (spent_nanousd + leased_nanousd <= allocated_nanousd)
);

CREATE TABLE lease (
  lease_id TEXT PRIMARY KEY,
  account_id TEXT NOT NULL REFERENCES account (account_id),
  agent_id TEXT NOT NULL,
  token_id TEXT NOT NULL,
  provider TEXT NOT NULL,
  provider_kind TEXT NOT NULL,
  runtime_id TEXT NOT NULL,
  request_id TEXT,
  request_digest BLOB NOT NULL,
  requested_nanousd INTEGER NOT NULL,
  granted_nanousd INTEGER NOT NULL CHECK (granted_nanousd >= 0),
  spent_nanousd INTEGER NOT NULL CHECK (spent_nanousd >= 0),
  overrun_nanousd INTEGER NOT NULL CHECK (overrun_nanousd >= 0),
  sequence INTEGER NOT NULL CHECK (sequence >= 0),
  state TEXT NOT NULL CHECK (state IN ('active', 'draining', 'closed', 'expired', 'revoked')),
  ending TEXT CHECK (ending IN ('expired', 'revoked')),
  expires_at_us INTEGER NOT NULL,
  settle_until_us INTEGER NOT NULL,
  opened_at_us INTEGER NOT NULL,
  opened_lsn INTEGER NOT NULL,
  CHECK (spent_nanousd <= granted_nanousd)
);

CREATE UNIQUE INDEX lease_once ON lease (agent_id, request_id) WHERE request_id IS NOT NULL;
CREATE INDEX lease_open ON lease (account_id, state, expires_at_us) WHERE state IN ('active', 'draining');

-- What tokens cost, in pico-dollars each. Rows are added, never changed: a bill can be recomputed.
CREATE TABLE price (
  provider TEXT NOT NULL,
  model TEXT NOT NULL,
  effective_from_us INTEGER NOT NULL,
  input_picousd INTEGER NOT NULL CHECK (input_picousd >= 0),
  output_picousd INTEGER NOT NULL CHECK (output_picousd >= 0),
  cache_read_picousd INTEGER NOT NULL CHECK (cache_read_picousd >= 0),
  cache_write_picousd INTEGER NOT NULL CHECK (cache_write_picousd >= 0),
  source TEXT NOT NULL,
  PRIMARY KEY (provider, model, effective_from_us)
);
