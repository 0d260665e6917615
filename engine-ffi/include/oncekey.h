/* oncekey: an embedded idempotency engine. The rules for all of this are in docs/c-api.md.
 *
 * Generated from engine-ffi/src by cbindgen. Licensed under MIT or Apache-2.0. */

#ifndef ONCEKEY_H
#define ONCEKEY_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

// The store holds no record of the key, or only an expired one. Only oncekey_engine_get has this outcome.
#define ONCEKEY_ABSENT 200

// The key is new, or its record expired: execute the operation, then complete the claim.
#define ONCEKEY_CLAIMED 201

// The operation was completed: send the recorded response, do not execute.
#define ONCEKEY_REPLAY 202

// The operation is being executed now. Try again later.
#define ONCEKEY_LOCKED 203

// The key was used with a different request. Do not execute.
#define ONCEKEY_MISMATCH 204

// The outcome of an earlier attempt is unknown: it died, or was abandoned. The engine never executes the
// operation again by itself.
#define ONCEKEY_ORPHANED 205

// A control socket: all changes are refused.
#define ONCEKEY_CONTROL_READ_ONLY 4194304

// A control socket: operators may read stored responses.
#define ONCEKEY_CONTROL_SHOW_RESPONSES 8388608

// Every answer that confirms a change waits until the change is synced to disk.
#define ONCEKEY_STRICT 301

// `begin` grants a claim once it is written, before it is synced. The claim survives kill -9; after a power
// loss an operation may run twice.
#define ONCEKEY_RELAXED 302

// Refuse to create a store.
#define ONCEKEY_OPEN_EXISTING 65536

// Open although the wall clock is ahead by more than `max_clock_gap_ms`, or the clock of a shared server by
// more than 30 days.
#define ONCEKEY_ACCEPT_CLOCK_JUMP 131072

// Open a store on a network filesystem, whose locks and syncs cannot be trusted.
#define ONCEKEY_ALLOW_NETWORK_FILESYSTEM 262144

// A shared store: refuse a server without `synchronous_standby_names`.
#define ONCEKEY_REPLICATION_REQUIRED 524288

// A shared store: continue when the server lacks changes that it had acknowledged. Keys whose claim or
// response was lost are then new, and their operations run again.
#define ONCEKEY_ACCEPT_LOST_HISTORY 1048576

// A shared store: send no settings when a connection begins, for a pooler that refuses them. The role must
// then have these settings.
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

// A key, scope, response, checkpoint, option or pointer is invalid or outside its limits. Nothing happened.
#define ONCEKEY_INVALID_INPUT 1

// The token is not the newest for its key: another caller took over, or the record expired or was freed.
#define ONCEKEY_FENCED 2

// The key was already completed, with other bytes or under another token.
#define ONCEKEY_ALREADY_COMPLETED 3

// A write or sync failed while the operation was in progress: it may or may not have happened.
// oncekey_engine_reopen decides it.
#define ONCEKEY_OUTCOME_UNKNOWN 4

// The engine refuses writes after an earlier failure. oncekey_engine_reopen recovers it in place.
#define ONCEKEY_UNAVAILABLE 5

// A bound was reached. Nothing happened; try again later.
#define ONCEKEY_OVERLOADED 6

// The disk, or the configured store size, is full. Nothing happened.
#define ONCEKEY_STORE_FULL 7

// The engine was closed.
#define ONCEKEY_CLOSED 8

// There is no store, and the options forbid to create one.
#define ONCEKEY_STORE_MISSING 9

// Another process, or another engine of this process, holds the store.
#define ONCEKEY_STORE_IN_USE 10

// The store file has no bytes. It was left untouched.
#define ONCEKEY_STORE_EMPTY 11

// The store file is shorter than its durable part once was. It was left untouched.
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

// The wall clock is further ahead of the store's last time than the limit allows.
#define ONCEKEY_CLOCK_JUMP 18

// The operating system reported an error that no other status describes.
#define ONCEKEY_IO 19

// The settings of a shared server cannot keep the promises of the engine. Nothing was written.
#define ONCEKEY_UNSAFE_STORE 20

// A shared server lacks changes that it had acknowledged. The engine grants nothing until the loss is
// accepted with ONCEKEY_ACCEPT_LOST_HISTORY.
#define ONCEKEY_HISTORY_LOST 21

// This kind of store does not have the requested function.
#define ONCEKEY_UNSUPPORTED 22

// The handle was never given out, was freed, or is of another kind. Nothing happened.
#define ONCEKEY_INVALID_HANDLE 100

