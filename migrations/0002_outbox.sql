-- The outbox: an app inserts a job in the transaction that makes it necessary, and a relay moves it to its queue.
--
--   insert into tidegate.outbox (kind, args) values ('mail.send', '{"to": 7}');
--
-- An app needs two rights: usage on schema tidegate, insert on tidegate.outbox. The daemon's role needs select, update
-- and delete on the table as well. What can be refused at the insert is; what only the relay finds is kept, with the
-- reason in `error`.
create table tidegate.outbox (
    -- The order in which rows are relayed.
    seq        bigint      generated always as identity primary key,
    kind       text        not null,
    args       jsonb       not null default '{}',
    queue      text        not null default 'default',
    -- The app's own id, or none: then `uid` is the job's id, so that relaying a row again is no second job.
    id         text,
    uid        uuid        not null default gen_random_uuid(),
    priority   text,
    -- Not before this time, or this long after `created_at`.
    run_at     timestamptz,
    delay      interval,
    -- Further fields of the envelope, like {"ttl_ms": 60000, "max_attempts": 3}.
    options    jsonb,
    created_at timestamptz not null default now(),
    -- Why the row can't be a job; such rows stay until they are retried or purged.
    error      text,
    failed_at  timestamptz,
    constraint outbox_kind check (kind ~ '^[a-z0-9_]+(\.[a-z0-9_]+)*$' and length(kind) <= 128),
    constraint outbox_args check (jsonb_typeof(args) = 'object'),
    constraint outbox_queue check (queue ~ '^[a-z0-9_.-]{1,64}$' and queue !~ '^\.+$'),
    constraint outbox_id check (id ~ '^[A-Za-z0-9_-]{1,128}$'),
    constraint outbox_priority check (priority in ('critical', 'high', 'normal', 'low', 'bulk')),
    constraint outbox_run_at_or_delay check (run_at is null or delay is null),
    constraint outbox_delay check (delay >= '0'),
    constraint outbox_options check (jsonb_typeof(options) = 'object')
-- Rows come and go: they are cleaned up by their number, not by a share of a table that is nearly empty.
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, autovacuum_analyze_scale_factor = 0,
        autovacuum_analyze_threshold = 5000);

-- What the relay reads: the oldest waiting rows, however many failed ones lie before them.
create index outbox_waiting on tidegate.outbox (seq) where error is null;
create index outbox_rejected on tidegate.outbox (seq) where error is not null;

-- Wakes the relays when the transaction commits. It is a convenience: without it they look at `outbox.poll`.
create function tidegate.outbox_ring() returns trigger language plpgsql as $$
begin
    perform pg_catalog.pg_notify('tidegate_outbox', '');
    return null;
end
$$;

create trigger outbox_ring after insert on tidegate.outbox
    for each statement execute function tidegate.outbox_ring();
