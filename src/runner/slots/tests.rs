use super::*;

const FREE: usize = usize::MAX;

fn ask(kind: &str, kind_limit: usize, class_limit: usize) -> Ask {
    Ask {
        kind: kind.into(),
        class: Priority::Normal,
        kind_limit,
        class_limit,
        flow_limit: FREE,
        operations: OperationLimits::default(),
        urgent: false,
        long: false,
        ages: true,
    }
}

fn of(limits: &[(usize, usize)], ask: Ask) -> Ask {
    let limit = |&(operation, limit): &(usize, usize)| OperationLimit {
        operation,
        limit,
        floor: true,
    };
    Ask {
        operations: limits.iter().map(limit).collect(),
        ..ask
    }
}

fn critical(ask: Ask) -> Ask {
    Ask {
        class: Priority::Critical,
        urgent: true,
        ..ask
    }
}

#[test]
fn every_limit_holds_and_what_is_unused_comes_back() {
    let slots = Slots::new(10);
    let queue: Arc<str> = "q".into();
    let asks = [ask("a", 3, FREE), ask("b", FREE, FREE)];
    let got = slots.reserve(&queue, 8, 100, &asks);
    assert_eq!((got.limit, got.allowances.as_slice()), (8, &[3, 8][..]));
    slots.settle_claim(&queue, &got, &asks, &[3, 1]);
    assert_eq!((slots.busy(), slots.busy_in("q")), (4, 4));
    let got = slots.reserve(&queue, 8, 100, &asks);
    assert_eq!((got.limit, got.allowances.as_slice()), (4, &[0, 4][..]));
    slots.settle_claim(&queue, &got, &asks, &[0, 0]);
    slots.release(&queue, &asks[0].kind, Priority::Normal, &Holds::default());
    assert_eq!(slots.reserve(&queue, 8, 1, &asks).allowances, [1, 1]);
}

#[tokio::test]
async fn what_a_claim_kept_from_others_for_a_moment_wakes_them() {
    let slots = Slots::new(10);
    let asks = [ask("a", FREE, 8), ask("b", FREE, 8)];
    let queue: Arc<str> = "q".into();
    let got = slots.reserve(&queue, 4, FREE, &asks);
    assert!(!slots.has_room(&ask("c", FREE, 8)), "for a moment");
    let waiter = slots.waiter();
    slots.settle_claim(&queue, &got, &asks, &[4, 0]);
    assert!(slots.has_room(&ask("c", FREE, 8)));
    let deadline = std::time::Duration::from_secs(5);
    tokio::time::timeout(deadline, waiter.notified())
        .await
        .expect("woken");
}

#[test]
fn two_flows_of_one_kind_or_class_share_its_limit() {
    let slots = Slots::new(100);
    let queue: Arc<str> = "q".into();
    let asks = [ask("a", 3, 4), ask("a", 3, 4), ask("b", FREE, 4)];
    let got = slots.reserve(&queue, FREE, FREE, &asks);
    assert_eq!((got.limit, got.allowances.as_slice()), (4, &[3, 0, 1][..]));
}

#[test]
fn long_jobs_leave_some_slots_to_critical_ones_and_lend_them_to_short_ones() {
    let long = Ask {
        long: true,
        ..ask("long", FREE, FREE)
    };
    let reserve = Reserve {
        share: 0.2,
        lend_below: Duration::from_secs(1),
        ..Reserve::default()
    };
    let slots = Slots::new(10).reserving(reserve);
    let queue: Arc<str> = "q".into();
    let take = |ask: &Ask, most| {
        let asks = std::slice::from_ref(ask);
        let got = slots.reserve(&queue, FREE, most, asks);
        slots.settle_claim(&queue, &got, asks, &[got.limit]);
        got.limit
    };
    assert_eq!(slots.reserved(), 0, "there is nobody to reserve for");
    assert_eq!(take(&long, FREE), 10);
    (0..10).for_each(|_| slots.release(&queue, &long.kind, long.class, &long.holds()));

    slots.expect_critical();
    assert_eq!(take(&long, FREE), 8);
    assert!(!slots.has_room(&long));
    let short = ask("short", FREE, FREE);
    assert_eq!(take(&short, FREE), 1, "one is lent to nobody");
    let invalidation = Ask {
        urgent: true,
        ..ask("invalidation", FREE, FREE)
    };
    assert!(!slots.has_room(&short) && slots.has_room(&invalidation));
    assert_eq!(take(&invalidation, FREE), 1, "it is never held back");
    slots.release(
        &queue,
        &invalidation.kind,
        invalidation.class,
        &invalidation.holds(),
    );
    // A short one ends: a critical one takes its slot, and no long one ever does.
    slots.release(&queue, &short.kind, short.class, &short.holds());
    assert!(!slots.has_room(&long) && slots.has_room(&short));
    let urgent = critical(ask("urgent", FREE, FREE));
    assert_eq!(take(&urgent, FREE), 2);
    slots.release(&queue, &long.kind, long.class, &long.holds());
    assert_eq!(
        (take(&long, FREE), slots.busy(), slots.busy_long()),
        (1, 10, 8)
    );
}

