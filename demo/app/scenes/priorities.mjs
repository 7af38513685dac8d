// Scene 1: jobs of every priority in one push, the least urgent first; and some that run a command.

const EACH = 40;
const RECEIPTS = 20;
const ORDER = ["critical", "high", "normal", "low", "bulk"];
/** Four parcels are packed at once, so neighbours may arrive in another order than they were begun. */
const SLACK = 8;
/** The order is shown with a letter for every so many parcels. */
const LETTER_FOR = 4;

export const title = "Priorities: 200 parcels in one RPUSH, the least urgent first; four packers";
export const look = "the order in which they are packed";

export async function play(stage) {
  await stage.visit("POST", "/parcels", { each: EACH });
  await stage.visit("POST", "/receipts", { count: RECEIPTS });
  const packed = () => stage.shop.carriedOut.filter((job) => job.kind === "parcel.pack");
  await stage.until("the parcels", 30, async () => {
    const counts = ORDER.map((name) => `${name} ${packed().filter((job) => job.args.priority === name).length}`);
    return { done: packed().length >= EACH * ORDER.length, text: `packed: ${counts.join("  ")}` };
  });
  await stage.untilFinished("receipt.hash", RECEIPTS, 30);

  const order = packed().sort((a, b) => a.at - b.at).map((job) => ORDER.indexOf(job.args.priority));
  stage.screen.note(`packed in this order, each letter ${LETTER_FOR} parcels: ${strip(order)}`);
  stage.expect(isSorted(order), "the most urgent went first, although they were pushed last");
  stage.expect(packed().length === EACH * ORDER.length, `${packed().length} parcels packed, each once`);
  const { done } = (await stage.daemon.counts())["receipt.hash"];
  stage.expect(done === RECEIPTS, `${done} receipts hashed by a command, beside the parcels`);
}

/** No parcel is begun well before a more urgent one. */
function isSorted(order) {
  return order.every((rank, index) => order.slice(index + SLACK).every((later) => later >= rank));
}

/** The order in initials of the priorities: CCCHHHNNNLLLBBB. */
function strip(order) {
  const shown = order.filter((_, index) => index % LETTER_FOR === 0);
  return shown.map((rank) => ORDER[rank][0].toUpperCase()).join("");
}
