/* Begins and completes operations with a number of them outstanding, from one thread and through a
 * completion queue, and prints how many pairs a second that made. Usage: pairs DIRECTORY OUTSTANDING
 * SECONDS */
#include <oncekey.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { BATCH = 256, KEY = 37, PARTS = 5 };

static void require(int32_t status, const char *what) {
  if (status == ONCEKEY_OK) return;
  fprintf(stderr, "%s: %s\n", what, oncekey_status_name(status));
  exit(1);
}

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

/* What the submission of a begin points to. */
typedef struct {
  char name[KEY];
  oncekey_part parts[PARTS];
} request;

static void begin(oncekey_submission *submission, request *request, unsigned long long number) {
  const oncekey_part parts[PARTS] = {
      {oncekey_str("method"), oncekey_str("POST")},
      {oncekey_str("target"), oncekey_str("/api/v2/orders")},
      {oncekey_str("header authorization"), oncekey_str("Bearer 0123456789")},
      {oncekey_str("header content-type"), oncekey_str("application/json")},
      {oncekey_str("body"), oncekey_str("{\"customerId\":\"c-1\"}")}};
  memcpy(request->parts, parts, sizeof parts);
  snprintf(request->name, KEY, "key-%032llu", number);
  submission->op = ONCEKEY_OP_BEGIN;
  submission->flags = ONCEKEY_FINGERPRINT_PARTS;
  submission->key.scope = oncekey_str("tenant-0042");
  submission->key.key = oncekey_str(request->name);
  submission->parts = request->parts;
  submission->part_count = PARTS;
}

int main(int argc, char **argv) {
  if (argc != 4) return 2;
  static oncekey_completion completions[BATCH];
  static oncekey_submission submissions[BATCH];
  static request requests[BATCH];
  static char response[1024];
  unsigned long long outstanding = strtoull(argv[2], NULL, 10), number = 0, done = 0;
  oncekey_engine engine;
  oncekey_queue queue;
  require(oncekey_engine_open(oncekey_str(argv[1]), NULL, &engine, NULL), "open");
  require(oncekey_queue_new(engine, 0, &queue, NULL), "queue");

  double started = now(), end = started + strtod(argv[3], NULL);
  size_t made = 0, accepted, count;
  for (number = 0; number < outstanding;) {
    begin(&submissions[made], &requests[made], number++);
    if (++made < BATCH && number < outstanding) continue;
    require(oncekey_queue_submit(queue, submissions, made, &accepted, NULL), "submit");
    made = 0;
  }
  while (done < number) {
    require(oncekey_queue_poll(queue, completions, BATCH, UINT64_MAX, &count, NULL), "poll");
    int more = now() < end;
    made = 0;
    for (size_t i = 0; i < count; i++) {
      require(completions[i].status, "operation");
      oncekey_submission *submission = &submissions[made];
      if (completions[i].op == ONCEKEY_OP_BEGIN) {
        submission->op = ONCEKEY_OP_COMPLETE;
        submission->flags = 0;
        submission->claim = completions[i].answer.claim;
        submission->data.ptr = (const uint8_t *)response;
        submission->data.len = sizeof response;
        made++;
      } else {
        done++;
        if (more) begin(submission, &requests[made++], number++);
      }
    }
    require(oncekey_queue_submit(queue, submissions, made, &accepted, NULL), "submit");
  }
  printf("%.0f\n", (double)done / (now() - started));
  oncekey_queue_free(queue);
  require(oncekey_engine_close(engine, NULL, NULL), "close");
  oncekey_engine_free(engine);
  return 0;
}
