/* Wrong handles, wrong pointers, wrong lengths, wrong sizes: refused, never undefined. */
#include "check.h"

/* Every function that takes a handle, with one that is wrong for it. */
static void wrong_handle(uint64_t id) {
  oncekey_engine engine = {id};
  oncekey_claim claim = {id};
  oncekey_orphan orphan = {id};
  oncekey_fingerprint fingerprint = {id};
  oncekey_queue queue = {id};
  oncekey_answer answer;
  oncekey_info info;
  oncekey_stats stats = {0};
  stats.size = sizeof stats;
  oncekey_queue made;
  oncekey_completion completion;
  oncekey_submission submission;
  memset(&submission, 0, sizeof submission);
  size_t count;
  int32_t fd;
  const int32_t bad = ONCEKEY_INVALID_HANDLE;
  IS(bad, oncekey_engine_reopen(engine, NULL));
  IS(bad, oncekey_engine_close(engine, NULL, NULL));
  IS(bad, oncekey_engine_get(engine, named("k"), &answer, NULL));
  IS(bad, oncekey_engine_orphans(engine, NULL, 0, &count, NULL));
  IS(bad, oncekey_engine_stats(engine, &stats, NULL));
  IS(bad, oncekey_engine_fold(engine, NULL));
  IS(bad, oncekey_engine_sweep(engine, NULL, NULL));
  IS(bad, oncekey_engine_backup(engine, oncekey_str("x"), NULL));
  IS(bad, oncekey_begin(engine, named("k"), fingerprint, 0, &answer, NULL));
  IS(bad, oncekey_claim_complete(claim, oncekey_str("r"), NULL, NULL));
  IS(bad, oncekey_claim_complete_with(claim, NULL, 0, NULL, NULL));
  IS(bad, oncekey_claim_abort(claim, NULL));
  IS(bad, oncekey_claim_checkpoint(claim, oncekey_str("c"), NULL));
  IS(bad, oncekey_claim_info(claim, &info, NULL));
  IS(bad, oncekey_orphan_take_over(orphan, &claim, NULL));
  IS(bad, oncekey_orphan_complete(orphan, oncekey_str("r"), NULL, NULL));
  IS(bad, oncekey_orphan_release(orphan, NULL));
  IS(bad, oncekey_orphan_info(orphan, &info, NULL));
  oncekey_buffer saved;
  uint32_t found;
  IS(bad, oncekey_orphan_checkpoint(orphan, &saved, &found, NULL));
  IS(bad, oncekey_queue_new(engine, 0, &made, NULL));
  IS(bad, oncekey_queue_submit(queue, &submission, 1, &count, NULL));
  IS(bad, oncekey_queue_poll(queue, &completion, 1, 0, &count, NULL));
  IS(bad, oncekey_queue_wake(queue));
  IS(bad, oncekey_queue_cancel(queue, 1));
  IS(bad, oncekey_queue_fd(queue, &fd, NULL));
  oncekey_error error;
  IS(bad, oncekey_claim_abort(claim, &error));
  CHECK(strlen(oncekey_error_message(error)) > 0);
  OK(oncekey_error_free(error));
}

static void wrong_free(uint64_t id) {
  oncekey_engine engine = {id};
  oncekey_claim claim = {id};
  oncekey_orphan orphan = {id};
  oncekey_fingerprint fingerprint = {id};
  oncekey_queue queue = {id};
  oncekey_error error = {id};
  oncekey_buffer buffer = {NULL, 0, id};
  int32_t expected = id == 0 ? ONCEKEY_OK : ONCEKEY_INVALID_HANDLE;
  IS(expected, oncekey_engine_free(engine));
  IS(expected, oncekey_claim_free(claim));
  IS(expected, oncekey_orphan_free(orphan));
  IS(expected, oncekey_fingerprint_free(fingerprint));
  IS(expected, oncekey_queue_free(queue));
  IS(expected, oncekey_error_free(error));
  IS(expected, oncekey_buffer_free(&buffer));
  CHECK(buffer.owner == 0);
  CHECK(strcmp(oncekey_error_message(error), "") == 0);
  IS(ONCEKEY_INVALID_HANDLE, oncekey_error_status(error));
}

