//! Hearing of notifications on a connection of its own, so that no job waits for one of the pool.

use super::{Database, DbError, within};
use sqlx::Executor;
use sqlx::postgres::{PgListener, PgPoolOptions};

/// Hears one channel for as long as its connection lives. After an error, or with the connection lost, it hears nothing:
/// make another one, and look for what was missed.
pub struct Listener(PgListener);

impl Database {
    /// Listens to a channel.
    ///
    /// # Errors
    /// No connection.
    pub async fn listen(&self, channel: &str) -> Result<Listener, DbError> {
        let options = self.pool.connect_options().as_ref().clone();
        let pool = PgPoolOptions::new()
            .max_connections(1)
            .max_lifetime(None)
            .idle_timeout(None)
            .acquire_timeout(self.acquire_timeout)
            .connect_lazy_with(options);
        within(self.acquire_timeout, async {
            let mut listener = PgListener::connect_with(&pool).await?;
            listener.eager_reconnect(false);
            listener.listen(channel).await?;
            Ok(Listener(listener))
        })
        .await
    }
}

impl Listener {
    /// Waits until something is heard; what else has arrived by then is part of it. May be dropped while it waits.
    ///
    /// # Errors
    /// The connection is lost.
    pub async fn heard(&mut self) -> Result<(), DbError> {
        match self.0.try_recv().await {
            Ok(Some(_)) => {}
            Ok(None) => return Err(DbError::Connect("the listener's connection".to_owned())),
            Err(e) => return Err(e.into()),
        }
        while self.0.next_buffered().is_some() {}
        Ok(())
    }

    /// Whether the connection still lives: one that a network dropped silently would hear nothing for ever.
    ///
    /// # Errors
    /// It does not.
    pub async fn check(&mut self, deadline: std::time::Duration) -> Result<(), DbError> {
        within(deadline, async {
            self.0.execute("select 1").await?;
            Ok(())
        })
        .await
    }
}
