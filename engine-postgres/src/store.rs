//! The [`Store`] over PostgreSQL: one thread, and a connection for each lane. Groups have lanes of
//! their own, so that a heartbeat never queues behind them; the second one connects only for as long
//! as there is load for it. Upkeep connects for as long as it takes. All else goes on one lane.

use std::any::Any;
use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::JoinHandle;
use std::time::Duration;

use oncekey::fleet::store::{
    Done, Expiring, Failure, Group, GroupAnswer, LANES, NewInstance, Opened, Registered, Renewal,
    Rows, Store, Upkeep, error,
};
use oncekey::{ErrorKind, Result};
use tokio::sync::mpsc;

use crate::common::Common;
use crate::handshake::Known;
use crate::lane::Lane;
use crate::options::Settings;
use crate::statements::Statements;
use crate::tls;
use crate::upkeep;

/// How long a lane beyond the first keeps its connection without a group.
const IDLE: Duration = Duration::from_secs(60);

/// A request to a lane.
enum Request {
    Open(NewInstance, Done<Opened>),
    Register(NewInstance, Done<Registered>),
    Group(Group, Done<GroupAnswer>),
    Read(u64, Vec<u128>, Done<Rows>),
    Renew(u64, Done<Renewal>),
    End(u64, Vec<u64>, Done<Vec<u64>>),
    List(u64, bool, Done<()>),
    Orphans(u64, Option<u128>, usize, Done<Rows>),
    Scan(u64, u128, usize, Done<Rows>),
    Expiring(Done<Vec<Expiring>>),
    Silent(Done<Option<Duration>>),
    Upkeep(u64, Duration, Done<Upkeep>),
    Close(u64, Done<()>),
}

/// A store in PostgreSQL.
pub struct PostgresStore {
    /// By the lanes of groups.
    groups: Vec<mpsc::UnboundedSender<Request>>,
    control: mpsc::UnboundedSender<Request>,
    upkeep: mpsc::UnboundedSender<Request>,
    pub(crate) settings: Arc<Settings>,
    pub(crate) statements: Arc<Statements>,
    thread: std::sync::Mutex<Option<JoinHandle<()>>>,
}

impl PostgresStore {
    /// A store that is not opened yet.
    ///
    /// # Errors
    /// `InvalidInput`, and those of starting a thread.
    pub(crate) fn start(settings: Settings) -> Result<Self> {
        let settings = Arc::new(settings);
        let config = settings.config()?;
        let tls = tls::make(config.get_ssl_mode(), settings.root_certificates.as_deref())?;
        let statements = Arc::new(Statements::new(&settings.schema));
        let common = (settings.clone(), statements.clone(), config, tls);
        let (groups, group_requests): (Vec<_>, Vec<_>) =
            (0..LANES).map(|_| mpsc::unbounded_channel()).unzip();
        let (control, control_requests) = mpsc::unbounded_channel();
        let (upkeep, upkeep_requests) = mpsc::unbounded_channel();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|source| error(ErrorKind::Io, "starting the runtime", Some(source.into())))?;
        let thread = std::thread::Builder::new()
            .name("oncekey-postgres".to_owned())
            .spawn(move || {
                let (settings, statements, config, tls) = common;
                let common = Rc::new(Common {
                    named: Arc::new(AtomicBool::new(true)),
                    first: RefCell::default(),
                    settings,
                    statements,
                    config,
                    tls,
                    known: Known::default(),
                });
                let lane = |requests, idle| {
                    tokio::task::spawn_local(serve(Lane::new(common.clone()), requests, idle))
                };
                let tasks = tokio::task::LocalSet::new();
                tasks.block_on(&runtime, async {
                    let mut lanes = vec![
                        lane(control_requests, Duration::MAX),
                        lane(upkeep_requests, Duration::ZERO),
                    ];
                    for (number, requests) in group_requests.into_iter().enumerate() {
                        let idle = if number == 0 { Duration::MAX } else { IDLE };
                        lanes.push(lane(requests, idle));
                    }
                    for lane in lanes {
                        let _panicked = lane.await;
                    }
                });
            })
            .map_err(|source| error(ErrorKind::Io, "starting a thread", Some(source.into())))?;
        let thread = std::sync::Mutex::new(Some(thread));
        Ok(Self { groups, control, upkeep, settings, statements, thread })
    }

    pub(crate) fn silent(&self) -> Result<Option<Duration>> {
        self.wait(Request::Silent)
    }

    fn wait<T: Send + 'static>(&self, request: impl FnOnce(Done<T>) -> Request) -> Result<T> {
        let (sender, receiver) = std::sync::mpsc::channel();
        send(&self.control, request(Box::new(move |answer| drop(sender.send(answer)))));
        match receiver.recv() {
            Ok(answer) => answer.map_err(|failure| failure.error().clone()),
            Err(_) => Err(error(ErrorKind::Closed, "", None)),
        }
    }
}

