// An example of a downstream worker. It answers `POST /execute` with its input, and obeys `input.simulate`, so that a
// test can make it slow, failing, over- or under-using:
//   {delayMs?, status?, retryAfterSeconds?, usage?: {poolId: units}, hang?: true, garbage?: true, failFirst?: n,
//    limits?: {poolId: {remaining, resetSeconds?}}, result?: anything, repeat?: characters of a result}
// A step of a pipeline answers with what it was handed too; with `result` it hands something else on.
// `GET /stats` and `POST /reset` are for tests: what was called, and how much at once.

const fresh = () => ({ calls: 0, running: 0, maxRunning: 0, byRequest: {}, byKey: {}, byClient: {}, traceparents: {}, models: {}, batches: [], zipped: 0, refusedGzip: 0 });
let stats = fresh();

const json = (body, init) => Response.json(body, init);
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

function simulation(input) {
  const simulate = input !== null && typeof input === "object" && !Array.isArray(input) ? input.simulate : undefined;
  return simulate !== null && typeof simulate === "object" ? simulate : {};
}

const resultOf = (simulate, input) => simulate.result ?? (simulate.repeat > 0 ? "r".repeat(simulate.repeat) : { echo: input });

async function work(order) {
  const simulate = simulation(order.input);
  if (simulate.delayMs > 0) await sleep(simulate.delayMs);
  if (simulate.hang) await new Promise(() => setTimeout(() => {}, 2 ** 31 - 1));
  if (simulate.failFirst >= order.attempt) return json({ error: "failed on purpose" }, { status: 500 });
  if (simulate.status >= 400) {
    const headers = simulate.retryAfterSeconds === undefined ? {} : { "retry-after": String(simulate.retryAfterSeconds) };
    return json({ error: "failed on purpose" }, { status: simulate.status, headers });
  }
  if (simulate.garbage) return new Response("<html>this is not the answer</html>", { headers: { "content-type": "text/html" } });
  const answer = { result: resultOf(simulate, order.input) };
  if (simulate.usage !== undefined) answer.usage = simulate.usage;
  if (simulate.limits !== undefined) answer.limits = simulate.limits;
  return json(answer);
}

// Several at once: `simulate.batchStatus` of any of them refuses all, `simulate.batchUsage` is what they used together; the
// rest of `simulate` is about one.
async function batch(order) {
  stats.calls += 1;
  stats.batches.push(order.batch.map((item) => item.requestId));
  for (const { requestId } of order.batch) stats.byRequest[requestId] = (stats.byRequest[requestId] ?? 0) + 1;
  const simulations = order.batch.map((item) => simulation(item.input));
  await sleep(Math.max(0, ...simulations.map(({ delayMs }) => delayMs ?? 0)));
  const refused = simulations.find(({ batchStatus }) => batchStatus >= 400);
  if (refused) return json({ error: "failed on purpose" }, { status: refused.batchStatus });
  const results = order.batch.map((item, index) => {
    const { status, usage } = simulations[index];
    if (status >= 400) return { requestId: item.requestId, error: "failed on purpose", status, ...(usage && { usage }) };
    return { requestId: item.requestId, result: resultOf(simulations[index], item.input), ...(usage && { usage }) };
  });
  const usage = simulations.find(({ batchUsage }) => batchUsage)?.batchUsage;
  return json({ results, ...(usage && { usage }) });
}

async function execute(request) {
  const zipped = request.headers.get("content-encoding") === "gzip";
  // As the gateway for text messages it takes no gzip.
  if (zipped && new URL(request.url).hostname === "sms") {
    stats.refusedGzip += 1;
    return json({ error: "no gzip here" }, { status: 415, headers: { "accept-encoding": "identity" } });
  }
  const body = zipped ? request.body.pipeThrough(new DecompressionStream("gzip")) : request.body;
  const order = await new Response(body).json();
  stats.zipped += zipped ? 1 : 0;
  if (Array.isArray(order.batch)) return batch(order);
  const key = order.requestId;
  const client = (stats.byClient[order.clientId] ??= { running: 0, maxRunning: 0 });
  stats.calls += 1;
  stats.byRequest[key] = (stats.byRequest[key] ?? 0) + 1;
  const attemptsOf = request.headers.get("idempotency-key");
  stats.byKey[attemptsOf] = (stats.byKey[attemptsOf] ?? 0) + 1;
  stats.traceparents[key] = request.headers.get("traceparent");
  if (order.model !== undefined) stats.models[key] = order.model;
  stats.running += 1;
  client.running += 1;
  stats.maxRunning = Math.max(stats.maxRunning, stats.running);
  client.maxRunning = Math.max(client.maxRunning, client.running);
  const counted = stats;
  try {
    return await work(order);
  } finally {
    counted.running -= 1;
    client.running -= 1;
  }
}

export default {
  async fetch(request) {
    const { pathname } = new URL(request.url);
    if (request.method === "POST" && pathname === "/execute") return execute(request);
    if (request.method === "GET" && pathname === "/stats") return json(stats);
    if (request.method === "POST" && pathname === "/reset") {
      stats = fresh();
      return json(stats);
    }
    return json({ error: "not found" }, { status: 404 });
  },
};
