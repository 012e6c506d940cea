// node dist/contract.js: what convex/ offers, as the JSON that `gateway migrate check` compares with.
import { describe } from "../../../convex/migrations/inspect";

const { schema, functions } = describe();
const contract = {
  schema: JSON.parse(schema),
  functions: functions.map(({ path, kind, args, returns }) => ({
    path,
    kind,
    args: JSON.parse(args),
    returns: JSON.parse(returns),
  })),
};
process.stdout.write(`${JSON.stringify(contract, null, 1)}\n`);
