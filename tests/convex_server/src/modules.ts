// Every function module of convex/ and of its components. convex-test finds a root by the key that
// holds `_generated`.
import componentSchema from "../node_modules/@convex-dev/migrations/dist/component/schema.js";

type Modules = Record<string, () => Promise<Record<string, unknown>>>;

export const modules: Modules = {
  "./_generated/server.js": () => import("../../../convex/_generated/server.js"),
  "./jobs.ts": () => import("../../../convex/jobs"),
  "./migrations/control.ts": () => import("../../../convex/migrations/control"),
  "./migrations/inspect.ts": () => import("../../../convex/migrations/inspect"),
  "./migrations/v1_result_urls.ts": () => import("../../../convex/migrations/v1_result_urls"),
  "./migrations/v2_error_counts.ts": () => import("../../../convex/migrations/v2_error_counts"),
  "./migrations/v3_video_status.ts": () => import("../../../convex/migrations/v3_video_status"),
  "./video.ts": () => import("../../../convex/video"),
  "./webhooks.ts": () => import("../../../convex/webhooks"),
};

/** The components that convex/convex.config.ts uses, by the name they have there. */
export const components = {
  migrations: {
    schema: componentSchema,
    modules: {
      "./_generated/api.js": () =>
        import("../node_modules/@convex-dev/migrations/dist/component/_generated/api.js"),
      "./lib.js": () => import("../node_modules/@convex-dev/migrations/dist/component/lib.js"),
    } as Modules,
  },
};
