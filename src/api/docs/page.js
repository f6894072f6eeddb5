// Renders /openapi.json: every operation with its parameters, body and answers, and a form to try it. Everything goes
// into the page as text.

const byId = (id) => document.getElementById(id);

/** An element with attributes and children; a string is text. */
function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else made.setAttribute(key, value);
  }
  made.append(...children.filter((child) => child !== undefined && child !== null));
  return made;
}

let description;
const METHODS = ["get", "put", "post", "delete"];

/** What a reference leads to, and the thing itself otherwise. */
function resolved(part) {
  if (part?.$ref === undefined) return part;
  return part.$ref.slice(2).split("/").reduce((place, key) => place[key.replaceAll("~1", "/").replaceAll("~0", "~")], description);
}

const nameOf = (schema) => schema?.$ref?.split("/").at(-1);

/** A schema's alternatives without `null`. */
const choices = (schema) => (schema.oneOf ?? schema.anyOf ?? []).filter((one) => one.type !== "null" && (one.$ref || one.type));

/** What a schema is, in a few words. */
function kind(schema) {
  const whole = resolved(schema) ?? {};
  if (whole.enum) return whole.enum.map((value) => JSON.stringify(value)).join(" | ");
  if (whole.type === undefined && choices(whole).length > 0) return choices(whole).map((one) => nameOf(one) ?? kind(one)).join(" | ");
  const types = [whole.type ?? "anything"].flat().filter((type) => type !== "null");
  if (types[0] === "array") return `list of ${nameOf(whole.items) ?? kind(whole.items)}`;
  const limits = [];
  if (whole.minimum !== undefined || whole.maximum !== undefined) limits.push(`${whole.minimum ?? ""}…${whole.maximum ?? ""}`);
  if (whole.maxLength !== undefined) limits.push(`at most ${whole.maxLength} characters`);
  if (whole.pattern) limits.push(whole.pattern);
  return [nameOf(schema) ?? types.join(" | "), whole.format, ...limits].filter(Boolean).join(", ");
}

/** A schema's fields, as a tree. */
function fields(schema, depth = 0) {
  const whole = resolved(schema) ?? {};
  if (depth > 6) return undefined;
  if (whole.properties) {
    const required = new Set(whole.required ?? []);
    const rows = Object.entries(whole.properties).map(([name, of]) => {
      const about = of.description ?? resolved(of)?.description;
      return element("li", {},
        element("code", { class: "name" }, name), required.has(name) ? "" : "?", ": ",
        element("code", {}, kind(of)),
        about ? element("span", { class: "soft" }, ` ${about}`) : undefined,
        fields(of, depth + 1));
    });
    return element("ul", { class: "schema" }, ...rows);
  }
  if ([whole.type].flat().includes("array")) return fields(whole.items, depth + 1);
  const nested = choices(whole).map((one) => fields(one, depth + 1)).filter(Boolean);
  return nested.length > 0 ? element("div", {}, ...nested) : undefined;
}

/** A body to begin with. */
function example(schema, depth = 0) {
  const whole = resolved(schema) ?? {};
  if (whole.example !== undefined) return whole.example;
  if (whole.enum) return whole.enum[0];
  if (whole.properties && depth < 4) {
    const names = whole.required?.length ? whole.required : [];
    const extra = nameOf(schema) === "ExecuteBody" ? { clientId: "demo-premium", templateId: "echo", input: { hello: "world" } } : {};
    return { ...Object.fromEntries(names.map((name) => [name, example(whole.properties[name], depth + 1)])), ...extra };
  }
  if (choices(whole).length > 0) return example(choices(whole)[0], depth + 1);
  switch ([whole.type].flat().find((type) => type !== "null")) {
    case "array": return whole.maxItems === 0 ? [] : [example(whole.items, depth + 1)];
    case "integer":
    case "number": return whole.minimum > 0 ? whole.minimum : 1;
    case "boolean": return true;
    case "string": return { PoolId: "database-d1", ClientId: "demo-premium", WorkerBinding: "ECHO" }[nameOf(schema)] ?? "text";
    default: return {};
  }
}

