//! Much at once: many jobs, and more flows than are counted in one instant.

use super::{given, home, sweep, tally};
use crate::queue::rig::{Rig, envelope, flow};
use tidegate::job::Priority;
use tidegate::queue::audit::{Damage, Findings, KnownFlows};

#[tokio::test]
async fn a_large_damaged_queue_is_repaired_in_bounded_steps() {
    let rig = Rig::new().await;
    rig.put(&(0..12_000).map(given).collect::<Vec<_>>()).await;
    let flow = home(rig.queue.keys());
    rig.redis::<()>("LTRIM", &[&flow, "4000", "7999"]).await;
    let found = sweep(&rig, true).await;
    assert_eq!(found.count(Damage::Lost), 8_000);
    assert!(tally(&rig).await.is_whole());
    let mut taken = Vec::new();
    while let more = rig.take(500).await
        && !more.is_empty()
    {
        taken.extend(more);
    }
    taken.sort_unstable();
    assert_eq!(taken, (0..12_000).collect::<Vec<_>>());
}

#[tokio::test]
async fn flows_with_keys_are_known_too() {
    let rig = Rig::new().await;
    let keys = rig.queue.keys();
    let keyed = |key: &str| {
        let mut flow = flow(Priority::Normal, "app.a");
        flow.key = Some(key.into());
        keys.flow(&flow)
    };
    rig.put(&[given(0), given(1), given(2), given(3)]).await;
    let holder = rig.claim(1).await.remove(0).id;
    rig.redis::<()>("SADD", &[&keys.slots("app.a@b:b"), &holder])
        .await;
    // As if each tenant had a flow: one is listed, one waits for a slot, one for its rate.
    rig.redis::<()>("DEL", &[&home(keys), &keys.ready[2]]).await;
    for (n, key) in [(1, "a"), (2, "b:b"), (3, "c")] {
        let entry = format!("170000000000{n}:x{n}");
        rig.redis::<()>("RPUSH", &[&keyed(key), &entry]).await;
    }
    rig.redis::<()>("ZADD", &[&keys.ready[2], "1700000000001", "app.a@a"])
        .await;
    let (parked, resume) = (keys.named("parked"), keys.named("resume"));
    rig.redis::<()>("HSET", &[&parked, "app.a@b:b", "3:app.a@b:b:1700000000002"])
        .await;
    rig.redis::<()>("ZADD", &[&resume, "9000000000000", "3:app.a@c"])
        .await;
    let now = tally(&rig).await;
    assert_eq!((now.waiting, now.is_whole()), (3, true), "{now:?}");
    assert_eq!(sweep(&rig, true).await, Findings::default());
    // One of them is not known any more: its job is found by where it belongs, or put back.
    rig.redis::<()>("ZREM", &[&keys.ready[2], "app.a@a"]).await;
    let found = sweep(&rig, true).await;
    assert_eq!(found.count(Damage::Lost), 1, "{found:?}");
    assert!(tally(&rig).await.is_whole());
}

/// Tenants with a flow each: more than are counted in one instant.
const TENANTS: u64 = 2_500;

fn of_tenant(n: u64) -> String {
    envelope(
        "app.a",
        n,
        &format!(r#","id":"t{n}","concurrency_key":"{n}""#),
    )
}

#[tokio::test]
async fn too_many_flows_to_count_are_gone_through_all_the_same() {
    let mut rig = Rig::new().await;
    let limit = "[concurrency]\nlimit = 1\nkey = \"args.n\"\n[args]\nn = { type = \"integer\" }\n";
    rig.catalog = crate::queue::rig::catalog_of(&[("app.a", limit)]);
    rig.put(&(0..TENANTS).map(of_tenant).collect::<Vec<_>>())
        .await;
    let mut flows = KnownFlows::default();
    flows.add(&rig.catalog);
    assert_eq!(rig.queue.tally(&mut flows).await.unwrap(), None);
    assert_eq!(sweep(&rig, true).await, Findings::default());
    let keys = rig.queue.keys();
    let of = |n: u64| {
        let mut flow = flow(Priority::Normal, "app.a");
        flow.key = Some(n.to_string().into());
        flow
    };
    // One lost its entry, one has two, one is not listed.
    rig.redis::<()>("DEL", &[&keys.flow(&of(7))]).await;
    rig.redis::<()>("RPUSH", &[&keys.flow(&of(8)), "9000000000000:t8"])
        .await;
    rig.redis::<()>("ZREM", &[&keys.ready[2], "app.a@9"]).await;
    let found = sweep(&rig, true).await;
    let counts = [Damage::Lost, Damage::Twin, Damage::Unlisted].map(|d| found.count(d));
    assert_eq!(counts.iter().sum::<u64>(), 3, "{found:?}");
    assert_eq!(found.count(Damage::Twin), 1, "{found:?}");
    assert_eq!(sweep(&rig, true).await, Findings::default());
    let mut taken = Vec::new();
    while let more = rig.take(500).await
        && !more.is_empty()
    {
        taken.extend(more);
    }
    taken.sort_unstable();
    assert_eq!(taken, (0..TENANTS).collect::<Vec<_>>());
}
