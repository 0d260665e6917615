/* oncekey: an embedded idempotency engine. The rules for all of this are in docs/c-api.md.
 *
 * Generated from engine-ffi/src by cbindgen. Licensed under MIT or Apache-2.0. */

#ifndef ONCEKEY_H
#define ONCEKEY_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

// The store holds nothing under the key, or only what has expired. Only oncekey_engine_get says so.
#define ONCEKEY_ABSENT 200

// The key is new, or its record expired: execute the operation, then complete the claim.
#define ONCEKEY_CLAIMED 201

// The operation was completed: give the recorded response, do not execute.
#define ONCEKEY_REPLAY 202

// The operation is being executed right now. Try again later.
#define ONCEKEY_LOCKED 203

// The key was used with a different request. Do not execute.
#define ONCEKEY_MISMATCH 204

// An earlier attempt died without saying how it ended. The engine never executes it again by itself.
#define ONCEKEY_ORPHANED 205

// A control socket: nobody may change anything there.
#define ONCEKEY_CONTROL_READ_ONLY 4194304

// A control socket: operators may read stored responses.
#define ONCEKEY_CONTROL_SHOW_RESPONSES 8388608

// Every answer that a change happened waits until the change is synced to disk.
#define ONCEKEY_STRICT 301

// `begin` grants a claim once it is written, before it is synced: survives kill -9, and after a
// power loss an operation may run twice.
#define ONCEKEY_RELAXED 302

// Refuse to create a store.
#define ONCEKEY_OPEN_EXISTING 65536

// Open although the wall clock stands further ahead than `max_clock_gap_ms`, or the clock of a server 30 days.
#define ONCEKEY_ACCEPT_CLOCK_JUMP 131072

// Open a store on a network filesystem, whose locks and syncs are not to be trusted.
#define ONCEKEY_ALLOW_NETWORK_FILESYSTEM 262144

// A shared store: refuse a server without `synchronous_standby_names`.
#define ONCEKEY_REPLICATION_REQUIRED 524288

// A shared store: go on when the server lacks changes that it had acknowledged. Keys whose claim or
// response was lost are new then, and their operations run again.
#define ONCEKEY_ACCEPT_LOST_HISTORY 1048576

// A shared store: send no settings when a connection begins, for a pooler that refuses them; the role
// must have them then.
#define ONCEKEY_WITHOUT_STARTUP_OPTIONS 2097152

// The version of the binary interface, and the number in the SONAME.
#define ONCEKEY_ABI_VERSION 1

// The version of this header, first part.
#define ONCEKEY_VERSION_MAJOR 0

// The version of this header, second part.
#define ONCEKEY_VERSION_MINOR 1

// The version of this header, third part.
#define ONCEKEY_VERSION_PATCH 0

// Done.
#define ONCEKEY_OK 0

// A key, scope, response, checkpoint, option or pointer is outside its limits. Nothing happened.
#define ONCEKEY_INVALID_INPUT 1

// The token is not the newest for its key: another caller took over, or the record expired or was freed.
#define ONCEKEY_FENCED 2

// The key was already completed, with other bytes or by another token.
#define ONCEKEY_ALREADY_COMPLETED 3

// A write or sync failed while the operation was under way: it may or may not have happened.
// oncekey_engine_reopen settles it.
#define ONCEKEY_OUTCOME_UNKNOWN 4

// The engine refuses writes after an earlier failure. oncekey_engine_reopen recovers in place.
#define ONCEKEY_UNAVAILABLE 5

// A bound was reached. Nothing happened; try again later.
#define ONCEKEY_OVERLOADED 6

// The disk, or the configured store size, is full. Nothing happened.
#define ONCEKEY_STORE_FULL 7

// The engine was closed.
#define ONCEKEY_CLOSED 8

// There is no store, and none was to be created.
#define ONCEKEY_STORE_MISSING 9

// Another process, or another engine of this process, holds the store.
#define ONCEKEY_STORE_IN_USE 10

// The store file has no bytes. It was left untouched.
#define ONCEKEY_STORE_EMPTY 11

// The store file is shorter than what was once durable. It was left untouched.
#define ONCEKEY_STORE_TRUNCATED 12

// The directory or file is not a oncekey store. It was left untouched.
#define ONCEKEY_STORE_FOREIGN 13

// The store was written by a newer version of oncekey. It was left untouched.
#define ONCEKEY_STORE_NEWER_FORMAT 14

// The store cannot be read or written with the rights of this process. It was left untouched.
#define ONCEKEY_STORE_UNREADABLE 15

// The store lies on a network filesystem, whose locks and syncs cannot be trusted.
#define ONCEKEY_NETWORK_FILESYSTEM 16

