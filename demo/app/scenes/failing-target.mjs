// Scene 3: the service behind an HTTP job is down for a while.

const MAILS = 80;
const DOWN_MS = 5000;

export const title = `Trouble: the mail service is down for ${DOWN_MS / 1000} s, and ${MAILS} mails are to be sent`;
export const look = "retries, then an open breaker: no more attempts are wasted; then a trial, a ramp, and all is sent";

export async function play(stage) {
  const { shop, daemon } = stage;
  shop.mailDownUntil = Date.now() + DOWN_MS;
  const to = Array.from({ length: MAILS }, (_, n) => `visitor${n + 1}@example.org`);
  to[MAILS / 2] = "nobody";
  await stage.visit("POST", "/mails", { to });

  const sent = () => shop.carriedOut.filter((job) => job.kind === "mail.send");
  const state = () => daemon.eventsOf("breaker").at(-1)?.to ?? "closed";
  await stage.until("the mails", 45, async () => {
    const { retried = 0 } = (await daemon.counts())["mail.send"] ?? {};
    const finished = await daemon.finished("mail.send");
    const service = Date.now() < shop.mailDownUntil ? "down" : "up";
    const text = `mail service ${service}; breaker ${state()}; failed attempts ${retried}; sent ${sent().length}`;
    return { done: finished >= MAILS && state() === "closed", text: `${text} of ${MAILS}` };
  });

  const counts = (await daemon.counts())["mail.send"];
  const addresses = new Set(sent().map((job) => job.args.to));
  const opened = daemon.eventsOf("breaker").filter((event) => event.to === "open").length;
  stage.expect(
    counts.retried > 0 && opened > 0,
    `${counts.retried} attempts failed and were repeated; the breaker opened ${times(opened)}`,
  );
  stage.expect(
    addresses.size === MAILS - 1 && sent().length === MAILS - 1,
    `${addresses.size} mails sent, each once, none lost`,
  );
  stage.expect(counts.dead === 1, "the one without an address is dead, for an operator to look at: 422 is fatal");
  const status = await forge(stage.shopUrl);
  stage.expect(status === 401 && shop.refused[401] === 1, "a forged request is refused; all of Tidegate's were signed");
}

/** What somebody who does not know the secret would send. */
async function forge(shopUrl) {
  const signature = `t=${Math.floor(Date.now() / 1000)},v1=${"0".repeat(64)}`;
  const response = await fetch(`${shopUrl}/jobs/mail.send`, {
    method: "POST",
    headers: { "content-type": "application/json", "tidegate-signature": signature },
    body: JSON.stringify({ id: "forged", kind: "mail.send", args: { to: "a@example.org" }, attempt: 1 }),
  });
  return response.status;
}

const times = (n) => (n === 1 ? "once" : `${n} times`);
