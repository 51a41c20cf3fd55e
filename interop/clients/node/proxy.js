// A TCP proxy between a client and the broker that can cut and freeze connections.
import net from 'node:net';

export async function startProxy(brokerUri) {
  const { hostname, port } = new URL(brokerUri);
  const pairs = new Set();
  const proxy = { droppedByBroker: 0, accepted: 0 };
  const server = net.createServer((client) => {
    const broker = net.connect(Number(port) || 5672, hostname);
    const pair = [client, broker];
    pairs.add(pair);
    proxy.accepted += 1;
    broker.on('close', () => {
      if (pairs.delete(pair)) proxy.droppedByBroker += 1;
      client.destroy();
    });
    client.on('close', () => {
      pairs.delete(pair);
      broker.destroy();
    });
    // A reset by either side is what these tests are about, not an error of the proxy.
    for (const end of pair) end.on('error', () => end.destroy());
    client.pipe(broker);
    broker.pipe(client);
  });
  await new Promise((listening) => server.listen(0, '127.0.0.1', listening));
  const uri = new URL(brokerUri);
  uri.hostname = '127.0.0.1';
  uri.port = String(server.address().port);
  proxy.uri = uri.href;
  proxy.cut = () => {
    for (const [client, broker] of [...pairs]) {
      client.resetAndDestroy();
      broker.resetAndDestroy();
    }
    pairs.clear();
  };
  proxy.freezeClient = () => {
    for (const [client, broker] of pairs) client.unpipe(broker);
  };
  proxy.close = () => {
    proxy.cut();
    server.close();
  };
  return proxy;
}
