//! Tidegate inside another program: typed functions as handlers, shared data, progress, a typed client, a test of it all.
//!
//! ```console
//! $ cargo run --example embedded                       # on a private Redis; redis-server must be installed
//! $ TIDEGATE_REDIS__URL=redis://127.0.0.1:6379/0 cargo run --example embedded
//! ```

use serde::{Deserialize, Serialize};
use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tidegate::embed::{
    Attempt, Client, Context, Daemon, Data, Job, JobError, Kind, Priority, TaskId,
};
use tidegate::stack::{PrivateRedis, RedisOptions, Scratch};
use tokio_util::sync::CancellationToken;

/// What the functions share.
#[derive(Default)]
struct Shop {
    mails: AtomicU64,
    orders: AtomicU64,
    archived: AtomicU64,
}

#[derive(Serialize, Deserialize)]
struct Mail {
    to: String,
}

/// Arguments, then the delivery, then shared data.
async fn send_mail(mail: Mail, ctx: Context, shop: Data<Arc<Shop>>) -> Result<String, JobError> {
    if !mail.to.contains('@') {
        // Trying again can't help.
        return Err(JobError::abort(format!("{:?} is no address", mail.to)));
    }
    for percent in [25.0, 50.0, 100.0] {
        ctx.progress.percent(percent);
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(20)) => {}
            () = ctx.stopped() => return Err(JobError::Stopped),
        }
    }
    shop.mails.fetch_add(1, Ordering::Relaxed);
    Ok(format!("sent to {}", mail.to))
}

#[derive(Serialize, Deserialize)]
struct Order {
    number: u64,
}

/// A task function as it was written for an apalis worker.
async fn ship(
    order: Order,
    id: TaskId,
    attempt: Attempt,
    shop: Data<Arc<Shop>>,
) -> Result<(), std::io::Error> {
    println!(
        "order {} is job {id}, attempt {}",
        order.number,
        attempt.current()
    );
    if attempt.current() == 1 {
        return Err(std::io::Error::other("the warehouse does not answer"));
    }
    shop.orders.fetch_add(1, Ordering::Relaxed);
    Ok(())
}

#[derive(Serialize, Deserialize)]
struct Archive {
    pages: u64,
}

/// Long work in pages. Between two of them the gate is asked: the job rests, or makes room and goes on later.
async fn archive(all: Archive, ctx: Context, shop: Data<Arc<Shop>>) -> Result<(), JobError> {
    // What an earlier delivery has done stays done.
    let from = shop.archived.load(Ordering::Relaxed);
    for page in from..all.pages {
        let begun = Instant::now();
        tokio::time::sleep(Duration::from_millis(1)).await; // move it
        shop.archived.store(page + 1, Ordering::Relaxed);
        ctx.pace(begun.elapsed()).await?;
    }
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    if let Ok(url) = std::env::var("TIDEGATE_REDIS__URL") {
        return work(&url).await.map(|_| ());
    }
    // A private server lives as long as its value.
    let folder = Scratch::new()?;
    let redis = PrivateRedis::start(RedisOptions::new(folder.path().join("redis")))?;
    work(&redis.url()).await.map(|_| ())
}

/// Starts a daemon, gives it four jobs, waits for their ends and stops it. Answers how many mails and orders left.
pub async fn work(redis_url: &str) -> Result<(u64, u64), Box<dyn Error>> {
    let shop = Arc::new(Shop::default());
    // A program that does nothing else ends this with `.run()`, which serves signals too.
    let daemon = Daemon::builder()
        .redis_url(redis_url)
        .data(Arc::clone(&shop))
        .handler("mail.send", send_mail)
        .kind(Kind::new("order.archive", archive).priority(Priority::Bulk))
        .kind(
            Kind::new("order.ship", ship)
                .priority(Priority::High)
                .max_attempts(3)
                .backoff(Duration::from_millis(50), Duration::from_secs(1)),
        )
        .start()
        .await?;
    let client = daemon.client();
    let jobs = [
        Job::new(
            "mail.send",
            Mail {
                to: "ada@example.org".to_owned(),
            },
        ),
        Job::new(
            "mail.send",
            Mail {
                to: "nobody".to_owned(),
            },
        ),
        Job::new("order.archive", Archive { pages: 3 }),
        Job::new("order.ship", Order { number: 7 }).delay(Duration::from_millis(100)),
    ];
    let enqueued = client.enqueue_all(jobs).await?;
    for job in &enqueued {
        println!(
            "{} is {}",
            job.id,
            ended(&client, &job.queue, &job.id).await?
        );
    }
    let refused = client
        .enqueue(Job::new(
            "order.ship",
            Mail {
                to: "ada".to_owned(),
            },
        ))
        .await;
    println!(
        "refused: {}",
        refused.err().map(|e| e.to_string()).unwrap_or_default()
    );
    daemon
        .stop(Duration::from_secs(5), CancellationToken::new())
        .await;
    let [mails, orders] = [&shop.mails, &shop.orders].map(|n| n.load(Ordering::Relaxed));
    println!("{mails} mail sent, {orders} order shipped");
    Ok((mails, orders))
}

/// The state in which a job ends.
async fn ended(client: &Client, queue: &str, id: &str) -> Result<String, Box<dyn Error>> {
    loop {
        let state = client.find(queue, id).await?.map(|found| found.state);
        match state.as_deref() {
            Some("done" | "dead" | "expired" | "cancelled") => return Ok(state.unwrap_or_default()),
            _ => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}