static void handles(oncekey_engine engine) {
  wrong_handle(0);
  wrong_free(0);
  const uint64_t made_up[] = {1, UINT64_MAX, (uint64_t)1 << 60, (uint64_t)2 << 60, 0x1000000010000000};
  for (size_t i = 0; i < sizeof made_up / sizeof *made_up; i++) {
    if (made_up[i] == engine.id) continue;
    wrong_handle(made_up[i]);
    wrong_free(made_up[i]);
  }

  /* A handle of another kind: an error is neither an engine nor a claim. */
  oncekey_error error;
  IS(ONCEKEY_INVALID_INPUT, oncekey_verify(bytes(NULL, 0), &error));
  wrong_handle(error.id);
  OK(oncekey_error_free(error));
  IS(ONCEKEY_INVALID_HANDLE, oncekey_error_free(error));

  /* Freed twice. */
  oncekey_claim claim = claim_of(engine, "freed");
  OK(oncekey_claim_free(claim));
  IS(ONCEKEY_INVALID_HANDLE, oncekey_claim_free(claim));
  IS(ONCEKEY_INVALID_HANDLE, oncekey_claim_abort(claim, NULL));
  claim = claim_of(engine, "completed");
  OK(oncekey_claim_complete(claim, oncekey_str("r"), NULL, NULL));
  IS(ONCEKEY_INVALID_HANDLE, oncekey_claim_complete(claim, oncekey_str("r"), NULL, NULL));
  IS(ONCEKEY_INVALID_HANDLE, oncekey_claim_free(claim));
  oncekey_fingerprint fingerprint = of("b");
  OK(oncekey_fingerprint_free(fingerprint));
  IS(ONCEKEY_INVALID_HANDLE, oncekey_fingerprint_free(fingerprint));
  oncekey_answer replay = begin_as(engine, "completed", "b", ONCEKEY_REPLAY);
  oncekey_buffer copy = replay.data;
  OK(oncekey_buffer_free(&replay.data));
  OK(oncekey_buffer_free(&replay.data));
  IS(ONCEKEY_INVALID_HANDLE, oncekey_buffer_free(&copy));
  OK(oncekey_buffer_free(NULL));
}

