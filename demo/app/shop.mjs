// The web app: a small shop on Fastify. Its visitors' requests enqueue jobs; Tidegate posts them back to /jobs/….

import Fastify from "fastify";
import { setTimeout as sleep } from "node:timers/promises";
import * as cache from "./cache.mjs";
import { enqueue } from "./inbox.mjs";
import { Pressure } from "./pressure.mjs";
import { isSigned } from "./signature.mjs";

const PRIORITIES = ["critical", "high", "normal", "low", "bulk"];
/** How long packing a parcel takes. */
const PACKING_MS = 50;
/** The shop's database, as definitions and health call it. */
const DATABASE = "postgres:primary";

/** Builds the app. `redis` is an ioredis client, `db` a pool of node-postgres, `secret` is shared with Tidegate. */
export function buildShop({ redis, db, secret }) {
  // Tidegate keeps connections open for the next job; without this, closing would wait for it to let go of them.
  const app = Fastify({ logger: false, forceCloseConnections: true });
  const shop = {
    app,
    /** Jobs enqueued, by kind. */
    enqueued: {},
    /** Jobs carried out, in order: {kind, id, args, attempt, at}. */
    carriedOut: [],
    /** Requests to /jobs/… that were turned away, by status. */
    refused: {},
    /** The mail service answers 503 until then, ms since the epoch. */
    mailDownUntil: 0,
    /** How Redis and Postgres fare. */
    pressure: new Pressure(redis),
    /** Remembers how many jobs were sent on their way. */
    count(kind, jobs) {
      this.enqueued[kind] = (this.enqueued[kind] ?? 0) + jobs;
    },
    async send(jobs) {
      for (const { kind } of jobs) this.count(kind, 1);
      await enqueue(redis, jobs);
    },
  };
  keepRawBodies(app);
  visitorRoutes(app, { shop, redis, db });
  jobRoutes(app, { shop, db, secret });
  return shop;
}

/** The signature is over the body as it came. */
function keepRawBodies(app) {
  app.addContentTypeParser("application/json", { parseAs: "buffer" }, (request, body, done) => {
    request.rawBody = body;
    try {
      done(null, JSON.parse(body));
    } catch (error) {
      error.statusCode = 400;
      done(error);
    }
  });
}

function visitorRoutes(app, { shop, redis, db }) {
  // Parcels for each priority, the least urgent first: they come out in another order.
  app.post("/parcels", async (request) => {
    const jobs = [...PRIORITIES].reverse().flatMap((priority) =>
      Array.from({ length: request.body.each }, (_, n) => ({
        kind: "parcel.pack",
        priority,
        args: { parcel: n + 1, priority },
      })),
    );
    await shop.send(jobs);
    return { enqueued: jobs.length };
  });

  app.post("/receipts", async (request) => {
    const parcels = Array.from({ length: request.body.count }, (_, n) => n + 1);
    const jobs = parcels.map((parcel) => ({ kind: "receipt.hash", args: { parcel } }));
    await shop.send(jobs);
    return { enqueued: jobs.length };
  });

  app.post("/sessions/cleanup", async (request) => {
    await shop.send([{ kind: "sessions.purge", args: { days: request.body.days } }]);
    return { enqueued: 1 };
  });

  app.post("/catalog/warm", async (request) => {
    const jobs = request.body.categories.map((category) => ({ kind: "catalog.warm", args: { category } }));
    await shop.send(jobs);
    return { enqueued: jobs.length };
  });

  app.get("/products/:id", async (request, reply) => {
    const key = `product:${request.params.id}`;
    const cached = await cache.read(redis, key);
    // While the database has more than enough to do, an old price is better than one more query that waits.
    if (cached && (cached.isValid || (await shop.pressure.isHigh(DATABASE)))) {
      const found = cached.isValid ? "hit" : "stale";
      return reply.header("x-cache", found).type("application/json").send(cached.payload);
    }
    const stamp = await cache.stamp(redis);
    const { rows } = await db.query("select id, category_id, name, price_cents from products where id = $1", [
      request.params.id,
    ]);
    if (rows.length === 0) return reply.code(404).send({ error: "not_found" });
    const payload = JSON.stringify(rows[0]);
    await cache.write(redis, key, payload, [key, `category:${rows[0].category_id}`], stamp);
    return reply.header("x-cache", "miss").type("application/json").send(payload);
  });

  app.patch("/products/:id", async (request) => {
    const { id } = request.params;
    // By way of the outbox: the new price and the job that tells the caches are one transaction.
    const { rowCount } = await db.query(
      `with changed as (update products set price_cents = $2 where id = $1 returning id)
       insert into tidegate.outbox (kind, args)
         select 'cache.invalidate', jsonb_build_object('tags', jsonb_build_array('product:' || id)) from changed`,
      [id, request.body.price_cents],
    );
    shop.count("cache.invalidate", rowCount);
    return { enqueued: rowCount };
  });

  app.post("/mails", async (request) => {
    await shop.send(request.body.to.map((to) => ({ kind: "mail.send", args: { to } })));
    return { enqueued: request.body.to.length };
  });

  // What goes on in a shop all day: one kind that must not wait and two that may.
  app.post("/traffic", async (request) => {
    const { critical = 0, low = 0, bulk = 0 } = request.body;
    const counts = { "order.confirm": critical, "search.refresh": low, "stats.rollup": bulk };
    const jobs = Object.entries(counts).flatMap(([kind, count]) =>
      Array.from({ length: count }, (_, n) => ({ kind, args: { n: n + 1 } })),
    );
    await shop.send(jobs);
    return { enqueued: jobs.length };
  });
}

function jobRoutes(app, { shop, db, secret }) {
  const refuse = (reply, status, error) => {
    shop.refused[status] = (shop.refused[status] ?? 0) + 1;
    return reply.code(status).send({ error });
  };

  const job = (kind, work) =>
    app.post(`/jobs/${kind}`, async (request, reply) => {
      if (!isSigned(request.headers["tidegate-signature"], request.rawBody ?? "", secret)) {
        return refuse(reply, 401, "not signed by our Tidegate");
      }
      const at = Date.now();
      const { id, args, attempt } = request.body;
      const trouble = await work(args, id);
      if (trouble) return refuse(reply, trouble.status, trouble.error);
      shop.carriedOut.push({ kind, id, args, attempt, at });
      return { ok: true };
    });

  job("parcel.pack", () => sleep(PACKING_MS).then(() => null));

  // Nobody enqueues it: its definition has a schedule.
  job("stock.count", async () => null);

  job("mail.send", async ({ to }) => {
    if (Date.now() < shop.mailDownUntil) return { status: 503, error: "the mail service is down" };
    if (!to.includes("@")) return { status: 422, error: `${to} is no address` };
    return null;
  });

  // The job's id is the key: a job that is run twice, as may happen after a crash, is written once.
  const write = (kind) =>
    job(kind, async ({ n }, id) => {
      await db.query("insert into ledger (job_id, kind, n) values ($1, $2, $3) on conflict do nothing", [id, kind, n]);
      return null;
    });
  ["order.confirm", "search.refresh", "stats.rollup"].forEach(write);
}
