const ws = new WebSocket(
  'wss://your-server/api/v1/environments/env-abc123/attach',
  ['Authorization', 'Bearer <token>']
);

ws.onopen = () => {
  console.log('Connected to environment');
  // Send input
  ws.send(JSON.stringify({
    type: 'stdin',
    data: 'ls -la\n'
  }));
};

ws.onmessage = (event) => {
  const msg = JSON.parse(event.data);
  switch (msg.type) {
    case 'stdout':
      process.stdout.write(msg.data);
      break;
    case 'stderr':
      process.stderr.write(msg.data);
      break;
    case 'exit':
      console.log('Process exited with code:', msg.exit_code);
      break;
  }
};

ws.onerror = (error) => {
  console.error('WebSocket error:', error);
};
