const ws = new WebSocket('ws://localhost:5000/ws/executions?api_key=dev-key');

ws.onmessage = (event) => {
  const message = JSON.parse(event.data);
  if (message.type === 'execution_update') {
    console.log('Status:', message.data.status);
  }
};

// Send heartbeat
setInterval(() => {
  ws.send(JSON.stringify({ type: 'ping', timestamp: Date.now() }));
}, 15000);
