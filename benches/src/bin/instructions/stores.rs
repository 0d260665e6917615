//! The stores that paths start from, made once outside of callgrind and copied for each run.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use oncekey::disk::OsDisk;
use oncekey::{Begin, Claim, Engine, Fingerprint, Key, Options};
use oncekey_benches::Result;
use oncekey_testing::{HeldDisk, ManualClock};

/// Completed records in the store file.
pub(crate) const FOLDED: u64 = 12_000;
/// They lie in as many expiry buckets, as in a store that has run for a day.
const BUCKETS: u64 = 24;
/// Completed records in the journal of a store that was not closed.
pub(crate) const UNFOLDED: u64 = 10_000;
/// Bytes of every response.
const RESPONSE: usize = 1024;
/// Commands that are made one group.
pub(crate) const GROUP: usize = 250;
/// Keys of the commands that a group waits behind.
const BLOCKERS: u64 = 1 << 40;

/// What a path starts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Template {
    Empty,
    Folded,
    Unfolded,
}

impl Template {
    fn name(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Folded => "folded",
            Self::Unfolded => "unfolded",
        }
    }
}

/// The directory with one store of each kind.
#[derive(Debug)]
pub(crate) struct Stores<'a>(&'a Path);

impl<'a> Stores<'a> {
    pub(crate) fn create(dir: &'a Path) -> Result<Self> {
        let store = Store::open(&dir.join(Template::Empty.name()))?;
        store.engine.close()?;

        let store = Store::open(&dir.join(Template::Folded.name()))?;
        let keys = FOLDED / BUCKETS;
        for bucket in 0..BUCKETS {
            if bucket > 0 {
                store.clock.advance(Duration::from_secs(3600));
            }
            store.complete(store.claim(bucket * keys..(bucket + 1) * keys)?)?;
            store.engine.fold()?;
        }
        // Merges are done when a sweep is.
        store.engine.sweep()?;
        store.engine.close()?;

        let store = Store::open(&dir.join(Template::Unfolded.name()))?;
        // An open reads groups: their size does not depend on chance.
        let inputs = (0..UNFOLDED).map(|number| (key(number), fingerprint())).collect();
        store.complete_in_groups(store.claim_in_groups(inputs)?)?;
        drop(store);
        Ok(Self(dir))
    }

    /// A copy of the store, for one run.
    pub(crate) fn copy(&self, template: Template) -> Result<PathBuf> {
        let copy = self.0.join("copy");
        std::fs::create_dir(&copy)?;
        for file in std::fs::read_dir(self.0.join(template.name()))? {
            let file = file?;
            std::fs::copy(file.path(), copy.join(file.file_name()))?;
        }
        Ok(copy)
    }
}

/// An open store on which time stands still and syncs of the journal can be held.
pub(crate) struct Store {
    pub(crate) engine: Engine,
    pub(crate) disk: HeldDisk,
    clock: ManualClock,
    blockers: AtomicU64,
}

impl Store {
    pub(crate) fn open(dir: &Path) -> Result<Self> {
        let (disk, clock) = (HeldDisk::new(OsDisk, "journal"), ManualClock::new());
        let options = Options::new().disk(Arc::new(disk.clone())).clock(Arc::new(clock.clone()));
        // The folder sleeps unless it is asked.
        let options = options.sweep_interval(Duration::from_secs(86_400));
        Ok(Self { engine: options.open(dir)?, disk, clock, blockers: AtomicU64::new(BLOCKERS) })
    }

    /// Claims fresh keys, in whatever groups they fall into.
    fn claim(&self, numbers: Range<u64>) -> Result<Vec<Claim>> {
        let begins: Vec<_> =
            numbers.map(|number| self.engine.begin(&key(number), fingerprint())).collect();
        begins.into_iter().map(|begin| claimed(begin.wait()?)).collect()
    }

    fn complete(&self, claims: Vec<Claim>) -> Result<()> {
        let completes: Vec<_> =
            claims.into_iter().map(|claim| claim.complete(&[7; RESPONSE])).collect();
        for complete in completes {
            complete.wait().map_err(oncekey::Error::from)?;
        }
        Ok(())
    }

    /// Claims fresh keys; how often threads switch does not depend on chance.
    pub(crate) fn claim_in_groups(&self, inputs: Vec<(Key, Fingerprint)>) -> Result<Vec<Claim>> {
        let mut claims = Vec::with_capacity(inputs.len());
        let mut inputs = inputs.into_iter();
        while inputs.len() > 0 {
            let group = inputs.by_ref().take(GROUP);
            let begin = |(key, fingerprint): (Key, _)| self.engine.begin(&key, fingerprint);
            for begin in self.in_one_group(|| group.map(begin).collect())? {
                claims.push(claimed(begin.wait()?)?);
            }
        }
        Ok(claims)
    }

    /// Like [`claim_in_groups`](Self::claim_in_groups), for completions.
    pub(crate) fn complete_in_groups(&self, claims: Vec<Claim>) -> Result<()> {
        let mut claims = claims.into_iter();
        while claims.len() > 0 {
            let group = claims.by_ref().take(GROUP);
            let complete = |claim: Claim| claim.complete(&[7; RESPONSE]);
            for complete in self.in_one_group(|| group.map(complete).collect())? {
                complete.wait().map_err(oncekey::Error::from)?;
            }
        }
        Ok(())
    }

    /// Calls `submit` while the journal waits for a sync, so that what it submits is one group.
    fn in_one_group<T>(&self, submit: impl FnOnce() -> Vec<T>) -> Result<Vec<T>> {
        self.disk.hold();
        let blocker = self.blockers.fetch_add(1, Ordering::Relaxed);
        let blocking = self.engine.begin(&key(blocker), fingerprint());
        self.disk.wait_for_sync();
        let submitted = submit();
        self.disk.release();
        std::mem::forget(claimed(blocking.wait()?)?);
        Ok(submitted)
    }
}

pub(crate) fn claimed(begin: Begin) -> Result<Claim> {
    match begin {
        Begin::Claimed(claim) => Ok(claim),
        other => Err(format!("a fresh key was not claimed: {other:?}").into()),
    }
}

pub(crate) fn key(number: u64) -> Key {
    Key::new("tenant-0042", format!("{number:036}")).expect("a short key is valid")
}

/// The parts that the HTTP layer makes of a request with a body of 1 KiB.
pub(crate) fn fingerprint() -> Fingerprint {
    fingerprint_of(&[0x5a; 1024])
}

pub(crate) fn fingerprint_of(body: &[u8]) -> Fingerprint {
    Fingerprint::builder()
        .part("method", "POST")
        .part("target", "/api/v2/orders")
        .part("header authorization", "Bearer 3f1c9a0b7d")
        .part("header content-type", "application/json")
        .part("body", body)
        .finish()
}
