-- Number and hash of the newest entry, apart from the entries: one cut off at the end is missed.
CREATE TABLE audit_head (
  only INTEGER PRIMARY KEY CHECK (only = 1),
  number BIGINT NOT NULL,
  hash BLOB NOT NULL CHECK (length(hash) = 32)
);

INSERT INTO audit_head (only, number, hash)
SELECT 1, number, hash FROM audit_entry ORDER BY number DESC LIMIT 1;

CREATE INDEX audit_entry_by_action ON audit_entry (action, number);