#[test]
fn the_reserve_is_rounded_down_and_never_all_there_is() {
    let tenth = Reserve {
        share: 0.1,
        ..Reserve::default()
    };
    let of = [1, 4, 9, 10, 19, 32].map(|total| tenth.of(total));
    assert_eq!(of, [0, 0, 0, 1, 1, 3]);
    let most = Reserve {
        share: 0.9,
        ..tenth
    };
    assert_eq!([1, 2, 10].map(|total| most.of(total)), [0, 1, 9]);
    assert_eq!(Reserve::default().of(100), 0);
}

#[test]
fn queues_share_the_total() {
    let slots = Slots::new(5);
    let asks = [ask("a", FREE, FREE)];
    assert_eq!(slots.reserve(&"q".into(), 4, FREE, &asks).limit, 4);
    assert_eq!(slots.reserve(&"r".into(), 4, FREE, &asks).limit, 1);
    assert_eq!(slots.reserve(&"s".into(), 4, FREE, &asks).limit, 0);
}

#[test]
fn kinds_flows_and_queues_share_an_operation_and_a_kind_keeps_to_each_of_its_own() {
    let slots = Slots::new(100);
    let (q, r): (Arc<str>, Arc<str>) = ("q".into(), "r".into());
    let one = of(&[(0, 4)], ask("a", FREE, FREE));
    let two = of(&[(0, 4), (3, 2)], ask("b", FREE, FREE));
    let asks = [two.clone(), one.clone(), one.clone()];
    let got = slots.reserve(&q, FREE, FREE, &asks);
    assert_eq!(got.allowances, [2, 2, 0]);
    assert!(!slots.was_pressed(0));
    assert!(!slots.has_room(&one) && !slots.has_room(&two));
    assert_eq!(slots.reserve(&r, FREE, FREE, &asks).limit, 0);
    slots.settle_claim(&q, &got, &asks, &[2, 1, 0]);
    let pressed = [0, 3, 0, 9].map(|of| slots.was_pressed(of));
    assert_eq!(pressed, [false, true, false, false], "told once");
    let got = slots.reserve(&r, FREE, FREE, &asks);
    assert_eq!(
        got.allowances,
        [0, 1, 0],
        "b is at the limit of its other one"
    );
    slots.settle_claim(&r, &got, &asks, &[0, 0, 0]);
    slots.release(&q, &two.kind, Priority::Normal, &two.holds());
    let got = slots.reserve(&r, FREE, FREE, &asks);
    assert_eq!(got.allowances, [1, 1, 0]);
}

#[test]
fn one_critical_job_goes_beyond_the_limit_of_its_operation_but_not_past_an_open_breaker() {
    let slots = Slots::new(100);
    let queue: Arc<str> = "q".into();
    let bulk = of(&[(1, 2)], ask("a", FREE, FREE));
    let urgent = critical(bulk.clone());
    let got = slots.reserve(&queue, FREE, FREE, std::slice::from_ref(&bulk));
    assert_eq!(got.allowances, [2]);
    let asks = [urgent.clone(), urgent.clone()];
    let got = slots.reserve(&queue, FREE, FREE, &asks);
    assert_eq!(got.allowances, [1, 0]);
    slots.release(&queue, &urgent.kind, urgent.class, &urgent.holds());
    let shut = OperationLimit {
        floor: false,
        ..urgent.operations[0]
    };
    let refused = Ask {
        operations: [shut].into_iter().collect(),
        ..urgent.clone()
    };
    assert!(slots.has_room(&urgent) && !slots.has_room(&refused));
}

#[tokio::test]
async fn who_waits_is_woken_by_a_limit_that_rose() {
    let slots = Slots::new(10);
    let waiter = slots.waiter();
    // Before anybody waits: the wake-up is kept.
    slots.wake();
    let deadline = std::time::Duration::from_secs(5);
    tokio::time::timeout(deadline, waiter.notified())
        .await
        .expect("woken");
}

#[test]
fn what_was_reserved_but_not_claimed_is_no_load() {
    let slots = Slots::new(4);
    let queue: Arc<str> = "q".into();
    let asks = [ask("a", FREE, FREE)];
    let class = asks[0].class.index();
    let reserved = slots.reserve(&queue, 4, 4, &asks);
    slots.settle_claim(&queue, &reserved, &asks, &[3]);
    assert_eq!(slots.take_load().done[class].jobs, 3);
    for _ in 0..3 {
        slots.release(&queue, &asks[0].kind, asks[0].class, &Holds::default());
    }
    let _ = slots.take_load();
    assert_eq!(slots.take_load().done[class], Default::default());
}
