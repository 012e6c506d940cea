// HTTP in terms of Convex: an error that is not a function's own is `{code, message}`.
import type { IncomingMessage, ServerResponse } from "node:http";

const BODY_LIMIT_BYTES = 32 * 1024 * 1024;

/** A refusal of the request itself, before any function runs. */
export class HttpFailure extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    message: string,
    readonly headers: Record<string, string> = {},
  ) {
    super(message);
  }
}

export async function readJson(request: IncomingMessage): Promise<Record<string, unknown>> {
  const type = (request.headers["content-type"] ?? "").split(";")[0]?.trim().toLowerCase() ?? "";
  if (!/^application\/(?:[^/]+\+)?json$/.test(type)) {
    const wanted = "Expected request with `Content-Type: application/json`";
    throw new HttpFailure(400, "BadJsonBody", wanted);
  }
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    size += chunk.length;
    if (size > BODY_LIMIT_BYTES) throw new HttpFailure(413, "BodyTooLarge", "length limit exceeded");
    chunks.push(chunk);
  }
  let json: unknown;
  try {
    json = JSON.parse(Buffer.concat(chunks).toString("utf8"));
  } catch (error) {
    throw new HttpFailure(400, "BadJsonBody", `Failed to parse the request body as JSON: ${error}`);
  }
  if (typeof json !== "object" || json === null || Array.isArray(json)) {
    throw new HttpFailure(400, "BadJsonBody", "Failed to deserialize the JSON body: not an object");
  }
  return json as Record<string, unknown>;
}

export function send(
  response: ServerResponse,
  status: number,
  body: string,
  headers: Record<string, string> = {},
): void {
  const length = String(Buffer.byteLength(body));
  response.writeHead(status, {
    "content-type": "application/json",
    "content-length": length,
    ...headers,
  });
  response.end(body);
}

export function sendFailure(response: ServerResponse, failure: HttpFailure): void {
  const body = JSON.stringify({ code: failure.code, message: failure.message });
  send(response, failure.status, body, failure.headers);
}
