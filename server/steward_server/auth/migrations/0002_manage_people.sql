-- A deleted person's row stays: sessions, the journal and the audit log name it.
ALTER TABLE app_user ADD COLUMN must_change_password INTEGER NOT NULL DEFAULT 0;
ALTER TABLE app_user ADD COLUMN last_login_at_us BIGINT;
ALTER TABLE app_user ADD COLUMN suspended_at_us BIGINT;
ALTER TABLE app_user ADD COLUMN suspend_reason TEXT NOT NULL DEFAULT '';
ALTER TABLE app_user ADD COLUMN deleted_at_us BIGINT;
-- Name and address on a line each, in lower case as the server has it: databases differ in theirs.
ALTER TABLE app_user ADD COLUMN search_text TEXT NOT NULL DEFAULT '';
UPDATE app_user SET search_text = lower(username) || '
' || coalesce(email, '');

CREATE INDEX app_user_by_age ON app_user (created_at_us, user_id);
CREATE INDEX session_by_user ON session (user_id);
CREATE INDEX refresh_token_by_user ON refresh_token (user_id);
