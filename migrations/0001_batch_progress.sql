-- Progress of batch jobs. The row of a run is changed in the same transaction as the rows it counts, so a run that
-- was killed goes on exactly where its last committed batch ended.
create table tidegate.batch_progress (
    queue       text        not null,
    job_id      text        not null,
    -- What was run: a digest of the SQL, the key and the bound arguments. Progress of another digest is not resumed.
    fingerprint text        not null,
    -- The fence: the delivery that may commit batches. A newer delivery writes its own; the older one is then refused.
    token       text        not null,
    -- Key ranges still to do, and ranges in which rows were locked by others. Keys are arrays of text.
    todo        jsonb       not null,
    skipped     jsonb       not null default '[]',
    rows_done   bigint      not null default 0,
    batches     bigint      not null default 0,
    -- The batch size reached, so that a resumed run does not learn it anew.
    batch_rows  integer     not null,
    started_at  timestamptz not null default now(),
    updated_at  timestamptz not null default now(),
    finished_at timestamptz,
    primary key (queue, job_id)
) with (fillfactor = 50);

-- For forgetting old rows.
create index batch_progress_updated_at on tidegate.batch_progress (updated_at);
