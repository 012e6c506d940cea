// A deployment in memory: the functions of convex/ run by convex-test under the schema of convex/.
import { type TestConvex, convexTest } from "convex-test";
import { makeFunctionReference } from "convex/server";
import { type Value, jsonToConvex } from "convex/values";
import schema from "../../../convex/schema";
import { FunctionFailure, asFailure } from "./failure.ts";
import { enforceLimits, withTimeLimit } from "./limit.ts";
import { FifoLock } from "./lock.ts";
import { components, modules } from "./modules.ts";
import { checkRecords } from "./record.ts";

const LOADED_AT_ONCE = 5000;

export type FunctionKind = "query" | "mutation" | "action";

interface RegisteredFunction {
  isQuery?: boolean;
  isMutation?: boolean;
  isAction?: boolean;
  isInternal?: boolean;
  /** The argument validator, as JSON text. */
  exportArgs(): string;
}

export interface FunctionPath {
  module: string;
  name: string;
}

/** `a/b:c`, `a/b.js:c` or `a/b` (its default export); null for anything else. */
export function parsePath(text: string): FunctionPath | null {
  const parts = /^([A-Za-z0-9_./]+?)(?:\.js)?(?::([A-Za-z_][A-Za-z0-9_]*))?$/.exec(text);
  return parts?.[1] === undefined ? null : { module: parts[1], name: parts[2] ?? "default" };
}

export class Backend {
  #convex: TestConvex<typeof schema> = open();
  readonly #lock = new FifoLock();

  /** Forget every row. */
  reset(): Promise<void> {
    return this.#lock.run(async () => {
      this.#convex = open();
    });
  }

  /**
   * Run one function in one transaction. `admin` may call internal functions; for anyone else they
   * look as if they did not exist. Throws FunctionFailure; then nothing was written.
   */
  call(kind: FunctionKind, path: FunctionPath, json: unknown, admin: boolean): Promise<Value> {
    return this.#lock.run(async () => {
      const found = await this.#find(kind, path, admin);
      try {
        checkRecords(JSON.parse(found.exportArgs()), json);
        const args = jsonToConvex(json as never) as Record<string, Value>;
        return await withTimeLimit(() => this.#invoke(kind, path, args));
      } catch (error) {
        throw asFailure(error);
      }
    });
  }

  /** Insert rows as they are, as if they had always been there; false when there is no such table. */
  async load(table: string, rows: Record<string, Value>[]): Promise<boolean> {
    if (!Object.hasOwn(schema.tables, table)) return false;
    for (let start = 0; start < rows.length; start += LOADED_AT_ONCE) {
      const part = rows.slice(start, start + LOADED_AT_ONCE);
      await this.#lock.run(() =>
        this.#convex.run(async (ctx) => {
          for (const row of part) await ctx.db.insert(table as keyof typeof schema.tables, row as never);
        }),
      );
    }
    return true;
  }

  /** Every row of a table, in the order of creation. */
  dump(table: string): Promise<Value[] | null> {
    if (!Object.hasOwn(schema.tables, table)) return Promise.resolve(null);
    return this.#lock.run(() =>
      this.#convex.run((ctx) => ctx.db.query(table as keyof typeof schema.tables).collect()),
    ) as Promise<Value[]>;
  }

  async #find(
    kind: FunctionKind,
    path: FunctionPath,
    admin: boolean,
  ): Promise<RegisteredFunction> {
    const found = (await modules[`./${path.module}.ts`]?.())?.[path.name] as
      | RegisteredFunction
      | undefined;
    const defined = found && kindOf(found);
    if (!defined || (found.isInternal && !admin)) {
      const name = path.name === "default" ? path.module : `${path.module}:${path.name}`;
      throw new FunctionFailure(
        `Could not find public function for '${name}'. ` +
          "Did you forget to run `npx convex dev` or `npx convex deploy`?",
      );
    }
    if (defined !== kind) {
      throw new FunctionFailure(
        `Trying to execute ${path.module}.js:${path.name} as ${title(kind)}, ` +
          `but it is defined as ${title(defined)}.`,
      );
    }
    return found;
  }

  #invoke(kind: FunctionKind, path: FunctionPath, args: Record<string, Value>): Promise<Value> {
    const name = `${path.module}:${path.name}`;
    switch (kind) {
      case "query":
        return this.#convex.query(makeFunctionReference<"query">(name), args);
      case "mutation":
        return this.#convex.mutation(makeFunctionReference<"mutation">(name), args);
      case "action":
        return this.#convex.action(makeFunctionReference<"action">(name), args);
    }
  }
}

export function open(): TestConvex<typeof schema> {
  const opened = convexTest({ schema, modules, transactionLimits: true });
  for (const [name, component] of Object.entries(components)) {
    opened.registerComponent(name, component.schema, component.modules);
  }
  enforceLimits();
  return opened;
}

function kindOf(found: RegisteredFunction): FunctionKind | undefined {
  if (found.isQuery) return "query";
  if (found.isMutation) return "mutation";
  return found.isAction ? "action" : undefined;
}

function title(kind: FunctionKind): string {
  return kind.charAt(0).toUpperCase() + kind.slice(1);
}