/** The form to try an operation with. */
function form(method, path, operation) {
  const inputs = (operation.parameters ?? []).map((parameter) => [parameter, element("input", { name: parameter.name })]);
  const body = operation.requestBody && element("textarea", { "aria-label": "Body" });
  if (body) body.value = JSON.stringify(example(operation.requestBody.content["application/json"].schema), null, 2);
  const answer = element("pre", { hidden: "", "aria-live": "polite" });
  const send = async (event) => {
    event.preventDefault();
    answer.hidden = false;
    answer.textContent = "…";
    try {
      let url = path;
      const query = new URLSearchParams();
      const headers = { authorization: `Bearer ${byId("token").value || byId("token").placeholder}` };
      for (const [parameter, input] of inputs) {
        if (parameter.in === "path") url = url.replace(`{${parameter.name}}`, encodeURIComponent(input.value));
        else if (input.value !== "" && parameter.in === "query") query.set(parameter.name, input.value);
        else if (input.value !== "") headers[parameter.name] = input.value;
      }
      if (body) headers["content-type"] = "application/json";
      const response = await fetch(query.size > 0 ? `${url}?${query}` : url, { method: method.toUpperCase(), headers, body: body?.value });
      const text = await response.text();
      let shown = text;
      try {
        shown = JSON.stringify(JSON.parse(text), null, 2);
      } catch {
        // Not JSON: shown as it is.
      }
      answer.textContent = `${response.status} ${response.statusText}\n\n${shown}`;
    } catch (error) {
      answer.textContent = String(error);
    }
  };
  const rows = inputs.map(([parameter, input]) => element("label", {}, `${parameter.name} (${parameter.in}) `, input));
  return element("form", { onsubmit: send }, element("h3", {}, "Try it"), ...rows, body, element("button", {}, "Send"), answer);
}

/** The inside of an operation, made when it is opened. */
function inside(method, path, operation) {
  const parts = [];
  if (operation.parameters?.length) {
    const rows = operation.parameters.map((parameter) => element("li", {},
      element("code", { class: "name" }, parameter.name), ` (${parameter.in})${parameter.required ? "" : "?"}: `,
      element("code", {}, kind(parameter.schema)), element("span", { class: "soft" }, ` ${parameter.description ?? ""}`)));
    parts.push(element("h3", {}, "Parameters"), element("ul", { class: "schema" }, ...rows));
  }
  if (operation.requestBody) {
    const { schema } = operation.requestBody.content["application/json"];
    parts.push(element("h3", {}, "Body: ", element("code", {}, kind(schema))), fields(schema));
  }
  for (const [status, reference] of Object.entries(operation.responses)) {
    const response = resolved(reference);
    const schema = (response.content?.["application/json"] ?? response.content?.["application/problem+json"])?.schema;
    parts.push(element("h3", {}, `${status}: ${response.description} `, schema ? element("code", {}, kind(schema)) : ""));
    if (schema && Number(status) < 300) parts.push(fields(schema));
  }
  return element("div", {}, ...parts.filter(Boolean), form(method, path, operation));
}

function show() {
  byId("about").textContent = `${description.info.description} Version ${description.info.version}.`;
  const tags = new Map();
  for (const [path, methods] of Object.entries(description.paths)) {
    for (const method of METHODS.filter((one) => methods[one])) {
      const operation = methods[method];
      const tag = operation.tags[0];
      if (!tags.has(tag)) tags.set(tag, []);
      tags.get(tag).push({ method, path, operation });
    }
  }
  for (const [tag, operations] of tags) {
    byId("operations").append(element("h2", {}, tag));
    const links = [];
    for (const { method, path, operation } of operations) {
      const head = element("summary", {}, element("span", { class: `method ${method}` }, method.toUpperCase()),
        element("code", {}, path), element("span", { class: "soft" }, ` ${operation.summary}`));
      const details = element("details", { class: "operation", id: operation.operationId }, head);
      details.addEventListener("toggle", () => {
        if (details.open && details.children.length === 1) details.append(inside(method, path, operation));
      });
      byId("operations").append(details);
      const open = () => { details.open = true; };
      links.push(element("li", {}, element("a", { href: `#${operation.operationId}`, onclick: open }, `${method.toUpperCase()} ${path}`)));
    }
    byId("contents").append(element("strong", {}, tag), element("ul", {}, ...links));
  }
  const chosen = byId(location.hash.slice(1));
  if (chosen) {
    chosen.open = true;
    chosen.scrollIntoView();
  }
}

try {
  description = await (await fetch("/openapi.json")).json();
  show();
} catch (error) {
  byId("about").textContent = `The description could not be loaded: ${error}`;
}
