/* Completion queues: every operation, bad submissions, waking, descriptors, and completions that are never received. */
#include "check.h"
#include <poll.h>
#include <pthread.h>
#include <time.h>

static oncekey_submission submission(uint32_t op, uint64_t user_data) {
  oncekey_submission made;
  memset(&made, 0, sizeof made);
  made.op = op;
  made.user_data = user_data;
  return made;
}

static oncekey_submission beginning(const char *name, const char *body) {
  oncekey_submission made = submission(ONCEKEY_OP_BEGIN, 1);
  made.key = named(name);
  made.fingerprint = of(body);
  made.flags = ONCEKEY_FREE_FINGERPRINT;
  return made;
}

static void submit(oncekey_queue queue, const oncekey_submission *submissions, size_t count) {
  size_t accepted;
  OK(oncekey_queue_submit(queue, submissions, count, &accepted, NULL));
  CHECK(accepted == count);
}

static oncekey_completion take(oncekey_queue queue) {
  oncekey_completion completion;
  size_t count;
  OK(oncekey_queue_poll(queue, &completion, 1, 60000, &count, NULL));
  CHECK(count == 1);
  return completion;
}

static oncekey_completion result(oncekey_queue queue, oncekey_submission made, int32_t status) {
  submit(queue, &made, 1);
  oncekey_completion completion = take(queue);
  IS(status, completion.status);
  CHECK(completion.op == made.op && completion.user_data == made.user_data);
  CHECK((completion.error.id != 0) == (status != ONCEKEY_OK));
  OK(oncekey_error_free(completion.error));
  OK(oncekey_buffer_free(&completion.answer.data));
  return completion;
}

static void operations(oncekey_queue queue) {
  oncekey_completion begun = result(queue, beginning("k", "b"), ONCEKEY_OK);
  CHECK(begun.answer.outcome == ONCEKEY_CLAIMED && begun.answer.attempt == 1);
  CHECK(result(queue, beginning("k", "b"), ONCEKEY_OK).answer.outcome == ONCEKEY_LOCKED);
  CHECK(result(queue, beginning("k", "c"), ONCEKEY_OK).answer.outcome == ONCEKEY_MISMATCH);

  oncekey_submission save = submission(ONCEKEY_OP_CHECKPOINT, 2);
  save.claim = begun.answer.claim;
  save.data = oncekey_str("half way");
  result(queue, save, ONCEKEY_OK);
  OK(oncekey_claim_free(begun.answer.claim));

  oncekey_completion found = result(queue, beginning("k", "b"), ONCEKEY_OK);
  CHECK(found.answer.outcome == ONCEKEY_ORPHANED && !found.answer.has_data);
  oncekey_submission take_over = submission(ONCEKEY_OP_TAKE_OVER, 3);
  take_over.orphan = found.answer.orphan;
  oncekey_completion taken = result(queue, take_over, ONCEKEY_OK);
  CHECK(taken.answer.outcome == ONCEKEY_CLAIMED && taken.answer.attempt == 2);
  CHECK(taken.answer.has_data);
  result(queue, take_over, ONCEKEY_INVALID_HANDLE);

  oncekey_submission complete = submission(ONCEKEY_OP_COMPLETE, 4);
  complete.claim = taken.answer.claim;
  complete.data = oncekey_str("response");
  CHECK(result(queue, complete, ONCEKEY_OK).kept == 1);
  result(queue, complete, ONCEKEY_INVALID_HANDLE);
  oncekey_completion replay = result(queue, beginning("k", "b"), ONCEKEY_OK);
  CHECK(replay.answer.outcome == ONCEKEY_REPLAY && replay.answer.has_data);

  oncekey_submission abandon = submission(ONCEKEY_OP_ABORT, 5);
  abandon.claim = result(queue, beginning("aborted", "b"), ONCEKEY_OK).answer.claim;
  result(queue, abandon, ONCEKEY_OK);
  complete.claim = result(queue, beginning("aborted", "b"), ONCEKEY_OK).answer.claim;
  complete.flags = ONCEKEY_NO_RESPONSE;
  CHECK(result(queue, complete, ONCEKEY_OK).kept == 0);

  for (int release = 0; release < 2; release++) {
    OK(oncekey_claim_free(result(queue, beginning("o", "b"), ONCEKEY_OK).answer.claim));
    oncekey_submission resolve =
        submission(release ? ONCEKEY_OP_ORPHAN_COMPLETE : ONCEKEY_OP_RELEASE, 6);
    resolve.orphan = result(queue, beginning("o", "b"), ONCEKEY_OK).answer.orphan;
    result(queue, resolve, ONCEKEY_OK);
  }
}