// Stored bytes fail their checksum, or something that must exist is missing.
#define ONCEKEY_CORRUPTED 17

// The wall clock stands further ahead of the store's last time than the limit.
#define ONCEKEY_CLOCK_JUMP 18

// The operating system reported an error that no other status describes.
#define ONCEKEY_IO 19

// The settings of a shared server cannot keep what the engine promises. Nothing was written.
#define ONCEKEY_UNSAFE_STORE 20

// A shared server lacks changes that it had acknowledged. Nothing is granted until that is accepted.
#define ONCEKEY_HISTORY_LOST 21

// This kind of store has no such thing.
#define ONCEKEY_UNSUPPORTED 22

// The handle was never given out, was freed, or is of another kind. Nothing happened.
#define ONCEKEY_INVALID_HANDLE 100

// Another call is using the claim or orphan. Nothing happened.
#define ONCEKEY_BUSY 101

// This process was forked from one that had opened an engine. Nothing was touched.
#define ONCEKEY_FORKED 102

// A bug in the library was contained. What the call was doing may or may not have happened.
#define ONCEKEY_PANIC 103

// The begin was given up by oncekey_queue_cancel. Nothing happened: a claim that it won all the same is
// aborted.
#define ONCEKEY_CANCELLED 104

// The engine knows a kind of error that this library does not.
#define ONCEKEY_UNKNOWN_ERROR 199

// As oncekey_begin: `key`, `fingerprint`, `max_wait_ms`.
#define ONCEKEY_OP_BEGIN 401

// As oncekey_claim_complete_with: `claim`, `data` unless ONCEKEY_NO_RESPONSE is set, `ttl_ms`.
#define ONCEKEY_OP_COMPLETE 402

// As oncekey_claim_abort: `claim`.
#define ONCEKEY_OP_ABORT 403

// As oncekey_claim_checkpoint: `claim`, `data`.
#define ONCEKEY_OP_CHECKPOINT 404

// As oncekey_orphan_take_over: `orphan`. The completion's answer is CLAIMED.
#define ONCEKEY_OP_TAKE_OVER 405

// As oncekey_orphan_complete: `orphan`, `data`.
#define ONCEKEY_OP_ORPHAN_COMPLETE 406

// As oncekey_orphan_release: `orphan`.
#define ONCEKEY_OP_RELEASE 407

// ONCEKEY_OP_COMPLETE without a response to keep.
#define ONCEKEY_NO_RESPONSE 16777216

// ONCEKEY_OP_BEGIN frees `fingerprint`, whatever comes of it.
#define ONCEKEY_FREE_FINGERPRINT 33554432

// ONCEKEY_OP_BEGIN makes its fingerprint of `parts`, and does not look at `fingerprint`.
#define ONCEKEY_FINGERPRINT_PARTS 67108864

// An open store. A number: copy it freely. 0 is no engine.
typedef struct {
  // Not for the caller.
  uint64_t id;
} oncekey_engine;

// Bytes that belong to the caller. {NULL, 0} is the empty slice; nothing is kept after the call.
typedef struct {
  // The first byte; may be NULL when `len` is 0.
  const uint8_t *ptr;
  // How many bytes.
  size_t len;
} oncekey_slice;

// The identity of an operation: who it belongs to, and its name.
typedef struct {
  // 0 to 255 bytes.
  oncekey_slice scope;
  // 1 to 255 bytes.
  oncekey_slice key;
} oncekey_key;

// What makes two requests the same request. 0 is no fingerprint.
typedef struct {
  // Not for the caller.
  uint64_t id;
} oncekey_fingerprint;

// The exclusive right to execute an operation. 0 is no claim.
typedef struct {
  // Not for the caller.
  uint64_t id;
} oncekey_claim;

// An operation whose owner is gone without saying how it ended. 0 is no orphan.
typedef struct {
  // Not for the caller.
  uint64_t id;
} oncekey_orphan;

// A fencing token. Of two tokens of a key the later one is larger, compared with memcmp.
typedef struct {
  // Incarnation of the store, epoch and sequence, each 8 bytes, big-endian.
  uint8_t bytes[24];
} oncekey_token;

// Bytes that the library gave out. Free them with oncekey_buffer_free.
typedef struct {
  // The first byte; NULL when `len` is 0.
  const uint8_t *ptr;
  // How many bytes.
  size_t len;
  // Who holds the bytes. Not for the caller.
  uint64_t owner;
} oncekey_buffer;

