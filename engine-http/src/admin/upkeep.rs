//! The actions of operators on a running engine and its server.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use oncekey::Engine;
use serde_json::{Value, json};

use super::audit::Change;
use super::caller::Caller;
use super::desk::{Desk, Hook, Shared};
use super::gate::Operating;
use super::refusal::{Refusal, blocking};
use super::reports::Answer;

pub(crate) async fn fold(State(desk): Shared, Operating(caller): Operating) -> Answer {
    act(&desk, &caller, "fold", |engine| Ok(engine.fold().map(|()| json!({ "folded": true }))?))
        .await
}

pub(crate) async fn sweep(State(desk): Shared, Operating(caller): Operating) -> Answer {
    act(&desk, &caller, "sweep", |engine| {
        Ok(engine.sweep().map(|swept| json!({ "swept": swept }))?)
    })
    .await
}

pub(crate) async fn reopen(State(desk): Shared, Operating(caller): Operating) -> Answer {
    let reopen = |engine: &Engine| Ok(engine.reopen().map(|()| json!({ "reopened": true }))?);
    act(&desk, &caller, "reopen", reopen).await
}

async fn act(
    desk: &Arc<Desk>,
    caller: &Caller,
    action: &'static str,
    work: impl FnOnce(&Engine) -> Result<Value, Refusal> + Send + 'static,
) -> Answer {
    let engine = desk.engine().clone();
    let work = blocking(move || work(&engine));
    desk.settings.audit.around(caller, Change::of(action), work).await.map(Json)
}

pub(crate) async fn reload(State(desk): Shared, Operating(caller): Operating) -> Answer {
    let hook = desk.settings.reload.clone();
    ask(&desk, &caller, "reload", hook, json!({ "reloaded": true })).await
}

pub(crate) async fn drain(State(desk): Shared, Operating(caller): Operating) -> Answer {
    let hook = desk.settings.drain.clone();
    ask(&desk, &caller, "drain", hook, json!({ "draining": true })).await
}

async fn ask(
    desk: &Arc<Desk>,
    caller: &Caller,
    action: &'static str,
    hook: Option<Hook>,
    done: Value,
) -> Answer {
    let Some(hook) = hook else {
        return Err(Refusal::unsupported(format!("this server offers no {action}")));
    };
    let work = async move {
        let refused =
            |lines: Vec<String>| Refusal::new(StatusCode::CONFLICT, "refused", lines.join("; "));
        hook().await.map(|()| done).map_err(refused)
    };
    desk.settings.audit.around(caller, Change::of(action), work).await.map(Json)
}
