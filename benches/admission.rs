//! What every job passes through in Rust: parsing its envelope, judging it, and planning which flow is served next.

#![allow(missing_docs, clippy::unwrap_used)]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use std::time::Duration;
use tidegate::catalog::{self, Catalog};
use tidegate::job::{Envelope, Priority};
use tidegate::policy::aging::{Head, claim_order};
use tidegate::queue::admit::judge;

const SMALL: &str = r#"{"kind":"app.mail","args":{"to":123456}}"#;
const FULL: &str = r#"{"v":1,"kind":"app.mail","id":"01a205bf-fa36-7df8-8c82-7c9760f52aaf","queue":"default",
    "args":{"to":123456,"subject":"Your order has been sent","lines":["one","two","three"]},"priority":"high",
    "delay_ms":1000,"ttl_ms":60000,"max_attempts":5,"timeout_ms":30000,"enqueued_at":1700000000000,
    "traceparent":"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01","meta":{"user":"7","tenant":"acme"}}"#;

fn catalog() -> Catalog {
    let dir = tempfile::tempdir().unwrap();
    let definition = "kind = \"app.mail\"\nhandler = \"exec\"\n[args]\nto = { type = \"integer\", required = true }\n\
        subject = { type = \"string\" }\nlines = { type = \"array\" }\n[exec]\ncommand = [\"/bin/true\"]\n";
    std::fs::write(dir.path().join("a.toml"), definition).unwrap();
    catalog::load(dir.path(), &["exec"]).unwrap()
}

fn envelopes(c: &mut Criterion) {
    let mut group = c.benchmark_group("parse");
    for (name, raw) in [("small", SMALL), ("full", FULL)] {
        assert!(Envelope::parse(raw.as_bytes()).is_ok());
        group.throughput(Throughput::Bytes(raw.len() as u64));
        group.bench_function(name, |b| {
            b.iter(|| Envelope::parse(black_box(raw.as_bytes())));
        });
    }
    group.finish();
}

fn judging(c: &mut Criterion) {
    let catalog = catalog();
    let mut group = c.benchmark_group("judge");
    for (name, raw) in [
        ("small", SMALL),
        ("full", FULL),
        ("refused", r#"{"kind":"no.such"}"#),
    ] {
        group.bench_function(name, |b| {
            b.iter(|| judge(black_box(raw.as_bytes()), "default", &catalog, 1, [7; 10]));
        });
    }
    group.finish();
}

fn planning(c: &mut Criterion) {
    let mut group = c.benchmark_group("plan");
    for flows in [4_usize, 400] {
        let heads: Vec<Head> = (0..flows)
            .map(|flow| Head {
                flow,
                priority: Priority::ALL[flow % 5],
                ready_ms: (flow as u64 * 7_919) % 120_000,
                ages: true,
            })
            .collect();
        group.bench_function(format!("{flows} flows"), |b| {
            b.iter(|| {
                let mut heads = heads.clone();
                claim_order(black_box(&mut heads), 120_000, Duration::from_secs(60), 32)
                    .sum::<usize>()
            });
        });
    }
    group.finish();
}

criterion_group!(benches, envelopes, judging, planning);
criterion_main!(benches);
