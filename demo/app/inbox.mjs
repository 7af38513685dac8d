// The one thing an app must know to enqueue a job: RPUSH a JSON object to the inbox of a queue.

const INBOX = "tidegate:{default}:inbox";

/** Enqueues jobs, `{kind, args, …}`, in one command: either all of them or none. */
export async function enqueue(redis, jobs) {
  await redis.rpush(INBOX, ...jobs.map((job) => JSON.stringify(job)));
}