// Another call is using the claim or orphan. Nothing happened.
#define ONCEKEY_BUSY 101

// This process was forked from one that had opened an engine. Nothing was touched.
#define ONCEKEY_FORKED 102

// A bug in the library was contained. The work of the call may or may not have happened.
#define ONCEKEY_PANIC 103

// oncekey_queue_cancel cancelled the begin. Nothing happened: if the begin won a claim, the claim is
// aborted.
#define ONCEKEY_CANCELLED 104

// The engine reported a kind of error that this library does not know.
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

// ONCEKEY_OP_COMPLETE: keep no response.
#define ONCEKEY_NO_RESPONSE 16777216

// ONCEKEY_OP_BEGIN: free `fingerprint`, whatever the result.
#define ONCEKEY_FREE_FINGERPRINT 33554432

// ONCEKEY_OP_BEGIN: make the fingerprint from `parts` and ignore `fingerprint`.
#define ONCEKEY_FINGERPRINT_PARTS 67108864

// An open store. The handle is a number and may be copied. 0 is no engine.
typedef struct {
  // Not for the caller.
  uint64_t id;
} oncekey_engine;

// Bytes that belong to the caller. {NULL, 0} is the empty slice. The library keeps no pointer after the
// call.
typedef struct {
  // The first byte; may be NULL when `len` is 0.
  const uint8_t *ptr;
  // The number of bytes.
  size_t len;
} oncekey_slice;

// The identity of an operation: the party that it belongs to, and its name.
typedef struct {
  // 0 to 255 bytes.
  oncekey_slice scope;
  // 1 to 255 bytes.
  oncekey_slice key;
} oncekey_key;

// The identity of a request: equal fingerprints mean the same request. 0 is no fingerprint.
typedef struct {
  // Not for the caller.
  uint64_t id;
} oncekey_fingerprint;

// The exclusive right to execute an operation. 0 is no claim.
typedef struct {
  // Not for the caller.
  uint64_t id;
} oncekey_claim;

// An operation whose owner ended with an unknown outcome. 0 is no orphan.
typedef struct {
  // Not for the caller.
  uint64_t id;
} oncekey_orphan;

// A fencing token. Of two tokens of one key, the later one is larger when compared with memcmp.
typedef struct {
  // The incarnation of the store, the epoch and the sequence, each 8 bytes, big-endian.
  uint8_t bytes[24];
} oncekey_token;

// Bytes that the library gave out. Free them with oncekey_buffer_free.
typedef struct {
  // The first byte; NULL when `len` is 0.
  const uint8_t *ptr;
  // The number of bytes.
  size_t len;
  // The handle that holds the bytes. Not for the caller.
  uint64_t owner;
} oncekey_buffer;

// The answer to a begin or a get. Fields that do not belong to the outcome are 0. The caller frees `data`,
// and `claim` or `orphan` where they are not 0.
typedef struct {
  // ONCEKEY_CLAIMED or another outcome.
  int32_t outcome;
  // CLAIMED, LOCKED, ORPHANED: the number of the attempt, from 1.
  uint32_t attempt;
  // CLAIMED: the claim.
  oncekey_claim claim;
  // ORPHANED: the orphan.
  oncekey_orphan orphan;
  // CLAIMED, ORPHANED, REPLAY: the token of the attempt.
  oncekey_token token;
  // 1 when `data` holds a response, checkpoint or list of labels, which may be empty; else 0.
  uint32_t has_data;
  // Always 0.
  uint32_t reserved;
  // REPLAY: the response. CLAIMED: the last checkpoint of the earlier attempts. MISMATCH: the labels of
  // the parts that differ, each followed by a NUL.
  oncekey_buffer data;
  // REPLAY: when the operation was completed. ORPHANED: when it became an orphan. Milliseconds since 1970,
  // in engine time.
  uint64_t since_ms;
  // REPLAY: when the record expires and the key is new again. Milliseconds since 1970, in engine time.
  uint64_t expires_ms;
  // LOCKED: how long the owner has been executing, in milliseconds.
  uint64_t running_ms;
  // LOCKED: a hint when to try again, 100 to 500 milliseconds.
  uint64_t retry_after_ms;
} oncekey_answer;

// The message of a failure, for people. 0 is no error.
typedef struct {
  // Not for the caller.
  uint64_t id;
} oncekey_error;

