-- The numbers of its log go on from here: those of what it wrote before a restore were lower.
ALTER TABLE environment ADD COLUMN log_start BIGINT NOT NULL DEFAULT 0;

CREATE INDEX environment_by_end ON environment (ended_at_us) WHERE ended_at_us IS NOT NULL;
