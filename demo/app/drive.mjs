// The demo: starts the shop, plays the scenes, checks what they were to prove, sums up.
//
//   tidegate dev --log FILE … -- node drive.mjs --log FILE --port PORT

import { Redis } from "ioredis";
import { parseArgs } from "node:util";
import pg from "pg";
import { Daemon } from "./daemon.mjs";
import * as databaseAndCache from "./scenes/database-and-cache.mjs";
import * as failingTarget from "./scenes/failing-target.mjs";
import * as priorities from "./scenes/priorities.mjs";
import * as seed from "./scenes/seed.mjs";
import * as slowDatabase from "./scenes/slow-database.mjs";
import { Screen } from "./screen.mjs";
import { buildShop } from "./shop.mjs";
import { Stage, number } from "./stage.mjs";

const SCENES = [priorities, databaseAndCache, failingTarget, slowDatabase];
/** Something hangs if it takes longer. */
const LONGEST_MS = 115_000;
const DB_CONNECTIONS = 5;
/** From tick to tick of the one definition that has a schedule. */
const SCHEDULE_MS = 5000;

async function main() {
  const { values: flags } = parseArgs({ options: { log: { type: "string" }, port: { type: "string" } } });
  const { REDIS_URL, DATABASE_URL, TIDEGATE_ADMIN_URL, TIDEGATE_SECRETS__WEBAPP } = process.env;
  const screen = new Screen();
  const redis = new Redis(REDIS_URL);
  const db = new pg.Pool({ connectionString: DATABASE_URL, max: DB_CONNECTIONS });
  const newClient = () => new pg.Client({ connectionString: DATABASE_URL });
  const shop = buildShop({ redis, db, secret: TIDEGATE_SECRETS__WEBAPP });
  const shopUrl = await shop.app.listen({ host: "127.0.0.1", port: Number(flags.port) });
  const daemon = await Daemon.watch(TIDEGATE_ADMIN_URL, flags.log);
  const stage = new Stage({ shop, shopUrl, daemon, db, newClient, screen });

  screen.print("Tidegate runs the jobs of a small shop: four scenes, under a minute.");
  screen.print(`   Everything is private and goes away afterwards. The daemon's log: ${flags.log}`);
  try {
    await seed.play(stage);
    for (const [index, scene] of SCENES.entries()) {
      screen.scene(index + 1, scene.title, scene.look);
      Object.assign(stage, await scene.play(stage));
    }
    await sumUp(stage);
  } finally {
    await shop.app.close();
    await Promise.all([db.end(), daemon.close()]);
    redis.disconnect();
  }
  verdict(stage);
}

async function sumUp(stage) {
  const { screen, shop, daemon } = stage;
  const counts = await daemon.counts();
  screen.print();
  screen.print(screen.paint("cyan", "Summary"));
  const rows = Object.keys(shop.enqueued).map((kind) => {
    const { enqueued, done, retried, dead } = counts[kind];
    return [kind, enqueued, done, retried, dead];
  });
  const total = [1, 2, 3, 4].map((column) => rows.reduce((sum, row) => sum + row[column], 0));
  screen.table(["kind", "enqueued", "done", "retried", "dead"], [...rows, ["all", ...total]]);
  screen.print();
  screen.note(`purged rows  ${number(stage.purged)}`);
  screen.note(`cache reads  ${stage.hits} hits, ${stage.misses} misses`);
  checkSchedule(stage);
  const changes = [...daemon.eventsOf("gate"), ...daemon.eventsOf("breaker")];
  changes.sort((a, b) => a.at - b.at).forEach((event) => screen.event(event));
  const pushed = Object.values(shop.enqueued).reduce((sum, n) => sum + n, 0);
  const [enqueued, done, , dead] = total;
  const isWhole = enqueued === pushed && done + dead === pushed;
  stage.expect(isWhole, `${pushed} jobs pushed, ${done} done, ${dead} dead, none lost`);
}

/** The job that runs by itself: the id says which tick it is of. */
function checkSchedule(stage) {
  const runs = stage.shop.carriedOut.filter((job) => job.kind === "stock.count");
  const ticks = runs.map((job) => Number(job.id.split("-").at(-1)) / SCHEDULE_MS);
  const [first, last] = [Math.min(...ticks), Math.max(...ticks)];
  const isWhole = new Set(ticks).size === runs.length && last - first + 1 === runs.length;
  const every = `every ${SCHEDULE_MS / 1000} s`;
  stage.expect(isWhole, `stock.count ran by itself ${every}, as its schedule says: ${runs.length} ticks, one job each`);
}

function verdict({ screen, failures }) {
  screen.print();
  const took = `${screen.seconds().toFixed(0)} s`;
  if (failures.length === 0) {
    screen.print(screen.paint("green", `All as it should be, in ${took}.`));
    return;
  }
  screen.print(screen.paint("red", `${failures.length} expectations were not met, in ${took}.`));
  process.exitCode = 1;
}

// Does not keep a finished demo waiting.
setTimeout(() => {
  console.error(`The demo takes longer than ${LONGEST_MS / 1000} s: given up.`);
  process.exit(1);
}, LONGEST_MS).unref();

main().catch((error) => {
  console.error(`\nThe demo failed: ${error.stack}`);
  process.exit(1);
});
