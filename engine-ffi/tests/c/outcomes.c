/* The five outcomes, what claims and orphans can do, and everything else of the engine. */
#include "check.h"

static void outcomes(oncekey_engine engine) {
  oncekey_answer claimed = begin_as(engine, "order", "2 apples", ONCEKEY_CLAIMED);
  CHECK(claimed.attempt == 1 && claimed.claim.id != 0 && !claimed.has_data);

  oncekey_answer locked = begin_as(engine, "order", "2 apples", ONCEKEY_LOCKED);
  CHECK(locked.attempt == 1 && locked.claim.id == 0);
  CHECK(locked.retry_after_ms >= 100 && locked.retry_after_ms <= 500);

  oncekey_answer mismatch = begin_as(engine, "order", "3 apples", ONCEKEY_MISMATCH);
  CHECK(mismatch.data.len == 5 && strcmp((const char *)mismatch.data.ptr, "body") == 0);
  OK(oncekey_buffer_free(&mismatch.data));

  uint32_t kept;
  OK(oncekey_claim_complete(claimed.claim, bytes("a\0b", 3), &kept, NULL));
  CHECK(kept == 1);
  oncekey_answer replay = begin_as(engine, "order", "2 apples", ONCEKEY_REPLAY);
  CHECK(replay.has_data && replay.data.len == 3 && memcmp(replay.data.ptr, "a\0b", 3) == 0);
  CHECK(memcmp(&replay.token, &claimed.token, sizeof replay.token) == 0);
  CHECK(replay.expires_ms == replay.since_ms + 24 * 3600 * 1000);
  OK(oncekey_buffer_free(&replay.data));
  CHECK(replay.data.ptr == NULL && replay.data.len == 0);
}

static void responses(oncekey_engine engine) {
  uint32_t kept;
  OK(oncekey_claim_complete(claim_of(engine, "empty"), bytes(NULL, 0), &kept, NULL));
  CHECK(kept == 1);
  oncekey_answer empty = begin_as(engine, "empty", "b", ONCEKEY_REPLAY);
  CHECK(empty.has_data && empty.data.len == 0);

  OK(oncekey_claim_complete_with(claim_of(engine, "none"), NULL, 60000, &kept, NULL));
  CHECK(kept == 0);
  oncekey_answer none = begin_as(engine, "none", "b", ONCEKEY_REPLAY);
  CHECK(!none.has_data && none.expires_ms == none.since_ms + 60000);

  size_t len = (1 << 20) + 1;
  void *large = calloc(len, 1);
  OK(oncekey_claim_complete(claim_of(engine, "large"), bytes(large, len), &kept, NULL));
  CHECK(kept == 0);
  free(large);
}

static void orphans(oncekey_engine engine) {
  oncekey_claim claim = claim_of(engine, "orphan");
  OK(oncekey_claim_checkpoint(claim, oncekey_str("half way"), NULL));
  oncekey_info info;
  OK(oncekey_claim_info(claim, &info, NULL));
  CHECK(info.attempt == 1 && is_text(info.key.ptr, info.key.len, "orphan"));
  CHECK(is_text(info.scope.ptr, info.scope.len, "scope"));
  OK(oncekey_buffer_free(&info.data));
  OK(oncekey_claim_free(claim));

  oncekey_answer first = begin_as(engine, "orphan", "b", ONCEKEY_ORPHANED);
  oncekey_answer second = begin_as(engine, "orphan", "b", ONCEKEY_ORPHANED);
  CHECK(!first.has_data && !second.has_data);
  OK(oncekey_orphan_info(first.orphan, &info, NULL));
  CHECK(info.has_checkpoint && info.checkpoint.len == 0);
  CHECK(info.since_ms == first.since_ms);
  OK(oncekey_buffer_free(&info.data));

  oncekey_buffer saved;
  uint32_t has_saved;
  OK(oncekey_orphan_checkpoint(first.orphan, &saved, &has_saved, NULL));
  CHECK(has_saved && is_text(saved.ptr, saved.len, "half way"));
  OK(oncekey_buffer_free(&saved));

  oncekey_claim again;
  OK(oncekey_orphan_take_over(first.orphan, &again, NULL));
  IS(ONCEKEY_INVALID_HANDLE, oncekey_orphan_free(first.orphan));
  oncekey_error error;
  IS(ONCEKEY_FENCED, oncekey_orphan_checkpoint(second.orphan, &saved, &has_saved, NULL));
  CHECK(!has_saved && saved.ptr == NULL);
  IS(ONCEKEY_FENCED, oncekey_orphan_release(second.orphan, &error));
  CHECK(oncekey_error_status(error) == ONCEKEY_FENCED);
  CHECK(strstr(oncekey_error_message(error), "fenced") != NULL);
  OK(oncekey_error_free(error));
  IS(ONCEKEY_INVALID_HANDLE, oncekey_orphan_free(second.orphan));
  OK(oncekey_claim_info(again, &info, NULL));
  CHECK(info.attempt == 2 && is_text(info.checkpoint.ptr, info.checkpoint.len, "half way"));
  OK(oncekey_buffer_free(&info.data));
  /* A later attempt cannot vouch for the first: the orphan is back. */
  OK(oncekey_claim_abort(again, NULL));

  oncekey_orphan found[4];
  size_t count;
  OK(oncekey_engine_orphans(engine, found, 4, &count, NULL));
  CHECK(count == 1 && found[0].id != 0 && found[1].id == 0);
  OK(oncekey_orphan_complete(found[0], oncekey_str("it happened"), NULL, NULL));
  oncekey_answer replay = begin_as(engine, "orphan", "b", ONCEKEY_REPLAY);
  CHECK(is_text(replay.data.ptr, replay.data.len, "it happened"));
  OK(oncekey_buffer_free(&replay.data));

  OK(oncekey_claim_free(claim_of(engine, "released")));
  oncekey_answer released = begin_as(engine, "released", "b", ONCEKEY_ORPHANED);
  OK(oncekey_engine_orphans(engine, NULL, 0, &count, NULL));
  CHECK(count == 1);
  OK(oncekey_orphan_release(released.orphan, NULL));
  /* The first attempt frees its key. */
  OK(oncekey_claim_abort(claim_of(engine, "released"), NULL));
  OK(oncekey_claim_abort(claim_of(engine, "released"), NULL));
}

