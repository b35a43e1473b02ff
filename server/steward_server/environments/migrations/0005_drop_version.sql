-- Nobody asks which version of an environment was read.
ALTER TABLE environment DROP COLUMN version;
