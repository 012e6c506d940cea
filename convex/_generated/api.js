// Written by hand in the shape of `npx convex codegen`, which replaces this file in a real project.
import { componentsGeneric } from "convex/server";

export const components = componentsGeneric();
