/* Calls from the last destructors of a thread: when they run, the library's own thread-local storage is
 * gone. Each round of destructors is run after one more round of the library's. */
#include "check.h"
#include <pthread.h>

enum { ROUNDS = 4 };

static oncekey_engine engine;
static oncekey_queue queue;
static oncekey_claim outside;
static pthread_key_t last;
static void (*body)(int round);
static int rounds;

static void at_end(void *value) {
  body(rounds++);
  if (rounds < ROUNDS) CHECK(pthread_setspecific(last, value) == 0);
}

/* The destructor runs first after a call, or in a thread that never called the library. */
static void *called_before(void *unused) {
  oncekey_stats stats = {0};
  stats.size = sizeof stats;
  if (engine.id != 0) OK(oncekey_engine_stats(engine, &stats, NULL));
  CHECK(pthread_setspecific(last, &engine) == 0);
  return unused;
}
static void *never_called(void *unused) {
  CHECK(pthread_setspecific(last, &engine) == 0);
  return unused;
}

static void in_destructors(void (*what)(int round)) {
  void *(*threads[])(void *) = {called_before, never_called};
  for (int i = 0; i < 2; i++) {
    pthread_t thread;
    body = what;
    rounds = 0;
    CHECK(pthread_create(&thread, NULL, threads[i], NULL) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
    CHECK(rounds == ROUNDS);
  }
}

static const char *fresh(void) {
  static char name[32];
  static int count;
  snprintf(name, sizeof name, "key %d", count++);
  return name;
}

static void pairs(int round) {
  (void)round;
  OK(oncekey_claim_complete(claim_of(engine, fresh()), oncekey_str("r"), NULL, NULL));
  OK(oncekey_claim_abort(claim_of(engine, fresh()), NULL));
  oncekey_claim claim = claim_of(engine, fresh());
  OK(oncekey_claim_checkpoint(claim, oncekey_str("half"), NULL));
  OK(oncekey_claim_free(claim));
}

static void orphans(int round) {
  (void)round;
  const char *name = fresh();
  OK(oncekey_claim_free(claim_of(engine, name)));
  oncekey_answer answer = begin_as(engine, name, "b", ONCEKEY_ORPHANED);
  oncekey_claim claim;
  OK(oncekey_orphan_take_over(answer.orphan, &claim, NULL));
  OK(oncekey_claim_complete(claim, oncekey_str("r"), NULL, NULL));
  name = fresh();
  OK(oncekey_claim_free(claim_of(engine, name)));
  answer = begin_as(engine, name, "b", ONCEKEY_ORPHANED);
  OK(oncekey_orphan_release(answer.orphan, NULL));
}

/* A begin that waits for an owner: past its bound, and until the owner ends. */
static void *owner_ends(void *unused) {
  OK(oncekey_claim_complete(outside, oncekey_str("r"), NULL, NULL));
  return unused;
}
static void waits(int round) {
  (void)round;
  const char *name = fresh();
  outside = claim_of(engine, name);
  oncekey_fingerprint fingerprint = of("b");
  oncekey_answer answer;
  OK(oncekey_begin(engine, named(name), fingerprint, 1, &answer, NULL));
  CHECK(answer.outcome == ONCEKEY_LOCKED);
  pthread_t owner;
  CHECK(pthread_create(&owner, NULL, owner_ends, NULL) == 0);
  OK(oncekey_begin(engine, named(name), fingerprint, UINT64_MAX, &answer, NULL));
  CHECK(answer.outcome == ONCEKEY_REPLAY);
  OK(oncekey_buffer_free(&answer.data));
  CHECK(pthread_join(owner, NULL) == 0);
  OK(oncekey_fingerprint_free(fingerprint));
}

static void queued(int round) {
  oncekey_submission submission = {0};
  oncekey_completion completion;
  size_t count;
  submission.op = ONCEKEY_OP_BEGIN;
  submission.flags = ONCEKEY_FREE_FINGERPRINT;
  submission.user_data = (uint64_t)round;
  submission.key = named(fresh());
  submission.fingerprint = of("b");
  OK(oncekey_queue_submit(queue, &submission, 1, &count, NULL));
  OK(oncekey_queue_poll(queue, &completion, 1, UINT64_MAX, &count, NULL));
  CHECK(count == 1 && completion.status == ONCEKEY_OK && completion.user_data == (uint64_t)round);
  OK(oncekey_queue_poll(queue, &completion, 1, 1, &count, NULL));
  CHECK(count == 0);
  submission = (oncekey_submission){0};
  submission.op = ONCEKEY_OP_COMPLETE;
  submission.claim = completion.answer.claim;
  submission.data = oncekey_str("r");
  OK(oncekey_queue_submit(queue, &submission, 1, &count, NULL));
  OK(oncekey_queue_poll(queue, &completion, 1, UINT64_MAX, &count, NULL));
  CHECK(count == 1 && completion.status == ONCEKEY_OK);
}

static void upkeep(int round) {
  (void)round;
  OK(oncekey_engine_fold(engine, NULL));
  OK(oncekey_engine_sweep(engine, NULL, NULL));
  OK(oncekey_engine_reopen(engine, NULL));
  oncekey_orphan orphan;
  size_t count;
  OK(oncekey_engine_orphans(engine, &orphan, 1, &count, NULL));
  if (count > 0) OK(oncekey_orphan_free(orphan));
}

static void backup(int round) {
  char path[4096];
  static int count;
  (void)round;
  snprintf(path, sizeof path, "%s/../thread_exit.backup-%d", place, count++);
  OK(oncekey_engine_backup(engine, oncekey_str(path), NULL));
  OK(oncekey_verify(oncekey_str(path), NULL));
}

/* The last handle goes with the engine open: closing is up to the drop. */
static void whole_life(int round) {
  engine = open_here();
  oncekey_claim claim = claim_of(engine, fresh());
  OK(oncekey_claim_complete(claim, oncekey_str("r"), NULL, NULL));
  if (round % 2) OK(oncekey_engine_close(engine, NULL, NULL));
  OK(oncekey_engine_free(engine));
  engine.id = 0;
}

void test(void) {
  CHECK(pthread_key_create(&last, at_end) == 0);
  engine = open_here();
  OK(oncekey_queue_new(engine, 0, &queue, NULL));
  in_destructors(pairs);
  in_destructors(orphans);
  in_destructors(waits);
  in_destructors(queued);
  in_destructors(upkeep);
  in_destructors(backup);
  OK(oncekey_queue_free(queue));
  end(engine);
  engine.id = 0;
  in_destructors(whole_life);
}
