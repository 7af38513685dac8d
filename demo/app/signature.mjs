// Checks that a request comes from our Tidegate: `Tidegate-Signature: t=<unix seconds>,v1=<hex>`, where v1 is the
// HMAC-SHA256 of `<t>.<body>` under the shared secret.

import { createHmac, timingSafeEqual } from "node:crypto";

/** A request that was overheard must not be worth anything later. */
const MAX_AGE_S = 300;

export function isSigned(header, rawBody, secret) {
  const parts = /^t=(\d{1,12}),v1=([0-9a-f]{64})$/.exec(header ?? "");
  if (!parts) return false;
  const [, seconds, given] = parts;
  if (Math.abs(Date.now() / 1000 - Number(seconds)) > MAX_AGE_S) return false;
  const expected = createHmac("sha256", secret).update(`${seconds}.`).update(rawBody).digest();
  return timingSafeEqual(expected, Buffer.from(given, "hex"));
}
