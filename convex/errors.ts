// Production hides an error's message; a ConvexError's data reaches the caller all the same.
import { ConvexError } from "convex/values";

export type ErrorCode =
  | "INVALID_ARGUMENT"
  | "VIDEO_NOT_FOUND"
  | "UNKNOWN_MIGRATION"
  | "OUT_OF_ORDER"
  | "NOT_APPLIED"
  | "CONFIRMED"
  | "UNKNOWN_TABLE";

export function refuse(code: ErrorCode, message: string): never {
  throw new ConvexError({ code, message });
}

export function requireName(field: string, value: string): void {
  if (value === "") refuse("INVALID_ARGUMENT", `${field} must not be empty`);
}

/** Sequences and revisions count from 1. */
export function requireCount(field: string, value: number): void {
  if (!Number.isSafeInteger(value) || value < 1) {
    refuse("INVALID_ARGUMENT", `${field} must be a whole number of at least 1, not ${value}`);
  }
}

export function requirePageSize(size: number, field = "numItems"): void {
  if (!Number.isSafeInteger(size) || size < 1 || size > 500) {
    refuse("INVALID_ARGUMENT", `${field} must be a whole number from 1 to 500, not ${size}`);
  }
}