// What was found under a key. Fields that do not belong to the outcome are 0. The caller frees
// `data`, and `claim` or `orphan` where it is not 0.
typedef struct {
  // ONCEKEY_CLAIMED and the others.
  int32_t outcome;
  // CLAIMED, LOCKED, ORPHANED: which attempt this is, from 1.
  uint32_t attempt;
  // CLAIMED: the claim.
  oncekey_claim claim;
  // ORPHANED: the orphan.
  oncekey_orphan orphan;
  // CLAIMED, ORPHANED, REPLAY: the token of the attempt.
  oncekey_token token;
  // Whether there is a response or checkpoint, perhaps an empty one, in `data`.
  uint32_t has_data;
  // Always 0.
  uint32_t reserved;
  // REPLAY: the response. CLAIMED: the last checkpoint of the attempts before. MISMATCH: the labels of
  // the parts that differ, each followed by a NUL.
  oncekey_buffer data;
  // REPLAY: when the operation was completed; ORPHANED: since when it is an orphan. Milliseconds
  // since 1970, in engine time.
  uint64_t since_ms;
  // REPLAY: from when on the key is new again. Milliseconds since 1970.
  uint64_t expires_ms;
  // LOCKED: how long the owner has been executing.
  uint64_t running_ms;
  // LOCKED: a hint when to try again, 100 to 500.
  uint64_t retry_after_ms;
} oncekey_answer;

// What went wrong, for people. 0 is no error.
typedef struct {
  // Not for the caller.
  uint64_t id;
} oncekey_error;

// What a claim or orphan is about. The caller frees `data`, which holds the bytes of the slices.
typedef struct {
  // Which attempt it is, from 1.
  uint32_t attempt;
  // Whether any attempt saved a checkpoint.
  uint32_t has_checkpoint;
  // The fencing token.
  oncekey_token token;
  // Orphans: since when. Milliseconds since 1970, in engine time.
  uint64_t since_ms;
  // Orphans: how old it was when the handle was made, in milliseconds.
  uint64_t age_ms;
  // Who the key belongs to.
  oncekey_slice scope;
  // The key.
  oncekey_slice key;
  // Claims: the last checkpoint. That of an orphan is read by oncekey_orphan_checkpoint.
  oncekey_slice checkpoint;
  // Holds the bytes of the three slices.
  oncekey_buffer data;
} oncekey_info;

// Options of a control socket: set `size`, leave everything else 0, and change what is to differ from the
// defaults.
typedef struct {
  // sizeof(oncekey_control_options) of the caller.
  uint32_t size;
  // ONCEKEY_CONTROL_READ_ONLY and the other, ored.
  uint32_t flags;
  // The path of the socket. Empty: made of the name of the store, in /run/oncekey where that may be written,
  // else in $XDG_RUNTIME_DIR/oncekey, else in oncekey-UID of the directory for temporary files. A store in a
  // database has no such name: its path must be set.
  oncekey_slice path;
  // Operators may take backups, each into a new directory below this one. Empty: they may not.
  oncekey_slice backups;
  // The file that gets a line before each change that an operator makes, and one after it. Empty: none.
  oncekey_slice audit_log;
} oncekey_control_options;

// Options of a store: set `size`, leave everything else 0, and change what is to differ from the
// defaults. An option that the kind of the store does not have is refused, by its name.
typedef struct {
  // sizeof(oncekey_options) of the caller.
  uint32_t size;
  // ONCEKEY_OPEN_EXISTING and the others, ored.
  uint32_t flags;
  // ONCEKEY_STRICT or ONCEKEY_RELAXED. 0: ONCEKEY_STRICT.
  uint32_t durability;
  // Must be 0.
  uint32_t reserved;
  // How long a completed response is replayed, and an orphan stands. 0: 24 hours.
  uint64_t ttl_ms;
  // From which age on a claim counts as an orphan although its owner lives. 0: never.
  uint64_t max_execution_ms;
  // The longest response that is kept, in bytes. 0: 1 MiB; at most 16 MiB.
  uint64_t max_response;
  // The longest checkpoint, in bytes. 0: 64 KiB; at most 16 MiB.
  uint64_t max_checkpoint;
  // How many claims may be in flight. 0: 65,536.
  uint64_t max_in_flight;
  // How many orphans may stand unresolved. 0: 1,000,000.
  uint64_t max_orphans;
  // How many begins may wait for the disk. 0: 65,536.
  uint64_t max_queue;
  // How many begins may wait for an owner. 0: 65,536.
  uint64_t max_waiters;
  // How large the store may grow, in bytes. 0: no bound.
  uint64_t max_store_bytes;
  // How long a begin waits for memory before it is refused. 0: 5 seconds.
  uint64_t overload_after_ms;
  // Memory for records that are not folded yet, in bytes. 0: 32 MiB.
  uint64_t recent_bytes;
  // Memory for what is read again, in bytes. 0: 64 MiB, of a shared store 16 MiB.
  uint64_t cache_bytes;
  // The size that journal segments grow to, in bytes, a multiple of 4096. 0: 32 MiB.
  uint64_t segment_bytes;
  // How often expired records are looked for, and a shared store is kept up. 0: 60 seconds.
  uint64_t sweep_interval_ms;
  // How far the wall clock may stand ahead of the store's last time. 0: 30 days.
  uint64_t max_clock_gap_ms;
  // How many files of records may be open. 0: 256; at least 8.
  uint64_t max_open_files;
  // How many bytes claims in flight and orphans may take, checkpoints included. 0: 8 GiB.
  uint64_t max_open_bytes;
  // How fast a backup verifies and copies, in bytes per second. 0: 48 MiB; UINT64_MAX: as
  // fast as the disk allows.
  uint64_t backup_bytes_per_second;
  // How long an open waits for a store that another process holds. 0: not at all.
  uint64_t lock_wait_ms;
  // A shared store: how long this engine counts as living after each renewal; as long after its death its
  // claims may become orphans. 0: 15 seconds; 1 second to 10 minutes.
  uint64_t lease_ms;
  // A shared store: how long the end of a claim is tried again without an answer. 0: 30 seconds.
  uint64_t settle_for_ms;
  // A shared store: the schema that holds its tables. Empty: `oncekey`.
  oncekey_slice schema;
  // A shared store: a name that no other living engine has, such as that of a pod: it ends its
  // predecessor, whose claims are orphans at once. Empty: none.
  oncekey_slice instance_name;
  // A shared store: the certificates (PEM) that are trusted. Empty: those of the system.
  oncekey_slice root_certificates;
} oncekey_options;

