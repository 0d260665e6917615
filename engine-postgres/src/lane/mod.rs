//! A lane of the store: one connection, made anew when it breaks, and each request as statements on it.

mod group;

use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use oncekey::fleet::store::{
    Expiring, Failure, GroupAnswer, LANES, NewInstance, Opened, Registered, Renewal, Rows, error,
};
use oncekey::{ErrorKind, Result};

use crate::common::Common;
use crate::connection::{Connection, unavailable};
use crate::creation::{create, random};
use crate::handshake::{self, Met};
use crate::rows::{self, Gate, Hash, Params, Shut, signed, unsigned};
use crate::statements::{Sql, Statements};

/// How often a request is tried again that other processes hold up.
const RETRIES: u64 = 10;

/// A gated read is not bound to a time: it changes nothing.
const ANY_TIME: u64 = i64::MAX as u64;

type Answered<T> = Result<T, Failure>;

/// One connection and what is needed to make it again.
pub(crate) struct Lane {
    common: Rc<Common>,
    connection: Option<Connection>,
    /// The store as this connection met it.
    met: Option<Met>,
    /// Whether the last group met rows. A group of replays is followed by more of them.
    meets: bool,
}

impl Lane {
    pub(crate) fn new(common: Rc<Common>) -> Self {
        Self { common, connection: None, met: None, meets: false }
    }

    /// Drops the connection. The next request makes another.
    pub(crate) fn disconnect(&mut self) {
        self.connection = None;
    }

    /// Opens the store. Of many processes that open at once, one may raise the generation under the
    /// others, and one makes the tables, so the others try again.
    pub(crate) async fn open(&mut self, new: &NewInstance) -> Answered<Opened> {
        with_retries(async || self.open_once(new).await).await
    }

    async fn open_once(&mut self, new: &NewInstance) -> Answered<Opened> {
        create(&self.common).await?;
        self.connect().await?;
        let registered = self.register(new).await?;
        // After the first renewal it is certain that the server is the one of the handshake.
        self.renew(registered.instance).await?;
        let met = self.connect().await?;
        Ok(Opened { registered, secret: met.secret, incarnation: met.incarnation })
    }

    pub(crate) async fn close(&mut self, instance: u64) -> Answered<()> {
        self.run(|statements| &statements.close, &vec![Box::new(signed(instance))]).await?;
        Ok(())
    }

    pub(crate) async fn read(&mut self, instance: u64, hashes: Vec<u128>) -> Answered<Rows> {
        let hashes: Vec<Hash> = hashes.into_iter().map(Hash).collect();
        let read = self.look(instance, |statements| &statements.read, vec![Box::new(hashes)]);
        Ok(read.await?.found)
    }

    pub(crate) async fn orphans(
        &mut self,
        instance: u64,
        after: Option<u128>,
        most: usize,
    ) -> Answered<Rows> {
        let params: Params<'_> = vec![Box::new(after.map(Hash)), Box::new(signed(most as u64))];
        Ok(self.look(instance, |statements| &statements.orphans, params).await?.found)
    }

    pub(crate) async fn scan(&mut self, instance: u64, from: u128, most: usize) -> Answered<Rows> {
        let params: Params<'_> = vec![Box::new(Hash(from)), Box::new(signed(most as u64))];
        Ok(self.look(instance, |statements| &statements.scan, params).await?.found)
    }

    pub(crate) async fn expiring(&mut self) -> Answered<Vec<Expiring>> {
        let rows = self.run(|statements| &statements.expiring, &vec![]).await?;
        let expiring = rows.iter().map(|row| {
            let number = |at: usize| unsigned(row.try_get(at).unwrap_or(0));
            Expiring { end: number(0), records: number(1), bytes: number(2) }
        });
        Ok(expiring.collect())
    }

    /// The longest lease of the instances whose lease is over and that are not declared ended.
    pub(crate) async fn silent(&mut self) -> Answered<Option<Duration>> {
        let rows = self.run(|statements| &statements.silent, &vec![]).await?;
        let lease = rows.first().and_then(|row| row.try_get::<_, Option<i64>>(0).ok().flatten());
        Ok(lease.map(|lease| Duration::from_millis(unsigned(lease))))
    }

