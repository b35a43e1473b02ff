-- What was booked and told, summed up for an hour, an agent, a provider and a model. Rows are added
-- to in the transaction that books, and moved a little later into the tables below: what was used
-- is the sum of both.
CREATE TABLE usage_fresh (
  hour INTEGER NOT NULL,
  agent_id TEXT NOT NULL,
  provider TEXT NOT NULL,
  model TEXT NOT NULL,
  request_count BIGINT NOT NULL,
  unbilled_count BIGINT NOT NULL,
  failed_count BIGINT NOT NULL,
  input_tokens BIGINT NOT NULL,
  output_tokens BIGINT NOT NULL,
  cached_tokens BIGINT NOT NULL,
  unbilled_tokens BIGINT NOT NULL,
  cost_nanousd BIGINT NOT NULL,
  least_nanousd BIGINT NOT NULL,
  most_nanousd BIGINT NOT NULL,
  first_lsn BIGINT NOT NULL,
  last_lsn BIGINT NOT NULL,
  PRIMARY KEY (hour, agent_id, provider, model)
);

-- A series sums up one agent, provider and model, or several: an empty text stands for all there
-- are, and `grain` says which of them are told apart. The sums here are of all time.
CREATE TABLE usage_series (
  series_id INTEGER PRIMARY KEY,
  grain TEXT NOT NULL,
  agent_id TEXT NOT NULL,
  provider TEXT NOT NULL,
  model TEXT NOT NULL,
  request_count BIGINT NOT NULL,
  unbilled_count BIGINT NOT NULL,
  failed_count BIGINT NOT NULL,
  input_tokens BIGINT NOT NULL,
  output_tokens BIGINT NOT NULL,
  cached_tokens BIGINT NOT NULL,
  unbilled_tokens BIGINT NOT NULL,
  cost_nanousd BIGINT NOT NULL,
  least_nanousd BIGINT NOT NULL,
  most_nanousd BIGINT NOT NULL,
  UNIQUE (agent_id, provider, model)
);

CREATE INDEX usage_series_by_grain ON usage_series (grain);

-- `place` is series_id * 2^20 + the number of the day since 1970: one number, so that the days of a
-- series lie side by side.
CREATE TABLE usage_day (
  place INTEGER PRIMARY KEY,
  request_count BIGINT NOT NULL,
  unbilled_count BIGINT NOT NULL,
  failed_count BIGINT NOT NULL,
  input_tokens BIGINT NOT NULL,
  output_tokens BIGINT NOT NULL,
  cached_tokens BIGINT NOT NULL,
  unbilled_tokens BIGINT NOT NULL,
  cost_nanousd BIGINT NOT NULL,
  least_nanousd BIGINT NOT NULL,
  most_nanousd BIGINT NOT NULL
);

-- The same with weeks: seven days each, from the first of January 1970 on.
CREATE TABLE usage_week (
  place INTEGER PRIMARY KEY,
  request_count BIGINT NOT NULL,
  unbilled_count BIGINT NOT NULL,
  failed_count BIGINT NOT NULL,
  input_tokens BIGINT NOT NULL,
  output_tokens BIGINT NOT NULL,
  cached_tokens BIGINT NOT NULL,
  unbilled_tokens BIGINT NOT NULL,
  cost_nanousd BIGINT NOT NULL,
  least_nanousd BIGINT NOT NULL,
  most_nanousd BIGINT NOT NULL
);

-- The same with hours. The numbers of the journal's entries that were booked in that hour lie
-- between the last two columns.
CREATE TABLE usage_hour (
  place INTEGER PRIMARY KEY,
  request_count BIGINT NOT NULL,
  unbilled_count BIGINT NOT NULL,
  failed_count BIGINT NOT NULL,
  input_tokens BIGINT NOT NULL,
  output_tokens BIGINT NOT NULL,
  cached_tokens BIGINT NOT NULL,
  unbilled_tokens BIGINT NOT NULL,
  cost_nanousd BIGINT NOT NULL,
  least_nanousd BIGINT NOT NULL,
  most_nanousd BIGINT NOT NULL,
  first_lsn BIGINT NOT NULL,
  last_lsn BIGINT NOT NULL
);

-- Calls that an event tells of and no usage.
CREATE TABLE llm_event (
  agent_id TEXT NOT NULL,
  event_id TEXT NOT NULL,
  trace_id TEXT NOT NULL UNIQUE,
  digest BLOB NOT NULL,
  status TEXT NOT NULL CHECK (status IN ('completed', 'failed')),
  at_us BIGINT NOT NULL,
  ended_at_us BIGINT NOT NULL,
  provider TEXT NOT NULL,
  model TEXT NOT NULL,
  input_tokens BIGINT NOT NULL CHECK (input_tokens >= 0),
  output_tokens BIGINT NOT NULL CHECK (output_tokens >= 0),
  claimed_cost_nanousd BIGINT,
  error_code TEXT NOT NULL,
  error_message TEXT NOT NULL,
  duration_ms BIGINT NOT NULL,
  PRIMARY KEY (agent_id, event_id)
);

CREATE INDEX llm_event_by_time ON llm_event (at_us, trace_id);
CREATE INDEX llm_event_of_agent ON llm_event (agent_id, at_us, trace_id);
CREATE INDEX llm_event_with_message ON llm_event (at_us) WHERE error_message <> '';

-- Agents with rows above: whoever books for another need not look for them.
CREATE TABLE telling_agent (
  agent_id TEXT PRIMARY KEY
);

-- How far usages that were booked before these tables were there have been summed up.
CREATE TABLE usage_catching_up (
  only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
  next_lsn BIGINT NOT NULL,
  until_lsn BIGINT NOT NULL
);
