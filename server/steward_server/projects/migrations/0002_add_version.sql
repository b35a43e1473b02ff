-- Raised by each change; see versions.py.
ALTER TABLE project ADD COLUMN version BIGINT NOT NULL DEFAULT 1;
ALTER TABLE organisation ADD COLUMN version BIGINT NOT NULL DEFAULT 1;
