const ws = new WebSocket('ws://localhost:8000/stream');

ws.onopen = () => {
  // Send observation
  ws.send(JSON.stringify({
    observation: [0.1, 0.2, 0.3, 0.4],
    deterministic: true,
    token: 'cyborg-secret-v2'
  }));
};

ws.onmessage = (event) => {
  const response = JSON.parse(event.data);
  if (response.error) {
    console.error('Error:', response.error);
  } else {
    console.log('Action:', response.action);
    console.log('Value:', response.value);
  }
};

ws.onerror = (error) => {
  console.error('WebSocket error:', error);
};

ws.onclose = () => {
  console.log('WebSocket closed');
};
