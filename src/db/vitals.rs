//! How a server fares by its own account, in one query of the statistics views.

use super::{Database, DbError, within};
use sqlx::FromRow;
use std::time::Duration;

/// What a server tells of itself. Without the role `pg_read_all_stats` (part of `pg_monitor`) it shows only the sessions of
/// our own role, and no replicas.
#[derive(Debug, Clone, Copy, PartialEq, FromRow)]
pub struct Vitals {
    /// Sessions of clients that run a statement now.
    pub active: f64,
    /// Sessions that wait for a lock of another one.
    pub waiting: f64,
    /// Sessions of all databases, as percent of those a client may open.
    pub sessions_percent: f64,
    /// How far the slowest replica is behind, or this one if it is a replica, milliseconds.
    pub replication_lag_ms: f64,
    /// Transactions since the oldest one that anybody may still see: what they left behind can't be cleaned up.
    pub xmin_age: f64,
    /// Bytes of write-ahead log ever written.
    pub wal_bytes: f64,
    /// Segments of it that wait to be archived.
    pub archive_backlog: f64,
    /// Workers of autovacuum at work, as percent of all.
    pub vacuum_percent: f64,
    /// Whether the sessions of other roles are seen.
    pub sees_all: bool,
}

/// A `case` keeps a server that recovers from functions it refuses then. An archive that has never taken a segment but
/// failed is behind by all there are; one whose last file is no segment (a history after a promotion) has just begun. A
/// session that has written holds old rows by its own transaction, though it looks at none.
const QUERY: &str = r"
with session as (
    select state, wait_event_type, backend_xid, backend_xmin, backend_type from pg_stat_activity where pid <> pg_backend_pid()
), wal as (
    select pg_wal_lsn_diff(
               case when pg_is_in_recovery()
                    then coalesce(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())
                    else pg_current_wal_lsn() end, '0/0') as bytes,
           pg_size_bytes(current_setting('wal_segment_size')) as segment_bytes
), archived as (
    select failed_count, last_archived_wal is not null as has_taken, case when last_archived_wal ~ '^[0-9A-F]{24}' then
        ('x' || substr(last_archived_wal, 9, 8))::bit(32)::bigint * (4294967296 / wal.segment_bytes)
        + ('x' || substr(last_archived_wal, 17, 8))::bit(32)::bigint end as segment
    from pg_stat_archiver, wal
)
select
    (select count(*) from session where state = 'active' and backend_type = 'client backend')::float8 as active,
    (select count(*) from session where wait_event_type = 'Lock')::float8 as waiting,
    (100.0 * (select sum(numbackends) from pg_stat_database)
        / greatest(current_setting('max_connections')::int
            - current_setting('superuser_reserved_connections')::int
            - coalesce(current_setting('reserved_connections', true)::int, 0), 1))::float8 as sessions_percent,
    1000 * (case
        when not pg_is_in_recovery() then
            coalesce((select max(extract(epoch from replay_lag)) from pg_stat_replication
                where replay_lsn < pg_current_wal_lsn()), 0)
        when pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn() then 0
        else coalesce(extract(epoch from now() - pg_last_xact_replay_timestamp()), 0) end)::float8
        as replication_lag_ms,
    coalesce(greatest(
        (select max(greatest(age(backend_xmin), age(backend_xid))) from session),
        (select max(age(xmin)) from pg_replication_slots),
        (select max(age(transaction)) from pg_prepared_xacts)), 0)::float8 as xmin_age,
    coalesce(wal.bytes, 0)::float8 as wal_bytes,
    case
        when current_setting('archive_mode') = 'off' or pg_is_in_recovery() then 0
        when archived.segment is null and (archived.failed_count = 0 or archived.has_taken) then 0
        else greatest(floor(wal.bytes / wal.segment_bytes) - coalesce(archived.segment, -1) - 1, 0)
    end::float8 as archive_backlog,
    (100.0 * (select count(*) from pg_stat_activity where backend_type = 'autovacuum worker')
        / greatest(current_setting('autovacuum_max_workers')::int, 1))::float8 as vacuum_percent,
    pg_has_role(current_user, 'pg_read_all_stats', 'member') as sees_all
from wal, archived
";

impl Database {
    /// Asks the server how it fares.
    ///
    /// # Errors
    /// No connection, or no answer within `deadline`.
    pub async fn vitals(&self, deadline: Duration) -> Result<Vitals, DbError> {
        let mut connection = self.acquire().await?;
        within(deadline, async {
            let vitals = sqlx::query_as(QUERY).fetch_one(&mut *connection);
            Ok(vitals.await?)
        })
        .await
        // A connection whose answer is still to come must not go back to the pool.
        .inspect_err(|_| connection.close_on_drop())
    }
}
