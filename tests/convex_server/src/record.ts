// convex-test accepts anything where a validator says v.record; a deployment does not. This closes
// the gap for arguments: records of plain values, wherever objects and arrays lead to one.
import { FunctionFailure } from "./failure.ts";

type Json = null | boolean | number | string | Json[] | { [name: string]: Json };

interface ValidatorJson {
  type: string;
  value?: ValidatorJson | Record<string, FieldJson>;
  values?: FieldJson;
}

interface FieldJson {
  fieldType: ValidatorJson;
}

/** Refuse a record whose keys or values do not fit. Throws FunctionFailure. */
export function checkRecords(validator: ValidatorJson, value: unknown, path = ""): void {
  if (typeof value !== "object" || value === null) return;
  if (validator.type === "object") {
    const fields = validator.value as Record<string, FieldJson>;
    for (const [name, item] of Object.entries(value)) {
      const field = fields[name];
      if (field !== undefined) checkRecords(field.fieldType, item, `${path}.${name}`);
    }
  } else if (validator.type === "array" && Array.isArray(value)) {
    value.forEach((item, index) => {
      checkRecords(validator.value as ValidatorJson, item, `${path}[${index}]`);
    });
  } else if (validator.type === "record" && validator.values !== undefined) {
    checkRecord(validator.values.fieldType.type, value as Record<string, Json>, path);
  }
}

function checkRecord(wanted: string, record: Record<string, Json>, path: string): void {
  if (wanted !== "string" && wanted !== "number" && wanted !== "boolean") {
    throw new Error(`records of ${wanted} are not checked yet: extend record.ts`);
  }
  for (const [name, item] of Object.entries(record)) {
    if (!/^[ -~]+$/.test(name) || /^[$_]/.test(name)) {
      throw new FunctionFailure(
        `ArgumentValidationError: Field name ${JSON.stringify(name)} at ${path} is not allowed: ` +
          "printable ASCII that starts with neither $ nor _.",
      );
    }
    if (typeof item !== wanted) {
      throw new FunctionFailure(
        "ArgumentValidationError: Value does not match validator.\n" +
          `Path: ${path}.${name}\nValue: ${JSON.stringify(item)}\nValidator: v.${wanted}()`,
      );
    }
  }
}
