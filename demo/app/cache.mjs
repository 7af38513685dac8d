// Reads and writes cache entries by the rules of docs/CACHE.md, which say why each step is there.

const REGION = "shop";
const TTL_MS = 600_000;

const log = (part) => `tidegate:${part}:{${REGION}}`;
const entryKey = (key) => `c:${REGION}:${key}`;

/** An entry: {payload, isValid}. One that is not valid any more is for who would rather have that than wait; null is none. */
export async function read(redis, key) {
  const entry = await redis.get(entryKey(key));
  const end = entry?.indexOf("\n") ?? -1;
  if (end < 0) return null;
  const head = headOf(entry.slice(0, end));
  if (!head) return null;
  const [[lost, scores], [, counters]] = await redis
    .multi()
    .zmscore(log("inv"), "!", "*", `k:${key}`, ...head.tags)
    .mget(log("seq"), log("floor"), log("epoch"))
    .exec();
  const isKnown = !lost && scores[0] && isCovered(head, counters);
  const isValid = isKnown && scores.slice(1).every((score) => Number(score ?? 0) <= head.s);
  return { payload: entry.slice(end + 1), isValid };
}

/** Whether the log of invalidations reaches back to when the entry was made. */
function isCovered(head, [seq, floor, epoch]) {
  return seq && floor && epoch === head.e && head.s >= Number(floor) && head.s <= Number(seq);
}

function headOf(line) {
  try {
    const head = JSON.parse(line);
    return head.v === 1 && head.enc === "plain" ? head : null;
  } catch {
    return null;
  }
}

/** How the invalidations stand: to be taken before the source is read. Null: store nothing. */
export async function stamp(redis) {
  const [seq, epoch] = await redis.mget(log("seq"), log("epoch"));
  return seq && epoch ? { s: Number(seq), e: epoch } : null;
}

/** Stores what was read after `stamp` was taken. */
export async function write(redis, key, payload, tags, stamp) {
  if (!stamp) return;
  const head = { v: 1, ...stamp, created: Date.now(), base_ttl: TTL_MS, grace: 0, delta: 0, tags, enc: "plain" };
  const ttl = Math.round(TTL_MS * (0.9 + 0.2 * Math.random()));
  await redis.set(entryKey(key), `${JSON.stringify(head)}\n${payload}`, "PX", ttl);
}
