-- Raised by each change; see versions.py.
ALTER TABLE provider ADD COLUMN version BIGINT NOT NULL DEFAULT 1;
