import { ConvexError, type Value } from "convex/values";

/** What went wrong inside a function: Convex answers it with HTTP 200. */
export class FunctionFailure extends Error {
  constructor(
    message: string,
    readonly data?: Value,
  ) {
    super(message);
  }
}

/** What convex-test threw, in the words of a deployment. */
export function asFailure(error: unknown): FunctionFailure {
  if (error instanceof FunctionFailure) return error;
  if (error instanceof ConvexError) {
    return new FunctionFailure(`Uncaught ConvexError: ${error.message}`, error.data as Value);
  }
  if (!(error instanceof Error)) return new FunctionFailure(`Uncaught ${String(error)}`);
  const detail = error.message.replace(/^Validator error: /, "");
  // convex-test words a refused argument and a refused row alike; the stack tells them apart.
  if (error.stack?.includes("validateFunctionArgs")) {
    return new FunctionFailure(`ArgumentValidationError: ${detail}`);
  }
  if (detail !== error.message) {
    return new FunctionFailure(
      "Uncaught Error: Failed to insert or update a document because it does not match the schema: " +
        detail,
    );
  }
  return new FunctionFailure(`Uncaught ${error.name}: ${error.message}`);
}
