// Watches the daemon from outside, as an operator would: its log, its metrics, its health.

import { open } from "node:fs/promises";

/** Metrics of jobs, as the summary calls them. */
const COUNTERS = {
  tidegate_jobs_enqueued_total: "enqueued",
  tidegate_jobs_completed_total: "done",
  tidegate_jobs_retried_total: "retried",
  tidegate_jobs_dead_total: "dead",
};
const READ_SIZE = 256 * 1024;
/** Events of the log that people want to see. */
const NOTABLE = new Set(["gate", "breaker", "job_dead", "job_quarantined", "lease_lost", "redis_lost", "panic"]);

export class Daemon {
  /** Every notable event so far, each with `at`, ms since the epoch. */
  events = [];
  #log;
  #offset = 0;
  #rest = "";

  constructor(adminUrl) {
    this.adminUrl = adminUrl;
  }

  static async watch(adminUrl, logPath) {
    const daemon = new Daemon(adminUrl);
    daemon.#log = await open(logPath);
    return daemon;
  }

  /** Reads what was logged since the last call; answers with what is notable in it. */
  async news() {
    const buffer = Buffer.alloc(READ_SIZE);
    const { bytesRead } = await this.#log.read(buffer, 0, READ_SIZE, this.#offset);
    this.#offset += bytesRead;
    const lines = (this.#rest + buffer.toString("utf8", 0, bytesRead)).split("\n");
    this.#rest = lines.pop();
    const found = lines.map(parsed).filter((event) => event && isNotable(event));
    this.events.push(...found);
    return found;
  }

  /** Events of one name, of one resource if it is given. */
  eventsOf(name, resource) {
    return this.events.filter((event) => event.event === name && (!resource || event.resource === resource));
  }

  /** What was counted: kind → {enqueued, done, retried, dead}. */
  async counts() {
    const counts = {};
    const text = await (await fetch(`${this.adminUrl}/metrics`)).text();
    for (const [, metric, kind, value] of text.matchAll(/^(\w+)\{[^}]*kind="([^"]+)"[^}]*\} (\d+)$/gm)) {
      const name = COUNTERS[metric];
      if (!name) continue;
      counts[kind] ??= { enqueued: 0, done: 0, retried: 0, dead: 0 };
      counts[kind][name] += Number(value);
    }
    return counts;
  }

  /** How many jobs of a kind came to their end, in whatever way. */
  async finished(kind) {
    const { done = 0, dead = 0 } = (await this.counts())[kind] ?? {};
    return done + dead;
  }

  /** State and worst signal of one resource. */
  async health(resource) {
    const health = await (await fetch(`${this.adminUrl}/health`)).json();
    return health.resources[resource];
  }

  async close() {
    await this.#log.close();
  }
}

function parsed(line) {
  try {
    const event = JSON.parse(line);
    return { ...event, at: Date.parse(event.timestamp) };
  } catch {
    return null;
  }
}

// How busy this machine is gates none of the demo's jobs.
function isNotable(event) {
  return NOTABLE.has(event.event) && event.resource !== "host";
}