static void lookups(oncekey_engine engine) {
  oncekey_answer answer;
  OK(oncekey_engine_get(engine, named("nobody"), &answer, NULL));
  CHECK(answer.outcome == ONCEKEY_ABSENT);
  oncekey_claim claim = claim_of(engine, "looked at");
  OK(oncekey_engine_get(engine, named("looked at"), &answer, NULL));
  CHECK(answer.outcome == ONCEKEY_LOCKED && answer.attempt == 1);
  OK(oncekey_claim_complete(claim, oncekey_str("done"), NULL, NULL));
  OK(oncekey_engine_get(engine, named("looked at"), &answer, NULL));
  CHECK(answer.outcome == ONCEKEY_REPLAY && is_text(answer.data.ptr, answer.data.len, "done"));
  OK(oncekey_buffer_free(&answer.data));
}

static void waiting(oncekey_engine engine) {
  oncekey_claim claim = claim_of(engine, "waited for");
  oncekey_fingerprint fingerprint = of("b");
  oncekey_answer answer;
  OK(oncekey_begin(engine, named("waited for"), fingerprint, 20, &answer, NULL));
  CHECK(answer.outcome == ONCEKEY_LOCKED);
  OK(oncekey_claim_abort(claim, NULL));
  OK(oncekey_fingerprint_free(fingerprint));
}

static void upkeep(oncekey_engine engine) {
  oncekey_stats stats = {0};
  stats.size = sizeof stats;
  OK(oncekey_engine_stats(engine, &stats, NULL));
  CHECK(stats.size == sizeof stats && stats.claimed >= 5 && stats.taken_over == 1);
  CHECK(stats.in_flight == 0 && stats.oldest_claim_ms == 0);
  OK(oncekey_engine_fold(engine, NULL));
  uint64_t removed = 7;
  OK(oncekey_engine_sweep(engine, &removed, NULL));
  CHECK(removed == 0);

  char path[4096];
  beside(path, "-backup");
  if (is_shared()) {
    IS(ONCEKEY_UNSUPPORTED, oncekey_engine_backup(engine, oncekey_str("copy"), NULL));
    is_sound(path);
    return;
  }
  OK(oncekey_engine_backup(engine, oncekey_str(path), NULL));
  oncekey_error error;
  IS(ONCEKEY_INVALID_INPUT, oncekey_engine_backup(engine, oncekey_str(path), &error));
  OK(oncekey_error_free(error));
  OK(oncekey_verify(oncekey_str(path), NULL));
  oncekey_engine copy = open_at(path);
  oncekey_answer replay = begin_as(copy, "orphan", "b", ONCEKEY_REPLAY);
  OK(oncekey_buffer_free(&replay.data));
  end(copy);
  IS(ONCEKEY_STORE_IN_USE, oncekey_verify(oncekey_str(place), &error));
  OK(oncekey_error_free(error));
}

static void reopening(oncekey_engine engine) {
  oncekey_claim late = claim_of(engine, "late");
  OK(oncekey_engine_reopen(engine, NULL));
  oncekey_answer orphan = begin_as(engine, "late", "b", ONCEKEY_ORPHANED);
  OK(oncekey_claim_complete(late, oncekey_str("late"), NULL, NULL));
  IS(ONCEKEY_ALREADY_COMPLETED, oncekey_orphan_release(orphan.orphan, NULL));
}

/* Claims that are open at close are orphans afterwards; their handles answer and can be freed. */
static void closing(oncekey_engine engine) {
  oncekey_claim open = claim_of(engine, "open");
  oncekey_close_report report;
  OK(oncekey_engine_close(engine, &report, NULL));
  CHECK(report.in_flight == 1 && (report.folded_through > 0 || is_shared()));
  IS(ONCEKEY_CLOSED, oncekey_engine_close(engine, &report, NULL));
  CHECK(report.in_flight == 0 && report.folded_through == 0);
  IS(ONCEKEY_CLOSED, oncekey_claim_complete(open, oncekey_str("x"), NULL, NULL));
  OK(oncekey_engine_free(engine));
  IS(ONCEKEY_CLOSED, oncekey_claim_abort(open, NULL));
  OK(oncekey_claim_free(open));
  is_sound(place);

  engine = open_here();
  oncekey_answer orphan = begin_as(engine, "open", "b", ONCEKEY_ORPHANED);
  OK(oncekey_engine_free(engine));
  IS(ONCEKEY_CLOSED, oncekey_orphan_release(orphan.orphan, NULL));
  OK(oncekey_orphan_free(orphan.orphan));
}

void test(void) {
  oncekey_engine engine = open_here();
  outcomes(engine);
  responses(engine);
  orphans(engine);
  lookups(engine);
  waiting(engine);
  upkeep(engine);
  reopening(engine);
  closing(engine);
}
