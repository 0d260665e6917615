//! The answers to callers: the five outcomes, the ends of a claim, orphans, waiting, delivery.

mod answers;
mod delivery;
mod orphans;

use answers::*;
use delivery::*;
use orphans::*;

use super::cases;

cases!($ semantics:
    a_retry_is_replayed_and_an_other_request_refused,
    a_duplicate_is_locked_and_a_modified_one_is_a_mismatch_first,
    scopes_do_not_meet,
    an_expired_record_is_a_new_key_whether_swept_or_not,
    a_ttl_of_its_own_and_a_response_that_is_not_kept,
    two_lives_of_one_key_in_two_expiry_buckets_give_the_newer,
    abort_frees_the_key_on_the_first_attempt_only,
    a_dropped_claim_is_an_orphan_at_once_never_locked,
    an_abandoned_claim_is_an_orphan_at_every_engine,
    a_panicking_owner_leaves_an_orphan,
    an_orphan_is_resolved_once,
    a_stale_orphan_handle_does_not_resolve_a_later_attempt,
    released_and_completed_orphans,
    orphans_are_listed_oldest_first_wherever_they_lie,
    max_execution_orphans_a_claim_whose_owner_may_still_complete,
    waiters_replay_when_the_owner_completes,
    one_waiter_claims_after_an_abort_and_the_others_wait_on,
    waiters_learn_of_an_orphan,
    a_wait_ends_at_its_bound,
    a_claim_that_is_never_taken_out_is_aborted,
    a_take_over_that_is_never_taken_out_leaves_the_orphan,
    dropping_any_other_pending_changes_nothing,
    futures_need_no_runtime_and_work_in_one,
    concurrent_duplicates_run_once,
    get_tells_each_state_and_changes_none,
    stats_count_what_happened,
    a_checkpoint_goes_where_its_record_goes,
    claims_of_an_engine_that_was_killed_are_orphans_of_its_successor,
    a_closed_engine_answers_closed_and_leaves_orphans,
    owners_may_end_what_they_hold_after_a_reopen,
);
