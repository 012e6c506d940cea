// Convex's function API: POST /api/query, /api/mutation and /api/action.
import { randomBytes, timingSafeEqual } from "node:crypto";
import type { IncomingMessage, ServerResponse } from "node:http";
import { setTimeout as sleep } from "node:timers/promises";
import type { Value } from "convex/values";
import { type Backend, type FunctionKind, type FunctionPath, parsePath } from "./backend.ts";
import { FunctionFailure } from "./failure.ts";
import type { FaultMode, FaultPlan } from "./fault.ts";
import { HttpFailure, readJson, send } from "./http.ts";
import type { Stats, Tally } from "./stats.ts";
import { encode } from "./value.ts";

const ARGS_LIMIT_BYTES = 16 * 1024 * 1024;

export interface ApiOptions {
  deployKey: string;
  /** Hide what failed, as a production deployment does. */
  production: boolean;
}

interface Call {
  kind: FunctionKind;
  name: string;
  path: FunctionPath;
  args: unknown;
  admin: boolean;
}

export class FunctionApi {
  constructor(
    private readonly backend: Backend,
    private readonly faults: FaultPlan,
    private readonly stats: Stats,
    private readonly options: ApiOptions,
  ) {}

  async handle(kind: FunctionKind, request: IncomingMessage, response: ServerResponse): Promise<void> {
    const call = await this.#parse(kind, request);
    const tally = this.stats.enter(call.name);
    try {
      await this.#serve(call, tally, response);
    } finally {
      this.stats.leave();
    }
  }

  async #parse(kind: FunctionKind, request: IncomingMessage): Promise<Call> {
    const admin = authenticate(request.headers.authorization, this.options.deployKey);
    const body = await readJson(request);
    if (typeof body.path !== "string") throw missing("path");
    if (body.args === undefined) throw missing("args");
    if (body.format !== undefined && body.format !== "json") {
      const message = `format param must be one of [\`json\`]. Got ${String(body.format)}`;
      throw new HttpFailure(400, "BadFormat", message);
    }
    const path = parsePath(body.path);
    if (path === null) {
      const message = `${body.path} is not a valid path to a Convex function.`;
      throw new HttpFailure(400, "BadConvexFunctionIdentifier", message);
    }
    const args: unknown = Array.isArray(body.args) ? (body.args[0] ?? {}) : body.args;
    return { kind, name: body.path, path, args, admin };
  }

  async #serve(call: Call, tally: Tally, response: ServerResponse): Promise<void> {
    const fault = this.faults.take(call.name);
    if (fault !== undefined) {
      tally.faulted += 1;
      if (fault.kind === "delay") await sleep(fault.seconds * 1000);
      if (fault.kind === "hold") await this.faults.held();
      if (this.#intercept(fault, response)) return;
    }
    const reply = await this.#run(call, tally);
    if (fault?.kind === "lost_reply") response.destroy();
    else if (fault?.kind === "truncated") send(response, 200, reply.slice(0, reply.length / 2));
    else send(response, 200, reply);
  }

  /** Answer in the function's place; true when that is done. */
  #intercept(fault: FaultMode, response: ServerResponse): boolean {
    switch (fault.kind) {
      case "status": {
        const headers: Record<string, string> = {};
        if (fault.retryAfter !== undefined) headers["retry-after"] = fault.retryAfter;
        throw new HttpFailure(fault.status, fault.code, fault.message, headers);
      }
      case "drop":
        response.destroy();
        return true;
      case "html":
        send(response, 200, "<html><body>Welcome</body></html>", { "content-type": "text/html" });
        return true;
      case "error":
        send(response, 200, this.#failure(new FunctionFailure(fault.message)));
        return true;
      default:
        return false;
    }
  }

  async #run(call: Call, tally: Tally): Promise<string> {
    try {
      checkArgs(call);
      const value = await this.backend.call(call.kind, call.path, call.args, call.admin);
      tally.succeeded += 1;
      return `{"status":"success","value":${encode(value)}}`;
    } catch (error) {
      if (!(error instanceof FunctionFailure)) throw error;
      tally.failed += 1;
      return this.#failure(error);
    }
  }

  /** `logLines` and `errorData` are left out when there are none. */
  #failure(failure: FunctionFailure): string {
    const head = `[Request ID: ${randomBytes(8).toString("hex")}] Server Error`;
    const message = this.options.production ? head : `${head}\n${failure.message}\n`;
    const fields: Record<string, Value> = { status: "error", errorMessage: message };
    if (failure.data !== undefined) fields.errorData = failure.data;
    return encode(fields);
  }
}

/** True for the deploy key, false without any; a key that is not this deployment's is refused. */
function authenticate(header: string | undefined, deployKey: string): boolean {
  if (header === undefined) return false;
  if (header.length < 7) {
    throw new HttpFailure(400, "InvalidHeaderFailure", "Invalid authentication header");
  }
  if (header.slice(0, 7).toLowerCase() !== "convex ") {
    throw new HttpFailure(401, "InvalidAuthHeader", "Could not parse the identity token");
  }
  const [given, known] = [Buffer.from(header.slice(7)), Buffer.from(deployKey)];
  if (given.length !== known.length || !timingSafeEqual(given, known)) {
    const message = "The provided admin key was invalid for this instance";
    throw new HttpFailure(401, "BadAdminKey", message);
  }
  return true;
}

function checkArgs({ args, path }: Call): void {
  if (typeof args !== "object" || args === null || Array.isArray(args)) {
    throw new FunctionFailure("ArgumentValidationError: Arguments must be an object.");
  }
  const size = Buffer.byteLength(JSON.stringify(args));
  if (size > ARGS_LIMIT_BYTES) {
    const actual = (size / 1024 / 1024).toFixed(2);
    throw new FunctionFailure(
      `Arguments for ${path.module}.js:${path.name} are too large (actual: ${actual} MiB, limit: 16 MiB)`,
    );
  }
}

function missing(field: string): HttpFailure {
  const message = `Failed to deserialize the JSON body into the target type: missing field \`${field}\``;
  return new HttpFailure(400, "BadJsonBody", message);
}
