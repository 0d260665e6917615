//! Whether a session lets an operation in.

use super::Session;
use super::shards::Gate;
use crate::backend::operation::Operation;
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::sync::atomic::Ordering;
use crate::semantics::command::Command;
use crate::semantics::record::Record;

impl Gate for Session {
    fn reserve(&self, command: &Command) -> Result<()> {
        match command {
            Command::Checkpoint { data, .. } => return self.reserve_open_bytes(data.len()),
            Command::Begin { .. } => self.reserve_open_bytes(size_of::<Record>())?,
            Command::TakeOver { .. } => {}
            _ => return Ok(()),
        }
        let overloaded = |what: &str, limit: usize| {
            Err(Error::new(ErrorKind::Overloaded, format!("{limit} {what}, the most allowed")))
        };
        let options = &self.options;
        if let Some(why) = self.shortage.why() {
            let context = format!("no new claims for now: {}", why.context());
            return Err(Error::caused_by(why.kind(), context, why));
        }
        if self.queue.begins() >= options.max_queue {
            return overloaded("begins wait for the disk", options.max_queue);
        }
        if matches!(command, Command::Begin { .. }) && self.orphans_about() >= options.max_orphans {
            // Resolved orphans are counted until they are folded.
            self.folds.want();
            self.queue.nudge();
            return overloaded("orphans are unresolved", options.max_orphans);
        }
        if self.in_flight.fetch_add(1, Ordering::Relaxed)
            >= isize::try_from(options.max_in_flight).unwrap_or(isize::MAX)
        {
            self.in_flight.fetch_sub(1, Ordering::Relaxed);
            return overloaded("claims are in flight", options.max_in_flight);
        }
        Ok(())
    }

    fn reserve_waiter(&self, command: &Command) -> Result<()> {
        let limit = self.options.max_waiters;
        if self.waiters.fetch_add(1, Ordering::Relaxed) >= limit
            && matches!(command, Command::Begin { .. })
        {
            self.waiters.fetch_sub(1, Ordering::Relaxed);
            let message = format!("{limit} begins wait for an owner, the most allowed");
            return Err(Error::new(ErrorKind::Overloaded, message));
        }
        Ok(())
    }

    fn release_waiter(&self, op: &Operation) {
        self.waiters.fetch_sub(1, Ordering::Relaxed);
        if let Some(wait) = op.wait {
            self.timers.forget(wait, op.hash);
        }
    }
}
