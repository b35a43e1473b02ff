-- Raised by each change but sign-ins; see versions.py.
ALTER TABLE app_user ADD COLUMN version BIGINT NOT NULL DEFAULT 1;
