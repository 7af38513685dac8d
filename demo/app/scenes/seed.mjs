// Before the curtain: the shop's database.

import { number } from "../stage.mjs";

export const SESSIONS = 300_000;
/** One in this many sessions is younger than the purge's limit. */
export const KEPT_OF = 5;
export const PURGE_DAYS = 30;
export const CATEGORIES = 20;
export const PRODUCTS = 2_000;

export async function play({ db, screen }) {
  const begun = Date.now();
  await db.query(`
    create table sessions (
      id bigint not null, user_id bigint not null, created_at timestamptz not null, data text not null
    );
    insert into sessions
      select n, n % 9973, now() - make_interval(days => case when n % ${KEPT_OF} = 0 then 1 else 60 end, secs => n),
             repeat(md5(n::text), 3)
      from generate_series(1, ${SESSIONS}) n;
    create unique index on sessions (created_at, id);
    create table products (id int primary key, category_id int not null, name text not null, price_cents int not null);
    insert into products
      select n, 1 + n % ${CATEGORIES}, 'product ' || n, 100 + n from generate_series(1, ${PRODUCTS}) n;
    create index on products (category_id);
    create table ledger (job_id text primary key, kind text not null, n int not null);
    analyze;
  `);
  const took = ((Date.now() - begun) / 1000).toFixed(1);
  screen.print(`   The shop's database: ${number(SESSIONS)} sessions, ${number(PRODUCTS)} products (${took} s).`);
}
