CREATE INDEX lease_of_agent ON lease (agent_id, opened_at_us);