// The description of a claim or orphan. The caller frees `data`, which holds the bytes of the slices.
typedef struct {
  // The number of the attempt, from 1.
  uint32_t attempt;
  // 1 when any attempt saved a checkpoint, else 0.
  uint32_t has_checkpoint;
  // The fencing token.
  oncekey_token token;
  // Orphans: when it became an orphan. Milliseconds since 1970, in engine time.
  uint64_t since_ms;
  // Orphans: the age at the time when the handle was made, in milliseconds.
  uint64_t age_ms;
  // The party that the key belongs to.
  oncekey_slice scope;
  // The key.
  oncekey_slice key;
  // Claims: the last checkpoint. Read that of an orphan with oncekey_orphan_checkpoint.
  oncekey_slice checkpoint;
  // Holds the bytes of the three slices.
  oncekey_buffer data;
} oncekey_info;

// Options of a control socket: set `size`, leave everything else 0, and change the fields that must differ
// from the defaults.
typedef struct {
  // sizeof(oncekey_control_options) of the caller.
  uint32_t size;
  // The ONCEKEY_CONTROL_ flags, combined with `|`.
  uint32_t flags;
  // The path of the socket. Empty: a name made from the path of the store, in /run/oncekey where that can
  // be written, else in $XDG_RUNTIME_DIR/oncekey, else in oncekey-UID in the directory for temporary
  // files. A store in a database has no such name: its path must be set.
  oncekey_slice path;
  // The directory in which operators may take backups, each in a new directory. Empty: they may not.
  oncekey_slice backups;
  // The file that gets a line before each change that an operator makes, and one after it. Empty: no file.
  oncekey_slice audit_log;
} oncekey_control_options;

// Options of a store: set `size`, leave everything else 0, and change the fields that must differ from the
// defaults. An option that this kind of store does not have is refused, and the error names it.
typedef struct {
  // sizeof(oncekey_options) of the caller.
  uint32_t size;
  // The flags from ONCEKEY_OPEN_EXISTING to ONCEKEY_WITHOUT_STARTUP_OPTIONS, combined with `|`.
  uint32_t flags;
  // ONCEKEY_STRICT or ONCEKEY_RELAXED. 0: ONCEKEY_STRICT.
  uint32_t durability;
  // Must be 0.
  uint32_t reserved;
  // How long a completed response is replayed and an orphan is kept, in milliseconds. 0: 24 hours.
  uint64_t ttl_ms;
  // The age at which a claim counts as an orphan although its owner lives, in milliseconds. 0: never.
  uint64_t max_execution_ms;
  // The longest response that is kept, in bytes. 0: 1 MiB; at most 16 MiB.
  uint64_t max_response;
  // The longest checkpoint, in bytes. 0: 64 KiB; at most 16 MiB.
  uint64_t max_checkpoint;
  // The largest number of claims in flight. 0: 65,536.
  uint64_t max_in_flight;
  // The largest number of unresolved orphans. 0: 1,000,000.
  uint64_t max_orphans;
  // The largest number of begins that wait for the disk. 0: 65,536.
  uint64_t max_queue;
  // The largest number of begins that wait for an owner. 0: 65,536.
  uint64_t max_waiters;
  // The largest size of the store, in bytes. 0: no bound.
  uint64_t max_store_bytes;
  // How long a begin waits for memory before it is refused, in milliseconds. 0: 5 seconds.
  uint64_t overload_after_ms;
  // Memory for records that are not folded yet, in bytes. 0: 32 MiB.
  uint64_t recent_bytes;
  // Memory for cached records and blocks, in bytes. 0: 64 MiB; for a shared store 16 MiB.
  uint64_t cache_bytes;
  // The size of a full journal segment, in bytes, a multiple of 4096. 0: 32 MiB.
  uint64_t segment_bytes;
  // The time between two sweeps of expired records, and between two upkeeps of a shared store, in
  // milliseconds. 0: 60 seconds.
  uint64_t sweep_interval_ms;
  // How far the wall clock may be ahead of the store's last time, in milliseconds. 0: 30 days.
  uint64_t max_clock_gap_ms;
  // The largest number of open record files. 0: 256; at least 8.
  uint64_t max_open_files;
  // The largest size of claims in flight and orphans together, checkpoints included, in bytes. 0: 8 GiB.
  uint64_t max_open_bytes;
  // The speed at which a backup verifies and copies, in bytes per second. 0: 48 MiB; UINT64_MAX: as fast
  // as the disk allows.
  uint64_t backup_bytes_per_second;
  // How long an open waits for a store that another process holds, in milliseconds. 0: not at all.
  uint64_t lock_wait_ms;
  // A shared store: how long a renewal keeps this engine counted as living, in milliseconds. After its
  // death, its claims may become orphans when this time has passed. 0: 15 seconds; 1 second to 10 minutes.
  uint64_t lease_ms;
  // A shared store: how long the end of a claim is retried while the server does not answer, in
  // milliseconds. 0: 30 seconds.
  uint64_t settle_for_ms;
  // A shared store: the schema that holds its tables. Empty: `oncekey`.
  oncekey_slice schema;
  // A shared store: a name that no other living engine has, such as the name of a pod. An engine that
  // opens under the name of its predecessor ends that engine, and its claims are orphans at once. Empty:
  // no name.
  oncekey_slice instance_name;
  // A shared store: the trusted certificates (PEM). Empty: those of the system.
  oncekey_slice root_certificates;
} oncekey_options;

