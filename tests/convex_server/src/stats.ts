// What the server has seen, by function path.
export interface Tally {
  received: number; // requests that reached the function API
  succeeded: number; // ran and, if a mutation, committed, whether or not the reply arrived
  failed: number; // the function, its arguments or its name were refused
  faulted: number; // struck by an injected fault
}

export class Stats {
  /** Without a prototype: the keys come from callers. */
  readonly paths: Record<string, Tally> = Object.create(null);
  open = 0;
  peakOpen = 0;

  enter(path: string): Tally {
    this.open += 1;
    this.peakOpen = Math.max(this.peakOpen, this.open);
    const tally = (this.paths[path] ??= { received: 0, succeeded: 0, failed: 0, faulted: 0 });
    tally.received += 1;
    return tally;
  }

  leave(): void {
    this.open -= 1;
  }

  /** Forget what is past; requests still open stay counted as open. */
  reset(): void {
    for (const path of Object.keys(this.paths)) delete this.paths[path];
    this.peakOpen = this.open;
  }
}
