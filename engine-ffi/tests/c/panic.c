/* A panic inside of any call is contained. Needs a library with the feature `inject-panic`. */
#include "check.h"

void oncekey_test_panic_next(void);

#define PANICS(call)            \
  do {                          \
    oncekey_test_panic_next();  \
    IS(ONCEKEY_PANIC, call);    \
  } while (0)

void test(void) {
  oncekey_engine engine = open_here(), opened;
  oncekey_claim claim = claim_of(engine, "claimed"), again;
  OK(oncekey_claim_free(claim_of(engine, "orphaned")));
  oncekey_orphan orphan = begin_as(engine, "orphaned", "b", ONCEKEY_ORPHANED).orphan;
  oncekey_fingerprint fingerprint = of("b"), made;
  oncekey_queue queue, other;
  OK(oncekey_queue_new(engine, 0, &queue, NULL));
  oncekey_answer answer;
  oncekey_info info;
  oncekey_completion completion;
  oncekey_submission submission;
  memset(&submission, 0, sizeof submission);
  oncekey_request request;
  memset(&request, 0, sizeof request);
  oncekey_stats stats = {0};
  stats.size = sizeof stats;
  oncekey_buffer buffer = {NULL, 0, 0};
  size_t count;
  oncekey_buffer saved;
  uint32_t found;
  int32_t fd;
  oncekey_error none = {0}, error;

  PANICS(oncekey_engine_open(oncekey_str("x"), NULL, &opened, NULL));
  PANICS(oncekey_engine_reopen(engine, NULL));
  PANICS(oncekey_engine_close(engine, NULL, NULL));
  PANICS(oncekey_engine_free(engine));
  PANICS(oncekey_engine_get(engine, named("k"), &answer, NULL));
  PANICS(oncekey_engine_orphans(engine, NULL, 0, &count, NULL));
  PANICS(oncekey_engine_stats(engine, &stats, NULL));
  PANICS(oncekey_engine_fold(engine, NULL));
  PANICS(oncekey_engine_sweep(engine, NULL, NULL));
  PANICS(oncekey_engine_backup(engine, oncekey_str("x"), NULL));
  PANICS(oncekey_verify(oncekey_str("x"), NULL));
  PANICS(oncekey_fingerprint_from_parts(NULL, 0, &made, NULL));
  PANICS(oncekey_fingerprint_from_request(&request, &made, NULL));
  PANICS(oncekey_fingerprint_free(fingerprint));
  PANICS(oncekey_begin(engine, named("k"), fingerprint, 0, &answer, &error));
  CHECK(answer.outcome == 0 && error.id == 0);
  PANICS(oncekey_claim_complete(claim, oncekey_str("r"), NULL, NULL));
  PANICS(oncekey_claim_complete_with(claim, NULL, 0, NULL, NULL));
  PANICS(oncekey_claim_abort(claim, NULL));
  PANICS(oncekey_claim_checkpoint(claim, oncekey_str("c"), NULL));
  PANICS(oncekey_claim_info(claim, &info, NULL));
  PANICS(oncekey_claim_free(claim));
  PANICS(oncekey_orphan_take_over(orphan, &again, NULL));
  PANICS(oncekey_orphan_complete(orphan, oncekey_str("r"), NULL, NULL));
  PANICS(oncekey_orphan_release(orphan, NULL));
  PANICS(oncekey_orphan_info(orphan, &info, NULL));
  PANICS(oncekey_orphan_checkpoint(orphan, &saved, &found, NULL));
  PANICS(oncekey_orphan_free(orphan));
  PANICS(oncekey_queue_new(engine, 0, &other, NULL));
  PANICS(oncekey_queue_submit(queue, &submission, 1, &count, NULL));
  PANICS(oncekey_queue_poll(queue, &completion, 1, 0, &count, NULL));
  PANICS(oncekey_queue_wake(queue));
  PANICS(oncekey_queue_cancel(queue, 1));
  PANICS(oncekey_queue_fd(queue, &fd, NULL));
  PANICS(oncekey_queue_free(queue));
  PANICS(oncekey_buffer_free(&buffer));
  PANICS(oncekey_error_free(none));
  PANICS(oncekey_error_status(none));
  oncekey_test_panic_next();
  CHECK(strcmp(oncekey_error_message(none), "") == 0);

  /* Everything works on as if nothing had happened. */
  OK(oncekey_queue_free(queue));
  OK(oncekey_fingerprint_free(fingerprint));
  OK(oncekey_orphan_free(orphan));
  OK(oncekey_claim_complete(claim, oncekey_str("r"), NULL, NULL));
  end(engine);
}