// What oncekey_engine_close left behind.
typedef struct {
  // Claims that were still held: orphans at the next open.
  uint64_t in_flight;
  // The last journal sequence that is in the store file.
  uint64_t folded_through;
} oncekey_close_report;

// Counters and gauges of an engine. Set `size` before the call. Counters count since the engine was
// opened or reopened.
typedef struct {
  // sizeof(oncekey_stats) of the caller.
  uint32_t size;
  // 1 while new claims are refused for want of space or descriptors, or since a file cannot be made.
  uint32_t full;
  // Claims whose owner lives.
  uint64_t in_flight;
  // How long the oldest of them has been held, in milliseconds.
  uint64_t oldest_claim_ms;
  // Orphans that nobody resolved yet, about.
  uint64_t orphans;
  // Begins that wait for the disk.
  uint64_t queued;
  // Begins that wait for an owner or for another begin of their key.
  uint64_t waiters;
  // Memory of records that are not folded yet, in bytes.
  uint64_t recent_bytes;
  // Completed records in the record files.
  uint64_t folded_records;
  // Runs that index them.
  uint64_t runs;
  // Bytes of the store file, of the record files and of the journal.
  uint64_t store_bytes;
  // Begins answered CLAIMED.
  uint64_t claimed;
  // Begins answered REPLAY.
  uint64_t replayed;
  // Begins answered LOCKED.
  uint64_t locked;
  // Begins answered MISMATCH.
  uint64_t mismatched;
  // Begins answered ORPHANED.
  uint64_t orphaned;
  // Operations completed.
  uint64_t completed;
  // Claims aborted.
  uint64_t aborted;
  // Claims freed without an end.
  uint64_t abandoned;
  // Orphans taken over.
  uint64_t taken_over;
  // Orphans released.
  uint64_t released;
  // Late calls refused by their token.
  uint64_t fenced;
  // Calls that failed or were refused.
  uint64_t errors;
  // Groups made durable, each with one sync.
  uint64_t groups;
  // Changes in them.
  uint64_t entries;
  // Folds committed.
  uint64_t folds;
  // Rows removed by the sweeper.
  uint64_t swept;
  // Failures that latched the engine.
  uint64_t failures;
  // Bytes of claims in flight and of orphans, checkpoints included.
  uint64_t open_bytes;
  // Backups that are being written.
  uint64_t backups;
  // What they will have copied in the end, in bytes.
  uint64_t backup_bytes;
  // What they have copied so far, in bytes.
  uint64_t backup_bytes_copied;
} oncekey_stats;

// A labelled part of a request. The label is UTF-8, at most 128 bytes; the value any bytes.
typedef struct {
  // What a mismatch will name, such as "method" or "header content-type".
  oncekey_slice label;
  // The bytes that count.
  oncekey_slice value;
} oncekey_part;

// A header of an HTTP request.
typedef struct {
  // Its name, in any case.
  oncekey_slice name;
  // Its value.
  oncekey_slice value;
} oncekey_header;

