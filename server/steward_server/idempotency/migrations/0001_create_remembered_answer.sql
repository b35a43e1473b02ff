-- A row without an answer says that a call was begun; its outcome is unknown if it does not run.
CREATE TABLE remembered_answer (
  subject TEXT NOT NULL,
  method TEXT NOT NULL,
  request_id TEXT NOT NULL CHECK (length(request_id) BETWEEN 1 AND 100),
  request_digest BLOB NOT NULL CHECK (length(request_digest) = 32),
  -- The answer, encrypted by the vault: it may hold a secret that is shown once.
  sealed_answer BLOB,
  created_at_us BIGINT NOT NULL,
  PRIMARY KEY (subject, method, request_id)
);

CREATE INDEX remembered_answer_by_creation ON remembered_answer (created_at_us);
