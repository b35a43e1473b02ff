const response = await fetch('http://localhost:5000/api/executions', {
  method: 'POST',
  headers: { 'Content-Type': 'application/json' },
  body: JSON.stringify({
    playbook_path: 'gateway/health_check.yaml',
    gateway_url: 'http://localhost:8088',
    credential_name: 'my-gateway'
  })
});
const { execution_id } = await response.json();