/* The parts in a submission make the same fingerprint as a handle. */
static void parts(oncekey_queue queue) {
  oncekey_part body = {oncekey_str("body"), oncekey_str("b")};
  oncekey_submission made = submission(ONCEKEY_OP_BEGIN, 1);
  made.key = named("parts");
  made.flags = ONCEKEY_FINGERPRINT_PARTS;
  made.parts = &body;
  made.part_count = 1;
  oncekey_completion begun = result(queue, made, ONCEKEY_OK);
  CHECK(begun.answer.outcome == ONCEKEY_CLAIMED);
  CHECK(result(queue, beginning("parts", "b"), ONCEKEY_OK).answer.outcome == ONCEKEY_LOCKED);
  CHECK(result(queue, made, ONCEKEY_OK).answer.outcome == ONCEKEY_LOCKED);
  body.value = oncekey_str("c");
  CHECK(result(queue, made, ONCEKEY_OK).answer.outcome == ONCEKEY_MISMATCH);

  oncekey_part many[65];
  for (int i = 0; i < 65; i++) many[i] = body;
  made.parts = many;
  made.part_count = 65;
  result(queue, made, ONCEKEY_INVALID_INPUT);
  made.parts = NULL;
  result(queue, made, ONCEKEY_INVALID_INPUT);
  made.part_count = 0;
  CHECK(result(queue, made, ONCEKEY_OK).answer.outcome == ONCEKEY_MISMATCH);

  oncekey_submission abandon = submission(ONCEKEY_OP_ABORT, 5);
  abandon.claim = begun.answer.claim;
  abandon.flags = ONCEKEY_FINGERPRINT_PARTS;
  result(queue, abandon, ONCEKEY_OK);
}

static void refusals(oncekey_queue queue, oncekey_engine engine) {
  result(queue, submission(0, 1), ONCEKEY_INVALID_INPUT);
  result(queue, submission(99, 1), ONCEKEY_INVALID_INPUT);
  result(queue, submission(ONCEKEY_OP_ABORT, 1), ONCEKEY_INVALID_HANDLE);
  oncekey_submission made = beginning("", "b");
  result(queue, made, ONCEKEY_INVALID_INPUT);
  IS(ONCEKEY_INVALID_HANDLE, oncekey_fingerprint_free(made.fingerprint));
  made = beginning("k", "b");
  made.flags |= 1u << 31;
  result(queue, made, ONCEKEY_INVALID_INPUT);

  /* The bound is for begins; ends are never refused. */
  oncekey_queue small;
  OK(oncekey_queue_new(engine, 2, &small, NULL));
  oncekey_submission three[3] = {beginning("s1", "b"), beginning("s2", "b"), beginning("s3", "b")};
  size_t accepted;
  IS(ONCEKEY_OVERLOADED, oncekey_queue_submit(small, three, 3, &accepted, NULL));
  CHECK(accepted == 2);
  submit(small, (oncekey_submission[]){submission(ONCEKEY_OP_ABORT, 9)}, 1);
  int claims = 0;
  for (int i = 0; i < 3; i++) {
    oncekey_completion completion = take(small);
    claims += completion.answer.outcome == ONCEKEY_CLAIMED;
    OK(oncekey_claim_free(completion.answer.claim));
    OK(oncekey_error_free(completion.error));
  }
  CHECK(claims == 2);
  submit(small, &three[2], 1);
  OK(oncekey_queue_free(small));
}

