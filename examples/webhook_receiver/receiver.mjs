// A webhook receiver: verifies, handles each event once, answers at once.
//
//     WEBHOOK_SECRET=whsec_… node receiver.mjs --port 9000 --memory seen.log
//
// Statuses: 204 the event is kept (or was before), 401 the signature is not right, 400 no event.
import { createHmac, timingSafeEqual } from "node:crypto";
import { closeSync, existsSync, fsyncSync, openSync, readFileSync, writeSync } from "node:fs";
import { createServer } from "node:http";
import { parseArgs } from "node:util";

const TOLERANCE_SECONDS = 300;
const MAX_BODY_BYTES = 1024 * 1024;

export class Receiver {
  // `secrets` are separated by spaces: any of them may have signed. `memory` is the file that
  // remembers what came, an id a line.
  constructor(secrets, memory) {
    const given = secrets.split(/\s+/).filter(Boolean);
    if (given.length === 0) throw new Error("WEBHOOK_SECRET is not set");
    this.keys = given.map((secret) => Buffer.from(secret.replace(/^whsec_/, ""), "base64"));
    const lines = existsSync(memory) ? readFileSync(memory, "utf8").split("\n") : [];
    // The last line is whole only when a line break follows it: a crash may have cut it.
    this.seen = new Set(lines.slice(0, -1));
    this.file = openSync(memory, "a");
    if (lines.at(-1)) writeSync(this.file, "\n");
  }

  // The status to answer a delivery with; `body` is a Buffer, as it came.
  receive(headers, body) {
    if (!this.#isSigned(headers, body)) return 401;
    let event;
    try {
      event = JSON.parse(body.toString("utf8"));
    } catch {
      return 400;
    }
    if (typeof event?.id !== "string") return 400;
    if (!this.seen.has(event.id)) {
      // Handled before it is remembered: a crash in between handles it twice, never not at all.
      // With a database, do both in one transaction instead.
      handle(event);
      writeSync(this.file, `${event.id}\n`);
      fsyncSync(this.file);
      this.seen.add(event.id);
    }
    return 204;
  }

  close() {
    closeSync(this.file);
  }

  #isSigned(headers, body) {
    const id = headers["webhook-id"] ?? "";
    const timestamp = headers["webhook-timestamp"] ?? "";
    // Without this, whoever records a delivery could send it for ever.
    if (!/^\d{1,15}$/.test(timestamp)) return false;
    if (Math.abs(Date.now() / 1000 - Number(timestamp)) > TOLERANCE_SECONDS) return false;
    const given = (headers["webhook-signature"] ?? "").split(" ").map((each) => Buffer.from(each));
    return this.keys.some((key) => {
      const digest = createHmac("sha256", key).update(`${id}.${timestamp}.`).update(body).digest("base64");
      const expected = Buffer.from(`v1,${digest}`);
      return given.some((each) => each.length === expected.length && timingSafeEqual(each, expected));
    });
  }
}

// What your system does with an event. Keep it short: the gateway waits for the answer.
function handle(event) {
  const { job_id, status } = event.data;
  console.log(`${event.type} ${job_id} #${event.sequence} ${status}`);
}

const { values } = parseArgs({
  options: {
    port: { type: "string", default: "9000" },
    memory: { type: "string", default: "seen.log" },
  },
});
const receiver = new Receiver(process.env.WEBHOOK_SECRET ?? "", values.memory);
const server = createServer(async (request, response) => {
  const chunks = [];
  let size = 0;
  for await (const chunk of request) {
    size += chunk.length;
    if (size > MAX_BODY_BYTES) {
      response.writeHead(413, { connection: "close" }).end();
      return;
    }
    chunks.push(chunk);
  }
  response.writeHead(receiver.receive(request.headers, Buffer.concat(chunks))).end();
});
server.listen(Number(values.port), "127.0.0.1", () => {
  console.log(`listening on http://127.0.0.1:${server.address().port}`);
});
