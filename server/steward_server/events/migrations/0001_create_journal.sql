-- Everything that happened, in order. Balances are a cache of it, events a projection.
CREATE TABLE journal (
  lsn INTEGER PRIMARY KEY,
  at_us INTEGER NOT NULL,
  kind TEXT NOT NULL,
  agent_id TEXT NOT NULL,
  subject TEXT NOT NULL,
  key TEXT,
  body BLOB NOT NULL,
  hash BLOB NOT NULL
);

-- What a caller may repeat is written once.
CREATE UNIQUE INDEX journal_once ON journal (subject, key, kind) WHERE key IS NOT NULL;

CREATE TRIGGER journal_is_not_updated BEFORE UPDATE ON journal
BEGIN
  SELECT RAISE(ABORT, 'the journal is append-only');
END;

CREATE TRIGGER journal_is_not_deleted BEFORE DELETE ON journal
BEGIN
  SELECT RAISE(ABORT, 'the journal is append-only');
END;