fn send(lane: &mpsc::UnboundedSender<Request>, request: Request) {
    if let Err(mpsc::error::SendError(request)) = lane.send(request) {
        request.fail();
    }
}

impl Request {
    async fn run(self, lane: &mut Lane) {
        match self {
            Self::Open(new, done) => done(lane.open(&new).await),
            Self::Register(new, done) => done(lane.register(&new).await),
            Self::Group(group, done) => done(lane.group(&group).await),
            Self::Read(instance, hashes, done) => done(lane.read(instance, hashes).await),
            Self::Renew(instance, done) => done(upkeep::renew(lane, instance).await),
            Self::End(by, others, done) => done(lane.end(by, &others).await),
            Self::List(by, overdue, done) => done(upkeep::list(lane, by, overdue).await),
            Self::Orphans(instance, after, most, done) => {
                done(lane.orphans(instance, after, most).await);
            }
            Self::Scan(instance, from, most, done) => done(lane.scan(instance, from, most).await),
            Self::Expiring(done) => done(lane.expiring().await),
            Self::Silent(done) => done(lane.silent().await),
            Self::Upkeep(by, interval, done) => done(upkeep::round(lane, by, interval).await),
            Self::Close(instance, done) => done(lane.close(instance).await),
        }
    }

    /// Fails the request, because the thread has ended.
    fn fail(self) {
        let closed = Failure::Refused(error(ErrorKind::Closed, "", None));
        match self {
            Self::Open(_, done) => done(Err(closed)),
            Self::Register(_, done) => done(Err(closed)),
            Self::Group(_, done) => done(Err(closed)),
            Self::Read(.., done) | Self::Orphans(.., done) | Self::Scan(.., done) => {
                done(Err(closed));
            }
            Self::Expiring(done) => done(Err(closed)),
            Self::Silent(done) => done(Err(closed)),
            Self::Renew(_, done) => done(Err(closed)),
            Self::End(.., done) => done(Err(closed)),
            Self::Upkeep(.., done) => done(Err(closed)),
            Self::List(.., done) | Self::Close(_, done) => done(Err(closed)),
        }
    }
}

/// Serves the requests of a lane. Its connection is given up after `idle` without a request.
async fn serve(mut lane: Lane, mut requests: mpsc::UnboundedReceiver<Request>, idle: Duration) {
    loop {
        let request = match tokio::time::timeout(idle, requests.recv()).await {
            Ok(request) => request,
            Err(_) => {
                lane.disconnect();
                requests.recv().await
            }
        };
        match request {
            Some(request) => request.run(&mut lane).await,
            None => return,
        }
    }
}

impl Store for PostgresStore {
    fn open(&self, new: &NewInstance) -> Result<Opened> {
        self.wait(|done| Request::Open(new.clone(), done))
    }

    fn register(&self, new: NewInstance, done: Done<Registered>) {
        send(&self.control, Request::Register(new, done));
    }

    fn group(&self, group: Group, done: Done<GroupAnswer>) {
        send(&self.groups[group.lane], Request::Group(group, done));
    }

    fn read(&self, instance: u64, hashes: Vec<u128>, done: Done<Rows>) {
        send(&self.control, Request::Read(instance, hashes, done));
    }

    fn renew(&self, instance: u64, done: Done<Renewal>) {
        send(&self.control, Request::Renew(instance, done));
    }

    fn end(&self, by: u64, others: Vec<u64>, done: Done<Vec<u64>>) {
        send(&self.control, Request::End(by, others, done));
    }

    fn list(&self, by: u64, overdue: bool, done: Done<()>) {
        send(&self.upkeep, Request::List(by, overdue, done));
    }

    fn orphans(&self, instance: u64, after: Option<u128>, most: usize, done: Done<Rows>) {
        send(&self.control, Request::Orphans(instance, after, most, done));
    }

    fn scan(&self, instance: u64, from: u128, most: usize, done: Done<Rows>) {
        send(&self.control, Request::Scan(instance, from, most, done));
    }

    fn expiring(&self, done: Done<Vec<Expiring>>) {
        send(&self.upkeep, Request::Expiring(done));
    }

    fn upkeep(&self, by: u64, interval: Duration, done: Done<Upkeep>) {
        send(&self.upkeep, Request::Upkeep(by, interval, done));
    }

    fn close(&self, instance: u64) -> Result<()> {
        self.wait(|done| Request::Close(instance, done))
    }

    fn location(&self) -> String {
        self.settings.location()
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Drop for PostgresStore {
    fn drop(&mut self) {
        // Closing the channels ends the lanes, and with them the thread.
        let (closed, _) = mpsc::unbounded_channel();
        self.groups.clear();
        self.control = closed.clone();
        self.upkeep = closed;
        let thread = self.thread.get_mut().ok().and_then(Option::take);
        // An answer may hold the last reference to the store, and is dropped on the thread itself.
        let other = thread.filter(|thread| thread.thread().id() != std::thread::current().id());
        if let Some(thread) = other {
            let _panicked = thread.join();
        }
    }
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PostgresStore({})", self.settings.location())
    }
}