// The state in which oncekey_engine_close left the store.
typedef struct {
  // Claims that were still held. They are orphans at the next open.
  uint64_t in_flight;
  // The last journal sequence number that the store file contains.
  uint64_t folded_through;
} oncekey_close_report;

// Counters and gauges of an engine. Set `size` before the call. Counters start at 0 when the engine is
// opened or reopened.
typedef struct {
  // sizeof(oncekey_stats) of the caller.
  uint32_t size;
  // 1 while new claims are refused because space, descriptors or a new file cannot be had; else 0.
  uint32_t full;
  // Claims whose owner lives.
  uint64_t in_flight;
  // How long the oldest claim in flight has been held, in milliseconds.
  uint64_t oldest_claim_ms;
  // Unresolved orphans. The number is approximate.
  uint64_t orphans;
  // Begins that wait for the disk.
  uint64_t queued;
  // Begins that wait for an owner or for another begin of their key.
  uint64_t waiters;
  // Memory of records that are not folded yet, in bytes.
  uint64_t recent_bytes;
  // Completed records in the record files.
  uint64_t folded_records;
  // Runs that index the record files.
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
  // Claims whose owner ended without completing or aborting them.
  uint64_t abandoned;
  // Orphans taken over.
  uint64_t taken_over;
  // Orphans released.
  uint64_t released;
  // Late calls that were refused because of their token.
  uint64_t fenced;
  // Calls that failed or were refused.
  uint64_t errors;
  // Groups made durable, each with one sync.
  uint64_t groups;
  // Changes in these groups.
  uint64_t entries;
  // Folds committed.
  uint64_t folds;
  // Rows removed by the sweeper.
  uint64_t swept;
  // Failures after which the engine refused writes.
  uint64_t failures;
  // Bytes of claims in flight and of orphans, checkpoints included.
  uint64_t open_bytes;
  // Backups that are being written.
  uint64_t backups;
  // The bytes that these backups will have copied at their end.
  uint64_t backup_bytes;
  // The bytes that they have copied so far.
  uint64_t backup_bytes_copied;
} oncekey_stats;

