// `npm run demo`: starts everything, sends real requests of all four tiers, tells what happened to each, and stays up.
// With `--exit` it ends after the table; the exit code says whether all went well.

import { dev } from "./dev.mjs";
import { say } from "./steps.mjs";

const kamToken = "dev-kam-token";
const stay = !process.argv.includes("--exit");

const { url, kamUrl, end } = await dev({ log: "ignore" });

async function call(method, path, body, headers = {}) {
  const init = { method, headers: { authorization: `Bearer ${kamToken}`, ...headers } };
  if (body !== undefined) {
    init.body = JSON.stringify(body);
    init.headers["content-type"] = "application/json";
  }
  const response = await fetch(`${url}${path}`, init);
  return { status: response.status, body: await response.json() };
}

const chat = (clientId, urgency, words, more = {}) => ({
  clientId,
  templateId: "chat-completion",
  urgency,
  input: { messages: [{ role: "user", content: "Tell me about queues. ".repeat(words) }] },
  parameters: { maxOutputTokens: 400 },
  // They are to show the queue: a cheaper model would not have them wait.
  optimization: { downgrade: false },
  ...more,
});

// The first takes the GPT-4 pool's whole minute, so that the ones after it have to wait, and are let in by their score.
const requests = [
  ["takes all of GPT-4", { clientId: "demo-enterprise", templateId: "chat-completion", urgency: "immediate", resources: [{ pool: "openai-gpt-4", amount: 39_900 }], input: { simulate: { usage: { "openai-gpt-4": 39_900 } } } }],
  ["deferred, basic", chat("demo-basic", "deferred", 8)],
  ["batch, standard", chat("demo-standard", "batch", 8)],
  ["normal, premium", chat("demo-premium", "normal", 8)],
  ["immediate, enterprise", chat("demo-enterprise", "immediate", 8)],
  ["a cheaper model rather than a long wait", chat("demo-premium", "fast", 8, { resources: [{ pool: "openai-gpt-4", amount: 8_000 }], optimization: { level: "standard" } })],
  ["uses less than reserved", { clientId: "demo-premium", templateId: "summarize", input: { simulate: { usage: { "openai-gpt-3.5": 120 } } } }],
  ["an e-mail", { clientId: "demo-standard", templateId: "send-email", input: { to: "ada@example.com" } }],
  ["a text message", { clientId: "demo-basic", templateId: "send-sms", input: { to: "+10000000" } }],
  ["fails twice, then works", { clientId: "demo-basic", templateId: "echo", input: { simulate: { failFirst: 2 } } }],
  ["the worker refuses it", { clientId: "demo-standard", templateId: "echo", input: { simulate: { status: 422 } } }],
];
const expectedFailures = new Set(["the worker refuses it"]);
const expectedSavings = new Map([["a cheaper model rather than a long wait", "model_downgrade"]]);

say("\nSending requests … (those for GPT-4 wait for its refill: up to a minute, if a demo has just taken it all)");
const sent = [];
for (const [what, body] of requests) {
  // A demo just before this one has left results: here everything is to be run.
  const { status, body: accepted } = await call("POST", "/api/execute", body, { "cache-control": "no-cache" });
  if (status !== 202) {
    sent.push({ what, refused: `${status} ${accepted.code}: ${accepted.detail}` });
    continue;
  }
  const position = await call("GET", `/api/queue/position/${accepted.requestId}`);
  sent.push({ what, body, accepted, position: position.status === 200 ? position.body : null });
}

// Longer than the GPT-4 pool takes to fill up, should it be empty from a demo just before.
const deadline = Date.now() + 180_000;

async function finished(id) {
  for (;;) {
    if (Date.now() > deadline) {
      say(`\n${id} has not ended in three minutes.`);
      await end(1);
    }
    const { body } = await call("GET", `/api/execution/${id}`);
    if (body.finishedAt !== undefined) return body;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

let good = true;
for (const { what, body, accepted, position, refused } of sent) {
  if (refused) {
    good = false;
    say(`\n${what}\n  refused: ${refused}`);
    continue;
  }
  const execution = await finished(accepted.requestId);
  const usage = (await call("GET", `/api/usage/${body.clientId}/current`)).body;
  const score = position?.score ?? accepted.score;
  const parts = score ? ` = tier ${score.tier} + urgency ${score.urgency} + wait ${score.wait} + fairness ${score.fairness}` : "";
  const blocked = position?.blockedBy ? `, waited for ${position.blockedBy}` : "";
  const result = execution.status === "succeeded" ? "succeeded" : `${execution.status}: ${execution.error?.code}`;
  good &&= (execution.status === "succeeded") !== expectedFailures.has(what);
  good &&= execution.optimizations[0]?.strategy === expectedSavings.get(what);
  say(`\n${what}  (${body.clientId}, ${accepted.requestId})`);
  say(`  lane ${execution.urgency}, priority ${accepted.priority ?? position?.priority ?? "-"}${parts}`);
  say(`  ${result} after ${execution.waitMs} ms of waiting${blocked}, ${execution.runMs} ms and ${execution.attempts} attempt(s)`);
  const used = execution.resources.map(({ pool, estimated, actual }) => `${actual} of ${estimated} ${pool}`).join(", ");
  for (const { strategy, detail, savedUsd } of execution.optimizations) say(`  ${strategy}: ${detail}, saved $${savedUsd}`);
  say(`  cost $${execution.cost.actualUsd} (held $${execution.cost.estimatedUsd}; used ${used}); budget left $${usage.remainingUsd} of $${usage.budgetUsd}`);
}

if (kamUrl) {
  // The way of the platform's clients: an API key for KAM, which calls the service over its service binding.
  const headers = { "x-api-key": "key-standard", "content-type": "application/json", prefer: "wait=10" };
  const through = await fetch(`${kamUrl}/execute`, { method: "POST", headers, body: JSON.stringify({ templateId: "echo", input: "hello" }) });
  const execution = await through.json();
  good &&= execution.status === "succeeded";
  say(`\nThrough KAM, with an API key  (${execution.clientId}, ${execution.requestId})`);
  say(`  lane ${execution.urgency}, ${execution.status} after ${execution.waitMs} ms of waiting and ${execution.runMs} ms, cost $${execution.cost?.actualUsd}`);
}

// The same twice: the second has the result of the first.
const same = { clientId: "demo-standard", templateId: "summarize", input: "the same again" };
await call("POST", "/api/execute", same, { prefer: "wait=10" });
for (let tries = 0; ; tries += 1) {
  const { body } = await call("POST", "/api/execute", same, { prefer: "wait=10" });
  if (!body.cached && tries < 20) continue;
  good &&= body.cached;
  say(`\nThe same request again  (${body.clientId}, ${body.requestId})`);
  say(`  ${body.cached ? "a kept result" : "run again"}, cost $${body.cost.actualUsd}, saved $${body.cost.savedUsd}`);
  break;
}

const health = await fetch(`${url}/health`);
say(`\nHealth: ${(await health.json()).status}. ${good ? "Everything went as it should." : "Something went wrong: see above."}`);
if (stay) {
  say(`The service stays up at ${url}; Ctrl-C ends it. Try:`);
  say(`  curl -s ${url}/api/queue/status -H 'Authorization: Bearer ${kamToken}'`);
} else {
  await end(good ? 0 : 1);
}
