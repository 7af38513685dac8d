// Scene 2: a purge of a live table, caches warmed and invalidated.

import { number } from "../stage.mjs";
import { CATEGORIES, KEPT_OF, PURGE_DAYS, SESSIONS } from "./seed.mjs";

const READ = 200;
const CHANGED = 10;
const KEPT = SESSIONS / KEPT_OF;

const EXPIRED = number(SESSIONS - KEPT);

export const title = `Maintenance: ${EXPIRED} expired sessions go while caches are warmed and invalidated`;
export const look = "rows that go in batches, and cache hits that turn into misses and hits again";

export async function play(stage) {
  await stage.visit("POST", "/sessions/cleanup", { days: PURGE_DAYS });
  await warmAndInvalidate(stage);
  let left = SESSIONS;
  await stage.until("the purge", 60, async () => {
    left = await count(stage.db);
    return { done: (await stage.daemon.finished("sessions.purge")) > 0, text: `sessions left: ${number(left)}` };
  });
  left = await count(stage.db);
  const expired = await count(stage.db, `where created_at < now() - interval '${PURGE_DAYS} days'`);
  const purged = SESSIONS - left;
  stage.expect(
    left === KEPT && expired === 0,
    `purged ${number(purged)} sessions, kept all ${number(left)} that are young`,
  );
  return { purged };
}

async function warmAndInvalidate(stage) {
  const categories = Array.from({ length: CATEGORIES }, (_, n) => n + 1);
  await stage.visit("POST", "/catalog/warm", { categories });
  await stage.untilFinished("catalog.warm", CATEGORIES, 30);
  const warm = await read(stage, ids(1, READ));
  stage.expect(warm.hits === READ, `after warming, ${warm.hits} of ${READ} products come from the cache`);

  const changed = ids(1, CHANGED);
  for (const id of changed) await stage.visit("PATCH", `/products/${id}`, { price_cents: 1 });
  await stage.untilFinished("cache.invalidate", CHANGED, 30);
  const stale = await read(stage, changed);
  stage.expect(
    stale.hits === 0 && stale.products.every((product) => product.price_cents === 1),
    `after ${CHANGED} prices changed, these ${CHANGED} miss and show the new price`,
  );
  const others = await read(stage, ids(CHANGED + 1, READ));
  const again = await read(stage, changed);
  stage.expect(
    others.hits === READ - CHANGED && again.hits === CHANGED,
    `the other ${others.hits} were never disturbed, and the ${again.hits} are hits again`,
  );
}

const ids = (from, to) => Array.from({ length: to - from + 1 }, (_, n) => from + n);

async function read(stage, ids) {
  const answers = [];
  for (const id of ids) answers.push(await stage.visit("GET", `/products/${id}`));
  const hits = answers.filter((answer) => answer.cache === "hit").length;
  stage.hits += hits;
  stage.misses += answers.length - hits;
  return { hits, products: answers.map((answer) => answer.json) };
}

async function count(db, where = "") {
  const { rows } = await db.query(`select count(*)::int as n from sessions ${where}`);
  return rows[0].n;
}
