// Values as Convex's HTTP API writes them under `"format": "json"`.
import type { Value } from "convex/values";

/** JSON text: float64 always with a fraction or exponent, int64 and bytes as strings. */
export function encode(value: Value | undefined): string {
  if (value === undefined || value === null) return "null";
  switch (typeof value) {
    case "number":
      return encodeNumber(value);
    case "bigint":
      return `"${value}"`;
    case "string":
    case "boolean":
      return JSON.stringify(value);
  }
  if (value instanceof ArrayBuffer) return `"${Buffer.from(value).toString("base64")}"`;
  if (Array.isArray(value)) return `[${value.map(encode).join(",")}]`;
  const fields = Object.entries(value as Record<string, Value | undefined>)
    .filter(([, field]) => field !== undefined)
    .map(([name, field]) => `${JSON.stringify(name)}:${encode(field)}`);
  return `{${fields.join(",")}}`;
}

function encodeNumber(value: number): string {
  if (!Number.isFinite(value)) return JSON.stringify(String(value));
  if (Object.is(value, -0)) return "-0.0";
  const text = String(value);
  return /^-?\d+$/.test(text) ? `${text}.0` : text;
}
