// Limits that a deployment keeps and convex-test does not: a document's size and its objects' number of fields, and
// the time that a query or mutation may compute. Each ends the function, and so its transaction.
// Source: docs.convex.dev/production/state/limits.
import { AsyncLocalStorage } from "node:async_hooks";
import { type Value, getDocumentSize, jsonToConvex } from "convex/values";

const DOCUMENT_BYTES = 1024 * 1024;
const OBJECT_FIELDS = 1024;
const COMPUTE_MICROSECONDS = 1_000_000;

interface Syscalls {
  readonly syscall: unknown;
  readonly asyncSyscall: (op: string, args: string) => Promise<string>;
  readonly jsSyscall: unknown;
}

const deadline = new AsyncLocalStorage<number>();
let enforced = false;

/** Watch what every function asks of the database from now on; once is enough. */
export function enforceLimits(): void {
  if (enforced) return;
  enforced = true;
  const holder = globalThis as unknown as { Convex: Syscalls };
  const inner = holder.Convex;
  holder.Convex = {
    get syscall() {
      return inner.syscall;
    },
    get jsSyscall() {
      return inner.jsSyscall;
    },
    get asyncSyscall() {
      const call = inner.asyncSyscall;
      return async (op: string, args: string) => {
        checkTime();
        const result = await call(op, args);
        await checkWritten(op, args, call);
        return result;
      };
    },
  };
}

/**
 * Run a function that may compute for a second. Processor time is what counts, so that a busy machine
 * takes none away, and it is looked at whenever the function asks something of the database.
 */
export function withTimeLimit<Result>(run: () => Promise<Result>): Promise<Result> {
  return deadline.run(spent() + COMPUTE_MICROSECONDS, run);
}

function spent(): number {
  const { user, system } = process.cpuUsage();
  return user + system;
}

function checkTime(): void {
  if (spent() > (deadline.getStore() ?? Number.POSITIVE_INFINITY)) {
    throw new Error("Function execution timed out (maximum duration: 1s)");
  }
}

async function checkWritten(
  op: string,
  argsText: string,
  call: Syscalls["asyncSyscall"],
): Promise<void> {
  const args = JSON.parse(argsText);
  switch (op) {
    case "1.0/insert":
    case "1.0/replace":
      return checkDocument(args.value);
    case "1.0/shallowMerge": {
      const merged = await call("1.0/get", JSON.stringify({ table: args.table, id: args.id }));
      return checkDocument(JSON.parse(merged));
    }
    default:
      return undefined;
  }
}

function checkDocument(json: unknown): void {
  const document = jsonToConvex(json as never) as Record<string, Value>;
  checkFields(document);
  const size = getDocumentSize(document, {});
  if (size > DOCUMENT_BYTES) {
    const actual = (size / DOCUMENT_BYTES).toFixed(2);
    throw new Error(`Value is too large (${actual} MiB > maximum size 1 MiB)`);
  }
}

function checkFields(value: Value | undefined): void {
  if (Array.isArray(value)) return value.forEach(checkFields);
  if (typeof value !== "object" || value === null || value instanceof ArrayBuffer) return;
  const fields = Object.keys(value).length;
  if (fields > OBJECT_FIELDS) {
    throw new Error(`Object has too many fields (${fields} > maximum number ${OBJECT_FIELDS})`);
  }
  Object.values(value as Record<string, Value>).forEach(checkFields);
}
