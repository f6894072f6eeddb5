// A stand-in for KAM, which authenticates the platform's clients and calls the Resource Manager on their behalf. It shows
// the call: over a service binding, with KAM's token, and `X-Client-Id` so that the call can touch that client alone.
//   POST /execute          {templateId, input, …}   `clientId` is put in here
//   GET  /execution/{id}
//   POST /execution/{id}/cancel
//   GET  /usage

// In the real KAM these are hashed, in a database.
const clients = new Map([
  ["key-enterprise", "demo-enterprise"],
  ["key-premium", "demo-premium"],
  ["key-standard", "demo-standard"],
  ["key-basic", "demo-basic"],
]);

function problem(status, code, detail) {
  const body = { type: `urn:kam:problem:${code}`, title: detail, status, detail, code };
  return Response.json(body, { status, headers: { "content-type": "application/problem+json" } });
}

const execution = /^\/execution\/([^/]+)(\/cancel)?$/;

async function target(request, client) {
  const { pathname } = new URL(request.url);
  if (request.method === "POST" && pathname === "/execute") {
    const body = await request.json().catch(() => null);
    if (body === null || typeof body !== "object" || Array.isArray(body)) return null;
    return { path: "/api/execute", body: JSON.stringify({ ...body, clientId: client }) };
  }
  if (request.method === "GET" && pathname === "/usage") return { path: `/api/usage/${client}/current` };
  const [matched, id, cancel] = pathname.match(execution) ?? [];
  if (matched && (cancel ? request.method === "POST" : request.method === "GET")) {
    return { path: `/api/execution/${id}${cancel ?? ""}` };
  }
  return undefined;
}

export default {
  async fetch(request, env) {
    const client = clients.get(request.headers.get("x-api-key") ?? "");
    if (client === undefined) return problem(401, "unauthorized", "The header X-Api-Key holds no key that is known.");
    const to = await target(request, client);
    if (to === null) return problem(400, "invalid_request", "The body must be a JSON object.");
    if (to === undefined) return problem(404, "not_found", "There is no such route.");
    const headers = new Headers({ authorization: `Bearer ${env.KAM_TOKEN}`, "x-client-id": client });
    if (to.body !== undefined) headers.set("content-type", "application/json");
    for (const name of ["prefer", "idempotency-key", "traceparent"]) {
      if (request.headers.has(name)) headers.set(name, request.headers.get(name));
    }
    return env.RESOURCE_MANAGER.fetch(`https://resource-manager${to.path}`, { method: request.method, headers, body: to.body });
  },
};