    /// Empties a leaf in one round trip and one implicit transaction: nothing stays open behind a
    /// pooler.
    pub(crate) async fn truncate(&mut self, leaf: i16) -> Answered<()> {
        self.connect().await?;
        let common = self.common.clone();
        let Some(connection) = &self.connection else {
            return Err(Failure::NotCarriedOut(unavailable("no connection")));
        };
        let truncate = &common.statements.upkeep_truncate[leaf as usize];
        let text = format!("SELECT set_config('lock_timeout', '100ms', true); {truncate}");
        connection.batch(&text).await.map_err(|(failure, _)| failure)
    }

    /// Makes sure of a connection that passed the handshake. Keeps the present one if it is open.
    pub(crate) async fn connect(&mut self) -> Answered<Met> {
        let common = self.common.clone();
        if common.known.lost.load(Ordering::SeqCst) {
            let context = "the server lacks changes that it had acknowledged";
            return Err(Failure::Refused(error(ErrorKind::HistoryLost, context, None)));
        }
        if let (Some(connection), Some(met)) = (&self.connection, &self.met)
            && !connection.is_closed()
        {
            return Ok(met.clone());
        }
        self.connection = None;
        let mut connection = common.connection().await?;
        let required = common.settings.replication_required;
        handshake::settings(&mut connection, &common.statements, required).await?;
        let first = common.first.borrow().clone();
        let mark = || i64::from_le_bytes(random());
        let met = handshake::store(
            &mut connection,
            &common.statements,
            (&common.settings, &common.known),
            first.as_ref(),
            mark,
        );
        let met = met.await?;
        *common.first.borrow_mut() = Some(met.clone());
        (self.connection, self.met) = (Some(connection), Some(met.clone()));
        if common.known.lost.load(Ordering::SeqCst) {
            return Box::pin(self.connect()).await;
        }
        // DURABLE: a commit that a standby acknowledged vouches for all that this server shows.
        let instance = common.known.instance.load(Ordering::SeqCst);
        if instance != 0 {
            self.renew_here(instance).await?;
        }
        Ok(met)
    }

    /// Runs a statement that is not gated.
    pub(crate) async fn run(
        &mut self,
        sql: impl Fn(&Statements) -> &Sql,
        params: &Params<'_>,
    ) -> Answered<Vec<tokio_postgres::Row>> {
        self.connect().await?;
        let common = self.common.clone();
        self.run_here(sql(&common.statements), params).await
    }

    async fn run_here(
        &mut self,
        sql: &Sql,
        params: &Params<'_>,
    ) -> Answered<Vec<tokio_postgres::Row>> {
        let Some(connection) = &mut self.connection else {
            return Err(Failure::NotCarriedOut(unavailable("no connection")));
        };
        match connection.run(sql, params).await {
            Ok(rows) => Ok(rows),
            Err((failure, spent)) => {
                if spent {
                    self.connection = None;
                }
                Err(failure)
            }
        }
    }

