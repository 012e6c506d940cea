// Written by hand in the shape of `npx convex codegen`, which replaces this file in a real project.
import type { ComponentApi } from "@convex-dev/migrations/_generated/component.js";

export declare const components: { migrations: ComponentApi<"migrations"> };
