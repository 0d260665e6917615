/* Threads that hammer one engine, its handles and each other's. */
#include "check.h"
#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

enum { THREADS = 8, KEYS = 50, ROUNDS = 4 };

static oncekey_engine engine;
static atomic_int executed[KEYS];
static _Atomic uint64_t shared_claim;
static atomic_int ended;

/* The thread that gets the claim executes. All others get its response in the end. */
static void *work(void *unused) {
  (void)unused;
  oncekey_fingerprint fingerprint = of("b");
  for (int n = 0; n < KEYS * ROUNDS; n++) {
    char name[16];
    snprintf(name, sizeof name, "key %d", n % KEYS);
    oncekey_answer answer;
    OK(oncekey_begin(engine, named(name), fingerprint, 60000, &answer, NULL));
    if (answer.outcome == ONCEKEY_CLAIMED) {
      atomic_fetch_add(&executed[n % KEYS], 1);
      OK(oncekey_claim_complete(answer.claim, oncekey_str(name), NULL, NULL));
    } else {
      CHECK(answer.outcome == ONCEKEY_REPLAY);
      CHECK(is_text(answer.data.ptr, answer.data.len, name));
    }
    OK(oncekey_buffer_free(&answer.data));
  }
  OK(oncekey_fingerprint_free(fingerprint));
  return NULL;
}

/* Of all threads that end the same claim at once, one succeeds. */
static void *race(void *free_it) {
  oncekey_claim claim = {atomic_load(&shared_claim)};
  int32_t status = free_it ? oncekey_claim_free(claim)
                           : oncekey_claim_complete(claim, oncekey_str("r"), NULL, NULL);
  if (status == ONCEKEY_OK) {
    atomic_fetch_add(&ended, 1);
  } else {
    CHECK(status == ONCEKEY_BUSY || status == ONCEKEY_INVALID_HANDLE);
  }
  return NULL;
}

/* Goes on until the engine is closed under it. */
static void *until_closed(void *thread) {
  oncekey_fingerprint fingerprint = of("b");
  for (int n = 0;; n++) {
    char name[48];
    snprintf(name, sizeof name, "%d of %d", n, (int)(intptr_t)thread);
    oncekey_answer answer;
    int32_t status = oncekey_begin(engine, named(name), fingerprint, 0, &answer, NULL);
    if (status == ONCEKEY_CLOSED || status == ONCEKEY_INVALID_HANDLE) break;
    OK(status);
    status = oncekey_claim_complete(answer.claim, oncekey_str("r"), NULL, NULL);
    if (status == ONCEKEY_CLOSED) OK(oncekey_claim_free(answer.claim));
    else OK(status);
  }
  OK(oncekey_fingerprint_free(fingerprint));
  return NULL;
}

static void run(void *(*body)(void *), void *(*argument)(int)) {
  pthread_t threads[THREADS];
  for (int i = 0; i < THREADS; i++)
    CHECK(pthread_create(&threads[i], NULL, body, argument(i)) == 0);
  for (int i = 0; i < THREADS; i++) CHECK(pthread_join(threads[i], NULL) == 0);
}

static void *none(int i) {
  (void)i;
  return NULL;
}
static void *odd(int i) { return (void *)(intptr_t)(i % 2); }

void test(void) {
  engine = open_here();
  run(work, none);
  for (int i = 0; i < KEYS; i++) CHECK(atomic_load(&executed[i]) == 1);

  for (int i = 0; i < 30; i++) {
    char name[16];
    snprintf(name, sizeof name, "race %d", i);
    atomic_store(&shared_claim, claim_of(engine, name).id);
    atomic_store(&ended, 0);
    run(race, i % 2 ? odd : none);
    /* A free beside a complete may both succeed: the handle is freed when the call ends. */
    int count = atomic_load(&ended);
    CHECK(count == 1 || (i % 2 && count == 2));
  }

  pthread_t threads[THREADS];
  for (int i = 0; i < THREADS; i++)
    CHECK(pthread_create(&threads[i], NULL, until_closed, (void *)(intptr_t)i) == 0);
  struct timespec pause = {0, 50 * 1000 * 1000};
  nanosleep(&pause, NULL);
  OK(oncekey_engine_close(engine, NULL, NULL));
  OK(oncekey_engine_free(engine));
  for (int i = 0; i < THREADS; i++) CHECK(pthread_join(threads[i], NULL) == 0);
  is_sound(place);
}
