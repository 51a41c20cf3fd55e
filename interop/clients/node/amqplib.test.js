// amqplib against the broker at AMQP_URI.
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { after, before, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';

import amqp from 'amqplib';

import { startProxy } from './proxy.js';

const URI = process.env.AMQP_URI;
const ROUTES = JSON.parse(readFileSync(new URL('../routes.json', import.meta.url)));
const LARGE = Buffer.alloc(5 * 1024 * 1024, 'amqplib ');
const PREFIX = `interop.${randomBytes(4).toString('hex')}.`;
const REPLY_TO = 'amq.rabbitmq.reply-to';

let connection;
before(async () => {
  connection = await amqp.connect(URI);
});
after(async () => {
  const channel = await connection.createChannel();
  for (const name of ['work', 'cancel', 'shared', 'recovery']) {
    await channel.deleteQueue(PREFIX + name);
  }
  await connection.close();
});

async function until(condition, what, withinMs = 10_000) {
  const deadline = Date.now() + withinMs;
  while (!(await condition())) {
    assert.ok(Date.now() < deadline, `not within ${withinMs} ms: ${what}`);
    await delay(10);
  }
}

// What a consumer of `queue` receives, as it arrives.
async function receive(channel, queue, options = { noAck: true }) {
  const messages = [];
  await channel.consume(queue, (message) => messages.push(message), options);
  return messages;
}

// Unlike events.once, does not fail when an 'error' comes first.
function event(emitter, name) {
  return new Promise((happened) => emitter.once(name, happened));
}

async function drain(channel, queue) {
  const bodies = [];
  for (let message; (message = await channel.get(queue, { noAck: true })); ) {
    bodies.push(message.content.toString());
  }
  return bodies;
}

async function withProxy(work) {
  const proxy = await startProxy(URI);
  try {
    await work(proxy);
  } finally {
    proxy.close();
  }
}

test('workers share a queue; what a dead one held is redelivered', () =>
  withProxy(async (proxy) => {
    const channel = await connection.createConfirmChannel();
    const { queue } = await channel.assertQueue(`${PREFIX}work`, { durable: false });
    for (let i = 0; i < 30; i += 1) channel.sendToQueue(queue, Buffer.from(`${i}`));
    await channel.waitForConfirms();

    const doomed = await amqp.connect(proxy.uri);
    doomed.on('error', () => {}); // the cut below; its effect is what is tested
    const doomedChannel = await doomed.createChannel();
    doomedChannel.on('error', () => {});
    await doomedChannel.prefetch(4);
    const held = await receive(doomedChannel, queue, {});
    await until(() => held.length === 4, 'the doomed worker holds its prefetch');

    const done = [[], []];
    for (const mine of done) {
      const worker = await connection.createChannel();
      await worker.prefetch(1);
      await worker.consume(queue, (message) => {
        if (message === null) return; // cancelled: the test deletes the queue
        mine.push(message);
        worker.ack(message);
      });
    }
    await until(() => done.flat().length === 26, 'the rest is done');
    proxy.cut();
    await until(() => done.flat().length === 30, 'the held tasks are redelivered');
    assert.equal(done.flat().filter((message) => message.fields.redelivered).length, 4);
    assert.equal(new Set(done.flat().map((message) => message.content.toString())).size, 30);
    assert.ok(Math.min(...done.map((mine) => mine.length)) >= 5, 'the work was shared');
  }));

test('a fanout exchange copies to every subscriber', async () => {
  const channel = await connection.createConfirmChannel();
  const { exchange } = await channel.assertExchange(`${PREFIX}news`, 'fanout', {
    durable: false,
    autoDelete: true,
  });
  const queues = [];
  for (let i = 0; i < 3; i += 1) {
    const { queue } = await channel.assertQueue('', { exclusive: true });
    await channel.bindQueue(queue, exchange, '');
    queues.push(queue);
  }
  channel.publish(exchange, 'ignored', Buffer.from('extra'));
  await channel.waitForConfirms();
  for (const queue of queues) {
    assert.deepEqual(await drain(channel, queue), ['extra']);
    await channel.deleteQueue(queue);
  }
  await assert.rejects(
    connection.createChannel().then((probe) => {
      probe.on('error', () => {});
      return probe.checkExchange(exchange);
    }),
    /404/,
    'the auto-delete exchange goes with its last binding',
  );
});

for (const kind of ['topic', 'headers']) {
  test(`${kind} routing`, async () => {
    const channel = await connection.createConfirmChannel();
    const { exchange } = await channel.assertExchange(`${PREFIX}${kind}`, kind, { durable: false });
    const { bindings, messages } = ROUTES[kind];
    for (const [name, bound] of Object.entries(bindings)) {
      await channel.assertQueue(PREFIX + name, { exclusive: true });
      if (kind === 'headers') await channel.bindQueue(PREFIX + name, exchange, '', bound);
      else for (const key of bound) await channel.bindQueue(PREFIX + name, exchange, key);
    }
    messages.forEach(([address], i) => {
      const [key, headers] = kind === 'topic' ? [address, {}] : ['', address];
      channel.publish(exchange, key, Buffer.from(`${i}`), { headers });
    });
    await channel.waitForConfirms();
    for (const name of Object.keys(bindings)) {
      const expected = [...messages.keys()].filter((i) => messages[i][1].includes(name));
      assert.deepEqual((await drain(channel, PREFIX + name)).map(Number), expected, name);
      await channel.deleteQueue(PREFIX + name);
    }
    await channel.deleteExchange(exchange);
  });
}

test('RPC through direct reply-to', async () => {
  const server = await connection.createChannel();
  const { queue } = await server.assertQueue('', { exclusive: true });
  await server.consume(queue, (message) => {
    const { replyTo, correlationId } = message.properties;
    const answer = Buffer.from(message.content.toString().toUpperCase());
    server.sendToQueue(replyTo, answer, { correlationId });
    server.ack(message);
  });
  const client = await connection.createChannel();
  const replies = await receive(client, REPLY_TO);
  for (let i = 0; i < 10; i += 1) {
    client.sendToQueue(queue, Buffer.from(`call ${i}`), { replyTo: REPLY_TO, correlationId: `${i}` });
  }
  await until(() => replies.length === 10, 'ten answers');
  for (const { properties, content } of replies) {
    assert.equal(content.toString(), `CALL ${properties.correlationId}`);
  }
});

test('an unroutable mandatory message comes back, then its confirm', async () => {
  const channel = await connection.createConfirmChannel();
  const events = [];
  channel.on('return', ({ fields, content }) => events.push([fields.replyText, content.length]));
  channel.publish('', `${PREFIX}nowhere`, LARGE, { mandatory: true }, () => events.push('confirm'));
  await channel.waitForConfirms();
  assert.deepEqual(events, [['NO_ROUTE', LARGE.length], 'confirm']);
});

test('prefetch bounds what is unacked, by consumer and by channel', async () => {
  for (const [ofChannel, limit] of [[false, 10], [true, 5]]) {
    const publisher = await connection.createConfirmChannel();
    const { queue } = await publisher.assertQueue('', { exclusive: true });
    for (let i = 0; i < 20; i += 1) publisher.sendToQueue(queue, Buffer.from(`${i}`));
    await publisher.waitForConfirms();
    const consumer = await connection.createChannel();
    await consumer.prefetch(5, ofChannel);
    const messages = [];
    for (let i = 0; i < 2; i += 1) await consumer.consume(queue, (m) => messages.push(m));
    await until(() => messages.length === limit, 'the first deliveries');
    assert.equal((await publisher.checkQueue(queue)).messageCount, 20 - limit);
    consumer.ack(messages[1], true);
    await until(() => messages.length === limit + 2, 'two more for two acks');
    assert.equal((await publisher.checkQueue(queue)).messageCount, 18 - limit);
    consumer.nackAll();
    await consumer.close();
  }
});

test('consumers are cancelled by the client and by the server', async () => {
  const channel = await connection.createChannel();
  const { queue } = await channel.assertQueue(`${PREFIX}cancel`, { durable: false });
  const { consumerTag } = await channel.consume(queue, () => {});
  await channel.cancel(consumerTag);
  assert.equal((await channel.checkQueue(queue)).consumerCount, 0);
  const messages = await receive(channel, queue);
  await channel.deleteQueue(queue);
  await until(() => messages.length === 1, 'the cancel');
  assert.equal(messages[0], null);
});

test('heartbeats keep a connection alive; an unresponsive client is dropped', () =>
  withProxy(async (proxy) => {
    const idle = await amqp.connect(`${proxy.uri}?heartbeat=1`);
    let heartbeats = 0;
    const closed = event(idle, 'close');
    idle.on('error', () => {}); // the broker's disconnect, awaited below
    // amqplib has no event for a heartbeat: count them where it notices that it was spoken to.
    idle.connection.heartbeater.on('beat', () => {
      heartbeats += 1;
    });
    await until(() => heartbeats >= 4, 'the client has sent heartbeats');
    await (await idle.createChannel()).close();
    proxy.freezeClient();
    await until(() => proxy.droppedByBroker === 1, 'the broker ends the connection');
    await closed;
  }));

test('bodies of any size pass at any frame-max', async () => {
  for (const frameMax of [8192, 131072, 0]) {
    const other = await amqp.connect(`${URI}?frameMax=${frameMax}`);
    const channel = await other.createConfirmChannel();
    const { queue } = await channel.assertQueue('', { exclusive: true });
    const bodies = [Buffer.alloc(0), Buffer.from('x'), LARGE];
    for (const body of bodies) channel.sendToQueue(queue, body);
    await channel.waitForConfirms();
    const messages = await receive(channel, queue);
    await until(() => messages.length === 3, 'all three');
    messages.forEach(({ content }, i) => assert.ok(content.equals(bodies[i])));
    await other.close();
  }
});

test('properties and headers of every type survive the journey', async () => {
  const typed = (type, value) => ({ '!': type, value });
  const headers = {
    string: 'grüße',
    yes: true,
    nothing: null,
    bytes: Buffer.from([0, 255]),
    int8: typed('int8', -128),
    int16: typed('int16', -32768),
    int32: typed('int32', -2147483648),
    int64: typed('int64', -(2 ** 40)),
    float: typed('float', 0.5),
    double: typed('double', 0.1),
    timestamp: typed('timestamp', 1709209815),
    decimal: typed('decimal', { places: 2, digits: 314 }),
    table: { inner: { deepest: [1, 'two', { three: 3 }] }, flag: false },
    list: ['a', 1, [true, null], {}],
  };
  const properties = {
    contentType: 'application/json',
    contentEncoding: 'utf-8',
    deliveryMode: 2,
    priority: 9,
    correlationId: 'c-1',
    replyTo: 'replies',
    expiration: '60000',
    messageId: 'm-1',
    timestamp: 1709209815,
    type: 'order.created',
    userId: 'guest',
    appId: 'interop',
  };
  const channel = await connection.createConfirmChannel();
  const { queue } = await channel.assertQueue('', { exclusive: true });
  channel.sendToQueue(queue, Buffer.from('{}'), { ...properties, headers });
  await channel.waitForConfirms();
  const received = (await channel.get(queue, { noAck: true })).properties;
  for (const [name, value] of Object.entries(properties)) assert.equal(received[name], value, name);
  const plain = (value) => (value?.['!'] && !['timestamp', 'decimal'].includes(value['!']) ? value.value : value);
  for (const [name, value] of Object.entries(headers)) {
    assert.deepEqual(received.headers[name], plain(value), name);
  }
});

test('channel errors carry their codes and leave the connection open', async () => {
  const owner = await amqp.connect(URI);
  const owned = await owner.createChannel();
  const locked = (await owned.assertQueue(`${PREFIX}locked`, { exclusive: true })).queue;
  const shared = (await owned.assertQueue(`${PREFIX}shared`, { durable: false, autoDelete: true })).queue;
  await owned.consume(shared, () => {}, { exclusive: true });
  for (const [code, operation] of [
    [404, (channel) => channel.checkQueue(`${PREFIX}missing`)],
    [404, (channel) => channel.bindQueue(locked, `${PREFIX}missing`, '')],
    [406, (channel) => channel.assertQueue(shared, { durable: true })],
    [406, (channel) => channel.assertExchange('amq.topic', 'fanout')],
    [405, (channel) => channel.assertQueue(locked, { exclusive: true })],
    [403, (channel) => channel.consume(shared, () => {})],
    [403, (channel) => channel.deleteExchange('amq.topic')],
  ]) {
    const channel = await (code === 404 ? owner : connection).createChannel();
    const failed = event(channel, 'error');
    await assert.rejects(operation(channel), new RegExp(`${code} \\(`));
    assert.equal((await failed).code, code);
  }
  await (await connection.createChannel()).close();
  await owner.close();
  const probe = await connection.createChannel();
  probe.on('error', () => {});
  await assert.rejects(probe.checkQueue(locked), /404/, 'exclusive queues go with their owner');
});

test('a wrong password is refused as such', async () => {
  const wrong = new URL(URI);
  wrong.password = 'wrong';
  await assert.rejects(amqp.connect(wrong.href), /ACCESS_REFUSED/);
});

test('a recovering connection comes back after a cut', () =>
  withProxy(async (proxy) => {
    const queue = `${PREFIX}recovery`;
    const received = [];
    const recovering = await amqp.connect(proxy.uri, {
      recovery: {
        initialDelay: 50,
        async setup(model) {
          const channel = await model.createChannel();
          channel.on('error', () => {});
          await channel.assertQueue(queue, { durable: false });
          await channel.consume(queue, (message) => {
            received.push(message.content.toString());
            channel.ack(message);
          });
        },
      },
    });
    recovering.on('error', () => {}); // the cuts below
    const publisher = await connection.createConfirmChannel();
    for (const body of ['before', 'after', 'later']) {
      publisher.sendToQueue(queue, Buffer.from(body));
      await publisher.waitForConfirms();
      await until(() => received.includes(body), `"${body}" arrives`);
      const connected = event(recovering, 'connect');
      proxy.cut();
      await connected;
    }
    await recovering.close();
  }));