// An HTTP request, as oncekey_fingerprint_from_request takes it.
typedef struct {
  // Such as "POST".
  oncekey_slice method;
  // The target, byte for byte as it was sent: "/orders?b=1", or an absolute URL, whose authority
  // then goes before the header Host.
  oncekey_slice target;
  // The body.
  oncekey_slice body;
  // All headers, in the order in which they were sent, repeated names repeated.
  const oncekey_header *headers;
  // How many.
  size_t header_count;
  // The names of the headers that count, in any case and order; at most 60. NULL:
  // Authorization, Content-Encoding, Content-Type, If-Match, If-None-Match,
  // If-Unmodified-Since, X-API-Key and X-HTTP-Method-Override. The authority always counts.
  const oncekey_slice *fingerprinted;
  // How many. 0 with a pointer that is not NULL: none.
  size_t fingerprinted_count;
} oncekey_request;

// A completion queue. 0 is no queue.
typedef struct {
  // Not for the caller.
  uint64_t id;
} oncekey_queue;

// An operation to submit. Fields that do not belong to `op` are not looked at.
typedef struct {
  // ONCEKEY_OP_BEGIN and the others.
  uint32_t op;
  // ONCEKEY_NO_RESPONSE, ONCEKEY_FREE_FINGERPRINT, ONCEKEY_FINGERPRINT_PARTS, ored.
  uint32_t flags;
  // Comes back with the completion, and names a begin to oncekey_queue_cancel.
  uint64_t user_data;
  // The key of a begin.
  oncekey_key key;
  // The fingerprint of a begin.
  oncekey_fingerprint fingerprint;
  // How long a begin waits for an owner, unless oncekey_queue_cancel gives it up.
  uint64_t max_wait_ms;
  // The claim to end or to save a checkpoint of.
  oncekey_claim claim;
  // The orphan to resolve.
  oncekey_orphan orphan;
  // The response or checkpoint.
  oncekey_slice data;
  // The TTL of a completion; 0: the store's.
  uint64_t ttl_ms;
  // With ONCEKEY_FINGERPRINT_PARTS: as oncekey_fingerprint_from_parts takes them. Hashed in the call
  // that submits them: large ones better by oncekey_fingerprint_from_parts, on any thread.
  const oncekey_part *parts;
  // How many.
  size_t part_count;
} oncekey_submission;

// What came of a submission. The caller frees `error`, and what is in `answer`.
typedef struct {
  // That of the submission.
  uint64_t user_data;
  // ONCEKEY_OK, or why it failed. Whether a claim or orphan is gone is as with the blocking call.
  int32_t status;
  // That of the submission.
  uint32_t op;
  // What went wrong, for people; 0 when the status is OK.
  oncekey_error error;
  // Whether a response is kept; for the two ways to complete.
  uint32_t kept;
  // Always 0.
  uint32_t reserved;
  // What was found, for ONCEKEY_OP_BEGIN and ONCEKEY_OP_TAKE_OVER.
  oncekey_answer answer;
} oncekey_completion;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// Asks for the right to execute the operation that `key` names. With `max_wait_ms` above 0 it waits so
// long for an owner: for its response (REPLAY), its abort (CLAIMED) or its end (ORPHANED); past the
// bound the outcome is LOCKED. Waits for the disk.
//
// The caller frees `answer->data`, and ends `answer->claim` or frees `answer->orphan`. CLAIMED is durable
// when it is answered, under ONCEKEY_STRICT. Fails with INVALID_INPUT, OVERLOADED, STORE_FULL,
// OUTCOME_UNKNOWN, UNAVAILABLE, CLOSED, CORRUPTED, IO; then the caller must not execute.
int32_t oncekey_begin(oncekey_engine engine,
                      oncekey_key key,
                      oncekey_fingerprint fingerprint,
                      uint64_t max_wait_ms,
                      oncekey_answer *answer,
                      oncekey_error *error);

// Frees the bytes of a buffer and zeroes it. NULL and a zeroed buffer are freed without effect.
int32_t oncekey_buffer_free(oncekey_buffer *buffer);

// Ends the operation with its response, which every identical begin gets until the TTL is over. A
// response longer than `max_response` is not kept, and `kept`, which may be NULL, becomes 0. Waits for
// the disk; durable when the status is OK.
//
// The claim is gone after OK, FENCED (another caller took over) and ALREADY_COMPLETED. After OUTCOME_UNKNOWN,
// UNAVAILABLE, STORE_FULL, CLOSED and all others it is still the caller's, to try again or to free.
int32_t oncekey_claim_complete(oncekey_claim claim,
                               oncekey_slice response,
                               uint32_t *kept,
                               oncekey_error *error);

