// node dist/server.js --port 0 --deploy-key KEY [--production]
//
// Prints `listening on http://127.0.0.1:PORT` once it accepts connections, and nothing else on stdout.
// Ends when its stdin does, so that it cannot outlive whoever started it, however that one died.
import { Console } from "node:console";
import { type IncomingMessage, type ServerResponse, createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { parseArgs } from "node:util";
import { FunctionApi } from "./api.ts";
import { Backend, type FunctionKind } from "./backend.ts";
import { FaultPlan } from "./fault.ts";
import { HttpFailure, readJson, send, sendFailure } from "./http.ts";
import { Stats } from "./stats.ts";
import { encode } from "./value.ts";

const FUNCTION_ROUTES: Record<string, FunctionKind> = {
  "POST /api/query": "query",
  "POST /api/mutation": "mutation",
  "POST /api/action": "action",
};

const { values: options } = parseArgs({
  options: {
    port: { type: "string", default: "0" },
    "deploy-key": { type: "string" },
    production: { type: "boolean", default: false },
  },
});
const port = Number(options.port);
const deployKey = options["deploy-key"];
if (!deployKey || !Number.isInteger(port) || port < 0 || port > 65535) {
  process.stderr.write("usage: server.js --port PORT --deploy-key KEY [--production]\n");
  process.exit(2);
}
// What a function logs must not mingle with the line that says we are ready.
globalThis.console = new Console(process.stderr, process.stderr);

const backend = new Backend();
const faults = new FaultPlan();
const stats = new Stats();
const api = new FunctionApi(backend, faults, stats, { deployKey, production: options.production });

async function route(request: IncomingMessage, response: ServerResponse): Promise<void> {
  const url = new URL(request.url ?? "/", "http://localhost");
  const target = `${request.method} ${url.pathname}`;
  const kind = FUNCTION_ROUTES[target];
  if (kind !== undefined) return api.handle(kind, request, response);
  switch (target) {
    case "GET /version":
      return send(response, 200, "convex-test", { "content-type": "text/plain" });
    case "POST /__fault":
      return arm(await readJson(request), response);
    case "POST /__load": {
      const { table, rows } = await readJson(request);
      if (!Array.isArray(rows)) throw new HttpFailure(400, "BadRows", "rows is an array");
      if (!(await backend.load(String(table), rows))) throw noTable();
      return send(response, 200, "{}");
    }
    case "POST /__reset":
      faults.clear();
      await backend.reset();
      stats.reset();
      return send(response, 200, "{}");
    case "GET /__stats": {
      const { paths, open, peakOpen } = stats;
      return send(response, 200, JSON.stringify({ paths, open, peakOpen, faults: faults.armed }));
    }
    case "GET /__dump": {
      const rows = await backend.dump(url.searchParams.get("table") ?? "");
      if (rows === null) throw noTable();
      return send(response, 200, encode(rows));
    }
    default:
      throw new HttpFailure(404, "NotFound", `no route for ${target}`);
  }
}

function noTable(): HttpFailure {
  return new HttpFailure(404, "TableNotFound", "the schema has no such table");
}

function arm(json: Record<string, unknown>, response: ServerResponse): void {
  if (json.mode === "clear") {
    faults.clear();
  } else {
    try {
      faults.arm(json);
    } catch (error) {
      if (!(error instanceof TypeError)) throw error;
      throw new HttpFailure(400, "BadFault", error.message);
    }
  }
  send(response, 200, "{}");
}

function fail(error: unknown, response: ServerResponse): void {
  if (response.headersSent || response.destroyed) {
    response.destroy();
  } else if (error instanceof HttpFailure) {
    sendFailure(response, error);
  } else {
    console.error(error);
    const message = "Your request couldn't be completed. Try again later.";
    sendFailure(response, new HttpFailure(500, "InternalServerError", message));
  }
}

const server = createServer((request, response) => {
  route(request, response).catch((error: unknown) => fail(error, response));
});
// Longer than clients keep a connection idle, so that none is closed under a request.
server.keepAliveTimeout = 120_000;
server.on("error", (error) => {
  process.stderr.write(`cannot listen on port ${port}: ${error.message}\n`);
  process.exit(1);
});
server.listen(port, "127.0.0.1", () => {
  const { port: bound } = server.address() as AddressInfo;
  process.stdout.write(`listening on http://127.0.0.1:${bound}\n`);
});

process.stdin.resume();
process.stdin.on("end", () => process.exit(0));
process.stdin.on("error", () => process.exit(0));
