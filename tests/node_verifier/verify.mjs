// Reads deliveries, a JSON object {secret, headers, body} a line, and says of each "ok <event id>"
// or "refused <why>". The body is a string, exactly as it came.
import { createInterface } from "node:readline";
import { Webhook } from "standardwebhooks";

for await (const line of createInterface({ input: process.stdin })) {
  const { secret, headers, body } = JSON.parse(line);
  try {
    const event = new Webhook(secret).verify(body, headers);
    console.log(`ok ${event.id}`);
  } catch (error) {
    console.log(`refused ${error.message}`);
  }
}
