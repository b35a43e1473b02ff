CREATE TABLE app_user (
  user_id TEXT PRIMARY KEY,
  username TEXT NOT NULL UNIQUE CHECK (length(username) BETWEEN 1 AND 255),
  email TEXT UNIQUE CHECK (length(email) BETWEEN 1 AND 255),
  password_hash TEXT NOT NULL,
  role TEXT NOT NULL CHECK (role IN ('admin', 'user', 'viewer')),
  state TEXT NOT NULL CHECK (state IN ('active', 'suspended')),
  failed_logins INTEGER NOT NULL CHECK (failed_logins >= 0),
  locked_until_us BIGINT NOT NULL CHECK (locked_until_us >= 0),
  created_at_us BIGINT NOT NULL
);

-- One access token each: its id is the token's jti. A family is what one sign-in led to.
CREATE TABLE session (
  session_id TEXT PRIMARY KEY,
  family_id TEXT NOT NULL,
  user_id TEXT NOT NULL REFERENCES app_user (user_id),
  created_at_us BIGINT NOT NULL,
  expires_at_us BIGINT NOT NULL CHECK (expires_at_us > created_at_us),
  ended_at_us BIGINT,
  ended_why TEXT,
  CHECK ((ended_at_us IS NULL) = (ended_why IS NULL))
);

CREATE INDEX session_by_family ON session (family_id);
CREATE INDEX session_by_expiry ON session (expires_at_us);

CREATE TABLE refresh_token (
  refresh_token_id TEXT PRIMARY KEY,
  digest BLOB NOT NULL UNIQUE CHECK (length(digest) = 32),
  family_id TEXT NOT NULL,
  user_id TEXT NOT NULL REFERENCES app_user (user_id),
  session_id TEXT NOT NULL,
  expires_at_us BIGINT NOT NULL,
  spent_at_us BIGINT,
  successor_id TEXT,
  revoked_at_us BIGINT,
  CHECK ((spent_at_us IS NULL) = (successor_id IS NULL))
);

CREATE INDEX refresh_token_by_family ON refresh_token (family_id);
CREATE INDEX refresh_token_by_expiry ON refresh_token (expires_at_us);

-- Private keys that sign access tokens, sealed by the vault; the newest signs.
CREATE TABLE signing_key (
  key_id TEXT PRIMARY KEY,
  sealed BLOB NOT NULL,
  created_at_us BIGINT NOT NULL
);