static void *wake_soon(void *queue) {
  struct timespec pause = {0, 20 * 1000 * 1000};
  nanosleep(&pause, NULL);
  OK(oncekey_queue_wake(*(oncekey_queue *)queue));
  return NULL;
}

static void waiting(oncekey_queue queue) {
  oncekey_completion completion;
  size_t count = 7;
  OK(oncekey_queue_poll(queue, &completion, 1, 0, &count, NULL));
  CHECK(count == 0);
  OK(oncekey_queue_poll(queue, &completion, 1, 10, &count, NULL));
  CHECK(count == 0);
  pthread_t thread;
  CHECK(pthread_create(&thread, NULL, wake_soon, &queue) == 0);
  OK(oncekey_queue_poll(queue, &completion, 1, UINT64_MAX, &count, NULL));
  CHECK(count == 0);
  CHECK(pthread_join(thread, NULL) == 0);

  int32_t fd;
  OK(oncekey_queue_fd(queue, &fd, NULL));
  struct pollfd readable = {fd, POLLIN, 0};
  CHECK(poll(&readable, 1, 0) == 0);
  oncekey_submission two[2] = {beginning("fd1", "b"), beginning("fd2", "b")};
  submit(queue, two, 2);
  for (int i = 0; i < 2; i++) {
    CHECK(poll(&readable, 1, 60000) == 1);
    OK(oncekey_claim_free(take(queue).answer.claim));
  }
  CHECK(poll(&readable, 1, 0) == 0);
}

/* Claims that no caller received are aborted, so their keys are free. */
static void unreceived(oncekey_engine engine) {
  char name[16];
  for (int polled = 0; polled < 2; polled++) {
    oncekey_queue queue;
    OK(oncekey_queue_new(engine, 0, &queue, NULL));
    for (int i = 0; i < 100; i++) {
      snprintf(name, sizeof name, "never %d", i);
      oncekey_submission made = beginning(name, "b");
      submit(queue, &made, 1);
    }
    if (polled) {
      oncekey_submission last = beginning("polled", "b");
      submit(queue, &last, 1);
      /* By then the claims before it were won. */
      for (;;) {
        oncekey_stats stats = {0};
        stats.size = sizeof stats;
        OK(oncekey_engine_stats(engine, &stats, NULL));
        if (stats.queued == 0) break;
      }
    }
    OK(oncekey_queue_free(queue));
    IS(ONCEKEY_INVALID_HANDLE, oncekey_queue_free(queue));
    oncekey_fingerprint fingerprint = of("b");
    for (int i = 0; i < 100; i++) {
      snprintf(name, sizeof name, "never %d", i);
      oncekey_answer answer;
      OK(oncekey_begin(engine, named(name), fingerprint, 60000, &answer, NULL));
      CHECK(answer.outcome == ONCEKEY_CLAIMED && answer.attempt == 1);
      OK(oncekey_claim_abort(answer.claim, NULL));
    }
    OK(oncekey_fingerprint_free(fingerprint));
  }
}

static void wait_for_waiters(oncekey_engine engine, uint64_t waiters) {
  oncekey_stats stats;
  do {
    memset(&stats, 0, sizeof stats);
    stats.size = sizeof stats;
    OK(oncekey_engine_stats(engine, &stats, NULL));
  } while (stats.waiters != waiters);
}

static oncekey_submission waiting_as(const char *name, uint64_t user_data) {
  oncekey_submission made = beginning(name, "b");
  made.max_wait_ms = 24 * 3600 * 1000;
  made.user_data = user_data;
  return made;
}

