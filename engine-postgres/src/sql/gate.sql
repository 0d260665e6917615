-- $1 synchronous_commit, $2 instance, $3 valid until, $4 generation, $5 boot mark, $6 number of the group, $7 its lane.
-- The settings hold for this statement's own commit, whatever a pooler left in the session:
-- no wait for a lock beyond a moment, and the warning of a cancelled synchronous wait is sent.
WITH s AS MATERIALIZED (
  SELECT set_config('synchronous_commit', $1::text, true) AS synchronous_commit,
         set_config('lock_timeout', '250ms', true) AS lock_timeout,
         set_config('client_min_messages', 'warning', true) AS client_min_messages,
         t.now, t.bucket_ms, t.leaves, t.generation,
         CASE WHEN t.now >= $3::bigint THEN 1::smallint            -- held up on its way
              WHEN t.generation <> $4::bigint OR (SELECT mark FROM oncekey.boot WHERE one) IS DISTINCT FROM $5::bigint
              THEN 2::smallint                                     -- another server than the handshake spoke to
              WHEN t.now > t.high_time + 2592000000 THEN 3::smallint   -- the clock went 30 days ahead
              ELSE 0::smallint END AS gate,
         NOT EXISTS (SELECT 1 FROM oncekey.instance WHERE id = $2::bigint AND ended_at IS NULL) AS ended
  FROM (SELECT greatest((extract(epoch FROM clock_timestamp()) * 1000)::bigint, high_time) AS now, high_time,
               bucket_ms, leaves, generation FROM oncekey.store WHERE one) t
)
