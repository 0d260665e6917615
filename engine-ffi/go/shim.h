/* What a goroutine hands over in one call: numbers, and offsets into one block of bytes, since Go
 * memory that holds pointers to Go memory may not be passed to C. */
#ifndef ONCEKEY_GO_SHIM_H
#define ONCEKEY_GO_SHIM_H

#include <oncekey.h>

typedef struct {
  uint32_t op;
  uint32_t flags;
  uint64_t user_data;
  uint64_t fingerprint;
  uint64_t max_wait_ms;
  uint64_t claim;
  uint64_t orphan;
  uint64_t ttl_ms;
  /* Scope, key and data lie one after the other. */
  size_t at;
  size_t scope_len;
  size_t key_len;
  size_t data_len;
} oncekey_go_submission;

enum { ONCEKEY_GO_BATCH = 128, ONCEKEY_GO_PARTS = 64 };

/* Submits at most ONCEKEY_GO_BATCH operations. */
static inline int32_t oncekey_go_submit(oncekey_queue queue, const oncekey_go_submission *batch,
                                        size_t count, const uint8_t *bytes, size_t *accepted) {
  oncekey_submission submissions[ONCEKEY_GO_BATCH];
  for (size_t i = 0; i < count; i++) {
    const oncekey_go_submission *from = &batch[i];
    oncekey_submission *to = &submissions[i];
    const uint8_t *at = bytes + from->at;
    to->op = from->op;
    to->flags = from->flags;
    to->user_data = from->user_data;
    to->fingerprint.id = from->fingerprint;
    to->max_wait_ms = from->max_wait_ms;
    to->claim.id = from->claim;
    to->orphan.id = from->orphan;
    to->ttl_ms = from->ttl_ms;
    to->key.scope.ptr = at;
    to->key.scope.len = from->scope_len;
    to->key.key.ptr = at + from->scope_len;
    to->key.key.len = from->key_len;
    to->data.ptr = at + from->scope_len + from->key_len;
    to->data.len = from->data_len;
  }
  return oncekey_queue_submit(queue, submissions, count, accepted, NULL);
}

/* A fingerprint of at most ONCEKEY_GO_PARTS parts, whose labels and values lie one after the other in
 * `bytes`, but for the value of part `apart`, which lies elsewhere and is not copied. */
static inline int32_t oncekey_go_fingerprint(const uint8_t *bytes, const size_t *lengths,
                                             size_t count, size_t apart, const uint8_t *value,
                                             oncekey_fingerprint *fingerprint,
                                             oncekey_error *error) {
  oncekey_part parts[ONCEKEY_GO_PARTS];
  for (size_t i = 0; i < count; i++) {
    parts[i].label.ptr = bytes;
    parts[i].label.len = lengths[2 * i];
    bytes += parts[i].label.len;
    parts[i].value.ptr = i == apart ? value : bytes;
    parts[i].value.len = lengths[2 * i + 1];
    if (i != apart) bytes += parts[i].value.len;
  }
  return oncekey_fingerprint_from_parts(parts, count, fingerprint, error);
}

#endif