/* The next completion is of a begin that was given up; the user data is that of its submission. */
static uint64_t cancelled(oncekey_queue queue) {
  oncekey_completion completion = take(queue);
  IS(ONCEKEY_CANCELLED, completion.status);
  CHECK(completion.op == ONCEKEY_OP_BEGIN && completion.answer.outcome == 0);
  CHECK(completion.answer.claim.id == 0);
  CHECK(oncekey_error_status(completion.error) == ONCEKEY_CANCELLED);
  OK(oncekey_error_free(completion.error));
  return completion.user_data;
}

/* No owner ends the operation and no bound passes, so only the cancelling makes room for another. */
static void cancelling(void) {
  char path[4096];
  beside(path, "-sizes");
  oncekey_options options = {0};
  options.size = sizeof options;
  if (is_shared()) options.schema = oncekey_str("sizes");
  else options.segment_bytes = 4 << 20;
  options.max_waiters = 1;
  oncekey_engine engine;
  oncekey_queue queue;
  OK(oncekey_engine_open(oncekey_str(path), &options, &engine, NULL));
  OK(oncekey_queue_new(engine, 0, &queue, NULL));
  oncekey_claim owner = claim_of(engine, "owned");
  for (uint64_t i = 1; i <= 3; i++) {
    oncekey_submission waits = waiting_as("owned", i);
    submit(queue, &waits, 1);
    wait_for_waiters(engine, 1);
    oncekey_submission second = waiting_as("owned", i);
    result(queue, second, ONCEKEY_OVERLOADED);
    OK(oncekey_queue_cancel(queue, i + 100));
    wait_for_waiters(engine, 1);
    OK(oncekey_queue_cancel(queue, i));
    wait_for_waiters(engine, 0);
    OK(oncekey_queue_cancel(queue, i));
    CHECK(cancelled(queue) == i);
    OK(oncekey_queue_cancel(queue, i));
  }
  oncekey_completion none;
  size_t count;
  OK(oncekey_queue_poll(queue, &none, 1, 0, &count, NULL));
  CHECK(count == 0);

  /* An earlier answer stays, and its claim is the caller's. */
  oncekey_submission waits = waiting_as("owned", 7);
  submit(queue, &waits, 1);
  OK(oncekey_claim_abort(owner, NULL));
  int32_t fd;
  OK(oncekey_queue_fd(queue, &fd, NULL));
  struct pollfd readable = {fd, POLLIN, 0};
  CHECK(poll(&readable, 1, 60000) == 1);
  OK(oncekey_queue_cancel(queue, 7));
  oncekey_completion begun = take(queue);
  IS(ONCEKEY_OK, begun.status);
  CHECK(begun.answer.outcome == ONCEKEY_CLAIMED && begun.answer.attempt == 1);

  /* Cancels every submission with this user data, and no other. */
  oncekey_submission save = submission(ONCEKEY_OP_CHECKPOINT, 8);
  save.claim = begun.answer.claim;
  oncekey_submission both[2] = {save, waiting_as("owned", 8)};
  submit(queue, both, 2);
  OK(oncekey_queue_cancel(queue, 8));
  int saved = 0, given_up = 0;
  for (int i = 0; i < 2; i++) {
    oncekey_completion completion = take(queue);
    saved += completion.op == ONCEKEY_OP_CHECKPOINT && completion.status == ONCEKEY_OK;
    given_up += completion.op == ONCEKEY_OP_BEGIN && completion.status == ONCEKEY_CANCELLED;
    OK(oncekey_error_free(completion.error));
  }
  CHECK(saved == 1 && given_up == 1);

  /* A queue that is freed takes its waits along. */
  waits = waiting_as("owned", 9);
  submit(queue, &waits, 1);
  wait_for_waiters(engine, 1);
  OK(oncekey_queue_free(queue));
  wait_for_waiters(engine, 0);
  IS(ONCEKEY_INVALID_HANDLE, oncekey_queue_cancel(queue, 9));
  OK(oncekey_claim_abort(begun.answer.claim, NULL));
  end(engine);
}

