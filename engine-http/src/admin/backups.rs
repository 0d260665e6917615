//! Backups: list, take, verify.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path as Segment, State};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::audit::Change;
use super::desk::{Desk, Shared};
use super::gate::{Operating, Said};
use super::refusal::{Refusal, blocking};
use super::reports::Answer;
use super::text::since_1970;

#[derive(Deserialize)]
pub(crate) struct Name {
    name: String,
}

/// `POST backups` of the router without roles: answers when the copy is complete.
pub(crate) async fn back_up(State(desk): Shared, Json(Name { name }): Json<Name>) -> Answer {
    let path = place(&desk, &name)?;
    blocking(move || {
        desk.engine().backup_to(&path)?;
        Ok(Json(json!({ "path": path.display().to_string() })))
    })
    .await
}

pub(crate) async fn list(State(desk): Shared) -> Answer {
    let Some(directory) = desk.settings.backups.clone() else { return Err(not_set_up()) };
    let failed = |error: std::io::Error| Refusal::failed(error.to_string());
    blocking(move || {
        let entries = match std::fs::read_dir(&directory) {
            Ok(entries) => entries,
            // The first backup creates the directory.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Json(json!({ "backups": [] })));
            }
            Err(error) => return Err(failed(error)),
        };
        let mut listed = Vec::new();
        for entry in entries {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if entry.path().is_dir() && path_of(&directory, &name).is_ok() {
                let modified = entry.metadata().and_then(|metadata| metadata.modified());
                listed.push(json!({
                    "name": name,
                    "createdMs": modified.map(since_1970).map_err(failed)?,
                    "bytes": bytes_of(&entry.path()).map_err(failed)?,
                    "whole": !entry.path().join("backup.unfinished").exists(),
                    "verified": desk.common.jobs.last("verify", &name),
                }));
            }
        }
        listed.sort_by_key(|backup| std::cmp::Reverse(backup["createdMs"].as_u64()));
        Ok(Json(json!({ "backups": listed })))
    })
    .await
}

fn bytes_of(directory: &Path) -> std::io::Result<u64> {
    std::fs::read_dir(directory)?.map(|entry| Ok(entry?.metadata()?.len())).sum()
}

/// Starts a backup and answers 202 with its job.
pub(crate) async fn begin(
    State(desk): Shared,
    Operating(caller): Operating,
    Said(Name { name }): Said<Name>,
) -> Result<(StatusCode, Json<Value>), Refusal> {
    let path = place(&desk, &name)?;
    let change = Change { name: Some(name.clone()), ..Change::of("backup") };
    let work = async {
        let copied = desk.clone();
        desk.common.jobs.begin("backup", name, move || {
            copied.engine().backup_to(&path)?;
            Ok(json!({ "path": path.display().to_string() }))
        })
    };
    let id = desk.settings.audit.around(&caller, change, work).await?;
    Ok((StatusCode::ACCEPTED, Json(json!({ "job": id.to_string() }))))
}

/// Starts a job that reads a backup and checks every record; answers 202. The backup is not changed.
pub(crate) async fn verify(
    State(desk): Shared,
    Operating(caller): Operating,
    Segment(name): Segment<String>,
) -> Result<(StatusCode, Json<Value>), Refusal> {
    let path = place(&desk, &name)?;
    if !path.is_dir() {
        return Err(Refusal::not_found("there is no such backup"));
    }
    let change = Change { name: Some(name.clone()), ..Change::of("verify") };
    let work = async { desk.common.jobs.begin("verify", name, move || verified(&path)) };
    let id = desk.settings.audit.around(&caller, change, work).await?;
    Ok((StatusCode::ACCEPTED, Json(json!({ "job": id.to_string() }))))
}

fn verified(path: &Path) -> Result<Value, Refusal> {
    let verification = oncekey::verify(path)?;
    let damage: Vec<_> = verification.damage().iter().map(ToString::to_string).collect();
    Ok(json!({ "records": verification.records(), "damage": damage }))
}

pub(crate) async fn job(State(desk): Shared, Segment(id): Segment<String>) -> Answer {
    let job = desk.common.jobs.show(&id);
    job.map(Json).ok_or_else(|| Refusal::not_found("there is no such job, or it was forgotten"))
}

fn not_set_up() -> Refusal {
    Refusal::not_found("backups are not set up")
}

fn place(desk: &Arc<Desk>, name: &str) -> Result<PathBuf, Refusal> {
    let directory = desk.settings.backups.as_ref().ok_or_else(not_set_up)?;
    path_of(directory, name)
}

/// The path of a backup. A name cannot leave the directory, and cannot be hidden in it.
fn path_of(directory: &Path, name: &str) -> Result<PathBuf, Refusal> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if name.is_empty() || name.starts_with('.') || name.len() > 128 || !name.bytes().all(plain) {
        let message = "a name has 1 to 128 letters, digits, - _ . and no . in front";
        return Err(Refusal::bad(message));
    }
    Ok(directory.join(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backup_stays_in_its_directory() {
        let directory = Path::new("/backups");
        assert_eq!(path_of(directory, "2026-07-01").unwrap(), directory.join("2026-07-01"));
        for name in ["", ".", "..", ".hidden", "a/b", "../a", "/etc", "a\\b", "a b", "\u{fc}"] {
            assert!(path_of(directory, name).is_err(), "{name}");
        }
    }
}
