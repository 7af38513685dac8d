// How the systems behind the app fare, as Tidegate tells it: docs/GATE.md, "For apps".

const KEY = "tidegate:health";
/** Asked no more often than this, however many visitors there are. */
const FRESH_MS = 250;
const CALM = { state: "ok", pressure: 0 };

export class Pressure {
  #redis;
  #health = {};
  #readAt = 0;

  constructor(redis) {
    this.#redis = redis;
  }

  /** State and pressure of a resource. Nothing known of it is no reason to do anything otherwise. */
  async of(resource) {
    if (Date.now() - this.#readAt >= FRESH_MS) {
      this.#readAt = Date.now();
      this.#health = await this.#redis.get(KEY).then((text) => JSON.parse(text) ?? {}, () => ({}));
    }
    return this.#health.resources?.[resource] ?? CALM;
  }

  /** Whether it has more than enough to do: whoever can do without it should. */
  async isHigh(resource) {
    const { state } = await this.of(resource);
    return state === "overloaded" || state === "critical";
  }
}