enum { RACES = 300 };

static void *cancel_all(void *queue) {
  for (uint64_t i = 0; i < RACES; i++) OK(oncekey_queue_cancel(*(oncekey_queue *)queue, i));
  return NULL;
}

/* Cancelled while it is submitted, handed the key, or polled: each has one completion, and what it says
 * is so. */
static void cancelling_races(oncekey_engine engine) {
  oncekey_queue queue;
  OK(oncekey_queue_new(engine, 0, &queue, NULL));
  pthread_t thread;
  char seen[RACES] = {0};
  CHECK(pthread_create(&thread, NULL, cancel_all, &queue) == 0);
  for (uint64_t i = 0; i < RACES; i++) {
    oncekey_submission waits = waiting_as("raced", i);
    submit(queue, &waits, 1);
  }
  CHECK(pthread_join(thread, NULL) == 0);
  /* Those that came before they could be cancelled take turns. */
  for (int i = 0; i < RACES; i++) {
    oncekey_completion completion = take(queue);
    CHECK(completion.user_data < RACES && !seen[completion.user_data]);
    seen[completion.user_data] = 1;
    if (completion.status == ONCEKEY_OK) {
      CHECK(completion.answer.outcome == ONCEKEY_CLAIMED && completion.answer.attempt == 1);
      OK(oncekey_claim_abort(completion.answer.claim, NULL));
    } else {
      IS(ONCEKEY_CANCELLED, completion.status);
      CHECK(completion.answer.claim.id == 0);
    }
    OK(oncekey_error_free(completion.error));
  }
  /* No claim is left without a holder. */
  oncekey_submission last = waiting_as("raced", 0);
  oncekey_completion begun = result(queue, last, ONCEKEY_OK);
  CHECK(begun.answer.outcome == ONCEKEY_CLAIMED && begun.answer.attempt == 1);
  OK(oncekey_claim_abort(begun.answer.claim, NULL));
  wait_for_waiters(engine, 0);
  OK(oncekey_queue_free(queue));
}

static void *poll_until_freed(void *queue) {
  oncekey_completion completion;
  size_t count;
  int32_t status = oncekey_queue_poll(*(oncekey_queue *)queue, &completion, 1, UINT64_MAX, &count, NULL);
  CHECK((status == ONCEKEY_OK && count == 0) || status == ONCEKEY_INVALID_HANDLE);
  return NULL;
}

void test(void) {
  oncekey_engine engine = open_here();
  oncekey_queue queue;
  OK(oncekey_queue_new(engine, 0, &queue, NULL));
  operations(queue);
  parts(queue);
  refusals(queue, engine);
  waiting(queue);
  unreceived(engine);
  cancelling();
  cancelling_races(engine);

  /* A begin that waits for an owner is answered when that ends. */
  oncekey_claim owner = claim_of(engine, "owned");
  oncekey_submission waits = beginning("owned", "b");
  waits.max_wait_ms = 60000;
  submit(queue, &waits, 1);
  OK(oncekey_claim_complete(owner, oncekey_str("for the waiter"), NULL, NULL));
  oncekey_completion replay = take(queue);
  CHECK(replay.answer.outcome == ONCEKEY_REPLAY);
  OK(oncekey_buffer_free(&replay.answer.data));

  pthread_t thread;
  CHECK(pthread_create(&thread, NULL, poll_until_freed, &queue) == 0);
  struct timespec pause = {0, 20 * 1000 * 1000};
  nanosleep(&pause, NULL);
  oncekey_queue after;
  OK(oncekey_queue_new(engine, 0, &after, NULL));
  OK(oncekey_queue_free(queue));
  CHECK(pthread_join(thread, NULL) == 0);
  OK(oncekey_engine_free(engine));
  result(after, beginning("closed", "b"), ONCEKEY_CLOSED);
  OK(oncekey_queue_free(after));
}
