// Every function module of convex/. convex-test finds their root by the key that holds `_generated`.
export const modules: Record<string, () => Promise<Record<string, unknown>>> = {
  "./_generated/server.js": () => import("../../../convex/_generated/server.js"),
  "./jobs.ts": () => import("../../../convex/jobs"),
  "./video.ts": () => import("../../../convex/video"),
  "./webhooks.ts": () => import("../../../convex/webhooks"),
};