    pub(crate) async fn register(&mut self, new: &NewInstance) -> Answered<Registered> {
        let lease = signed(new.lease.as_millis() as u64);
        let params: Params<'_> = vec![
            Box::new(new.name.clone()),
            Box::new(lease),
            Box::new(new.build.clone()),
            Box::new(LANES as i16),
        ];
        let rows = self.run(|statements| &statements.register, &params).await?;
        let row = rows.first().ok_or_else(|| Failure::NotCarriedOut(unavailable("no instance")))?;
        let number = |at: usize| unsigned(row.try_get(at).unwrap_or(0));
        let registered = Registered { instance: number(0), lease_until: number(1), now: number(2) };
        for acknowledged in &self.common.known.acknowledged {
            acknowledged.store(0, Ordering::SeqCst);
        }
        self.common.known.instance.store(registered.instance, Ordering::SeqCst);
        Ok(registered)
    }

    /// A renewal that the server acknowledged without a warning makes all earlier commits certain.
    async fn renew_here(&mut self, instance: u64) -> Answered<Renewal> {
        let common = self.common.clone();
        loop {
            let (Some(connection), Some(met)) = (&self.connection, &self.met) else {
                return Err(Failure::NotCarriedOut(unavailable("no connection")));
            };
            let warnings = connection.warnings();
            let params: Params<'_> =
                vec![Box::new(signed(instance)), Box::new(met.generation), Box::new(met.boot)];
            let rows = self.run_here(&common.statements.renew, &params).await?;
            if self.connection.as_ref().is_some_and(|connection| connection.warnings() != warnings)
            {
                // The wait for the standby was cancelled: the commit may be lost with this server.
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            }
            let row =
                rows.first().ok_or_else(|| Failure::NotCarriedOut(unavailable("no store")))?;
            match row.try_get::<_, i16>(0).unwrap_or(2) {
                0 => {}
                3 => return Err(clock_jump()),
                _ => {
                    self.connection = None;
                    return Err(Failure::NotCarriedOut(unavailable(
                        "the server is another one now",
                    )));
                }
            }
            let now = unsigned(row.try_get(1).unwrap_or(0));
            return Ok(match row.try_get::<_, Option<i64>>(3).unwrap_or(None) {
                Some(lease_until) => Renewal::Renewed { lease_until: unsigned(lease_until), now },
                None => Renewal::Ended { now },
            });
        }
    }

    pub(crate) async fn renew(&mut self, instance: u64) -> Answered<Renewal> {
        self.connect().await?;
        self.renew_here(instance).await
    }

    pub(crate) async fn end(&mut self, by: u64, others: &[u64]) -> Answered<Vec<u64>> {
        let others: Vec<i64> = others.iter().copied().map(signed).collect();
        let params: Params<'_> = vec![Box::new(signed(by)), Box::new(others)];
        let rows = self.run(|statements| &statements.end, &params).await?;
        Ok(rows.iter().filter_map(|row| row.try_get(0).ok()).map(unsigned).collect())
    }

    /// The gate of a statement that reads.
    fn gate(&self, met: &Met, instance: u64) -> Gate {
        Gate {
            synchronous_commit: self.common.settings.synchronous_commit,
            instance,
            valid_until: ANY_TIME,
            generation: met.generation,
            boot: met.boot,
            number: 0,
            lane: 0,
        }
    }

    /// Runs a gated statement that reads.
    async fn look(
        &mut self,
        instance: u64,
        sql: impl Fn(&Statements) -> &Sql,
        more: Params<'_>,
    ) -> Answered<GroupAnswer> {
        let met = self.connect().await?;
        let mut params = self.gate(&met, instance).params();
        params.extend(more);
        let common = self.common.clone();
        let rows = self.run_here(sql(&common.statements), &params).await?;
        rows::answer(&rows, met.generation)?.map_err(|shut| self.shut(shut))
    }

    fn shut(&mut self, shut: Shut) -> Failure {
        match shut {
            Shut::Late => Failure::NotCarriedOut(unavailable("the statement came too late")),
            Shut::Elsewhere => {
                self.connection = None;
                Failure::NotCarriedOut(unavailable("the server is another one now"))
            }
            Shut::ClockJump => clock_jump(),
        }
    }
}

/// Makes a request again, for about a second, while it was not carried out.
pub(crate) async fn with_retries<T>(mut request: impl AsyncFnMut() -> Answered<T>) -> Answered<T> {
    let mut tries = 0;
    loop {
        match request().await {
            Err(Failure::NotCarriedOut(_)) if tries < RETRIES => {
                tries += 1;
                tokio::time::sleep(Duration::from_millis(20 * tries)).await;
            }
            answered => return answered,
        }
    }
}

fn clock_jump() -> Failure {
    let context = "the clock of the server went ahead by more than 30 days";
    Failure::Refused(error(ErrorKind::ClockJump, context, None))
}
