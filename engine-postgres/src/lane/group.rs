//! Groups on a lane: the statements that carry one out.

use std::collections::HashSet;
use std::sync::atomic::Ordering;

use oncekey::fleet::store::{Failure, Group, GroupAnswer, RowImage};

use super::{Answered, Lane};
use crate::connection::Connection;
use crate::image;
use crate::rows::{self, Gate, Hash, Params};
use crate::statements::Sql;

impl Lane {
    /// Carries out a group: as a lean statement where that is likely to do, and what that leaves as
    /// a full one.
    pub(crate) async fn group(&mut self, group: &Group) -> Answered<GroupAnswer> {
        if self.meets && group.images.iter().all(image::is_new_claim) {
            return self.begins(group).await;
        }
        let mut lean = GroupAnswer::default();
        if !self.meets {
            match self.lean(group, &group.images.iter().collect::<Vec<_>>()).await {
                Ok(answer) => lean = answer,
                // The full statement does not wait for a row that another transaction holds.
                Err(Failure::NotCarriedOut(_)) if self.connection.is_some() => {}
                Err(failure) => return Err(failure),
            }
        }
        let left = left(group, lean.applied.iter().map(|applied| applied.hash));
        if left.is_empty() {
            return Ok(lean);
        }
        let mut answer = match self.full(group, &left).await {
            // The other changes were carried out. If one is sent again, its row tells.
            Err(failure) if !lean.applied.is_empty() => {
                return Err(Failure::Unknown(failure.error().clone()));
            }
            answer => answer?,
        };
        self.meets = answer.applied.len() < left.len();
        answer.applied.extend(lean.applied);
        Ok(answer)
    }

    /// Carries out a group of begins behind one that met rows: most of them are retries, and to read
    /// a row costs two thirds of an insert that finds it.
    async fn begins(&mut self, group: &Group) -> Answered<GroupAnswer> {
        let hashes: Vec<Hash> = group.images.iter().map(|image| Hash(image.hash)).collect();
        let read = self.look(group.instance, |statements| &statements.read, vec![Box::new(hashes)]);
        let mut answer = match read.await {
            Err(Failure::Unknown(error)) => return Err(Failure::NotCarriedOut(error)),
            answer => answer?,
        };
        self.meets = !answer.found.rows.is_empty();
        let left = left(group, answer.found.rows.iter().map(|row| row.hash));
        // The machine reads the row of a claim that is in no part of the answer.
        answer.applied = self.lean(group, &left).await?.applied;
        Ok(answer)
    }

    /// Runs the lean statement of these images, if there are any and there is one for them.
    async fn lean(&mut self, group: &Group, images: &[&RowImage]) -> Answered<GroupAnswer> {
        let common = self.common.clone();
        let Some((sql, params)) = image::lean(&common.statements.lean, images) else {
            return Ok(GroupAnswer::default());
        };
        let (rows, generation) = self.group_statement(group, sql, params).await?;
        let answer = rows::lean_answer(&rows, generation)?;
        self.acknowledge(group, &answer);
        Ok(answer)
    }

    /// Runs the full statement of these images.
    async fn full(&mut self, group: &Group, images: &[&RowImage]) -> Answered<GroupAnswer> {
        let common = self.common.clone();
        let (sql, params) = image::full(&common.statements.full, images);
        let (rows, generation) = self.group_statement(group, sql, params).await?;
        let answer = rows::answer(&rows, generation)?.map_err(|shut| self.shut(shut))?;
        self.acknowledge(group, &answer);
        Ok(answer)
    }

    /// Notes that the server holds the changes of a group durably.
    fn acknowledge(&self, group: &Group, answer: &GroupAnswer) {
        let known = &self.common.known;
        if group.durable
            && !answer.applied.is_empty()
            && group.instance == known.instance.load(Ordering::SeqCst)
        {
            known.acknowledged[group.lane].store(group.number, Ordering::SeqCst);
        }
    }

    /// Runs one statement of a group, and makes sure that the changes it carried out are as durable
    /// as they are asked to be. Returns the generation of the server, too.
    async fn group_statement(
        &mut self,
        group: &Group,
        sql: &Sql,
        more: Params<'_>,
    ) -> Answered<(Vec<tokio_postgres::Row>, i64)> {
        let met = self.connect().await?;
        let mut gate = Gate {
            valid_until: group.valid_until,
            number: group.number,
            lane: group.lane,
            ..self.gate(&met, group.instance)
        };
        if !group.durable {
            gate.synchronous_commit = "off";
        }
        let mut params = gate.params();
        params.extend(more);
        let warnings = self.connection.as_ref().map_or(0, Connection::warnings);
        let rows = self.run_here(sql, &params).await?;
        if group.durable
            && self.connection.as_ref().is_some_and(|connection| connection.warnings() != warnings)
        {
            // DURABLE: answers wait for a later commit that the standby acknowledged.
            let renewed = self.renew_here(group.instance).await;
            renewed.map_err(|failure| Failure::Unknown(failure.error().clone()))?;
        }
        Ok((rows, met.generation))
    }
}

/// The images of a group whose rows are not among those that are settled.
fn left(group: &Group, settled: impl ExactSizeIterator<Item = u128>) -> Vec<&RowImage> {
    if settled.len() == group.images.len() {
        return Vec::new();
    }
    let settled: HashSet<u128> = settled.collect();
    group.images.iter().filter(|image| !settled.contains(&image.hash)).collect()
}