// Like oncekey_claim_complete, with a TTL of its own (0: the store's), and perhaps without a response
// to keep (NULL: a begin is told that the operation was completed).
int32_t oncekey_claim_complete_with(oncekey_claim claim,
                                    const oncekey_slice *response,
                                    uint64_t ttl_ms,
                                    uint32_t *kept,
                                    oncekey_error *error);

// Says that nothing happened in this attempt. The first attempt frees the key; a later one leaves the
// orphan that it took over. Waits for the disk; durable when the status is OK.
//
// Whether the claim is gone is as with oncekey_claim_complete.
int32_t oncekey_claim_abort(oncekey_claim claim,
                            oncekey_error *error);

// Saves a recovery point: the one who resolves the orphan that this claim may become gets the last one. At
// most `max_checkpoint` bytes. Waits for the disk; durable when the status is OK. The claim stays.
//
// Fails with INVALID_INPUT when it is too long, FENCED, ALREADY_COMPLETED, OUTCOME_UNKNOWN, UNAVAILABLE,
// STORE_FULL, CLOSED.
int32_t oncekey_claim_checkpoint(oncekey_claim claim,
                                 oncekey_slice data,
                                 oncekey_error *error);

// Key, token, attempt and last checkpoint of a claim. May read the store. The caller frees `info->data`.
// CORRUPTED: the checkpoint is damaged; FENCED and ALREADY_COMPLETED: the claim was ended otherwise. The
// claim stays.
int32_t oncekey_claim_info(oncekey_claim claim,
                           oncekey_info *info,
                           oncekey_error *error);

// Drops a claim. Unless it was ended, the operation is an orphan from now on: its outcome is unknown.
// Does not wait. 0 is freed without effect.
int32_t oncekey_claim_free(oncekey_claim claim);

// Offers the control socket of this engine until it is closed or freed: a Unix socket with mode 0600 on which a
// thread of the library answers the program `oncekey`, for the user of this process and root. The store names it,
// so that `oncekey stats --store DIR` and the other commands find it. `options` may be NULL: the defaults.
//
// The thread takes no signals. A process that has closed its standard streams gets a /dev/null in their places.
// Fails with INVALID_INPUT, also where the engine offers one already and where a store in a database got no
// path; UNSUPPORTED by a library without the feature `control-socket`; CLOSED; STORE_FULL; IO. Then there is none.
int32_t oncekey_engine_control_socket(oncekey_engine engine,
                                      const oncekey_control_options *options,
                                      oncekey_error *error);

// Opens the store in the directory `path`, creating it unless ONCEKEY_OPEN_EXISTING is set. `options`
// may be NULL. When this returns, every record that was ever acknowledged is known again, and every
// claim of an earlier process is an orphan. Waits for the disk.
//
// With the feature `postgres` of the library, `path` may be the URL of a database that any number of
// processes share, `postgres://user@host/database`: its tables are made unless ONCEKEY_OPEN_EXISTING is
// set, and claims of a process that died are orphans a lease after its death. A library without the
// feature answers UNSUPPORTED.
//
// The caller frees `engine` with oncekey_engine_free. Fails with INVALID_INPUT, the STORE_ statuses,
// NETWORK_FILESYSTEM, CORRUPTED, CLOCK_JUMP, IO, and for a URL with UNAVAILABLE, UNSAFE_STORE, UNSUPPORTED.
int32_t oncekey_engine_open(oncekey_slice path,
                            const oncekey_options *options,
                            oncekey_engine *engine,
                            oncekey_error *error);

// Recovers in place after a failure, as a restart of the process would: every claim becomes an
// orphan, which its owner may still complete. Waits for the disk.
//
// Fails with CLOSED, or as oncekey_engine_open: the engine stays unavailable and may be reopened again.
int32_t oncekey_engine_reopen(oncekey_engine engine,
                              oncekey_error *error);

// Ends the engine: ends its control socket, refuses new calls, makes durable what was submitted, folds, joins its
// threads and unlocks the store. Claims that are still held are orphans at the next open. Waits for the disk.
//
// The handle stays, and answers CLOSED until it is freed. `report` may be NULL. Fails with CLOSED when
// it was closed before, UNAVAILABLE when it had failed; it is closed anyway.
int32_t oncekey_engine_close(oncekey_engine engine,
                             oncekey_close_report *report,
                             oncekey_error *error);

// Gives the handle back; closes the engine first when that was not done. Claims, orphans and queues
// of it answer CLOSED from then on and are still to be freed. 0 is freed without effect.
int32_t oncekey_engine_free(oncekey_engine engine);

