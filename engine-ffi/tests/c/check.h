/* What the C tests share: a check that says where it failed, and short names. */
#ifndef CHECK_H
#define CHECK_H

#include <oncekey.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition)                                                   \
  do {                                                                     \
    if (!(condition)) {                                                    \
      fprintf(stderr, "%s:%d: not %s\n", __FILE__, __LINE__, #condition);  \
      abort();                                                             \
    }                                                                      \
  } while (0)

#define IS(expected, call)                                                               \
  do {                                                                                   \
    int32_t status_ = (call);                                                            \
    if (status_ != (expected)) {                                                         \
      fprintf(stderr, "%s:%d: %s is %s, not %s\n", __FILE__, __LINE__, #call,            \
              oncekey_status_name(status_), oncekey_status_name(expected));              \
      abort();                                                                           \
    }                                                                                    \
  } while (0)

#define OK(call) IS(ONCEKEY_OK, call)

/* The store that the test may use, its only argument: a directory, or the URL of a database. */
static const char *place;

static inline int is_shared(void) { return strncmp(place, "postgres", 8) == 0; }

static inline oncekey_slice bytes(const void *ptr, size_t len) {
  oncekey_slice slice = {(const uint8_t *)ptr, len};
  return slice;
}

static inline oncekey_key named(const char *name) {
  oncekey_key key = {oncekey_str("scope"), oncekey_str(name)};
  return key;
}

static inline oncekey_engine open_at(const char *path) {
  oncekey_engine engine;
  oncekey_error error;
  oncekey_options options = {0};
  options.size = sizeof options;
  if (!is_shared()) options.segment_bytes = 4 << 20;
  int32_t status = oncekey_engine_open(oncekey_str(path), &options, &engine, &error);
  if (status != ONCEKEY_OK) {
    fprintf(stderr, "open: %s\n", oncekey_error_message(error));
    abort();
  }
  return engine;
}

static inline oncekey_engine open_here(void) { return open_at(place); }

/* Another store beside that of the test; a database has one. */
static inline void beside(char path[4096], const char *suffix) {
  snprintf(path, 4096, "%s%s", place, is_shared() ? "" : suffix);
}

/* A directory that no engine holds has no damage. */
static inline void is_sound(const char *path) {
  IS(is_shared() ? ONCEKEY_UNSUPPORTED : ONCEKEY_OK, oncekey_verify(oncekey_str(path), NULL));
}

static inline oncekey_fingerprint of(const char *body) {
  oncekey_part part = {oncekey_str("body"), oncekey_str(body)};
  oncekey_fingerprint fingerprint;
  OK(oncekey_fingerprint_from_parts(&part, 1, &fingerprint, NULL));
  return fingerprint;
}

/* Begins and expects one outcome. */
static inline oncekey_answer begin_as(oncekey_engine engine, const char *name, const char *body,
                                      int32_t outcome) {
  oncekey_answer answer;
  oncekey_fingerprint fingerprint = of(body);
  OK(oncekey_begin(engine, named(name), fingerprint, 0, &answer, NULL));
  OK(oncekey_fingerprint_free(fingerprint));
  if (answer.outcome != outcome) {
    fprintf(stderr, "%s: outcome %d, not %d\n", name, answer.outcome, outcome);
    abort();
  }
  return answer;
}

static inline oncekey_claim claim_of(oncekey_engine engine, const char *name) {
  oncekey_answer answer = begin_as(engine, name, "b", ONCEKEY_CLAIMED);
  OK(oncekey_buffer_free(&answer.data));
  return answer.claim;
}

static inline int is_text(const uint8_t *ptr, size_t len, const char *text) {
  return len == strlen(text) && (len == 0 || memcmp(ptr, text, len) == 0);
}

static inline void end(oncekey_engine engine) {
  OK(oncekey_engine_close(engine, NULL, NULL));
  OK(oncekey_engine_free(engine));
}

void test(void);

int main(int argc, char **argv) {
  CHECK(argc == 2);
  place = argv[1];
  test();
  return 0;
}

#endif
