// Scene 4: a migration locks a table. Jobs that wait for it use up the pool, and the gate closes for what may wait. The
// shop, which reads the same health, serves what its cache has, even if it is old.

import { setTimeout as sleep } from "node:timers/promises";
import { CATEGORIES } from "./seed.mjs";

const RESOURCE = "postgres:primary";
const LOCKED_MS = 9000;
const TRAFFIC_EVERY_MS = 250;
const TRAFFIC = { critical: 1, low: 1, bulk: 2 };
const KINDS = { "order.confirm": "critical", "search.refresh": "low", "stats.rollup": "bulk" };
/** States in which the gate lets no job of a class run. */
const CLOSED = { bulk: ["overloaded", "critical"], low: ["critical"] };
/** A job claimed before the gate closed may still begin this much later. */
const CLAIMED_BEFORE_MS = 500;

/** A product whose price changes just before. */
const PRODUCT = 7;
/** What a visitor may wait for it at most. */
const PROMPT_MS = 1000;

const LOCKED_S = LOCKED_MS / 1000;

export const title = `Pressure: a migration locks a table for ${LOCKED_S} s; jobs that wait hold every connection`;
export const look = "low and bulk stop, critical goes on, the shop serves stale entries; afterwards all catch up";

export async function play(stage) {
  await outdate(stage, PRODUCT);
  const migration = migrate(stage);
  const served = { stale: 0, slowest: 0 };
  try {
    await migration.locked;
    // More than there are connections: those that got one wait for the lock, the others wait for a connection.
    const categories = Array.from({ length: CATEGORIES }, (_, n) => n + 1);
    await stage.visit("POST", "/catalog/warm", { categories });
    await holdUp(stage, migration, served);
  } finally {
    await migration.ended;
  }
  await recover(stage);
  check(stage);
  const visitors = `${served.stale} visitors got the product from the cache, the slowest within ${served.slowest} ms`;
  stage.expect(served.stale > 0 && served.slowest < PROMPT_MS, `while its table was locked, ${visitors}`);
  const { cache } = await stage.visit("GET", `/products/${PRODUCT}`);
  stage.expect(cache !== "stale", "now that all is well, it is not served stale any more");
}

/** Leaves an entry in the cache that is not valid any more. */
async function outdate(stage, id) {
  await stage.visit("GET", `/products/${id}`);
  await stage.visit("PATCH", `/products/${id}`, { price_cents: 777 });
  await stage.untilFinished("cache.invalidate", stage.shop.enqueued["cache.invalidate"], 30);
}

/** A real one: ALTER TABLE in a transaction that does not end at once. */
function migrate({ newClient, screen }) {
  let tellLocked;
  const state = { running: true, locked: new Promise((resolve) => (tellLocked = resolve)) };
  const run = async () => {
    const client = newClient();
    await client.connect();
    try {
      await client.query("begin; alter table products add column weight_grams int");
      tellLocked();
      await sleep(LOCKED_MS);
      await client.query("commit");
    } finally {
      state.running = false;
      tellLocked();
      await client.end();
    }
    screen.note("the migration is through; the lock is gone");
  };
  state.ended = run();
  return state;
}

/** Visitors keep coming while the table is locked. */
async function holdUp(stage, migration, served) {
  let next = Date.now();
  await stage.until("the end of the migration", 30, async () => {
    if (Date.now() >= next) {
      next = Date.now() + TRAFFIC_EVERY_MS;
      await stage.visit("POST", "/traffic", TRAFFIC);
      await visitProduct(stage, served);
    }
    return { done: !migration.running, text: await told(stage) };
  });
}

/** A visitor wants the product. As long as the database fares well, the shop would ask that, which takes as long as the lock. */
async function visitProduct(stage, served) {
  if (!(await stage.shop.pressure.isHigh(RESOURCE))) return;
  const begun = Date.now();
  const { cache } = await stage.visit("GET", `/products/${PRODUCT}`);
  if (cache !== "stale") return;
  served.stale += 1;
  served.slowest = Math.max(served.slowest, Date.now() - begun);
}

async function recover(stage) {
  await stage.until("the gate to open and all jobs to be done", 60, async () => {
    const counts = await stage.daemon.counts();
    const all = [...Object.keys(KINDS), "catalog.warm"];
    const finished = all.every((kind) => (counts[kind]?.done ?? 0) >= stage.shop.enqueued[kind]);
    const { state } = await stage.daemon.health(RESOURCE);
    return { done: finished && state === "ok", text: await told(stage) };
  });
}

async function told(stage) {
  const { state, worst } = await stage.daemon.health(RESOURCE);
  const classes = Object.entries(KINDS).map(([kind, name]) => {
    const done = stage.shop.carriedOut.filter((job) => job.kind === kind).length;
    return `${name} ${done}/${stage.shop.enqueued[kind] ?? 0}`;
  });
  const wait = worst?.value == null ? "" : ` (${worst.name} ${Math.round(worst.value)})`;
  return `${state}${wait}; done: ${classes.join("  ")}`;
}

function check(stage) {
  const begun = (name, [from, to]) => {
    const isIn = (job) => KINDS[job.kind] === name && job.at > from + CLAIMED_BEFORE_MS && job.at < to;
    return stage.shop.carriedOut.filter(isIn).length;
  };
  const changes = stage.daemon.eventsOf("gate", RESOURCE);
  for (const name of ["low", "bulk"]) {
    const spans = closedSpans(changes, CLOSED[name]);
    const seconds = spans.reduce((sum, [from, to]) => sum + (to - from) / 1000, 0);
    const during = spans.reduce((sum, span) => sum + begun(name, span), 0);
    stage.expect(
      spans.length > 0 && during === 0,
      `the gate was closed for ${name} for ${seconds.toFixed(1)} s, and none began in that time`,
    );
  }
  const closed = closedSpans(changes, CLOSED.bulk);
  const critical = closed.reduce((sum, span) => sum + begun("critical", span), 0);
  stage.expect(critical > 0, `meanwhile ${critical} critical jobs were carried out`);
  const lost = Object.keys(KINDS).filter(
    (kind) => stage.shop.carriedOut.filter((job) => job.kind === kind).length !== stage.shop.enqueued[kind],
  );
  stage.expect(lost.length === 0, "afterwards all jobs that were held back were done, each once");
}

/** From when to when the gate was in one of `states`. */
function closedSpans(changes, states) {
  const spans = [];
  for (const { at, from, to } of changes) {
    if (states.includes(to) && !states.includes(from)) spans.push([at, Infinity]);
    if (states.includes(from) && !states.includes(to) && spans.length > 0) spans.at(-1)[1] = at;
  }
  return spans;
}