static void nulls(oncekey_engine engine) {
  const int32_t bad = ONCEKEY_INVALID_INPUT;
  oncekey_slice none = {NULL, 0};
  oncekey_slice missing = {NULL, 1};
  oncekey_fingerprint fingerprint = of("b");
  oncekey_answer answer;
  oncekey_engine opened;
  size_t count;
  oncekey_submission submission;
  memset(&submission, 0, sizeof submission);
  oncekey_completion completion;
  oncekey_queue queue;
  OK(oncekey_queue_new(engine, 0, &queue, NULL));
  oncekey_claim claim = claim_of(engine, "nulls");

  IS(bad, oncekey_engine_open(oncekey_str("x"), NULL, NULL, NULL));
  IS(bad, oncekey_engine_open(none, NULL, &opened, NULL));
  IS(bad, oncekey_engine_open(missing, NULL, &opened, NULL));
  IS(bad, oncekey_engine_get(engine, named("k"), NULL, NULL));
  IS(bad, oncekey_engine_orphans(engine, NULL, 1, &count, NULL));
  IS(bad, oncekey_engine_orphans(engine, NULL, 0, NULL, NULL));
  IS(bad, oncekey_engine_stats(engine, NULL, NULL));
  IS(bad, oncekey_engine_backup(engine, none, NULL));
  IS(bad, oncekey_verify(missing, NULL));
  IS(bad, oncekey_begin(engine, named("k"), fingerprint, 0, NULL, NULL));
  IS(bad, oncekey_fingerprint_from_parts(NULL, 1, &fingerprint, NULL));
  CHECK(fingerprint.id == 0);
  IS(bad, oncekey_fingerprint_from_parts(NULL, 0, NULL, NULL));
  IS(bad, oncekey_fingerprint_from_request(NULL, &fingerprint, NULL));
  IS(bad, oncekey_claim_complete(claim, missing, NULL, NULL));
  IS(bad, oncekey_claim_complete_with(claim, &missing, 0, NULL, NULL));
  IS(bad, oncekey_claim_checkpoint(claim, missing, NULL));
  IS(bad, oncekey_claim_info(claim, NULL, NULL));
  oncekey_orphan orphan = {0};
  IS(bad, oncekey_orphan_take_over(orphan, NULL, NULL));
  IS(bad, oncekey_orphan_info(orphan, NULL, NULL));
  oncekey_buffer saved;
  uint32_t found;
  IS(bad, oncekey_orphan_checkpoint(orphan, NULL, &found, NULL));
  IS(bad, oncekey_orphan_checkpoint(orphan, &saved, NULL, NULL));
  IS(bad, oncekey_queue_new(engine, 0, NULL, NULL));
  IS(bad, oncekey_queue_submit(queue, NULL, 1, &count, NULL));
  IS(bad, oncekey_queue_submit(queue, &submission, 1, NULL, NULL));
  IS(bad, oncekey_queue_poll(queue, NULL, 1, 0, &count, NULL));
  IS(bad, oncekey_queue_poll(queue, &completion, 0, 0, &count, NULL));
  IS(bad, oncekey_queue_poll(queue, &completion, 1, 0, NULL, NULL));
  IS(bad, oncekey_queue_fd(queue, NULL, NULL));
  oncekey_key unnamed = {none, none};
  IS(bad, oncekey_engine_get(engine, unnamed, &answer, NULL));

  /* An empty slice is a scope, a value, a checkpoint, a response, a batch. */
  OK(oncekey_claim_checkpoint(claim, none, NULL));
  OK(oncekey_claim_complete(claim, none, NULL, NULL));
  oncekey_key unscoped = {none, oncekey_str("k")};
  OK(oncekey_engine_get(engine, unscoped, &answer, NULL));
  OK(oncekey_fingerprint_from_parts(NULL, 0, &fingerprint, NULL));
  OK(oncekey_fingerprint_free(fingerprint));
  OK(oncekey_queue_submit(queue, NULL, 0, &count, NULL));
  OK(oncekey_queue_free(queue));
}

static void lengths(oncekey_engine engine) {
  const int32_t bad = ONCEKEY_INVALID_INPUT;
  static char long_text[256];
  memset(long_text, 'x', sizeof long_text);
  oncekey_answer answer;
  oncekey_fingerprint fingerprint = of("b");
  oncekey_key key = {bytes(long_text, 255), bytes(long_text, 255)};
  OK(oncekey_engine_get(engine, key, &answer, NULL));
  key.scope.len = 256;
  IS(bad, oncekey_begin(engine, key, fingerprint, 0, &answer, NULL));
  key.scope.len = 255;
  key.key.len = 256;
  IS(bad, oncekey_begin(engine, key, fingerprint, 0, &answer, NULL));
  key.key.len = SIZE_MAX;
  IS(bad, oncekey_begin(engine, key, fingerprint, 0, &answer, NULL));
  OK(oncekey_fingerprint_free(fingerprint));

  oncekey_part parts[65];
  for (size_t i = 0; i < 65; i++) {
    parts[i].label = bytes(long_text, 128);
    parts[i].value = bytes(NULL, 0);
  }
  IS(bad, oncekey_fingerprint_from_parts(parts, 65, &fingerprint, NULL));
  IS(bad, oncekey_fingerprint_from_parts(parts, SIZE_MAX, &fingerprint, NULL));
  OK(oncekey_fingerprint_from_parts(parts, 64, &fingerprint, NULL));
  OK(oncekey_fingerprint_free(fingerprint));
  parts[0].label.len = 129;
  IS(bad, oncekey_fingerprint_from_parts(parts, 1, &fingerprint, NULL));
  parts[0].label = oncekey_str("\xff");
  IS(bad, oncekey_fingerprint_from_parts(parts, 1, &fingerprint, NULL));

  oncekey_claim claim = claim_of(engine, "lengths");
  size_t len = (64 << 10) + 1;
  void *large = calloc(len, 1);
  IS(bad, oncekey_claim_checkpoint(claim, bytes(large, len), NULL));
  OK(oncekey_claim_checkpoint(claim, bytes(large, len - 1), NULL));
  IS(bad, oncekey_claim_complete(claim, bytes(large, SIZE_MAX), NULL, NULL));
  free(large);
  OK(oncekey_claim_abort(claim, NULL));
}

