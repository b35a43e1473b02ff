-- Raised by each change that people make; see versions.py.
ALTER TABLE agent ADD COLUMN version BIGINT NOT NULL DEFAULT 1;
