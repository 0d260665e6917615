-- $1 interval. Nothing is locked between the steps: two at once cost work, no more.
WITH s AS MATERIALIZED (
  SELECT set_config('lock_timeout', '100ms', true) AS lock_timeout,
         greatest((extract(epoch FROM clock_timestamp()) * 1000)::bigint, t.high_time) AS now, t.bucket_ms
  FROM oncekey.store t WHERE t.one
), elected AS (
  UPDATE oncekey.upkeep u SET at = s.now FROM s WHERE u.one AND (u.at <= s.now - $1::bigint OR u.at > s.now) RETURNING 1
)
SELECT s.now, s.bucket_ms FROM s, elected