/* Structs whose size is that of an older header, of a newer one, or of no header. */
static void sizes(oncekey_engine engine) {
  const int32_t bad = ONCEKEY_INVALID_INPUT;
  char path[4096];
  beside(path, "-sizes");
  oncekey_engine opened;
  struct {
    oncekey_options known;
    uint64_t newer;
  } options;
  memset(&options, 0, sizeof options);
  const uint32_t wrong[] = {0, 7, 4097, UINT32_MAX};
  for (size_t i = 0; i < 4; i++) {
    options.known.size = wrong[i];
    IS(bad, oncekey_engine_open(oncekey_str(path), &options.known, &opened, NULL));
  }
  if (is_shared()) options.known.schema = oncekey_str("sizes");
  options.known.size = sizeof options;
  options.newer = 1;
  IS(bad, oncekey_engine_open(oncekey_str(path), &options.known, &opened, NULL));
  options.newer = 0;
  options.known.flags = 8;
  IS(bad, oncekey_engine_open(oncekey_str(path), &options.known, &opened, NULL));
  options.known.flags = ONCEKEY_OPEN_EXISTING;
  IS(ONCEKEY_STORE_MISSING, oncekey_engine_open(oncekey_str(path), &options.known, &opened, NULL));
  options.known.flags = 0;
  options.known.durability = 2;
  IS(bad, oncekey_engine_open(oncekey_str(path), &options.known, &opened, NULL));
  options.known.durability = ONCEKEY_RELAXED;
  OK(oncekey_engine_open(oncekey_str(path), &options.known, &opened, NULL));
  OK(oncekey_engine_free(opened));
  /* The older header ends with the TTL. The bytes behind it are not read. */
  options.known.durability = ONCEKEY_STRICT;
  options.known.size = (uint32_t)offsetof(oncekey_options, max_execution_ms);
  options.known.ttl_ms = 5000;
  options.known.segment_bytes = 1;
  OK(oncekey_engine_open(oncekey_str(path), &options.known, &opened, NULL));
  OK(oncekey_claim_complete(claim_of(opened, "sized"), oncekey_str("r"), NULL, NULL));
  oncekey_answer replay = begin_as(opened, "sized", "b", ONCEKEY_REPLAY);
  CHECK(replay.expires_ms == replay.since_ms + 5000);
  OK(oncekey_buffer_free(&replay.data));
  OK(oncekey_engine_free(opened));

  oncekey_stats stats;
  memset(&stats, 0xee, sizeof stats);
  stats.size = (uint32_t)offsetof(oncekey_stats, orphans);
  OK(oncekey_engine_stats(engine, &stats, NULL));
  CHECK(stats.full == 0 && stats.in_flight == 0);
  CHECK(stats.orphans == 0xeeeeeeeeeeeeeeee);
  struct {
    oncekey_stats known;
    uint64_t newer;
  } newer;
  memset(&newer, 0xee, sizeof newer);
  newer.known.size = sizeof newer;
  OK(oncekey_engine_stats(engine, &newer.known, NULL));
  CHECK(newer.newer == 0 && newer.known.claimed > 0 && newer.known.size == sizeof newer);
}

