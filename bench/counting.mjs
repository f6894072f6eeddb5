// The service with its objects' calls and writes counted: the same code, behind proxies. `GET /counted` tells the counts
// and begins anew.

import * as service from "./index.js";

const zero = () => ({ objectCalls: 0, rowsWritten: 0, alarmsSet: 0, d1Batches: 0, d1Statements: 0, kvWrites: 0 });
let counts = zero();

/** A stand-in for a native object: `changed` replaces some members, the others are the object's own, bound to it. */
function standIn(target, changed) {
  return new Proxy(target, {
    get(object, name) {
      if (Object.hasOwn(changed, name)) return changed[name];
      const value = object[name];
      return typeof value === "function" && name !== "constructor" ? value.bind(object) : value;
    },
  });
}

function countedState(state) {
  const sql = standIn(state.storage.sql, {
    exec(...args) {
      const cursor = state.storage.sql.exec(...args);
      counts.rowsWritten += cursor.rowsWritten;
      return cursor;
    },
  });
  const storage = standIn(state.storage, {
    sql,
    setAlarm(...args) {
      counts.alarmsSet += 1;
      return state.storage.setAlarm(...args);
    },
  });
  return standIn(state, { storage });
}

function countedEnv(env) {
  const DB = standIn(env.DB, {
    batch(statements) {
      counts.d1Batches += 1;
      counts.d1Statements += statements.length;
      return env.DB.batch(statements);
    },
  });
  const KV = standIn(env.KV, {
    put(...args) {
      counts.kvWrites += 1;
      return env.KV.put(...args);
    },
  });
  return { ...env, DB, KV };
}

function counted(Class) {
  return new Proxy(Class, {
    construct(target, [state, env]) {
      const object = Reflect.construct(target, [countedState(state), countedEnv(env)]);
      return new Proxy(object, {
        get(inner, name) {
          const value = inner[name];
          if (typeof value !== "function") return value;
          return (...args) => {
            if (name === "fetch") counts.objectCalls += 1;
            return value.apply(inner, args);
          };
        },
      });
    },
  });
}

export const ResourcePool = counted(service.ResourcePool);
export const ClientAccount = counted(service.ClientAccount);

export default class extends service.default {
  fetch(request) {
    if (new URL(request.url).pathname !== "/counted") return super.fetch(request);
    const answer = Response.json(counts);
    counts = zero();
    return answer;
  }
}
