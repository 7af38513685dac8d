// What every scene is given: the shop's visitors, waiting with a live line, and expectations that are checked.

import { setTimeout as sleep } from "node:timers/promises";

const TICK_MS = 150;

export class Stage {
  /** Expectations that were not met. */
  failures = [];
  /** Reads of products, by what the cache had. */
  hits = 0;
  misses = 0;

  constructor({ shop, shopUrl, daemon, db, newClient, screen }) {
    Object.assign(this, { shop, shopUrl, daemon, db, newClient, screen });
  }

  /** A visitor's request to the shop. */
  async visit(method, path, body) {
    const response = await fetch(this.shopUrl + path, {
      method,
      headers: body ? { "content-type": "application/json" } : {},
      body: body && JSON.stringify(body),
    });
    if (!response.ok) throw new Error(`${method} ${path}: status ${response.status}: ${await response.text()}`);
    return { json: await response.json(), cache: response.headers.get("x-cache") };
  }

  /** Shows `look()` = {done, text} until it is done; fails the demo when that takes longer than `seconds`. */
  async until(what, seconds, look) {
    const deadline = Date.now() + seconds * 1000;
    for (;;) {
      const { done, text } = await look();
      for (const event of await this.daemon.news()) this.screen.event(event);
      if (done) return;
      if (Date.now() > deadline) throw new Error(`not within ${seconds} s: ${what} (${text})`);
      this.screen.live(text);
      await sleep(TICK_MS);
    }
  }

  /** Waits until so many jobs of a kind are done or dead, in all. */
  async untilFinished(kind, count, seconds) {
    await this.until(`${count} × ${kind}`, seconds, async () => {
      const finished = await this.daemon.finished(kind);
      return { done: finished >= count, text: `${kind}: ${finished} of ${count}` };
    });
  }

  /** Checks and shows what the scene was to prove. */
  expect(isMet, text) {
    this.screen.result(isMet, text);
    if (!isMet) this.failures.push(text);
  }
}

/** 12,345 */
export const number = (n) => n.toLocaleString("en-US");