/* Every number among the options at its ends: it works, or is refused by its name and the bound. */
static void options_at_their_ends(void) {
#define NAMED(field, name) {offsetof(oncekey_options, field), name}
  const struct {
    size_t at;
    const char *name;
  } numbers[] = {
      NAMED(ttl_ms, "ttl"), NAMED(max_execution_ms, "max_execution"), NAMED(max_response, "max_response"),
      NAMED(max_checkpoint, "max_checkpoint"), NAMED(max_in_flight, "max_in_flight"),
      NAMED(max_orphans, "max_orphans"), NAMED(max_queue, "max_queue"), NAMED(max_waiters, "max_waiters"),
      NAMED(max_store_bytes, "max_store_bytes"), NAMED(overload_after_ms, "overload_after"),
      NAMED(recent_bytes, "recent_bytes"), NAMED(cache_bytes, "cache_bytes"),
      NAMED(segment_bytes, "segment_bytes"), NAMED(sweep_interval_ms, "sweep_interval"),
      NAMED(max_clock_gap_ms, "max_clock_gap"), NAMED(max_open_files, "max_open_files"),
      NAMED(max_open_bytes, "max_open_bytes"), NAMED(backup_bytes_per_second, "backup_bytes_per_second"),
      NAMED(lock_wait_ms, "lock_wait"), NAMED(lease_ms, "lease"), NAMED(settle_for_ms, "settle_for"),
  };
#undef NAMED
  const size_t count = sizeof numbers / sizeof *numbers;
  CHECK(count * sizeof(uint64_t) == offsetof(oncekey_options, schema) - offsetof(oncekey_options, ttl_ms));
  int opened = 0, refused = 0;
  for (size_t i = 0; i < 2 * count; i++) {
    char suffix[32], path[4096];
    snprintf(suffix, sizeof suffix, "-option-%zu", i);
    beside(path, suffix);
    oncekey_options options = {0};
    options.size = sizeof options;
    const uint64_t value = i % 2 ? UINT64_MAX : 1;
    memcpy((char *)&options + numbers[i / 2].at, &value, sizeof value);
    oncekey_engine engine;
    oncekey_error error;
    int32_t status = oncekey_engine_open(oncekey_str(path), &options, &engine, &error);
    if (status == ONCEKEY_OK) {
      opened++;
      OK(oncekey_engine_free(engine));
      continue;
    }
    refused++;
    const char *said = oncekey_error_message(error);
    int bound = strstr(said, "at least") || strstr(said, "at most") || strstr(said, "a multiple") ||
                strstr(said, "is not an option");
    if (status != ONCEKEY_INVALID_INPUT || !strstr(said, numbers[i / 2].name) || !bound) {
      fprintf(stderr, "%s %s: %s\n", numbers[i / 2].name, i % 2 ? "most" : "1", said);
      abort();
    }
    OK(oncekey_error_free(error));
  }
  CHECK(opened > 10 && refused > 10);
}

/* Outputs are zeroed whatever happens, so that they can be freed. */
static void outputs(void) {
  oncekey_engine nobody = {0};
  oncekey_answer answer;
  memset(&answer, 0xee, sizeof answer);
  oncekey_error error = {0xeeee};
  IS(ONCEKEY_INVALID_HANDLE, oncekey_engine_get(nobody, named("k"), &answer, &error));
  oncekey_answer zero;
  memset(&zero, 0, sizeof zero);
  CHECK(memcmp(&answer, &zero, sizeof zero) == 0);
  OK(oncekey_error_free(error));
  OK(oncekey_buffer_free(&answer.data));
  oncekey_engine engine = {0xeeee};
  error.id = 0xeeee;
  IS(ONCEKEY_INVALID_INPUT, oncekey_engine_open(bytes(NULL, 0), NULL, &engine, &error));
  CHECK(engine.id == 0);
  OK(oncekey_error_free(error));
}

static void names(void) {
  CHECK(oncekey_abi_version() == ONCEKEY_ABI_VERSION);
  char version[32];
  snprintf(version, sizeof version, "%d.%d.%d", ONCEKEY_VERSION_MAJOR, ONCEKEY_VERSION_MINOR,
           ONCEKEY_VERSION_PATCH);
  CHECK(strcmp(oncekey_version(), version) == 0);
  CHECK(strcmp(oncekey_status_name(ONCEKEY_FENCED), "FENCED") == 0);
  CHECK(strcmp(oncekey_status_name(12345), "(no status)") == 0);
}

void test(void) {
  names();
  options_at_their_ends();
  outputs();
  oncekey_engine engine = open_here();
  handles(engine);
  nulls(engine);
  lengths(engine);
  sizes(engine);
  end(engine);
  /* Closed, freed, used. */
  IS(ONCEKEY_INVALID_HANDLE, oncekey_engine_close(engine, NULL, NULL));
  wrong_handle(engine.id);
}
