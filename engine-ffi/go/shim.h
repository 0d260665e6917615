/* A submission of Go: numbers, and offsets into one block of bytes. It holds no pointers, since Go memory
 * that holds pointers to Go memory may not be passed to C. */
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
  /* The offset of scope, key and data, followed by the label and value of each part, without gaps. */
  size_t at;
  size_t scope_len;
  size_t key_len;
  size_t data_len;
  /* The index of the first length of the parts (label and value in turn), and the number of parts. */
  size_t lengths_at;
  size_t part_count;
} oncekey_go_submission;

enum { ONCEKEY_GO_BATCH = 128, ONCEKEY_GO_PARTS = 64, ONCEKEY_GO_ALL_PARTS = 1024 };

static inline const uint8_t *oncekey_go_slice(oncekey_slice *slice, const uint8_t *at, size_t len) {
  slice->ptr = at;
  slice->len = len;
  return at + len;
}

/* Submits at least one and at most ONCEKEY_GO_BATCH operations, which together have at most ONCEKEY_GO_ALL_PARTS
 * parts. `taken` gets their number, `accepted` the number of those that the queue accepted. */
static inline int32_t oncekey_go_submit(oncekey_queue queue, const oncekey_go_submission *batch,
                                        size_t count, const uint8_t *bytes, const uint32_t *lengths,
                                        size_t *taken, size_t *accepted) {
  oncekey_submission submissions[ONCEKEY_GO_BATCH];
  oncekey_part parts[ONCEKEY_GO_ALL_PARTS];
  size_t made = 0, used = 0;
  for (; made < count && made < ONCEKEY_GO_BATCH; made++) {
    const oncekey_go_submission *from = &batch[made];
    oncekey_submission *to = &submissions[made];
    if (from->part_count > ONCEKEY_GO_ALL_PARTS - used) break;
    to->op = from->op;
    to->flags = from->flags;
    to->user_data = from->user_data;
    to->fingerprint.id = from->fingerprint;
    to->max_wait_ms = from->max_wait_ms;
    to->claim.id = from->claim;
    to->orphan.id = from->orphan;
    to->ttl_ms = from->ttl_ms;
    const uint8_t *at = bytes + from->at;
    at = oncekey_go_slice(&to->key.scope, at, from->scope_len);
    at = oncekey_go_slice(&to->key.key, at, from->key_len);
    at = oncekey_go_slice(&to->data, at, from->data_len);
    to->parts = &parts[used];
    to->part_count = from->part_count;
    for (size_t i = 0; i < from->part_count; i++, used++) {
      at = oncekey_go_slice(&parts[used].label, at, lengths[from->lengths_at + 2 * i]);
      at = oncekey_go_slice(&parts[used].value, at, lengths[from->lengths_at + 2 * i + 1]);
    }
  }
  *taken = made;
  return oncekey_queue_submit(queue, submissions, made, accepted, NULL);
}

/* A fingerprint of at most ONCEKEY_GO_PARTS parts. Their labels and values lie in `bytes` without gaps, except the
 * value of part `apart`, which is `value` and is not copied. */
static inline int32_t oncekey_go_fingerprint(const uint8_t *bytes, const uint32_t *lengths,
                                             size_t count, size_t apart, const uint8_t *value,
                                             size_t value_len, oncekey_fingerprint *fingerprint,
                                             oncekey_error *error) {
  oncekey_part parts[ONCEKEY_GO_PARTS];
  for (size_t i = 0; i < count; i++) {
    bytes = oncekey_go_slice(&parts[i].label, bytes, lengths[2 * i]);
    if (i == apart) {
      oncekey_go_slice(&parts[i].value, value, value_len);
    } else {
      bytes = oncekey_go_slice(&parts[i].value, bytes, lengths[2 * i + 1]);
    }
  }
  return oncekey_fingerprint_from_parts(parts, count, fingerprint, error);
}

#endif
