-- $1 interval. Nothing is locked between the steps: two at once cost work, no more.
WITH s AS MATERIALIZED (
  SELECT set_config('lock_timeout', '100ms', true) AS lock_timeout,
         greatest((extract(epoch FROM clock_timestamp()) * 1000)::bigint, t.high_time) AS now, t.bucket_ms, t.leaves
  FROM oncekey.store t WHERE t.one
), elected AS (
  UPDATE oncekey.upkeep u SET at = s.now FROM s WHERE u.one AND (u.at <= s.now - $1::bigint OR u.at > s.now) RETURNING 1
)
SELECT s.now, s.bucket_ms, s.leaves,
       ARRAY(SELECT id FROM oncekey.instance WHERE ended_at IS NULL AND (lease_until < s.now OR lease_until > s.now + lease_ms)) AS lapsed,
       EXISTS (SELECT 1 FROM oncekey.instance i, oncekey.upkeep u WHERE u.one AND i.ended_at >= u.whole) AS behind
FROM s, elected
