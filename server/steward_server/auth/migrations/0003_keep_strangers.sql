-- Wrong passwords for names that nobody has: counted and kept like those of people, or the time an
-- answer takes, and a lock that a restart forgets, would tell which names there are.
CREATE TABLE stranger (
  -- Keyed, so that what is typed for a name by mistake cannot be guessed from it.
  name_digest BLOB PRIMARY KEY CHECK (length(name_digest) = 32),
  failed_logins INTEGER NOT NULL CHECK (failed_logins >= 0),
  locked_until_us BIGINT NOT NULL CHECK (locked_until_us >= 0),
  seen_at_us BIGINT NOT NULL
);

CREATE INDEX stranger_by_age ON stranger (seen_at_us);