// A labelled part of a request. The label is UTF-8, at most 128 bytes; the value any bytes.
typedef struct {
  // The name that a mismatch reports, such as "method" or "header content-type".
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

// An HTTP request, for oncekey_fingerprint_from_request.
typedef struct {
  // The method, such as "POST".
  oncekey_slice method;
  // The target, byte for byte as it was sent: "/orders?b=1", or an absolute URL, whose authority then
  // takes precedence over the header Host.
  oncekey_slice target;
  // The body.
  oncekey_slice body;
  // All headers, in the order in which they were sent, repeated names repeated.
  const oncekey_header *headers;
  // The number of headers.
  size_t header_count;
  // The names of the headers that count, in any case and order; at most 60. NULL:
  // Authorization, Content-Encoding, Content-Type, If-Match, If-None-Match,
  // If-Unmodified-Since, X-API-Key and X-HTTP-Method-Override. The authority always counts.
  const oncekey_slice *fingerprinted;
  // The number of names. 0 with a pointer that is not NULL: no header counts.
  size_t fingerprinted_count;
} oncekey_request;

// A completion queue. 0 is no queue.
typedef struct {
  // Not for the caller.
  uint64_t id;
} oncekey_queue;

// An operation to submit. Fields that do not belong to `op` are ignored.
typedef struct {
  // ONCEKEY_OP_BEGIN or another operation.
  uint32_t op;
  // ONCEKEY_NO_RESPONSE, ONCEKEY_FREE_FINGERPRINT, ONCEKEY_FINGERPRINT_PARTS, combined with `|`.
  uint32_t flags;
  // Returned in the completion. oncekey_queue_cancel finds a begin by it.
  uint64_t user_data;
  // The key of a begin.
  oncekey_key key;
  // The fingerprint of a begin.
  oncekey_fingerprint fingerprint;
  // How long a begin waits for an owner, in milliseconds. oncekey_queue_cancel ends the wait early.
  uint64_t max_wait_ms;
  // The claim to end, or to save a checkpoint of.
  oncekey_claim claim;
  // The orphan to resolve.
  oncekey_orphan orphan;
  // The response or checkpoint.
  oncekey_slice data;
  // The TTL of a completion, in milliseconds. 0: the TTL of the store.
  uint64_t ttl_ms;
  // With ONCEKEY_FINGERPRINT_PARTS: the parts, as for oncekey_fingerprint_from_parts. The submitting call
  // hashes them; for large parts, call oncekey_fingerprint_from_parts on another thread instead.
  const oncekey_part *parts;
  // The number of parts.
  size_t part_count;
} oncekey_submission;

// The result of a submission. The caller frees `error`, and the handles and data in `answer`.
typedef struct {
  // `user_data` of the submission.
  uint64_t user_data;
  // ONCEKEY_OK, or the reason of the failure. Whether the handle of a claim or orphan is gone follows the
  // same rule as for the blocking call.
  int32_t status;
  // `op` of the submission.
  uint32_t op;
  // The message of the failure; 0 when the status is OK.
  oncekey_error error;
  // 1 when the response is kept, for ONCEKEY_OP_COMPLETE and ONCEKEY_OP_ORPHAN_COMPLETE.
  uint32_t kept;
  // Always 0.
  uint32_t reserved;
  // The answer, for ONCEKEY_OP_BEGIN and ONCEKEY_OP_TAKE_OVER.
  oncekey_answer answer;
} oncekey_completion;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// Requests the right to execute the operation that `key` names. With `max_wait_ms` above 0, a begin of a key
// whose owner still executes waits up to this many milliseconds: for the response (REPLAY), for an abort
// (CLAIMED), or for a death of the owner (ORPHANED). After that time the outcome is LOCKED. Blocks while it
// waits for the disk.
//
// The caller frees `answer->data`, and ends `answer->claim` or frees `answer->orphan`. Under ONCEKEY_STRICT,
// CLAIMED is durable when this returns. Fails with INVALID_INPUT, OVERLOADED, STORE_FULL, OUTCOME_UNKNOWN,
// UNAVAILABLE, CLOSED, CORRUPTED, IO; the caller must then not execute.
int32_t oncekey_begin(oncekey_engine engine,
                      oncekey_key key,
                      oncekey_fingerprint fingerprint,
                      uint64_t max_wait_ms,
                      oncekey_answer *answer,
                      oncekey_error *error);

// Frees the bytes of a buffer and zeroes it. NULL and a zeroed buffer have no effect.
int32_t oncekey_buffer_free(oncekey_buffer *buffer);

// Ends the operation with its response, which every identical begin gets until the TTL is over. A response
// longer than `max_response` is not kept, and `kept` becomes 0; `kept` may be NULL. Blocks while it waits
// for the disk; durable when the status is OK.
//
// The claim is gone after OK, FENCED (another caller took over) and ALREADY_COMPLETED. After
// OUTCOME_UNKNOWN, UNAVAILABLE, STORE_FULL, CLOSED and all other statuses the caller still holds it, to try
// again or to free it.
int32_t oncekey_claim_complete(oncekey_claim claim,
                               oncekey_slice response,
                               uint32_t *kept,
                               oncekey_error *error);

// Like oncekey_claim_complete, with a TTL of its own in milliseconds (0: the TTL of the store). If
// `response` is NULL, no response is kept: a begin learns only that the operation was completed.
int32_t oncekey_claim_complete_with(oncekey_claim claim,
                                    const oncekey_slice *response,
                                    uint64_t ttl_ms,
                                    uint32_t *kept,
                                    oncekey_error *error);

// Declares that nothing happened in this attempt. The first attempt frees the key. A later attempt leaves
// the operation as the orphan that it took over. Blocks while it waits for the disk; durable when the status
// is OK.
//
// When the claim is gone is the same as for oncekey_claim_complete.
int32_t oncekey_claim_abort(oncekey_claim claim,
                            oncekey_error *error);

// Saves a recovery point. If this claim becomes an orphan, its resolver gets the last one. At most
// `max_checkpoint` bytes. Blocks while it waits for the disk; durable when the status is OK. The claim
// stays.
//
// Fails with INVALID_INPUT when `data` is too long, FENCED, ALREADY_COMPLETED, OUTCOME_UNKNOWN, UNAVAILABLE,
// STORE_FULL, CLOSED.
int32_t oncekey_claim_checkpoint(oncekey_claim claim,
                                 oncekey_slice data,
                                 oncekey_error *error);

// Reads key, token, attempt and last checkpoint of a claim. May read the store. The caller frees
// `info->data`. The claim stays. Fails with CORRUPTED when the checkpoint is damaged, and with FENCED or
// ALREADY_COMPLETED when the claim was ended elsewhere.
int32_t oncekey_claim_info(oncekey_claim claim,
                           oncekey_info *info,
                           oncekey_error *error);

// Drops a claim. If it was not ended, the operation becomes an orphan: its outcome is unknown. Does not
// block. Freeing 0 has no effect.
int32_t oncekey_claim_free(oncekey_claim claim);

// Offers the control socket of this engine until the engine is closed or freed. It is a Unix socket with
// mode 0600, on which a thread of the library answers the program `oncekey`, for the user of this process
// and root. The store names the socket, so `oncekey stats --store DIR` and the other commands find it.
// `options` may be NULL: the defaults.
//
// The thread takes no signals. If the process has closed a standard stream, /dev/null is opened in its
// place. Fails with INVALID_INPUT, also when the engine offers a socket already and when a store in a
// database got no path; UNSUPPORTED by a library without the feature `control-socket`; CLOSED; STORE_FULL;
// IO. There is then no socket.
int32_t oncekey_engine_control_socket(oncekey_engine engine,
                                      const oncekey_control_options *options,
                                      oncekey_error *error);

// Opens the store in the directory `path`, and creates it unless ONCEKEY_OPEN_EXISTING is set. `options` may
// be NULL. When this returns, every record that was ever acknowledged is available again, and every claim of
// an earlier process is an orphan. Blocks while it waits for the disk.
//
// If the library has the feature `postgres`, `path` may be the URL of a database that any number of
// processes share, `postgres://user@host/database`. Its tables are created unless ONCEKEY_OPEN_EXISTING is
// set. The claims of a process that died become orphans one lease after its death. A library without the
// feature answers UNSUPPORTED.
//
// The caller frees `engine` with oncekey_engine_free. Fails with INVALID_INPUT, the STORE_ statuses,
// NETWORK_FILESYSTEM, CORRUPTED, CLOCK_JUMP, IO, and for a URL with UNAVAILABLE, UNSAFE_STORE, UNSUPPORTED.
int32_t oncekey_engine_open(oncekey_slice path,
                            const oncekey_options *options,
                            oncekey_engine *engine,
                            oncekey_error *error);

// Recovers in place after a failure, as a restart of the process would. Every claim becomes an orphan, which
// its owner may still complete. Blocks while it waits for the disk.
//
// Fails with CLOSED, or like oncekey_engine_open. After a failure the engine stays unavailable and may be
// reopened again.
int32_t oncekey_engine_reopen(oncekey_engine engine,
                              oncekey_error *error);

// Closes the engine: ends its control socket, refuses new calls, makes submitted changes durable, folds,
// joins its threads and unlocks the store. Claims that are still held are orphans at the next open. Blocks
// while it waits for the disk.
//
// The handle stays and answers CLOSED until it is freed. `report` may be NULL. Fails with CLOSED when the
// engine was closed before, and with UNAVAILABLE when it had failed; it is closed all the same.
int32_t oncekey_engine_close(oncekey_engine engine,
                             oncekey_close_report *report,
                             oncekey_error *error);

// Frees the handle, and first closes the engine if that was not done. The engine's claims, orphans and
// queues answer CLOSED from then on and must still be freed. Freeing 0 has no effect.
int32_t oncekey_engine_free(oncekey_engine engine);

// Reads the state of a key without requesting the right to execute: ABSENT, LOCKED, REPLAY or ORPHANED. May
// read from the disk.
//
// The caller frees `answer->data` and `answer->orphan`. Fails with INVALID_INPUT, OUTCOME_UNKNOWN,
// UNAVAILABLE, CLOSED, CORRUPTED, IO.
int32_t oncekey_engine_get(oncekey_engine engine,
                           oncekey_key key,
                           oncekey_answer *answer,
                           oncekey_error *error);

// Lists the unresolved orphans, oldest first. Puts up to `capacity` handles into `orphans`, and the total
// number into `count`. May read from the disk.
//
// The caller frees the handles that it got: the smaller of `capacity` and `*count`. Fails with UNAVAILABLE,
// CLOSED, CORRUPTED, IO, and with OVERLOADED when there are no more handles.
int32_t oncekey_engine_orphans(oncekey_engine engine,
                               oncekey_orphan *orphans,
                               size_t capacity,
                               size_t *count,
                               oncekey_error *error);

// Writes the counters and gauges into `stats`, whose `size` the caller has set. Cheap enough for a frequent
// scrape.
int32_t oncekey_engine_stats(oncekey_engine engine,
                             oncekey_stats *stats,
                             oncekey_error *error);

// Moves everything acknowledged so far from the journal into the store files. Never needed for durability.
// Blocks while it waits for the disk. Fails with UNAVAILABLE, CLOSED.
int32_t oncekey_engine_fold(oncekey_engine engine,
                            oncekey_error *error);

// Frees the space of expired records now. `removed` gets the number of removed rows; it may be NULL. Never
// needed for correctness. Blocks while it waits for the disk. Fails with UNAVAILABLE, CLOSED.
int32_t oncekey_engine_sweep(oncekey_engine engine,
                             uint64_t *removed,
                             oncekey_error *error);

// Writes a consistent copy of the store into the new or empty directory `path`, while the engine runs. The
// copy is another incarnation: it refuses tokens of the original as FENCED. Blocks until the copy is
// complete.
//
// Fails with INVALID_INPUT when `path` is not empty, STORE_FULL, IO, UNAVAILABLE, CLOSED.
int32_t oncekey_engine_backup(oncekey_engine engine,
                              oncekey_slice path,
                              oncekey_error *error);

// Reads the whole store in the directory `path`, which no engine may have open, and checks every checksum.
// Writes nothing. Blocks while it reads the disk.
//
// Fails with CORRUPTED for the first damage found, with UNSUPPORTED for the URL of a database, whose server
// has its own checks, or like oncekey_engine_open with ONCEKEY_OPEN_EXISTING.
int32_t oncekey_verify(oncekey_slice path,
                       oncekey_error *error);

// The message of an error, for people. The text is valid until the error is freed. Never NULL; empty when
// the error is not valid.
const char *oncekey_error_message(oncekey_error error);

// The status that came with an error; ONCEKEY_INVALID_HANDLE when the error is not valid.
int32_t oncekey_error_status(oncekey_error error);

// Frees an error and its message. Freeing 0 has no effect.
int32_t oncekey_error_free(oncekey_error error);

// Makes a fingerprint from labelled parts, whose order counts. At most 64 parts, with labels of at most 128
// bytes. Two requests are identical when they have the same parts with the same bytes.
//
// The caller frees `fingerprint`, and may use it for any number of begins until then. Fails with
// INVALID_INPUT.
int32_t oncekey_fingerprint_from_parts(const oncekey_part *parts,
                                       size_t count,
                                       oncekey_fingerprint *fingerprint,
                                       oncekey_error *error);

// Makes the fingerprint that the HTTP layers in Rust and Go make from a request: method, target, the headers
// that count, body.
//
// The caller frees `fingerprint`. Fails with INVALID_INPUT.
int32_t oncekey_fingerprint_from_request(const oncekey_request *request,
                                         oncekey_fingerprint *fingerprint,
                                         oncekey_error *error);

// Frees a fingerprint. Freeing 0 has no effect.
int32_t oncekey_fingerprint_free(oncekey_fingerprint fingerprint);

// Claims the operation of an orphan, with a new token, the next attempt number, and the last checkpoint
// (oncekey_claim_info). The operation may have happened already, so a caller that executes now executes it
// at least once. Blocks while it waits for the disk; durable when the status is OK.
//
// The orphan is gone after OK, FENCED and ALREADY_COMPLETED (it was resolved elsewhere). After OVERLOADED,
// STORE_FULL, OUTCOME_UNKNOWN, UNAVAILABLE, CLOSED and all other statuses the caller still holds it.
int32_t oncekey_orphan_take_over(oncekey_orphan orphan,
                                 oncekey_claim *claim,
                                 oncekey_error *error);

// Ends the operation with a response, when the caller has found out that it happened. `kept` may be NULL.
// Blocks while it waits for the disk; durable when the status is OK. When the orphan is gone is the same as
// for oncekey_orphan_take_over.
int32_t oncekey_orphan_complete(oncekey_orphan orphan,
                                oncekey_slice response,
                                uint32_t *kept,
                                oncekey_error *error);

// Frees the key, when the caller has found out that the operation did not happen, or wants it executed
// again. Blocks while it waits for the disk; durable when the status is OK. When the orphan is gone is the
// same as for oncekey_orphan_take_over.
int32_t oncekey_orphan_release(oncekey_orphan orphan,
                               oncekey_error *error);

// Reads key, token, attempt and age of an orphan, and whether it has a checkpoint. Does not read the store.
// The caller frees `info->data`.
int32_t oncekey_orphan_info(oncekey_orphan orphan,
                            oncekey_info *info,
                            oncekey_error *error);

// Reads the last checkpoint that any attempt saved. May read the store. `found` is 0 when there is none. The
// caller frees `data`.
//
// Fails with FENCED or ALREADY_COMPLETED when the orphan was resolved, and with CORRUPTED when the
// checkpoint is damaged; a damaged orphan can still be resolved.
int32_t oncekey_orphan_checkpoint(oncekey_orphan orphan,
                                  oncekey_buffer *data,
                                  uint32_t *found,
                                  oncekey_error *error);

// Frees the handle of an orphan and changes nothing in the store. Freeing 0 has no effect.
int32_t oncekey_orphan_free(oncekey_orphan orphan);

// Makes a completion queue for operations of `engine`. `max_begins` is the largest number of outstanding
// begins, submitted and not polled; 0: 1,048,576. The ends of claims are never refused.
//
// The caller frees `queue`. Several threads may submit to and poll one queue.
int32_t oncekey_queue_new(oncekey_engine engine,
                          size_t max_begins,
                          oncekey_queue *queue,
                          oncekey_error *error);

// Submits `count` operations, in order. An error of one operation is reported in its completion. Does not
// wait for syncs, though a begin may read from the disk.
//
// `accepted` is the number of submissions that were taken. It is smaller than `count` only with OVERLOADED:
// the begin after the accepted ones exceeds the bound of the queue. Then poll, and submit the rest again.
// Nothing of the submissions is kept: they and the memory that they point to may be reused at once.
int32_t oncekey_queue_submit(oncekey_queue queue,
                             const oncekey_submission *submissions,
                             size_t count,
                             size_t *accepted,
                             oncekey_error *error);

// Takes up to `capacity` completions out, in the order in which they became known. If there are none, it
// waits for the first: up to `timeout_ms` milliseconds (0: not at all, UINT64_MAX: without limit), or until
// oncekey_queue_wake or oncekey_queue_free. `count` gets their number; it is 0 with OK when there are none.
// Elements beyond the count are not written.
//
// The caller owns the errors, handles and buffers in the completions. Several threads may poll. Fails with
// INVALID_INPUT when `capacity` is 0.
int32_t oncekey_queue_poll(oncekey_queue queue,
                           oncekey_completion *completions,
                           size_t capacity,
                           uint64_t timeout_ms,
                           size_t *count,
                           oncekey_error *error);

// Cancels the begins of this queue that were submitted with `user_data` and wait for an owner (`max_wait_ms`
// above 0). Each of them makes room for another waiting begin at once, and still has its completion, as
// every submission has. The completion holds the outcome if that is known by now, else CANCELLED; a claim
// that was on its way to a cancelled begin is aborted. Does not block.
//
// OK also when there is no such begin, or when it has ended. Begins that do not wait, and all other
// operations, are not affected, whatever their `user_data`.
int32_t oncekey_queue_cancel(oncekey_queue queue,
                             uint64_t user_data);

// Makes one waiting poll return without a completion, or the next poll if none waits.
int32_t oncekey_queue_wake(oncekey_queue queue);

// A descriptor that is readable while the queue has completions, for poll, epoll and kqueue. It belongs to
// the queue: the caller may only wait for it to be readable. -1 on systems without such descriptors.
int32_t oncekey_queue_fd(oncekey_queue queue,
                         int32_t *fd,
                         oncekey_error *error);

// Frees the queue and ends waiting polls. Submitted operations continue without it. A claim that a begin has
// won, or will win, and that no poll returned is aborted. Claims and orphans in use by the queue are freed.
// Freeing 0 has no effect.
int32_t oncekey_queue_free(oncekey_queue queue);

// The version of the binary interface of the loaded library, to compare with ONCEKEY_ABI_VERSION of the
// header. Works in a forked child.
uint32_t oncekey_abi_version(void);

// The version of the loaded library, such as "0.1.0". Never freed. Works in a forked child.
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
