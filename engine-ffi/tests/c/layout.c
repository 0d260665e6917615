/* The binary interface, as 64-bit programs were compiled against it. A change here is a change of
 * ONCEKEY_ABI_VERSION, unless it is a field at the end of a struct that starts with its size. */
#include "check.h"

#if UINTPTR_MAX == UINT64_MAX
#define SIZE(type, size) _Static_assert(sizeof(type) == (size), #type)
#define AT(type, field, at) _Static_assert(offsetof(type, field) == (at), #type "." #field)

_Static_assert(ONCEKEY_ABI_VERSION == 1, "compare with the numbers below");
SIZE(oncekey_engine, 8);
SIZE(oncekey_claim, 8);
SIZE(oncekey_orphan, 8);
SIZE(oncekey_fingerprint, 8);
SIZE(oncekey_queue, 8);
SIZE(oncekey_error, 8);
SIZE(oncekey_token, 24);
SIZE(oncekey_slice, 16);
AT(oncekey_slice, len, 8);
SIZE(oncekey_buffer, 24);
AT(oncekey_buffer, owner, 16);
SIZE(oncekey_key, 32);
SIZE(oncekey_part, 32);
SIZE(oncekey_header, 32);
SIZE(oncekey_request, 80);
AT(oncekey_request, headers, 48);
AT(oncekey_request, fingerprinted, 64);
SIZE(oncekey_close_report, 16);
SIZE(oncekey_control_options, 56);
AT(oncekey_control_options, flags, 4);
AT(oncekey_control_options, path, 8);
AT(oncekey_control_options, backups, 24);
AT(oncekey_control_options, audit_log, 40);
SIZE(oncekey_answer, 112);
AT(oncekey_answer, attempt, 4);
AT(oncekey_answer, claim, 8);
AT(oncekey_answer, orphan, 16);
AT(oncekey_answer, token, 24);
AT(oncekey_answer, has_data, 48);
AT(oncekey_answer, data, 56);
AT(oncekey_answer, since_ms, 80);
AT(oncekey_answer, expires_ms, 88);
AT(oncekey_answer, running_ms, 96);
AT(oncekey_answer, retry_after_ms, 104);
SIZE(oncekey_info, 120);
AT(oncekey_info, token, 8);
AT(oncekey_info, since_ms, 32);
AT(oncekey_info, scope, 48);
AT(oncekey_info, data, 96);
SIZE(oncekey_submission, 120);
AT(oncekey_submission, user_data, 8);
AT(oncekey_submission, key, 16);
AT(oncekey_submission, fingerprint, 48);
AT(oncekey_submission, max_wait_ms, 56);
AT(oncekey_submission, claim, 64);
AT(oncekey_submission, orphan, 72);
AT(oncekey_submission, data, 80);
AT(oncekey_submission, ttl_ms, 96);
AT(oncekey_submission, parts, 104);
AT(oncekey_submission, part_count, 112);
SIZE(oncekey_completion, 144);
AT(oncekey_completion, status, 8);
AT(oncekey_completion, op, 12);
AT(oncekey_completion, error, 16);
AT(oncekey_completion, kept, 24);
AT(oncekey_completion, answer, 32);
/* These may grow. */
SIZE(oncekey_options, 232);
AT(oncekey_options, flags, 4);
AT(oncekey_options, durability, 8);
AT(oncekey_options, ttl_ms, 16);
AT(oncekey_options, max_store_bytes, 80);
AT(oncekey_options, max_clock_gap_ms, 128);
AT(oncekey_options, max_open_files, 136);
AT(oncekey_options, max_open_bytes, 144);
AT(oncekey_options, backup_bytes_per_second, 152);
AT(oncekey_options, lock_wait_ms, 160);
AT(oncekey_options, lease_ms, 168);
AT(oncekey_options, settle_for_ms, 176);
AT(oncekey_options, schema, 184);
AT(oncekey_options, instance_name, 200);
AT(oncekey_options, root_certificates, 216);
SIZE(oncekey_stats, 248);
AT(oncekey_stats, in_flight, 8);
AT(oncekey_stats, claimed, 80);
AT(oncekey_stats, failures, 208);
AT(oncekey_stats, backup_bytes_copied, 240);
#endif

void test(void) {}
