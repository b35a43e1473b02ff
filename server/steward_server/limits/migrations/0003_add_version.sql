-- Raised by each change; see versions.py. The row of a limit that was lifted stays, so that the
-- versions of one that is set later go on from there.
ALTER TABLE scope_limit ADD COLUMN version BIGINT NOT NULL DEFAULT 1;
ALTER TABLE scope_limit ADD COLUMN lifted_at_us BIGINT;
