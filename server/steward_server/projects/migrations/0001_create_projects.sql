CREATE TABLE project (
  project_id TEXT PRIMARY KEY,
  name TEXT NOT NULL CHECK (length(name) BETWEEN 1 AND 100),
  created_at_us BIGINT NOT NULL,
  updated_at_us BIGINT NOT NULL,
  deleted_at_us BIGINT
);

CREATE INDEX project_by_creation ON project (created_at_us, project_id);

-- The one there is.
CREATE TABLE organisation (
  organisation_id TEXT PRIMARY KEY CHECK (organisation_id = 'default'),
  name TEXT NOT NULL CHECK (length(name) BETWEEN 1 AND 100),
  updated_at_us BIGINT
);

INSERT INTO organisation (organisation_id, name, updated_at_us) VALUES ('default', 'default', NULL);
