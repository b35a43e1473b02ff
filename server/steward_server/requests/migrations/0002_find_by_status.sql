CREATE INDEX budget_request_by_status ON budget_request (status, created_at_us, request_id);
