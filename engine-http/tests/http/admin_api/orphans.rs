//! Orphans are resolved, and each resolution is written down.

use serde_json::json;

use super::desk;

#[tokio::test]
async fn an_orphan_is_resolved_with_a_reason_and_written_down() {
    let desk = desk(|admin, _| admin);
    let orphan = desk.orphan("first").await;
    for (member, value, code) in [
        ("reason", json!("no"), "reason"),
        ("reason", json!(null), "invalid"),
        ("confirm", json!("xxxx"), "confirm"),
        ("confirm", json!(""), "confirm"),
    ] {
        let mut wrong = orphan.clone();
        wrong[member] = value;
        let answer = desk.post("operator", "orphans/release", wrong).await;
        assert_eq!(answer.json()["code"], code, "{member}");
    }
    assert_eq!(desk.audit().len(), 0, "nothing was changed, nothing is written");
    let released = desk.post("operator", "orphans/release", orphan.clone()).await;
    assert_eq!(released.json(), json!({"released": true}));
    let again = desk.post("operator", "orphans/release", orphan).await;
    assert_eq!(again.refused(), (409, "conflict".to_owned()), "another caller was first");

    let mut second = desk.orphan("second").await;
    second["status"] = json!(201);
    second["bodyBase64"] = json!("AP8=");
    let completed = desk.post("operator", "orphans/complete", second).await;
    assert_eq!(completed.json(), json!({"completed": true, "responseKept": true}));

    let audit = desk.audit();
    let lines: Vec<_> = audit
        .iter()
        .map(|line| {
            let text = |member: &str| line[member].as_str().unwrap_or_default().to_owned();
            (text("action"), text("key"), text("result").split(':').next().unwrap().to_owned())
        })
        .collect();
    let expected = [
        ("release", "first", "asked"),
        ("release", "first", "done"),
        ("release", "first", "asked"),
        ("release", "first", "refused"),
        ("complete", "second", "asked"),
        ("complete", "second", "done"),
    ];
    let expected = expected.map(|(action, key, result)| (action.into(), key.into(), result.into()));
    assert_eq!(lines, expected);
    for line in &audit {
        assert_eq!((&line["who"], &line["peer"]), (&json!("operator token"), &json!("192.0.2.7")));
        assert_eq!((&line["reason"], &line["scope"]), (&json!("never charged"), &json!("t")));
    }
}

#[tokio::test]
async fn nothing_is_changed_when_it_cannot_be_written_down() {
    let desk = desk(|admin, directory| admin.audit_log(directory.join("no/such/directory")));
    let orphan = desk.orphan("k").await;
    let answer = desk.post("operator", "orphans/release", orphan).await;
    assert_eq!(answer.refused(), (503, "audit_failed".to_owned()));
    assert_eq!(desk.get("orphans").await.json()["total"], 1);
    assert_eq!(desk.post("operator", "fold", json!({})).await.status, 503);
}

#[tokio::test]
async fn many_orphans_are_resolved_each_for_itself() {
    let desk = desk(|admin, _| admin);
    let mut list = Vec::new();
    for key in ["a", "b", "c"] {
        let mut orphan = desk.orphan(key).await;
        orphan["action"] = json!("release");
        list.push(orphan);
    }
    list[1]["confirm"] = json!("nope");
    list[2]["action"] = json!("complete");
    list[2]["status"] = json!(204);
    list.push(json!({"action": "explode", "key": "d"}));
    let answer = desk.post("operator", "orphans/resolve", json!(list)).await.json();
    let results = answer.as_array().unwrap();
    assert_eq!((&results[0]["key"], &results[0]["released"]), (&json!("a"), &json!(true)));
    assert_eq!((&results[1]["key"], &results[1]["code"]), (&json!("b"), &json!("confirm")));
    assert_eq!(results[2]["completed"], true);
    assert_eq!((&results[3]["code"], results.len()), (&json!("invalid"), 4));
    assert_eq!(desk.get("orphans").await.json()["total"], 1);
    let answer = desk.post("operator", "orphans/resolve", json!(vec![json!({}); 1001])).await;
    assert_eq!(answer.status, 400);
}

#[tokio::test]
async fn a_checkpoint_is_bytes() {
    let desk = desk(|admin, _| admin);
    desk.orphan("k").await;
    let answer = desk.get("orphans/checkpoint?scope=t&key=k").await;
    assert_eq!((answer.status, &answer.body[..]), (200, &b"\0saved"[..]));
    assert_eq!(desk.get("orphans/checkpoint?scope=t&key=other").await.status, 404);
}