// What the store holds under a key, without asking for the right to execute: ABSENT, LOCKED, REPLAY
// or ORPHANED. May read from the disk.
//
// The caller frees `answer->data` and `answer->orphan`. Fails with INVALID_INPUT, OUTCOME_UNKNOWN,
// UNAVAILABLE, CLOSED, CORRUPTED, IO.
int32_t oncekey_engine_get(oncekey_engine engine,
                           oncekey_key key,
                           oncekey_answer *answer,
                           oncekey_error *error);

// The orphans that stand unresolved, oldest first: up to `capacity` handles into `orphans`, and into
// `count` how many there are in all. May read from the disk.
//
// The caller frees the handles that were given out: the lesser of `capacity` and `*count`. Fails with
// UNAVAILABLE, CLOSED, CORRUPTED, IO.
int32_t oncekey_engine_orphans(oncekey_engine engine,
                               oncekey_orphan *orphans,
                               size_t capacity,
                               size_t *count,
                               oncekey_error *error);

// Counters and gauges into `stats`, whose `size` the caller has set. Cheap enough to be scraped.
int32_t oncekey_engine_stats(oncekey_engine engine, oncekey_stats *stats, oncekey_error *error);

// Moves everything acknowledged so far from the journal into the store file. Never needed for
// durability. Waits for the disk. Fails with UNAVAILABLE, CLOSED.
int32_t oncekey_engine_fold(oncekey_engine engine, oncekey_error *error);

// Gives the space of expired records back now; `removed`, which may be NULL, tells how many rows. Never
// needed for correctness. Waits for the disk. Fails with UNAVAILABLE, CLOSED.
int32_t oncekey_engine_sweep(oncekey_engine engine,
                             uint64_t *removed,
                             oncekey_error *error);

// Writes a consistent copy of the store into the new or empty directory `path`, while the engine runs.
// It is another incarnation: tokens of the original are fenced there. Waits for the disk.
//
// Fails with INVALID_INPUT when `path` is not empty, STORE_FULL, IO, UNAVAILABLE, CLOSED.
int32_t oncekey_engine_backup(oncekey_engine engine,
                              oncekey_slice path,
                              oncekey_error *error);

// Reads the whole store file in the directory `path`, which no engine may have open, and checks every
// checksum. Writes nothing. Waits for the disk.
//
// Fails with CORRUPTED for the first damage found, with UNSUPPORTED for the URL of a database, whose server
// has its own checks, or as oncekey_engine_open with ONCEKEY_OPEN_EXISTING.
int32_t oncekey_verify(oncekey_slice path,
                       oncekey_error *error);

// What went wrong, for people: a text that is valid until the error is freed. Never NULL; empty when
// the error is not valid.
const char *oncekey_error_message(oncekey_error error);

// The status that came with an error; ONCEKEY_INVALID_HANDLE when the error is not valid.
int32_t oncekey_error_status(oncekey_error error);

// Frees an error and its message. 0 is freed without effect.
int32_t oncekey_error_free(oncekey_error error);

// Makes a fingerprint of labelled parts, whose order counts. At most 64 parts, labels of at most 128
// bytes. Two requests are identical when they have the same parts with the same bytes.
//
// The caller frees `fingerprint`, and may use it for any number of begins before. Fails with
// INVALID_INPUT.
int32_t oncekey_fingerprint_from_parts(const oncekey_part *parts,
                                       size_t count,
                                       oncekey_fingerprint *fingerprint,
                                       oncekey_error *error);

// Makes the fingerprint that the HTTP layers in Rust and Go make of a request: method, target, the
// headers that count, body.
//
// The caller frees `fingerprint`. Fails with INVALID_INPUT.
int32_t oncekey_fingerprint_from_request(const oncekey_request *request,
                                         oncekey_fingerprint *fingerprint,
                                         oncekey_error *error);

// Frees a fingerprint. 0 is freed without effect.
int32_t oncekey_fingerprint_free(oncekey_fingerprint fingerprint);

// Claims the operation: a new token, one attempt more, the last checkpoint (oncekey_claim_info). The one who
// takes over executes what may have happened before: at least once. Waits for the disk; durable when the
// status is OK.
//
// The orphan is gone after OK, FENCED and ALREADY_COMPLETED (it was resolved otherwise); after OVERLOADED,
// STORE_FULL, OUTCOME_UNKNOWN, UNAVAILABLE, CLOSED and all others it is still the caller's.
int32_t oncekey_orphan_take_over(oncekey_orphan orphan,
                                 oncekey_claim *claim,
                                 oncekey_error *error);

// Ends the operation with a response, for a caller who found out that it happened. `kept` may be NULL.
// Waits for the disk; durable when the status is OK. Whether the orphan is gone is as with
// oncekey_orphan_take_over.
int32_t oncekey_orphan_complete(oncekey_orphan orphan,
                                oncekey_slice response,
                                uint32_t *kept,
                                oncekey_error *error);

