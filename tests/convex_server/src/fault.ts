// Faults that a test arms: what a deployment, or the network before it, does on a bad day.
export type FaultMode =
  | { kind: "status"; status: number; code: string; message: string; retryAfter?: string }
  | { kind: "delay"; seconds: number } // answer, later
  | { kind: "hold" } // answer once the faults are cleared
  | { kind: "drop" } // close the connection without running the function
  | { kind: "lost_reply" } // run the function, then close the connection
  | { kind: "truncated" } // run it, answer with half a JSON document
  | { kind: "html" } // do not run it, answer 200 with a page, as a proxy might
  | { kind: "error"; message: string }; // a function error: HTTP 200, permanent

interface Fault {
  mode: FaultMode;
  remaining: number;
  path: string | undefined;
}

const STATUS_CODES: Record<number, [code: string, message: string]> = {
  401: ["BadAdminKey", "The provided admin key was invalid for this instance"],
  403: ["BadDeployKey", "The provided deploy key was invalid for this deployment."],
  404: ["DeploymentNotFound", "No deployment has this name"],
  429: ["RateLimited", "Too many requests"],
  500: ["InternalServerError", "Your request couldn't be completed. Try again later."],
  503: ["OptimisticConcurrencyControlFailure", "Data changed while this mutation was being run"],
};

export class FaultPlan {
  #faults: Fault[] = [];
  #held: (() => void)[] = [];

  get armed(): number {
    return this.#faults.length;
  }

  /** Arm one fault from its JSON: mode, count (default 1), path, and the mode's own fields. */
  arm(json: Record<string, unknown>): void {
    const count = json.count ?? 1;
    if (typeof count !== "number" || !Number.isSafeInteger(count) || count < 1) {
      throw new TypeError("count is a whole number of at least 1");
    }
    const path = json.path ?? undefined;
    if (path !== undefined && typeof path !== "string") throw new TypeError("path is a string");
    this.#faults.push({ mode: parseMode(json), remaining: count, path });
  }

  /** Disarm all, and let what is held go on. */
  clear(): void {
    this.#faults = [];
    for (const release of this.#held.splice(0)) release();
  }

  /** The fault that strikes a call of `path` now; the one armed first strikes first. */
  take(path: string): FaultMode | undefined {
    const fault = this.#faults.find((each) => each.path === undefined || each.path === path);
    if (fault === undefined) return undefined;
    fault.remaining -= 1;
    if (fault.remaining === 0) this.#faults = this.#faults.filter((each) => each !== fault);
    return fault.mode;
  }

  held(): Promise<void> {
    return new Promise((release) => this.#held.push(release));
  }
}

function parseMode(json: Record<string, unknown>): FaultMode {
  const mode = String(json.mode);
  if (/^[45]\d\d$/.test(mode)) {
    const status = Number(mode);
    const [code, message] = STATUS_CODES[status] ?? ["Unspecified", "Injected"];
    const retryAfter = json.retry_after === undefined ? {} : { retryAfter: String(json.retry_after) };
    return { kind: "status", status, code: String(json.code ?? code), message, ...retryAfter };
  }
  switch (mode) {
    case "delay": {
      const seconds = json.seconds ?? 1;
      if (typeof seconds !== "number" || !(seconds >= 0)) throw new TypeError("seconds is a number");
      return { kind: "delay", seconds };
    }
    case "error":
      return { kind: "error", message: String(json.message ?? "Uncaught Error: Injected") };
    case "hold":
    case "drop":
    case "lost_reply":
    case "truncated":
    case "html":
      return { kind: mode };
    default:
      throw new TypeError(`no fault has the mode ${mode}`);
  }
}
