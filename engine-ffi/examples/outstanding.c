/* 10,000 operations outstanding at once, from one thread: begun, then completed, through a completion
 * queue. Usage: outstanding STORE */
#include <oncekey.h>
#include <stdio.h>
#include <stdlib.h>

#ifndef OPERATIONS
#define OPERATIONS 10000
#endif
enum { BATCH = 500 };

static void require(int32_t status, const char *what) {
  if (status == ONCEKEY_OK) return;
  fprintf(stderr, "%s: %s\n", what, oncekey_status_name(status));
  exit(1);
}

static void submit(oncekey_queue queue, const oncekey_submission *batch, size_t count) {
  size_t accepted;
  require(oncekey_queue_submit(queue, batch, count, &accepted, NULL), "submit");
}

/* Submits a begin for every key; nothing is polled meanwhile. */
static void begin_all(oncekey_queue queue, oncekey_fingerprint fingerprint) {
  static oncekey_submission batch[BATCH];
  static char names[BATCH][16];
  for (size_t first = 0; first < OPERATIONS; first += BATCH) {
    for (size_t i = 0; i < BATCH; i++) {
      snprintf(names[i], sizeof names[i], "order-%zu", first + i);
      batch[i].op = ONCEKEY_OP_BEGIN;
      batch[i].user_data = first + i;
      batch[i].key.key = oncekey_str(names[i]);
      batch[i].fingerprint = fingerprint;
    }
    submit(queue, batch, BATCH);
  }
}

/* Completes what is claimed, as it comes; returns how many operations were executed. */
static size_t complete_all(oncekey_queue queue) {
  static oncekey_completion completions[BATCH];
  static oncekey_submission ends[BATCH];
  size_t left = OPERATIONS, executed = 0;
  while (left > 0) {
    size_t count, claims = 0;
    require(oncekey_queue_poll(queue, completions, BATCH, UINT64_MAX, &count, NULL), "poll");
    for (size_t i = 0; i < count; i++) {
      oncekey_completion *done = &completions[i];
      require(done->status, done->op == ONCEKEY_OP_BEGIN ? "begin" : "complete");
      if (done->op == ONCEKEY_OP_COMPLETE) {
        executed++;
        left--;
      } else if (done->answer.outcome == ONCEKEY_CLAIMED) {
        /* The operation would run here. */
        ends[claims].op = ONCEKEY_OP_COMPLETE;
        ends[claims].claim = done->answer.claim;
        ends[claims].data = oncekey_str("done");
        claims++;
      } else {
        left--; /* a replay, on a second run of this program */
        oncekey_orphan_free(done->answer.orphan);
      }
      oncekey_buffer_free(&done->answer.data);
    }
    submit(queue, ends, claims);
  }
  return executed;
}

int main(int argc, char **argv) {
  if (argc != 2) return 2;
  oncekey_engine engine;
  oncekey_queue queue;
  oncekey_fingerprint fingerprint;
  require(oncekey_engine_open(oncekey_str(argv[1]), NULL, &engine, NULL), "open");
  require(oncekey_queue_new(engine, 0, &queue, NULL), "queue");
  oncekey_part part = {oncekey_str("body"), oncekey_str("2 apples")};
  require(oncekey_fingerprint_from_parts(&part, 1, &fingerprint, NULL), "fingerprint");

  begin_all(queue, fingerprint);
  printf("executed %zu of %d\n", complete_all(queue), OPERATIONS);

  oncekey_fingerprint_free(fingerprint);
  oncekey_queue_free(queue);
  require(oncekey_engine_close(engine, NULL, NULL), "close");
  oncekey_engine_free(engine);
  return 0;
}