// Frees the key, for a caller who found out that the operation did not happen, or who wants it executed
// again. Waits for the disk; durable when the status is OK. Whether the orphan is gone is as with
// oncekey_orphan_take_over.
int32_t oncekey_orphan_release(oncekey_orphan orphan,
                               oncekey_error *error);

// Key, token, attempt and age of an orphan, and whether it has a checkpoint. Reads nothing. The caller
// frees `info->data`.
int32_t oncekey_orphan_info(oncekey_orphan orphan,
                            oncekey_info *info,
                            oncekey_error *error);

// The last checkpoint that any attempt saved. May read the store. `found` is 0 when there is none; the
// caller frees `data`.
//
// FENCED and ALREADY_COMPLETED: the orphan was resolved. CORRUPTED: the checkpoint is damaged, and the
// orphan can be resolved all the same.
int32_t oncekey_orphan_checkpoint(oncekey_orphan orphan,
                                  oncekey_buffer *data,
                                  uint32_t *found,
                                  oncekey_error *error);

// Drops the handle and changes nothing. 0 is freed without effect.
int32_t oncekey_orphan_free(oncekey_orphan orphan);

// Makes a completion queue for operations of `engine`. `max_begins` bounds how many begins may be
// outstanding, submitted and not polled; 0: 1,048,576. The ends of claims are never refused.
//
// The caller frees `queue`.
int32_t oncekey_queue_new(oncekey_engine engine,
                          size_t max_begins,
                          oncekey_queue *queue,
                          oncekey_error *error);

// Submits `count` operations, in order. All that is wrong with one of them is told by its completion.
// Does not wait for syncs, though a begin may read from the disk.
//
// `accepted` tells how many were taken in. It is `count`, but for OVERLOADED: then the begin after the
// accepted ones is one too many; poll, and submit the rest again. Nothing of the submissions is kept: they
// and what they point to may be reused at once.
int32_t oncekey_queue_submit(oncekey_queue queue,
                             const oncekey_submission *submissions,
                             size_t count,
                             size_t *accepted,
                             oncekey_error *error);

// Takes up to `capacity` completions out, in the order in which they became known. Without any it waits
// for the first up to `timeout_ms` (0: not at all, UINT64_MAX: without end), or until oncekey_queue_wake or
// oncekey_queue_free. `count` tells how many; 0 with OK when there are none. What lies beyond the count is
// not touched.
//
// What is in the completions belongs to the caller. Several threads may poll.
int32_t oncekey_queue_poll(oncekey_queue queue,
                           oncekey_completion *completions,
                           size_t capacity,
                           uint64_t timeout_ms,
                           size_t *count,
                           oncekey_error *error);

// Gives up the begins of this queue that were submitted with `user_data` and wait for an owner
// (`max_wait_ms` above 0). Each makes room for another begin to wait at once, and has its completion, as
// every submission has: either what it came to, when that is known by now, or CANCELLED, and then a claim
// that was on its way to it is aborted. Does not wait.
//
// OK also when there is no such begin, or no more. Begins that do not wait, and all other operations, are
// not affected, whatever their `user_data`.
int32_t oncekey_queue_cancel(oncekey_queue queue,
                             uint64_t user_data);

// Makes one poll that waits, or the next one, return without a completion.
int32_t oncekey_queue_wake(oncekey_queue queue);

// A descriptor that is readable while the queue has completions, for poll, epoll and kqueue. It belongs
// to the queue: only ask whether it is readable. -1 where there are no such descriptors.
int32_t oncekey_queue_fd(oncekey_queue queue,
                         int32_t *fd,
                         oncekey_error *error);

// Frees the queue and ends polls that wait. What was submitted goes on without it: claims that were won,
// or will be, and that nobody received are aborted; claims and orphans in use by the queue are freed. 0 is
// freed without effect.
int32_t oncekey_queue_free(oncekey_queue queue);

// The version of the binary interface of the library that was loaded: ONCEKEY_ABI_VERSION of the
// header that belongs to it. Works in a forked child.
uint32_t oncekey_abi_version(void);

// The version of the library that was loaded, such as "0.1.0". Never freed. Works in a forked child.
const char *oncekey_version(void);

// The name of a status without its prefix, such as "FENCED". Never NULL, never freed. Works in a
// forked child.
const char *oncekey_status_name(int32_t status);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* ONCEKEY_H */

/* A NUL-terminated string as a slice, without its NUL. */
static inline oncekey_slice oncekey_str(const char *text) {
  oncekey_slice slice;
  slice.ptr = (const uint8_t *)text;
  slice.len = text == NULL ? 0 : strlen(text);
  return slice;
}
